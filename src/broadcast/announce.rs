//! Writing to the journal.
//!
//! What is acknowledged here is seen by every process that looks at the journal later, as an entry or by a resync:
//!
//! - An *append* that the store carried out is in the journal for whoever reads it from then on, until it is dropped from
//!   the front, which shows, or lost with the whole journal, in whose place there will be another epoch.
//! - An append to something that is *no journal* is carried out too. Nobody ever replays it: whoever reads such an item
//!   replaces it, under the CAS that it read, by a journal of a new epoch. An append between the read and the replacement
//!   changes the CAS, so each came before the replacement, and whoever adopts the new epoch resyncs after it.
//! - A journal that is *missing or full* is made anew, with the entries and a new epoch.
//!
//! **Data first** (R1). An entry about a key is appended after the store has acknowledged the command that changed the key,
//! which is the caller's duty: in the other order, a process could replay the entry, read the old value, and keep it.
//!
//! **Nothing is repeated blindly.** A command whose answer was lost ends the call with its error. Repeating the call is
//! harmless, since entries may be replayed twice; tokens are fresh ones each time (R3): a bump that is carried out late
//! must not bring back a token that values were stored under in the meantime.

use uuid::Uuid;

use super::item::{self, JournalItem, stored};
use super::journal::{COMPACT_AT_LEN, ENTRY_LEN, Entry, Journal, compact_at_len};
use crate::remote::batch::{Batcher, Caller};
use crate::remote::error::{RemoteError, RemoteErrorKind};
use crate::remote::key::WireKey;
use crate::remote::request::Request;
use crate::remote::tier::{Item, Route, SetMode};
use crate::remote::tokens::set_token;
use crate::watch::event;

/// How many entries go out in one append. More are several appends, so that the half that a compaction keeps always holds
/// the whole of the last one.
const MAX_ENTRIES_PER_APPEND: usize = 512;

const _: () = assert!(MAX_ENTRIES_PER_APPEND * ENTRY_LEN < COMPACT_AT_LEN / 2);

/// How often an append is tried that finds the journal missing or full, while others make or fill it at the same time.
const APPEND_ATTEMPTS: usize = 8;

/// How often a bump is sent that finds the journal missing or full. The journal is mended in between, so a second time is
/// rare.
const BUMP_ATTEMPTS: usize = 4;

/// How often a compaction is tried while others append. One that fails is tried by whoever appends next.
const COMPACT_ATTEMPTS: usize = 8;

/// Appends `entries` to the journal under `journal`, at its end and in their order, although those of others may be in
/// between when there are very many.
///
/// # Errors
/// Any failure to reach the store; then some of the entries, all or none may have been appended.
/// [`Refused`](RemoteErrorKind::Refused) if the journal was full or missing at every attempt.
pub(crate) async fn append(
    batcher: &Batcher,
    caller: Caller,
    journal: &WireKey,
    entries: &[Entry],
) -> Result<(), RemoteError> {
    let item = JournalItem { batcher, caller, key: journal };
    for part in entries.chunks(MAX_ENTRIES_PER_APPEND) {
        append_part(item, part).await?;
    }
    Ok(())
}

async fn append_part(item: JournalItem<'_>, entries: &[Entry]) -> Result<(), RemoteError> {
    for attempt in 0..APPEND_ATTEMPTS {
        if item.append(entries).await? || item.add(anew(entries)).await? {
            return Ok(());
        }
        // It was missing, and somebody else has made it meanwhile: then there is room for the next attempt. Or it is full, of
        // the store's limit or of its memory. A new one is small, and costs everybody a resync.
        if attempt > 0
            && let Some(full) = item.read().await?
            && item.replace(full.cas, anew(entries)).await?
        {
            let len = full.len;
            event!(
                warn,
                "the journal was full, of {len} bytes, and is begun anew: every process drops what it holds locally"
            );
            return Ok(());
        }
    }
    Err(gave_up("appended to", APPEND_ATTEMPTS))
}

/// Gives each of `tokens`, which are keys of groups' tokens, a value of `fresh`, and announces `entries`.
///
/// The entries go out before the tokens and again after them, all in one write on one connection (R2). *After*, so that who
/// replays them finds the new tokens. *Before*, for a load that names the group only when it ends: it reads the token, then
/// the journal, and stores its value under that token unless something moved since it began. Did it begin before this bump,
/// and does it read the new token, then it has to find the entry. So a bump whose first entries were not stored is not made
/// good by the last ones: a load may have taken the new tokens by then, beside a full journal in which nothing had moved.
/// All of it is sent again, with other tokens, which make worthless what was stored under those.
///
/// Reads the journal behind all that, in the same write, and returns what was read, if that is to be had: the caller's own
/// entries are in it, and what they say of the past is better done now than at some later moment.
///
/// # Errors
/// Any failure to reach the store; then the entries and tokens may have been stored or not, and all of it is still to be
/// done. [`Refused`](RemoteErrorKind::Refused) if the journal was full or missing at every attempt.
pub(crate) async fn bump(
    batcher: &Batcher,
    caller: Caller,
    journal: &WireKey,
    tokens: &[WireKey],
    fresh: impl Fn() -> [u8; 8],
    entries: &[Entry],
) -> Result<Option<Item>, RemoteError> {
    let appends = || entries.chunks(MAX_ENTRIES_PER_APPEND).map(|part| item::append(journal, part));
    let set = |key: &WireKey| set_token(key.clone(), fresh(), SetMode::Always, None);
    for _ in 0..BUMP_ATTEMPTS {
        let read = Request::get(journal.clone(), Route::Control);
        let requests: Vec<Request> = appends().chain(tokens.iter().map(set)).chain(appends()).chain([read]).collect();
        let mut replies = batcher.run(caller, requests).await;
        let read = replies.pop();
        let done = replies.into_iter().map(|reply| stored(&reply?)).collect::<Result<Vec<bool>, RemoteError>>()?;
        let (before, rest) = done.split_at(appends().len());
        let (set, after) = rest.split_at(tokens.len());
        let all = |done: &[bool]| done.iter().all(|&done| done);
        let announced = all(before) && all(set);
        if announced && all(after) {
            return Ok(read.and_then(|reply| item::found(reply.ok()?).ok()?));
        }
        append(batcher, caller, journal, entries).await?;
        if announced {
            return Ok(None);
        }
    }
    Err(gave_up("bumped groups beside", BUMP_ATTEMPTS))
}

/// Drops the older half of the journal, if it is long.
///
/// A compaction is set under the CAS of what it was made from, on the connection that read it. So it may be carried out
/// late, after its answer was given up: then the journal is still what it was, and half of it goes. It is never repeated
/// without reading the journal again.
///
/// # Errors
/// Any failure to reach the store. Nothing depends on it: the journal stays as it is, or has become shorter.
/// [`Refused`](RemoteErrorKind::Refused) if others appended during every attempt.
pub(crate) async fn compact(batcher: &Batcher, caller: Caller, journal: &WireKey) -> Result<(), RemoteError> {
    compact_from(compact_at_len(), JournalItem { batcher, caller, key: journal }).await
}

/// Drops the older half of a journal that is longer than `len`.
pub(super) async fn compact_from(len: usize, item: JournalItem<'_>) -> Result<(), RemoteError> {
    for _ in 0..COMPACT_ATTEMPTS {
        let Some(whole) = item.read().await? else { return Ok(()) };
        if whole.value.len() <= len {
            return Ok(());
        }
        // Who follows the journal replaces it when it is none.
        let Ok(journal) = Journal::decode(&whole.value) else { return Ok(()) };
        if item.replace(whole.cas, journal.encode_newer_half()).await? {
            return Ok(());
        }
    }
    Err(gave_up("compacted", COMPACT_ATTEMPTS))
}

fn anew(entries: &[Entry]) -> Vec<u8> {
    Journal::encode_new(Uuid::new_v4(), entries)
}

fn gave_up(what: &str, attempts: usize) -> RemoteError {
    let message = format!("the journal could not be {what}: others changed it during each of {attempts} attempts");
    RemoteError::new(RemoteErrorKind::Refused, message)
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::broadcast::journal::Moved;
    use crate::broadcast::support::{Moment, batcher, journal_key, read, watched, write};
    use crate::clock::real::block_on;
    use crate::remote::in_memory::InMemoryRemote;
    use crate::remote::tier::Action;
    use crate::sync::{Arc, AtomicU64, Mutex, Ordering};

    const LIMIT: usize = 28 + 4 * ENTRY_LEN;

    fn entry(id: u64) -> Entry {
        Entry { moved: Moved::GroupHard(id), sender: 1 }
    }

    fn store() -> InMemoryRemote {
        InMemoryRemote::new().with_max_value_len(LIMIT)
    }

    /// Returns the journal's epoch and its entries, from the oldest that is left.
    fn journal(store: &InMemoryRemote) -> (Uuid, Vec<Entry>) {
        let item = read(store, &journal_key()).unwrap();
        let journal = Journal::decode(&item.value).unwrap();
        let oldest = journal.end_seq() - ((item.len - 28) / ENTRY_LEN) as u64;
        let entries = journal.since(journal.epoch(), oldest).unwrap().map(Result::unwrap).collect();
        (journal.epoch(), entries)
    }

    fn append_to(way: &Batcher, entries: &[Entry]) -> Result<(), RemoteError> {
        block_on(append(way, Caller::Task, &journal_key(), entries))
    }

    fn tokens() -> [WireKey; 2] {
        ["ns:g:h:1", "ns:g:h:2"].map(|key| WireKey::new(key).unwrap())
    }

    /// Bumps two groups, with tokens that count from 1.
    fn bump_on(way: &Batcher, entries: &[Entry]) -> Result<(), RemoteError> {
        let last = AtomicU64::new(0);
        let fresh = || (last.fetch_add(1, Ordering::Relaxed) + 1).to_le_bytes();
        block_on(bump(way, Caller::Task, &journal_key(), &tokens(), fresh, entries)).map(drop)
    }

    fn tokens_in(store: &InMemoryRemote) -> [u64; 2] {
        tokens().map(|key| u64::from_le_bytes((*read(store, &key).unwrap().value).try_into().unwrap()))
    }

    /// Returns a way to `store` on which `intrude` is called before each command with its number, from 0.
    fn intruded(store: &InMemoryRemote, intrude: impl Fn(u64) + Send + Sync + 'static) -> Batcher {
        let commands = AtomicU64::new(0);
        watched(store, move |_, moment| {
            if moment == Moment::BeforeCommand {
                intrude(commands.fetch_add(1, Ordering::Relaxed));
            }
        })
    }

    #[test]
    fn makes_the_journal_that_is_missing_and_appends_to_one_that_is_there() {
        let store = store();
        let way = batcher(&store);
        append_to(&way, &[entry(1)]).unwrap();
        let (epoch, _) = journal(&store);
        append_to(&way, &[entry(2), entry(3)]).unwrap();
        assert_eq!(journal(&store), (epoch, vec![entry(1), entry(2), entry(3)]));
    }

    #[test]
    fn replaces_a_full_journal_by_one_of_another_epoch() {
        let store = store();
        let way = batcher(&store);
        append_to(&way, &[entry(1), entry(2), entry(3)]).unwrap();
        let (epoch, _) = journal(&store);
        append_to(&way, &[entry(4), entry(5)]).unwrap();
        let (next, entries) = journal(&store);
        assert_eq!(entries, [entry(4), entry(5)]);
        assert_ne!(next, epoch);
    }

    #[test]
    fn appends_to_the_journal_that_another_process_makes_at_the_same_time() {
        let store = store();
        let made = Journal::encode_new(Uuid::from_u128(1), &[entry(1)]);
        let others = store.clone();
        let way = intruded(&store, move |command| {
            if command == 1 {
                write(&others, &journal_key(), &made);
            }
        });
        append_to(&way, &[entry(2)]).unwrap();
        assert_eq!(journal(&store), (Uuid::from_u128(1), vec![entry(1), entry(2)]));
    }

    #[test]
    fn gives_up_on_a_journal_that_others_keep_filling() {
        let store = store();
        let others = store.clone();
        let way = intruded(&store, move |_| {
            write(&others, &journal_key(), &anew(&[entry(1); 4]));
        });
        assert_eq!(append_to(&way, &[entry(2)]).unwrap_err().kind(), RemoteErrorKind::Refused);
    }

    #[test]
    fn a_failure_ends_it_and_is_not_repeated() {
        let store = store();
        append_to(&batcher(&store), &[entry(1)]).unwrap();
        for (fail, carried_out) in [(true, false), (false, true)] {
            let sent = Arc::new(AtomicU64::new(0));
            let count = sent.clone();
            let way = intruded(&store, move |_| {
                count.fetch_add(1, Ordering::Relaxed);
            });
            if fail {
                store.fail_next(1);
            } else {
                store.lose_replies(1);
            }
            assert!(append_to(&way, &[entry(2)]).unwrap_err().is_indeterminate());
            assert_eq!(sent.load(Ordering::Relaxed), 1);
            assert_eq!(journal(&store).1.contains(&entry(2)), carried_out);
        }
    }

    #[test]
    fn many_entries_are_several_appends() {
        let store = InMemoryRemote::new();
        let entries: Vec<Entry> = (0..2 * MAX_ENTRIES_PER_APPEND as u64 + 1).map(entry).collect();
        append_to(&batcher(&store), &entries).unwrap();
        assert_eq!(journal(&store).1, entries);
        bump_on(&batcher(&store), &entries).unwrap();
        assert_eq!(journal(&store).1, entries.repeat(3));
    }

    #[test]
    fn a_bump_is_one_batch_of_entries_tokens_and_entries() {
        let store = store();
        append_to(&batcher(&store), &[entry(1)]).unwrap();
        let sent = Arc::new(Mutex::new(Vec::new()));
        let log = sent.clone();
        let way = watched(&store, move |command, moment| {
            if let (Moment::BeforeCommand, Action::Set { mode, .. }) = (moment, command.action) {
                assert_eq!(command.route, Route::Control);
                log.lock().push((command.key.clone(), mode));
            }
        });
        bump_on(&way, &[entry(2)]).unwrap();
        let [one, two] = tokens().map(|key| (key, SetMode::Always));
        let journal_append = (journal_key(), SetMode::Append);
        assert_eq!(*sent.lock(), [journal_append.clone(), one, two, journal_append]);
        assert_eq!(journal(&store).1, [entry(1), entry(2), entry(2)]);
        assert_eq!(tokens_in(&store), [1, 2]);
    }

    #[test]
    fn a_bump_that_found_no_room_for_its_first_entries_is_sent_again_with_other_tokens() {
        // A load may have read the first tokens, and then found nothing new in a journal that was full.
        let store = store();
        append_to(&batcher(&store), &[entry(1); 4]).unwrap();
        bump_on(&batcher(&store), &[entry(2)]).unwrap();
        assert_eq!(journal(&store).1, [entry(2); 3]);
        assert_eq!(tokens_in(&store), [3, 4]);
    }

    #[test]
    fn a_bump_whose_last_entries_found_no_journal_only_makes_good_for_them() {
        let store = store();
        append_to(&batcher(&store), &[entry(1)]).unwrap();
        let others = store.clone();
        let way = intruded(&store, move |command| {
            if command == 3 {
                others.evict(&journal_key());
            }
        });
        bump_on(&way, &[entry(2)]).unwrap();
        assert_eq!(journal(&store).1, [entry(2)]);
        assert_eq!(tokens_in(&store), [1, 2]);
    }

    #[test]
    fn a_bump_is_not_acknowledged_when_any_of_its_commands_failed() {
        for command in 0..4 {
            let store = store();
            append_to(&batcher(&store), &[entry(1)]).unwrap();
            let others = store.clone();
            let way = intruded(&store, move |at| {
                if at == command {
                    others.fail_next(1);
                }
            });
            assert!(bump_on(&way, &[entry(2)]).unwrap_err().is_indeterminate());
        }
    }

    #[test]
    fn compaction_drops_the_older_half_and_nothing_that_is_appended_meanwhile() {
        let store = InMemoryRemote::new();
        let entries: Vec<Entry> = (0..3_000).map(entry).collect();
        append_to(&batcher(&store), &entries).unwrap();
        let (epoch, _) = journal(&store);
        let others = store.clone();
        let way = intruded(&store, move |command| {
            // Between reading the journal and setting it.
            if command == 1 {
                append_to(&batcher(&others), &[entry(3_000)]).unwrap();
            }
        });
        block_on(compact(&way, Caller::Task, &journal_key())).unwrap();
        let left: Vec<Entry> = (1_501..=3_000).map(entry).collect();
        assert_eq!(journal(&store), (epoch, left.clone()));
        // It is short enough now.
        block_on(compact(&way, Caller::Task, &journal_key())).unwrap();
        assert_eq!(journal(&store), (epoch, left));
    }

    #[test]
    fn compaction_gives_up_while_others_append_all_the_time() {
        let store = InMemoryRemote::new();
        append_to(&batcher(&store), &vec![entry(1); 3_000]).unwrap();
        let others = store.clone();
        let way = intruded(&store, move |_| append_to(&batcher(&others), &[entry(2)]).unwrap());
        let error = block_on(compact(&way, Caller::Task, &journal_key())).unwrap_err();
        assert_eq!(error.kind(), RemoteErrorKind::Refused);
        assert_eq!(journal(&store).1.len(), 3_000 + 2 * COMPACT_ATTEMPTS);
    }

    #[test]
    fn compaction_leaves_alone_what_is_missing_or_no_journal() {
        let store = InMemoryRemote::new();
        block_on(compact(&batcher(&store), Caller::Task, &journal_key())).unwrap();
        assert!(read(&store, &journal_key()).is_none());
        write(&store, &journal_key(), &vec![0; 2 * COMPACT_AT_LEN]);
        block_on(compact(&batcher(&store), Caller::Task, &journal_key())).unwrap();
        assert_eq!(read(&store, &journal_key()).unwrap().len, 2 * COMPACT_AT_LEN);
    }
}
