//! Looking at the journal.
//!
//! The news are returned, for the caller to apply and then to [`adopt`](Follower::adopt).

use uuid::Uuid;

use super::follower::{Digest, Follower, Lost, News};
use super::item::{self, JournalItem};
use super::journal::Journal;
use crate::clock::Clock;
use crate::remote::batch::{Batcher, Caller};
use crate::remote::error::{RemoteError, RemoteErrorKind};
use crate::remote::key::WireKey;
use crate::remote::request::Request;
use crate::watch::event;

/// How often the journal is read that others make, replace or lose at the same time.
const ATTEMPTS: usize = 8;

/// Where the journal is, and who follows it.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) batcher: &'a Batcher,
    pub(crate) caller: Caller,
    pub(crate) journal: &'a WireKey,
    pub(crate) follower: &'a Follower,
    /// The clock of the [`Trust`](super::trust::Trust).
    pub(crate) clock: &'a Clock,
}

/// Returns the request whose answer [`Follower::unchanged`] judges, for a caller that has another batch to send anyway. It
/// begins its look before it sends them.
pub(crate) fn peek(journal: &WireKey) -> Request {
    item::peek(journal)
}

impl Source<'_> {
    /// Looks at the journal: at its version, where the last one is known, and reads it if that has changed.
    ///
    /// # Errors
    /// Any failure to reach the store, and [`Refused`](RemoteErrorKind::Refused) if others made, replaced or lost the journal
    /// during each of several attempts. Then nothing is known, and trust runs out by itself.
    pub(crate) async fn look(self) -> Result<News, RemoteError> {
        if self.follower.knows_a_version() {
            let look = self.follower.begin(self.clock.now());
            let unchanged = self.item().peek().await?.and_then(|item| self.follower.unchanged(look, &item));
            if let Some(news) = unchanged {
                return Ok(news);
            }
        }
        self.read().await
    }

    /// Reads the journal, or makes one where there is none.
    ///
    /// # Errors
    /// As [`look`](Self::look).
    pub(crate) async fn read(self) -> Result<News, RemoteError> {
        for _ in 0..ATTEMPTS {
            // Anew for each attempt: the time and the position have to be those of before the request.
            let look = self.follower.begin(self.clock.now());
            let epoch = Uuid::new_v4();
            let made = || Journal::encode_new(epoch, &[]);
            match self.item().read().await? {
                Some(item) => match self.follower.digest(look, &item) {
                    Digest::News(news) => return Ok(news),
                    Digest::Ambiguous => {}
                    Digest::Spoilt(error) => {
                        event!(warn, "the journal of invalidations is replaced: {error}");
                        if self.item().replace(item.cas, made()).await? {
                            return Ok(self.follower.renewed(look, epoch, Lost::Spoilt));
                        }
                    }
                },
                // Only an acknowledged journal is adopted (R10): one that may have come too late could be anybody's.
                None => {
                    if self.item().add(made()).await? {
                        return Ok(self.follower.renewed(look, epoch, Lost::Missing));
                    }
                }
            }
        }
        let message = format!("the journal was another one at each of {ATTEMPTS} attempts to read it");
        Err(RemoteError::new(RemoteErrorKind::Refused, message))
    }

    fn item(&self) -> JournalItem<'_> {
        JournalItem { batcher: self.batcher, caller: self.caller, key: self.journal }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::broadcast::announce::{self, append};
    use crate::broadcast::follower::Moves;
    use crate::broadcast::journal::{COMPACT_AT_LEN, Entry, Moved};
    use crate::broadcast::support::{Moment, batcher, journal_key, read, watched, write};
    use crate::broadcast::trust::Trust;
    use crate::clock::ManualClock;
    use crate::clock::real::block_on;
    use crate::remote::in_memory::InMemoryRemote;
    use crate::remote::tier::{Action, Command, Reply, Route};
    use crate::sync::{Arc, AtomicU64, Mutex, Ordering};

    const ME: u64 = 7 << 16;
    const TRUST: Duration = Duration::from_millis(500);

    /// A process that follows the journal of a store.
    struct Scene {
        store: InMemoryRemote,
        batcher: Batcher,
        journal: WireKey,
        follower: Follower,
        clock: Clock,
        trust: Trust,
        time: ManualClock,
    }

    impl Scene {
        fn new() -> Scene {
            Scene::on(&InMemoryRemote::new(), |_, _| ())
        }

        fn on(store: &InMemoryRemote, watch: impl Fn(&Command<'_>, Moment) + Send + Sync + 'static) -> Scene {
            let (clock, time) = Clock::manual();
            let trust = Trust::new(clock.clone(), TRUST);
            let (batcher, journal, follower) = (watched(store, watch), journal_key(), Follower::new(ME));
            Scene { store: store.clone(), batcher, journal, follower, clock, trust, time }
        }

        fn source(&self) -> Source<'_> {
            let Scene { batcher, journal, follower, clock, .. } = self;
            Source { batcher, caller: Caller::Thread, journal, follower, clock }
        }

        /// Polls, and returns what is to be applied.
        fn poll(&self) -> Result<Moves, RemoteError> {
            self.time.advance(Duration::from_millis(50));
            let news = block_on(self.source().look())?;
            let moved = match news.moved() {
                Moves::Nothing => Moves::Nothing,
                Moves::Entries(entries) => Moves::Entries(entries.clone()),
                Moves::Lost(why) => Moves::Lost(*why),
            };
            self.follower.adopt(news, &self.trust);
            Ok(moved)
        }

        fn append(&self, entries: &[Entry]) {
            block_on(append(&batcher(&self.store), Caller::Thread, &journal_key(), entries)).unwrap();
        }
    }

    fn entry(id: u64, sender: u64) -> Entry {
        Entry { moved: Moved::GroupHard(id), sender }
    }

    #[test]
    fn makes_the_journal_and_follows_it() {
        let scene = Scene::new();
        assert_eq!(scene.poll().unwrap(), Moves::Lost(Lost::Missing));
        assert_eq!(scene.poll().unwrap(), Moves::Nothing);
        scene.append(&[entry(1, 1), entry(2, ME)]);
        assert_eq!(scene.poll().unwrap(), Moves::Entries(vec![entry(1, 1), entry(2, ME)]));
        assert_eq!(scene.poll().unwrap(), Moves::Nothing);
    }

    #[test]
    fn reads_the_journal_only_when_it_has_changed() {
        let reads = Arc::new(Mutex::new(Vec::new()));
        let log = reads.clone();
        let scene = Scene::on(&InMemoryRemote::new(), move |command, moment| {
            if let (Moment::BeforeCommand, Action::Get { value, .. }) = (moment, command.action) {
                log.lock().push(value);
            }
        });
        scene.append(&[entry(1, 1)]);
        for expected in [&[true][..], &[false], &[false]] {
            scene.poll().unwrap();
            assert_eq!(std::mem::take(&mut *reads.lock()), expected);
        }
        scene.append(&[entry(2, 1)]);
        for expected in [&[false, true][..], &[false]] {
            scene.poll().unwrap();
            assert_eq!(std::mem::take(&mut *reads.lock()), expected);
        }
        assert_eq!(scene.trust.left(), TRUST);
    }

    #[test]
    fn a_journal_that_was_lost_is_a_resync() {
        let scene = Scene::new();
        scene.append(&[entry(1, 1)]);
        assert_eq!(scene.poll().unwrap(), Moves::Lost(Lost::First));
        scene.store.flush();
        assert_eq!(scene.poll().unwrap(), Moves::Lost(Lost::Missing));
        scene.store.evict(&journal_key());
        scene.append(&[entry(2, 1)]);
        assert_eq!(scene.poll().unwrap(), Moves::Lost(Lost::Replaced));
        scene.store.restart();
        assert_eq!(scene.poll().unwrap(), Moves::Lost(Lost::Missing));
        assert_eq!(scene.poll().unwrap(), Moves::Nothing);
    }

    #[test]
    fn a_restarted_store_that_repeats_its_cas_numbers_is_found_out() {
        let scene = Scene::new();
        scene.append(&[entry(1, 1)]);
        scene.poll().unwrap();
        scene.store.restart();
        // The same number of entries, as the first thing that the store is given: the same CAS, the same length.
        scene.append(&[entry(2, 1)]);
        assert_eq!(scene.poll().unwrap(), Moves::Lost(Lost::Replaced));
    }

    #[test]
    fn a_new_connection_alone_loses_nothing() {
        let scene = Scene::new();
        scene.append(&[entry(1, 1)]);
        scene.poll().unwrap();
        scene.store.offline(true);
        scene.store.offline(false);
        assert_eq!(scene.poll().unwrap(), Moves::Nothing);
    }

    #[test]
    fn a_store_that_cannot_be_reached_lets_trust_lapse() {
        let scene = Scene::new();
        scene.poll().unwrap();
        scene.store.offline(true);
        for _ in 0..9 {
            assert!(scene.poll().is_err() && scene.trust.holds());
        }
        assert!(scene.poll().is_err() && !scene.trust.holds());
        scene.store.offline(false);
        assert_eq!(scene.poll().unwrap(), Moves::Nothing);
        assert!(scene.trust.holds());
    }

    #[test]
    fn what_is_no_journal_is_replaced_and_appends_to_it_are_not_lost() {
        let scene = Scene::new();
        for spoilt in [&b""[..], b"garbage", b"lrj1 and too short", &[0; 2 * COMPACT_AT_LEN]] {
            scene.poll().unwrap();
            write(&scene.store, &journal_key(), spoilt);
            // The store takes it, and nobody will ever replay it.
            scene.append(&[entry(1, 1)]);
            assert_eq!(scene.poll().unwrap(), Moves::Lost(Lost::Spoilt));
            assert_eq!(scene.poll().unwrap(), Moves::Nothing);
            scene.append(&[entry(2, 1)]);
            assert_eq!(scene.poll().unwrap(), Moves::Entries(vec![entry(2, 1)]));
        }
    }

    #[test]
    fn a_lease_in_the_journals_place_is_replaced() {
        let scene = Scene::new();
        let key = journal_key();
        let action = Action::Get { value: true, lease: Some(Duration::from_secs(30)), touch: None };
        let get = Request::new(key, Route::Control, action);
        let reply = block_on(async { batcher(&scene.store).run(Caller::Thread, vec![get]).await.remove(0) });
        assert!(matches!(reply, Ok(Reply::Won(_))));
        assert_eq!(scene.poll().unwrap(), Moves::Lost(Lost::Spoilt));
        assert_eq!(scene.poll().unwrap(), Moves::Nothing);
    }

    #[test]
    fn of_several_processes_that_make_the_journal_one_succeeds() {
        let store = InMemoryRemote::new();
        let made = Journal::encode_new(Uuid::from_u128(1), &[entry(1, 1)]);
        let (others, journal) = (store.clone(), made.clone());
        let scene = Scene::on(&store, move |command, moment| {
            // Between the read that found nothing and the add.
            if let (Moment::BeforeCommand, Action::Set { .. }) = (moment, command.action) {
                write(&others, &journal_key(), &journal);
            }
        });
        assert_eq!(scene.poll().unwrap(), Moves::Lost(Lost::First));
        assert_eq!(read(&store, &journal_key()).unwrap().value, made);
    }

    #[test]
    fn a_journal_whose_making_was_not_acknowledged_is_not_adopted() {
        let scene = Scene::new();
        let store = scene.store.clone();
        store.fail_next(1);
        assert!(scene.poll().unwrap_err().is_indeterminate());
        assert!(!scene.trust.holds());
        let lossy = store.clone();
        let scene = Scene::on(&store, move |command, moment| {
            if let (Moment::BeforeCommand, Action::Set { .. }) = (moment, command.action) {
                lossy.lose_replies(1);
            }
        });
        assert!(scene.poll().unwrap_err().is_indeterminate());
        assert!(!scene.trust.holds());
        // It was made all the same.
        assert_eq!(scene.poll().unwrap(), Moves::Lost(Lost::First));
    }

    #[test]
    fn gives_up_on_a_journal_that_is_another_one_each_time() {
        let store = InMemoryRemote::new();
        let (others, epochs) = (store.clone(), AtomicU64::new(0));
        let scene = Scene::on(&store, move |_, _| {
            // Longer and longer garbage: it can be neither read nor replaced.
            let len = epochs.fetch_add(1, Ordering::Relaxed) as usize;
            write(&others, &journal_key(), &vec![0; len]);
        });
        assert_eq!(scene.poll().unwrap_err().kind(), RemoteErrorKind::Refused);
        assert!(!scene.trust.holds());
    }

    #[test]
    fn who_appended_last_makes_room_once_the_news_are_applied() {
        let scene = Scene::new();
        scene.append(&[entry(1, 1)]);
        scene.poll().unwrap();
        scene.append(&vec![entry(2, ME); COMPACT_AT_LEN / 24]);
        let news = block_on(scene.source().look()).unwrap();
        assert!(news.crowded());
        scene.follower.adopt(news, &scene.trust);
        block_on(announce::compact(&scene.batcher, Caller::Thread, &scene.journal)).unwrap();
        assert!(read(&scene.store, &journal_key()).unwrap().len < COMPACT_AT_LEN / 2 + 100);
        // Positions are what they were.
        assert_eq!(scene.poll().unwrap(), Moves::Nothing);
        scene.append(&[entry(3, 1)]);
        assert_eq!(scene.poll().unwrap(), Moves::Entries(vec![entry(3, 1)]));
    }

    #[test]
    fn a_caller_may_ask_for_the_journals_version_along_with_other_things() {
        let scene = Scene::new();
        scene.append(&[entry(1, 1)]);
        scene.poll().unwrap();
        let Scene { follower, clock, .. } = &scene;
        let ask = || {
            let look = follower.begin(clock.now());
            let other = Request::get(WireKey::new("other").unwrap(), Route::Control);
            let asked = block_on(async {
                batcher(&scene.store).run(Caller::Task, vec![other, peek(&journal_key())]).await.remove(1)
            });
            item::found(asked.unwrap()).unwrap().and_then(|item| follower.unchanged(look, &item))
        };
        assert_eq!(ask().unwrap().moved(), &Moves::Nothing);
        scene.append(&[entry(2, 1)]);
        assert!(ask().is_none());
    }

    #[test]
    fn futures_may_move_between_threads() {
        fn assert_send<T: Send>(_: T) {}
        let scene = Scene::new();
        let (way, key) = (batcher(&scene.store), journal_key());
        let Scene { follower, clock, .. } = &scene;
        assert_send(Source { batcher: &way, caller: Caller::Task, journal: &key, follower, clock }.look());
        assert_send(append(&way, Caller::Task, &key, &[]));
        assert_send(announce::bump(&way, Caller::Task, &key, &[], || [0; 8], &[]));
    }

    #[test]
    fn a_caller_may_look_while_the_poller_does() {
        let scene = Scene::new();
        scene.append(&[entry(1, 1)]);
        scene.poll().unwrap();
        scene.append(&[entry(2, 1)]);
        let way = batcher(&scene.store);
        let Scene { follower, clock, .. } = &scene;
        let source = Source { batcher: &way, caller: Caller::Task, journal: &journal_key(), follower, clock };
        let news = block_on(source.read()).unwrap();
        assert_eq!(news.moved(), &Moves::Entries(vec![entry(2, 1)]));
        // The poller comes in between, and has them too.
        assert_eq!(scene.poll().unwrap(), Moves::Entries(vec![entry(2, 1)]));
        follower.adopt(news, &scene.trust);
        assert_eq!(scene.poll().unwrap(), Moves::Nothing);
    }
}
