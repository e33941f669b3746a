//! Where this process is in the journal.
//!
//! A *look* begins by noting the time ([`Follower::begin`]). Then the journal is read, and what was read is judged
//! ([`Follower::digest`], [`Follower::unchanged`]): there is nothing new, or there are entries to apply, or it cannot be
//! told what moved, and everything is to be taken for moved (a *resync*: every local generation is bumped, claims and
//! known tokens are void). Once that has been done, and not before, [`Follower::adopt`] moves the position and extends the
//! [`Trust`] from the noted time. Nothing here does I/O, and no lock is held while news are applied.
//!
//! Several threads may look at once and finish in any order. Why trust is never extended too far, whatever they do:
//!
//! **Epochs do not overlap.** A journal is made by one command with an epoch of its own, a random one, that is sent once
//! and so carried out once at most. Until it is lost or replaced it only grows at its end, or drops entries at its front,
//! which moves no position. So of two readings of one epoch the longer is the younger; and an epoch that was seen to give
//! way to another does not come back.
//!
//! **What the position means.** Position `(E, n)` says that (1) a resync was carried out here after the journal of epoch
//! `E` was seen, or made, by this process, and that (2) the first `n` entries of `E` have been applied here, or dropped
//! from it before such a resync. Both speak of the past: once true, they stay true, and a late reading that moves the
//! position back, or to an epoch that is gone, makes it less useful, never wrong. `adopt` keeps them: news that are
//! entries begin at a position that was true when they were digested, and end where their reading ended; a resync covers
//! its reading, whatever was in it.
//!
//! **What trust needs.** An acknowledged entry was in the journal when it was acknowledged. Let a look be noted at `t`,
//! read `E` up to `n`, and find or make the position `(E, m)` with `m ≥ n`; and let an entry have been acknowledged before
//! `t`. If it was in `E`, it is among the first `n`, since the reading is younger than `t`: applied, by (2). If it was in an
//! earlier epoch, a resync came after that was gone, by (1). It cannot have been in a later one, since `E` was still there
//! after `t`. A look that ends in a resync of its own needs no position: whatever was acknowledged before `t` was so before
//! the resync. This is why an overtaken reading (`n < m`) may extend trust too, and why being about to apply entries in
//! another thread counts for nothing: the position moves after they were applied.
//!
//! **Unchanged.** A CAS names one version of the item on one connection (a server that restarts, and then repeats the
//! numbers, has lost its connections). So an item with the CAS and the length of a reading that was adopted, then or long
//! ago, is what was read then, all of which has been applied; and the argument above holds for it as if it were read again.
//!
//! **Another epoch.** If nobody has changed the epoch since the look began, the one that was read is the younger one, and
//! the position is lost. Otherwise it may be the older: [`Digest::Ambiguous`], and the next look will tell. To resync would
//! be right as well, but may be for nothing, and twice.

use std::fmt;

use uuid::Uuid;

use super::journal::{Entry, Journal, compact_at_len, of_one_process};
use super::trust::Trust;
use crate::clock::Timestamp;
use crate::remote::reader::DecodeError;
use crate::remote::tier::{Cas, Item};
use crate::sync::Mutex;

/// For how many connections the last version is remembered: those that callers of one process share, and the poller's. One
/// that is forgotten reads the journal once more.
const MAX_VERSIONS: usize = 16;

/// How many times the length from which on the journal is shortened it has when it does not matter any more who does it,
/// because whose turn it is does not.
const OVERDUE: usize = 2;

/// How many entries of which epoch this process knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    epoch: Uuid,
    seq: u64,
}

/// Follows the journal for one process.
#[derive(Debug)]
pub(crate) struct Follower {
    /// Who this process is in the journal.
    sender: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// `None` before the first look.
    position: Option<Position>,
    /// The version of the item that was last adopted from each connection, and its length.
    versions: Vec<(Cas, usize)>,
}

/// A look at the journal that has begun.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    noted: Timestamp,
    position: Option<Position>,
}

/// What was read.
#[derive(Debug)]
pub(crate) enum Digest {
    News(News),
    /// Others went on to another journal meanwhile, before this one or after it: look again.
    Ambiguous,
    /// It is no journal. Whatever was appended to it will be read by nobody, so it has to be replaced.
    Spoilt(DecodeError),
}

/// What to apply, and then to [`adopt`](Follower::adopt).
#[derive(Debug)]
#[must_use = "news are to be applied, and then adopted"]
pub(crate) struct News {
    moved: Moves,
    look: Look,
    next: Option<Next>,
    crowded: bool,
}

/// What a look found to have moved since the last one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Moves {
    /// Nothing that has not been applied.
    Nothing,
    /// What these entries say, to be applied in their order; there is at least one. Some may have been applied already.
    Entries(Vec<Entry>),
    /// Everything.
    Lost(Lost),
}

/// Why it cannot be told what has moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// This is the first look.
    First,
    /// There was no journal.
    Missing,
    /// There was something else in its place, or an entry of a kind that this build does not know.
    Spoilt,
    /// It is another one.
    Replaced,
    /// What was appended since the last look was dropped before this one.
    Dropped,
    /// It has fewer entries than it had: somebody has put an older state of it back.
    Rewound,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Lost::First => "this is the first look at the journal",
            Lost::Missing => "the journal was gone",
            Lost::Spoilt => "the journal could not be read",
            Lost::Replaced => "the journal is another one",
            Lost::Dropped => "the journal no longer has what was added since the last look",
            Lost::Rewound => "the journal has fewer entries than it had",
        })
    }
}

/// Where the news end.
#[derive(Clone, Copy, Debug)]
struct Next {
    position: Position,
    /// `None` for a journal that was made, since the store does not say under which version.
    version: Option<(Cas, usize)>,
}

impl Follower {
    /// Makes a follower that has not looked yet, for the process that appends as `sender`.
    pub(crate) fn new(sender: u64) -> Follower {
        Follower { sender, state: Mutex::default() }
    }

    /// Begins a look at `now`, which must be before the request is sent.
    pub(crate) fn begin(&self, now: Timestamp) -> Look {
        Look { noted: now, position: self.state.lock().position }
    }

    /// Returns whether the journal's metadata are worth asking for, before all of it.
    pub(crate) fn knows_a_version(&self) -> bool {
        !self.state.lock().versions.is_empty()
    }

    /// Returns the news that there are none, if `item`, read without its value, is a version of the journal that was adopted.
    pub(crate) fn unchanged(&self, look: Look, item: &Item) -> Option<News> {
        let known = self.state.lock().versions.contains(&(item.cas, item.len));
        known.then_some(News { moved: Moves::Nothing, look, next: None, crowded: false })
    }

    /// Returns what `item`, read with its value, says.
    pub(crate) fn digest(&self, look: Look, item: &Item) -> Digest {
        let journal = match Journal::decode(&item.value) {
            Ok(journal) => journal,
            Err(error) => return Digest::Spoilt(error),
        };
        let end = Position { epoch: journal.epoch(), seq: journal.end_seq() };
        let position = self.state.lock().position;
        let moved = match position {
            None => Moves::Lost(Lost::First),
            Some(at) if at.epoch == end.epoch && at.seq <= end.seq => replay(&journal, at),
            Some(at) if at.epoch == end.epoch => match look.position {
                // What was known before the reading cannot be missing from it.
                Some(then) if then.epoch == end.epoch && then.seq > end.seq => Moves::Lost(Lost::Rewound),
                _ => Moves::Nothing,
            },
            Some(at) if look.position.is_some_and(|then| then.epoch == at.epoch) => Moves::Lost(Lost::Replaced),
            Some(_) => return Digest::Ambiguous,
        };
        // One process at a time has appended last, and it is one that is alive.
        let turn = journal.last_sender().is_some_and(|last| of_one_process(last, self.sender));
        let crowded = item.value.len() > compact_at_len() * if turn { 1 } else { OVERDUE };
        let version = Some((item.cas, item.value.len()));
        Digest::News(News { moved, look, next: Some(Next { position: end, version }), crowded })
    }

    /// Returns the news of a look that found no journal, or a spoilt one, once the store has acknowledged an empty one of
    /// this `epoch` in its place.
    pub(crate) fn renewed(&self, look: Look, epoch: Uuid, why: Lost) -> News {
        let next = Next { position: Position { epoch, seq: 0 }, version: None };
        News { moved: Moves::Lost(why), look, next: Some(next), crowded: false }
    }

    /// Moves the position to the end of `news`, all of which have been applied, and extends `trust` by them.
    #[expect(clippy::needless_pass_by_value, reason = "news are adopted once, after they were applied")]
    pub(crate) fn adopt(&self, news: News, trust: &Trust) {
        if let Some(next) = news.next {
            self.state.lock().advance(news.look, next);
        }
        trust.extend(news.look.noted);
    }
}

impl State {
    fn advance(&mut self, look: Look, next: Next) {
        let stays = match (self.position, look.position) {
            // Nobody has moved it since the look began: what was read is younger, whatever it says.
            (now, then) if now == then => false,
            (Some(now), _) if now.epoch == next.position.epoch => now.seq >= next.position.seq,
            // Another epoch, and somebody else has changed it meanwhile. Theirs may be the older one, then the next look is
            // a resync; or this one may.
            (Some(now), Some(then)) => now.epoch != then.epoch,
            (_, None) => true,
            (None, Some(_)) => false,
        };
        if !stays {
            self.position = Some(next.position);
        }
        if let Some((cas, len)) = next.version {
            self.versions.retain(|(known, _)| known.connection != cas.connection);
            if self.versions.len() == MAX_VERSIONS {
                self.versions.remove(0);
            }
            self.versions.push((cas, len));
        }
    }
}

impl News {
    /// Returns what is to be applied.
    pub(crate) fn moved(&self) -> &Moves {
        &self.moved
    }

    /// Returns whether nothing was known of the journal when the look began.
    pub(crate) fn is_first(&self) -> bool {
        self.look.position.is_none()
    }

    /// Returns whether it is this process's turn to drop the journal's older half, after it has adopted these news.
    pub(crate) fn crowded(&self) -> bool {
        self.crowded
    }
}

/// Returns what the journal says from a position on that it has come to.
fn replay(journal: &Journal<'_>, at: Position) -> Moves {
    let Some(entries) = journal.since(at.epoch, at.seq) else { return Moves::Lost(Lost::Dropped) };
    match entries.collect::<Result<Vec<Entry>, DecodeError>>() {
        Ok(entries) if entries.is_empty() => Moves::Nothing,
        Ok(entries) => Moves::Entries(entries),
        Err(_) => Moves::Lost(Lost::Spoilt),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::broadcast::journal::{COMPACT_AT_LEN, Moved, part_of};
    use crate::clock::{Clock, ManualClock};
    use crate::remote::bytes::SharedBytes;

    const OLD: Uuid = Uuid::from_u128(1);
    const NEW: Uuid = Uuid::from_u128(2);
    const ME: u64 = 7 << 16;
    const LEASE: Duration = Duration::from_secs(10);

    /// A follower, its trust, and the time.
    struct Scene {
        follower: Follower,
        trust: Trust,
        clock: Clock,
        time: ManualClock,
    }

    impl Scene {
        fn new() -> Scene {
            let (clock, time) = Clock::manual();
            Scene { follower: Follower::new(ME), trust: Trust::new(clock.clone(), LEASE), clock, time }
        }

        /// A scene whose follower has read so many entries of `epoch`.
        fn at(epoch: Uuid, seq: u64) -> Scene {
            let scene = Scene::new();
            scene.follow(&item(1, epoch, 0, seq));
            scene
        }

        fn begin(&self) -> Look {
            self.time.advance(Duration::from_secs(1));
            self.follower.begin(self.clock.now())
        }

        fn news(&self, look: Look, item: &Item) -> News {
            match self.follower.digest(look, item) {
                Digest::News(news) => news,
                other => panic!("{other:?}"),
            }
        }

        fn adopt(&self, news: News) {
            self.follower.adopt(news, &self.trust);
        }

        /// Looks once, alone.
        fn follow(&self, item: &Item) -> Moves {
            let mut news = self.news(self.begin(), item);
            let moved = std::mem::replace(&mut news.moved, Moves::Nothing);
            self.adopt(news);
            moved
        }

        fn position(&self) -> (Uuid, u64) {
            let position = self.follower.state.lock().position.unwrap();
            (position.epoch, position.seq)
        }
    }

    /// The entry at a position.
    fn entry(seq: u64) -> Entry {
        Entry { moved: Moved::GroupHard(seq), sender: 1 }
    }

    fn entries(from: u64, to: u64) -> Vec<Entry> {
        (from..to).map(entry).collect()
    }

    /// The journal with entries from `base` to `end`, as connection 1 reads it.
    fn item(cas: u64, epoch: Uuid, base: u64, end: u64) -> Item {
        let mut value = Journal::encode_new(epoch, &entries(base, end));
        value[20..28].copy_from_slice(&base.to_le_bytes());
        holding(cas, value)
    }

    fn holding(cas: u64, value: Vec<u8>) -> Item {
        let cas = Cas { value: cas, connection: 1 };
        Item { len: value.len(), value: value.into(), cas, expires_in: None, stale: false, won: false }
    }

    fn metadata(item: &Item) -> Item {
        Item { value: SharedBytes::default(), ..item.clone() }
    }

    #[test]
    fn the_first_look_is_a_resync_and_the_next_ones_go_on_from_there() {
        let scene = Scene::new();
        assert_eq!(scene.follow(&item(1, OLD, 0, 3)), Moves::Lost(Lost::First));
        assert_eq!(scene.follow(&item(1, OLD, 0, 3)), Moves::Nothing);
        assert_eq!(scene.follow(&item(2, OLD, 0, 5)), Moves::Entries(entries(3, 5)));
        assert_eq!(scene.follow(&item(3, OLD, 4, 6)), Moves::Entries(entries(5, 6)));
        assert_eq!(scene.position(), (OLD, 6));
    }

    #[test]
    fn what_cannot_be_replayed_is_a_resync() {
        let scene = Scene::at(OLD, 3);
        assert_eq!(scene.follow(&item(2, OLD, 4, 6)), Moves::Lost(Lost::Dropped));
        assert_eq!(scene.follow(&item(3, NEW, 0, 9)), Moves::Lost(Lost::Replaced));
        assert_eq!(scene.position(), (NEW, 9));
        // Somebody has put an old state of the item back: the position goes back with it, or what is appended from now on
        // would be taken for known.
        assert_eq!(scene.follow(&item(4, NEW, 0, 8)), Moves::Lost(Lost::Rewound));
        assert_eq!(scene.follow(&item(5, NEW, 0, 9)), Moves::Entries(entries(8, 9)));
    }

    #[test]
    fn an_entry_of_an_unknown_kind_is_a_resync_once() {
        let scene = Scene::at(OLD, 3);
        let mut strange = item(2, OLD, 0, 4);
        let mut value = Vec::from(strange.value);
        value[28 + 3 * 24] = 9;
        strange.value = value.into();
        assert_eq!(scene.follow(&strange), Moves::Lost(Lost::Spoilt));
        strange.value = [&*strange.value, &entry(4).encode()].concat().into();
        assert_eq!(scene.follow(&strange), Moves::Entries(entries(4, 5)));
    }

    #[test]
    fn what_is_no_journal_is_to_be_replaced() {
        let scene = Scene::at(OLD, 3);
        for value in [Vec::new(), b"garbage".to_vec(), item(1, OLD, 0, 3).value[..60].to_vec()] {
            let digest = scene.follower.digest(scene.begin(), &holding(2, value));
            assert!(matches!(digest, Digest::Spoilt(_)), "{digest:?}");
        }
        let news = scene.follower.renewed(scene.begin(), NEW, Lost::Spoilt);
        assert_eq!(news.moved(), &Moves::Lost(Lost::Spoilt));
        scene.adopt(news);
        assert_eq!(scene.position(), (NEW, 0));
        assert_eq!(scene.follow(&item(3, NEW, 0, 1)), Moves::Entries(entries(0, 1)));
    }

    #[test]
    fn trust_reaches_from_the_time_before_the_request() {
        let scene = Scene::new();
        let look = scene.begin();
        scene.time.advance(Duration::from_secs(2));
        let news = scene.news(look, &item(1, OLD, 0, 3));
        assert!(!scene.trust.holds(), "nothing has been applied yet");
        scene.time.advance(Duration::from_secs(2));
        scene.adopt(news);
        assert_eq!(scene.trust.left(), LEASE - Duration::from_secs(4));
    }

    #[test]
    fn an_unchanged_journal_extends_trust_without_being_read() {
        let scene = Scene::new();
        assert!(!scene.follower.knows_a_version());
        let read = item(1, OLD, 0, 3);
        assert!(scene.follower.unchanged(scene.begin(), &metadata(&read)).is_none());
        scene.follow(&read);
        assert!(scene.follower.knows_a_version());
        let news = scene.follower.unchanged(scene.begin(), &metadata(&read)).unwrap();
        assert_eq!(news.moved(), &Moves::Nothing);
        scene.adopt(news);
        assert_eq!(scene.trust.left(), LEASE);
        assert_eq!(scene.position(), (OLD, 3));
    }

    #[test]
    fn the_same_cas_of_another_connection_or_length_says_nothing() {
        let scene = Scene::at(OLD, 3);
        let mut restarted = metadata(&item(1, OLD, 0, 3));
        restarted.cas.connection = 2;
        assert!(scene.follower.unchanged(scene.begin(), &restarted).is_none());
        assert!(scene.follower.unchanged(scene.begin(), &metadata(&item(1, OLD, 0, 4))).is_none());
        assert!(scene.follower.unchanged(scene.begin(), &metadata(&item(2, OLD, 0, 3))).is_none());
    }

    #[test]
    fn what_was_read_and_not_adopted_is_not_known() {
        let scene = Scene::at(OLD, 3);
        let longer = item(2, OLD, 0, 5);
        let look = scene.begin();
        let news = scene.news(look, &longer);
        // While one thread applies the entries, they count for no other.
        assert!(scene.follower.unchanged(look, &metadata(&longer)).is_none());
        assert_eq!(scene.news(scene.begin(), &longer).moved(), &Moves::Entries(entries(3, 5)));
        assert_eq!(scene.position(), (OLD, 3));
        scene.adopt(news);
        assert!(scene.follower.unchanged(look, &metadata(&longer)).is_some());
    }

    #[test]
    fn versions_are_remembered_for_so_many_connections() {
        let scene = Scene::at(OLD, 0);
        let read_on = |connection: u64| {
            let mut read = item(1, OLD, 0, 1);
            read.cas.connection = connection;
            read
        };
        let connections = 10..=10 + MAX_VERSIONS as u64;
        connections.clone().for_each(|connection| drop(scene.follow(&read_on(connection))));
        let known =
            connections.map(|connection| scene.follower.unchanged(scene.begin(), &metadata(&read_on(connection))));
        assert_eq!(
            known.map(|news| news.is_some()).collect::<Vec<_>>(),
            [vec![false], vec![true; MAX_VERSIONS]].concat()
        );
        // Newer ones take the place of older ones of their connection.
        for cas in 1..100 {
            scene.follow(&item(cas, OLD, 0, cas));
        }
        assert_eq!(scene.follower.state.lock().versions.len(), MAX_VERSIONS);
    }

    #[test]
    fn an_overtaken_reading_brings_nothing_and_moves_nothing_back() {
        let scene = Scene::at(OLD, 3);
        let (earlier, later) = (scene.begin(), scene.begin());
        let later = scene.news(later, &item(3, OLD, 0, 9));
        scene.adopt(later);
        let overtaken = scene.news(earlier, &item(2, OLD, 0, 6));
        assert_eq!(overtaken.moved(), &Moves::Nothing);
        scene.adopt(overtaken);
        assert_eq!(scene.position(), (OLD, 9));
    }

    #[test]
    fn entries_that_are_adopted_out_of_order_move_nothing_back() {
        let scene = Scene::at(OLD, 3);
        let first = scene.news(scene.begin(), &item(2, OLD, 0, 6));
        let second = scene.news(scene.begin(), &item(3, OLD, 0, 9));
        assert_eq!(second.moved(), &Moves::Entries(entries(3, 9)));
        scene.adopt(second);
        scene.adopt(first);
        assert_eq!(scene.position(), (OLD, 9));
    }

    #[test]
    fn a_reading_from_before_a_restart_is_not_taken_for_another_restart() {
        let scene = Scene::at(OLD, 3);
        let (before, after) = (scene.begin(), scene.begin());
        let after = scene.news(after, &item(1, NEW, 0, 2));
        assert_eq!(after.moved(), &Moves::Lost(Lost::Replaced));
        scene.adopt(after);
        let digest = scene.follower.digest(before, &item(9, OLD, 0, 6));
        assert!(matches!(digest, Digest::Ambiguous), "{digest:?}");
        assert_eq!(scene.position(), (NEW, 2));
        // Looked at again, it is told at once.
        assert_eq!(scene.follow(&item(2, NEW, 0, 3)), Moves::Entries(entries(2, 3)));
    }

    #[test]
    fn a_resync_by_a_reading_from_before_a_restart_does_not_undo_the_one_after_it() {
        let scene = Scene::new();
        // Both are a first look, and find no position to compare with.
        let before = scene.news(scene.begin(), &item(9, OLD, 0, 6));
        let after = scene.news(scene.begin(), &item(1, NEW, 0, 2));
        scene.adopt(after);
        scene.adopt(before);
        assert_eq!(scene.position(), (NEW, 2));
        // In the other order, the position is of the past for once, and the next look is a resync.
        let scene = Scene::new();
        let before = scene.news(scene.begin(), &item(9, OLD, 0, 6));
        let after = scene.news(scene.begin(), &item(1, NEW, 0, 2));
        scene.adopt(before);
        scene.adopt(after);
        assert_eq!(scene.position(), (OLD, 6));
        assert_eq!(scene.follow(&item(2, NEW, 0, 3)), Moves::Lost(Lost::Replaced));
    }

    #[test]
    fn an_entry_that_was_digested_before_a_resync_may_be_adopted_after_it() {
        let scene = Scene::at(OLD, 3);
        let slow = scene.news(scene.begin(), &item(2, OLD, 0, 6));
        scene.follow(&item(1, NEW, 0, 2));
        scene.adopt(slow);
        assert_eq!(scene.position(), (NEW, 2));
    }

    #[test]
    fn who_appended_last_makes_room() {
        let scene = Scene::at(OLD, 0);
        let crowded = |count: usize, last: u64| {
            let mut journal = vec![entry(0); count];
            journal[count - 1].sender = last;
            scene.news(scene.begin(), &holding(1, Journal::encode_new(OLD, &journal))).crowded()
        };
        let many = COMPACT_AT_LEN / super::super::journal::ENTRY_LEN;
        assert!(crowded(many, ME) && !crowded(many, 1) && !crowded(many - 2, ME));
        // As a cache of the process.
        assert!(crowded(many, part_of(ME, 1)) && crowded(many, part_of(ME, 65_535)));
        // Whoever it was that should have, does not.
        assert!(crowded(2 * many + 1, 1));
    }
}
