//! The outbox: it sends what the store has not acknowledged until the store has.
//!
//! An invalidation that fails in the hands of its caller becomes a [debt](super::debts), and the caller gets a
//! [slip](super::slip). A thread of its own, which exists while something is owed and a little longer, sends debts in
//! batches, with growing pauses while none gets through. It runs its exchanges itself: during an outage they take their
//! whole time limit, and none of that is the time of a caller or of a thread that does I/O for callers.
//!
//! **What this process takes from the store meanwhile.** Who reads from the store asks *before* it sends whether the item
//! and its groups are owed ([`Outbox::owes_item`], [`Outbox::owes_group`]), and if so takes what it reads for nothing. Before, since a
//! debt may be paid between the read and the look at its answer. There are two races, and neither lets old data through:
//!
//! - *A debt arises just after that look.* The caller that bumps moves the local generation once more after its attempt has
//!   failed and the debt is noted; that fences the reader's copy, whose `born` is older.
//! - *A debt is settled just before that look.* The store had it then, so the read finds it done. What this process
//!   remembers of the store has been corrected too, because [`on_paid`](Outbox::new) runs between the acknowledgement and
//!   the settlement (R4).

use std::error::Error;
use std::fmt;
use std::time::{Duration, Instant};

use super::announce;
use super::backoff::Backoff;
use super::debts::{Debt, Debts, MAX_DEBTS, Subject};
use super::journal::{Entry, Moved};
use super::slip::Slip;
use crate::clock::real::{block_on, now};
use crate::group::Bump;
use crate::remote::batch::{Batcher, Caller};
use crate::remote::error::{RemoteError, RemoteErrorKind};
use crate::remote::key::WireKey;
use crate::remote::keyspace::{Keyspace, ROOT_GROUP};
use crate::remote::request::{Request, Requests};
use crate::remote::tier::Reply;
use crate::remote::tokens::new_token;
use crate::sync::{Arc, AtomicUsize, Condvar, Mutex, Ordering, thread};
use crate::task::guarded;
use crate::watch::event;

/// How long the thread waits for more when nothing is owed: longer than the gaps between the failures of a shaky store, and
/// no thread for ever in a process that needed it once.
const LINGER: Duration = Duration::from_secs(10);

/// From how long on somebody should know that something is owed: longer than a restart of the store takes.
const STAYS_PENDING: Duration = Duration::from_secs(5);

/// How often that is told again.
const REMIND_EVERY: Duration = Duration::from_secs(60);

/// What runs, without any lock, when the store has acknowledged debts.
type OnPaid = dyn Fn(&[Subject]) + Send + Sync;

/// What a process owes the store, and the thread that pays. Dropping it ends the thread soon, waits for nothing, and logs
/// what was not sent.
pub(crate) struct Outbox(Arc<Shared>);

struct Shared {
    batcher: Arc<Batcher>,
    keys: Keyspace,
    sender: u64,
    on_paid: Box<OnPaid>,
    /// How many debts there are, for those who ask whether there are any at all. Written under the lock of `state`.
    owed: AtomicUsize,
    state: Mutex<State>,
    /// Something came to be owed or was settled, or the thread is to hurry or to end.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    debts: Debts,
    /// Whether there is a thread, which has not decided to end.
    running: bool,
    /// Whether the thread is to end, and none to be started.
    stopped: bool,
    /// Whether the thread is to try at once, without the rest of its pause.
    hurry: bool,
    /// How many calls have taken debts off the list, and have yet to tell those who wait.
    settling: usize,
    last_error: Option<RemoteError>,
}

/// How it stands with an outbox.
#[derive(Clone, Debug, Default)]
pub(crate) struct OutboxHealth {
    /// How many deletions are owed.
    pub(crate) deletions: usize,
    /// How many bumps are owed.
    pub(crate) bumps: usize,
    /// How long the oldest debt has been owed.
    pub(crate) oldest: Option<Duration>,
    /// How often there were too many debts to keep them apart, so that they became one.
    pub(crate) escalations: u64,
    /// Why the last attempt failed that did.
    pub(crate) last_error: Option<RemoteError>,
}

impl Outbox {
    /// Makes an outbox that owes nothing. `sender` is what this process calls itself in the journal.
    ///
    /// `on_paid` runs after the store has acknowledged debts and before they count as settled: it bumps locally what it is
    /// told, and forgets cached tokens, for what was read from the store meanwhile. It must not keep the owner of the outbox
    /// alive.
    pub(crate) fn new(
        batcher: Arc<Batcher>,
        keys: Keyspace,
        sender: u64,
        on_paid: impl Fn(&[Subject]) + Send + Sync + 'static,
    ) -> Outbox {
        Outbox(Arc::new(Shared {
            batcher,
            keys,
            sender,
            on_paid: Box::new(on_paid),
            owed: AtomicUsize::new(0),
            state: Mutex::default(),
            changed: Condvar::new(),
        }))
    }

    /// Notes that the store has yet to do what the local tier has done, and sees to it.
    ///
    /// The slip is settled once the store has done it, or has done something that covers it; abandoned, if the outbox is
    /// shut down before.
    pub(crate) fn owe(&self, subject: Subject) -> Arc<Slip> {
        self.0.owe(subject, Vec::new())
    }

    /// As [`owe`](Self::owe), for those who hold `slips` already: they are settled, or abandoned, with the debt.
    pub(crate) fn owe_for(&self, subject: Subject, slips: Vec<Arc<Slip>>) {
        self.0.owe(subject, slips);
    }

    /// Returns how many deletions and bumps are owed.
    pub(crate) fn owed(&self) -> usize {
        // Acquire pairs with the Release in `Shared::count`: who sees that a debt is settled sees what `on_paid` did before.
        self.0.owed.load(Ordering::Acquire)
    }

    /// Returns whether the item of `key` is still to be deleted, so that what it holds counts for nothing. To be asked
    /// before the item is.
    pub(crate) fn owes_item(&self, key: &WireKey) -> bool {
        // Nearly always nothing is owed at all. Who finds none without the lock could have come just before the debt.
        self.owed() > 0 && self.0.state.lock().debts.owes_item(key)
    }

    /// Returns whether the group is still to be bumped, so that its token in the store counts for nothing. To be asked
    /// before the token is.
    pub(crate) fn owes_group(&self, group_hash: u64, bump: Bump) -> bool {
        self.owed() > 0 && self.0.state.lock().debts.owes_group(group_hash, bump)
    }

    /// Returns how it stands.
    pub(crate) fn health(&self) -> OutboxHealth {
        let now = now();
        let state = self.0.state.lock();
        OutboxHealth {
            deletions: state.debts.deletions(),
            bumps: state.debts.bumps(),
            oldest: state.debts.oldest().map(|since| now.saturating_duration_since(since)),
            escalations: state.debts.escalations,
            last_error: state.last_error.clone(),
        }
    }

    /// Tries until nothing is owed, then stops for good: what comes to be owed from then on is noted, and not sent. Calling
    /// it again tries again.
    ///
    /// # Errors
    /// What was not sent within `limit`. Those who wait for it are told that it is abandoned.
    ///
    /// # Blocking
    /// For `limit` at most. An exchange that is under way then ends in its own time, on the outbox's thread.
    pub(crate) fn shutdown(&self, limit: Duration) -> Result<(), Unsent> {
        self.0.shutdown(limit)
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        let told = std::mem::replace(&mut state.stopped, true);
        let unsent = state.unsent();
        let slips = state.debts.slips();
        drop(state);
        self.0.changed.notify_all();
        slips.iter().for_each(|slip| slip.abandon());
        // After a shutdown, its caller knows.
        if let (Some(unsent), false) = (unsent, told) {
            event!(warn, "dropped with invalidations that the remote tier has not acknowledged: {unsent}");
        }
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Outbox").field(&self.health()).finish()
    }
}

impl Shared {
    fn owe(self: &Arc<Self>, subject: Subject, others: Vec<Arc<Slip>>) -> Arc<Slip> {
        let mut slips = others.clone();
        let mut state = self.state.lock();
        let escalations = state.debts.escalations;
        let slip = state.debts.owe(subject, others, now());
        let escalated = state.debts.escalations > escalations;
        self.count(&state);
        let start = !state.stopped && !std::mem::replace(&mut state.running, true);
        let stopped = state.stopped;
        drop(state);
        if escalated {
            event!(warn, "{MAX_DEBTS} changes wait for the remote tier: they become one, of the whole namespace");
        }
        if stopped {
            slips.push(slip.clone());
            slips.iter().for_each(|slip| slip.abandon());
        } else if start {
            self.start();
        } else {
            self.changed.notify_all();
        }
        slip
    }

    /// Starts the thread. Its place is taken already.
    fn start(self: &Arc<Self>) {
        let shared = self.clone();
        if let Err(error) = thread::Builder::new().name("larder-outbox".to_owned()).spawn(move || shared.work()) {
            // The next debt tries again.
            event!(error, "no thread could be started that sends invalidations again: {error}");
            self.state.lock().running = false;
            self.changed.notify_all();
        }
    }

    /// Notes the number of debts for those who do not take the lock. Called under it.
    fn count(&self, state: &State) {
        // Release pairs with the Acquire in `Outbox::owed`.
        self.owed.store(state.debts.len(), Ordering::Release);
    }

    /// The thread.
    fn work(&self) {
        let mut backoff = Backoff::new();
        let mut not_before = now();
        let mut reminder = Reminder::default();
        while self.wait_for_debts(&mut backoff, not_before) {
            // A store, or a listener of entries that a bump removes, may panic; that must not be the end of all retries.
            let paid = guarded(|| block_on(self.pay())).unwrap_or_else(|| self.panicked());
            reminder.look_at(&self.state, now());
            not_before = now();
            if paid.is_empty() {
                not_before += backoff.pause();
            } else {
                backoff = Backoff::new();
            }
        }
    }

    /// Waits for something to send, and for the end of a pause. Returns `false` when the thread is to end; that is noted
    /// under the lock, so that the next debt either finds the thread waiting or starts another.
    fn wait_for_debts(&self, backoff: &mut Backoff, not_before: Instant) -> bool {
        let idle_until = now() + LINGER;
        let mut state = self.state.lock();
        loop {
            let nothing_owed = state.debts.is_empty();
            let until = if nothing_owed { idle_until } else { not_before };
            let hurry = std::mem::take(&mut state.hurry);
            if hurry {
                *backoff = Backoff::new();
            }
            let due = hurry || now() >= until;
            if state.stopped || (due && nothing_owed) {
                state.running = false;
                return false;
            }
            if due {
                return true;
            }
            self.changed.wait_until(&mut state, until);
        }
    }

    fn panicked(&self) -> Vec<Subject> {
        event!(error, "sending invalidations again panicked; it is tried again");
        let error = RemoteError::new(RemoteErrorKind::Protocol, "the remote tier, or a listener, panicked");
        self.state.lock().last_error = Some(error);
        Vec::new()
    }

    /// Sends a part of what is owed, and returns what the store has acknowledged of it.
    async fn pay(&self) -> Vec<Subject> {
        let due = self.state.lock().debts.due();
        let is_bump = |debt: &Debt| matches!(debt.subject, Subject::Group(..));
        let (bumps, deletions): (Vec<Debt>, Vec<Debt>) = due.into_iter().partition(is_bump);
        let (mut paid, mut error) = (Vec::new(), None);
        if !bumps.is_empty() {
            match self.bump(&bumps).await {
                Ok(()) => paid = bumps,
                Err(failure) => error = Some(failure),
            }
        }
        // Although the bumps may have failed: one that cannot be paid must not hold up what can.
        if !deletions.is_empty() {
            let (deleted, failure) = self.delete(deletions).await;
            paid.extend(deleted);
            error = error.or(failure);
        }
        let subjects: Vec<Subject> = paid.iter().map(|debt| debt.subject.clone()).collect();
        if !subjects.is_empty() {
            (self.on_paid)(&subjects);
        }
        let mut state = self.state.lock();
        let settled = state.debts.settle(&paid);
        state.last_error = error.or(state.last_error.take());
        self.count(&state);
        state.settling += 1;
        drop(state);
        settled.iter().for_each(|slip| slip.settle());
        // A shutdown waits for this, so that every receipt agrees with what it returns.
        self.state.lock().settling -= 1;
        self.changed.notify_all();
        subjects
    }

    /// Gives groups new tokens, fresh ones for every attempt (R3), between two entries in the journal (R2).
    async fn bump(&self, bumps: &[Debt]) -> Result<(), RemoteError> {
        let tokens: Vec<WireKey> = bumps.iter().filter_map(|debt| self.token_key(&debt.subject)).collect();
        let entries: Vec<Entry> = bumps.iter().map(|debt| self.entry(&debt.subject)).collect();
        let journal = self.keys.journal();
        announce::bump(&self.batcher, Caller::Thread, &journal, &tokens, new_token, &entries).await.map(drop)
    }

    /// Deletes items, then announces those that are gone (R1). Returns the debts that are paid by that, and why the others
    /// are not.
    async fn delete(&self, debts: Vec<Debt>) -> (Vec<Debt>, Option<RemoteError>) {
        let key = |debt: &Debt| match &debt.subject {
            Subject::Item { key, .. } => Some(Request::delete(key.clone(), None)),
            Subject::Group(..) => None,
        };
        let replies = self.batcher.run(Caller::Thread, debts.iter().filter_map(key).collect::<Requests>()).await;
        let (mut deleted, mut failure) = (Vec::new(), None);
        for (debt, reply) in debts.into_iter().zip(replies) {
            match reply {
                Ok(Reply::Done | Reply::Miss) => deleted.push(debt),
                Ok(other) => failure = Some(unexpected(&other)),
                Err(error) => failure = Some(error),
            }
        }
        let entries: Vec<Entry> = deleted.iter().map(|debt| self.entry(&debt.subject)).collect();
        if !entries.is_empty()
            && let Err(error) = announce::append(&self.batcher, Caller::Thread, &self.keys.journal(), &entries).await
        {
            return (Vec::new(), Some(error));
        }
        (deleted, failure)
    }

    fn token_key(&self, subject: &Subject) -> Option<WireKey> {
        match *subject {
            Subject::Item { .. } => None,
            Subject::Group(group, bump) => Some(self.keys.token(group, bump)),
        }
    }

    /// Returns what the journal says of a debt that is paid.
    fn entry(&self, subject: &Subject) -> Entry {
        let moved = match *subject {
            // What other processes have is out of date, and what the heir has is not.
            Subject::Item { fingerprint, heir: Some(heir), .. } => {
                return Entry { moved: Moved::KeyInsert(fingerprint), sender: heir };
            }
            Subject::Item { fingerprint, heir: None, .. } => Moved::KeyRemove(fingerprint),
            Subject::Group(ROOT_GROUP, Bump::Kill) => Moved::All,
            Subject::Group(group, Bump::Kill) => Moved::GroupHard(group),
            Subject::Group(group, Bump::Expire) => Moved::GroupSoft(group),
        };
        Entry { moved, sender: self.sender }
    }

    fn shutdown(self: &Arc<Self>, limit: Duration) -> Result<(), Unsent> {
        let deadline = now().checked_add(limit);
        let mut state = self.state.lock();
        state.stopped = false;
        if !state.debts.is_empty() {
            state.hurry = true;
            if !std::mem::replace(&mut state.running, true) {
                drop(state);
                self.start();
                state = self.state.lock();
            }
        }
        self.changed.notify_all();
        // No thread: none could be started, or another shutdown has run out of time.
        while (!state.debts.is_empty() || state.settling > 0) && state.running && !state.stopped {
            match deadline {
                Some(deadline) if self.changed.wait_until(&mut state, deadline).timed_out() => break,
                Some(_) => {}
                None => self.changed.wait(&mut state),
            }
        }
        state.stopped = true;
        let unsent = state.unsent();
        let slips = state.debts.slips();
        drop(state);
        self.changed.notify_all();
        slips.iter().for_each(|slip| slip.abandon());
        unsent.map_or(Ok(()), Err)
    }
}

impl State {
    fn unsent(&self) -> Option<Unsent> {
        let (deletions, bumps) = (self.debts.deletions(), self.debts.bumps());
        (deletions + bumps > 0).then(|| Unsent { deletions, bumps, writes: 0, error: self.last_error.clone() })
    }
}

fn unexpected(reply: &Reply) -> RemoteError {
    RemoteError::new(RemoteErrorKind::Protocol, format!("the store answered a deletion with {reply:?}"))
}

/// What did not reach the remote tier before the time was up.
///
/// The old values that it concerns stay in the remote tier, for other processes to find, and for this program when it runs
/// again: until their deadlines, or until somebody invalidates them once more.
#[derive(Clone, Debug)]
pub struct Unsent {
    deletions: usize,
    bumps: usize,
    writes: usize,
    error: Option<RemoteError>,
}

impl Unsent {
    /// Adds `writes` that waited in a queue to `unsent`; `None` if there is nothing of either.
    pub(crate) fn with_writes(unsent: Option<Unsent>, writes: usize, error: Option<RemoteError>) -> Option<Unsent> {
        match unsent {
            None if writes == 0 => None,
            None => Some(Unsent { deletions: 0, bumps: 0, writes, error }),
            Some(unsent) => Some(Unsent { writes: unsent.writes + writes, error: unsent.error.or(error), ..unsent }),
        }
    }

    /// Returns how many items were not deleted.
    #[must_use]
    pub fn deletions(&self) -> usize {
        self.deletions
    }

    /// Returns how many invalidations of groups were not acknowledged; one of the whole namespace may stand for very many.
    #[must_use]
    pub fn bumps(&self) -> usize {
        self.bumps
    }

    /// Returns how many writes still waited in the queue.
    #[must_use]
    pub fn writes(&self) -> usize {
        self.writes
    }

    /// Returns why the last attempt to send failed; `None` if none has failed, and the time was too short.
    #[must_use]
    pub fn error(&self) -> Option<&RemoteError> {
        self.error.as_ref()
    }
}

impl fmt::Display for Unsent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Unsent { deletions, bumps, writes, error } = self;
        write!(f, "{deletions} deletions, {bumps} invalidations of groups and {writes} queued writes were not sent")?;
        error.as_ref().map_or(Ok(()), |error| write!(f, "; the last error: {error}"))
    }
}

impl Error for Unsent {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.as_ref().map(|error| error as &(dyn Error + 'static))
    }
}

/// Tells of debts that are old.
#[derive(Default)]
struct Reminder {
    told: Option<Instant>,
}

/// What a reminder has told of.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Waiting,
    Done,
}

impl Reminder {
    /// Tells how it stands, if somebody should know.
    fn look_at(&mut self, state: &Mutex<State>, now: Instant) -> Option<Told> {
        let guard = state.lock();
        let (owed, oldest, error) = (guard.debts.len(), guard.debts.oldest(), guard.last_error.clone());
        drop(guard);
        if owed == 0 {
            self.told.take()?;
            event!(info, "nothing waits for the remote tier any more");
            return Some(Told::Done);
        }
        let age = oldest.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        let is_new = self.told.is_none_or(|told| now.saturating_duration_since(told) >= REMIND_EVERY);
        if age < STAYS_PENDING || !is_new {
            return None;
        }
        self.told = Some(now);
        let why = error.map_or_else(String::new, |error| format!(": {error}"));
        event!(warn, [owed = owed], "{owed} changes wait for the remote tier, the oldest for {age:.1?}{why}");
        Some(Told::Waiting)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::broadcast::debts::{EVERYTHING, MAX_DEBTS};
    use crate::broadcast::journal::Journal;
    use crate::broadcast::slip::{Standing, settled};
    use crate::clock::{Clock, Deadline};
    use crate::remote::in_memory::InMemoryRemote;
    use crate::remote::tier::{Action, Command, Expiry, RemoteTier, Route, SetMode};
    use crate::sync::{OnceLock, Weak};

    /// How long a test waits for what another thread is about to do, before it fails.
    const PATIENCE: Duration = Duration::from_secs(30);

    const SENDER: u64 = 7;
    const GROUP: Subject = Subject::Group(5, Bump::Kill);

    fn keys() -> Keyspace {
        Keyspace::new("app", "").unwrap()
    }

    fn wire_key(key: usize) -> WireKey {
        WireKey::new(format!("k{key}")).unwrap()
    }

    fn item(key: usize) -> Subject {
        Subject::Item { key: wire_key(key), fingerprint: key as u64, heir: None }
    }

    fn outbox_on(tier: Arc<dyn RemoteTier>, on_paid: impl Fn(&[Subject]) + Send + Sync + 'static) -> Outbox {
        Outbox::new(Arc::new(Batcher::new(tier, Duration::from_secs(1))), keys(), SENDER, on_paid)
    }

    fn outbox(remote: &InMemoryRemote) -> Outbox {
        outbox_on(Arc::new(remote.clone()), |_| {})
    }

    /// An outbox whose debts nobody pays but the test.
    fn outbox_without_thread(remote: &InMemoryRemote, on_paid: impl Fn(&[Subject]) + Send + Sync + 'static) -> Outbox {
        let outbox = outbox_on(Arc::new(remote.clone()), on_paid);
        outbox.0.state.lock().stopped = true;
        outbox
    }

    fn pay(outbox: &Outbox) -> Vec<Subject> {
        block_on(outbox.0.pay())
    }

    fn settles(slips: &[Arc<Slip>]) -> Option<bool> {
        let clock = Clock::system();
        clock.block_on(settled(slips), Deadline::after(clock.now(), PATIENCE))
    }

    fn eventually(condition: impl Fn() -> bool) {
        let deadline = now() + PATIENCE;
        while !condition() {
            assert!(now() < deadline, "it has not come to pass");
            thread::yield_now();
        }
    }

    fn read(remote: &InMemoryRemote, key: &WireKey) -> Option<Vec<u8>> {
        let action = Action::Get { value: true, lease: None, touch: None };
        match remote.run(&[Command { key, route: Route::Control, action }], PATIENCE).pop() {
            Some(Ok(Reply::Hit(item))) => Some(item.value.into()),
            _ => None,
        }
    }

    fn store(remote: &InMemoryRemote, key: &WireKey) {
        let action = Action::Set { value: b"old", expiry: Expiry::Never, mode: SetMode::Always, cas: None };
        assert!(matches!(remote.run(&[Command { key, route: Route::ByKey, action }], PATIENCE)[..], [Ok(Reply::Done)]));
    }

    /// Returns what the journal says from its first entry on.
    fn announced(remote: &InMemoryRemote) -> Vec<Moved> {
        let Some(bytes) = read(remote, &keys().journal()) else { return Vec::new() };
        let journal = Journal::decode(&bytes).unwrap();
        let entries = journal.since(journal.epoch(), 0).unwrap().map(Result::unwrap);
        entries.inspect(|entry| assert_eq!(entry.sender, SENDER)).map(|entry| entry.moved).collect()
    }

    #[test]
    fn what_could_not_be_sent_is_sent_after_the_outage() {
        let remote = InMemoryRemote::new();
        store(&remote, &wire_key(1));
        remote.offline(true);
        let outbox = outbox(&remote);
        let slips = [outbox.owe(item(1)), outbox.owe(GROUP), outbox.owe(Subject::Group(6, Bump::Expire))];
        assert!(outbox.owes_item(&wire_key(1)) && outbox.owes_group(5, Bump::Kill) && !outbox.owes_item(&wire_key(2)));
        eventually(|| outbox.health().last_error.is_some());
        let health = outbox.health();
        assert_eq!((health.deletions, health.bumps, outbox.owed()), (1, 2, 3));
        assert!(health.oldest.is_some() && health.last_error.unwrap().to_string().contains("offline"));
        remote.offline(false);
        assert_eq!(settles(&slips), Some(true));
        assert!(outbox.owed() == 0 && !outbox.owes_item(&wire_key(1)) && !outbox.owes_group(5, Bump::Kill));
        assert_eq!(read(&remote, &wire_key(1)), None);
        assert_eq!(read(&remote, &keys().group_hard(5)).unwrap().len(), 8);
        assert_eq!(read(&remote, &keys().group_soft(6)).unwrap().len(), 8);
        let announced = announced(&remote);
        assert!(announced.contains(&Moved::KeyRemove(1)) && announced.contains(&Moved::GroupSoft(6)));
    }

    #[test]
    fn what_could_not_be_sent_is_sent_to_a_store_that_has_restarted() {
        let remote = InMemoryRemote::new();
        let outbox = outbox(&remote);
        assert_eq!(settles(&[outbox.owe(GROUP)]), Some(true));
        let old = read(&remote, &keys().group_hard(5));
        remote.offline(true);
        let slips = [outbox.owe(GROUP), outbox.owe(item(1))];
        remote.restart();
        remote.offline(false);
        assert_eq!(settles(&slips), Some(true));
        let new = read(&remote, &keys().group_hard(5));
        assert!(new.is_some() && new != old);
        assert!(announced(&remote).contains(&Moved::GroupHard(5)));
    }

    #[test]
    fn a_lost_reply_is_no_acknowledgement_and_each_send_has_a_token_of_its_own() {
        let remote = InMemoryRemote::new();
        let outbox = outbox_without_thread(&remote, |_| {});
        outbox.owe(GROUP);
        // A first one makes the journal, so that the next one is carried out as it stands.
        assert_eq!(pay(&outbox), [GROUP]);
        outbox.owe(GROUP);
        remote.lose_replies(100);
        assert!(pay(&outbox).is_empty() && outbox.owes_group(5, Bump::Kill));
        assert!(outbox.health().last_error.is_some());
        remote.lose_replies(0);
        let sent = read(&remote, &keys().group_hard(5)).unwrap();
        assert_eq!(pay(&outbox), [GROUP]);
        assert_ne!(read(&remote, &keys().group_hard(5)).unwrap(), sent);
        assert_eq!(outbox.owed(), 0);
    }

    #[test]
    fn a_deletion_counts_only_once_it_is_announced() {
        let remote = InMemoryRemote::new();
        let outbox = outbox_without_thread(&remote, |_| {});
        store(&remote, &wire_key(1));
        outbox.owe(item(1));
        // The deletion is carried out. Of the journal, neither the append nor anything after it gets an answer.
        struct OnlyDeletions(InMemoryRemote);
        impl RemoteTier for OnlyDeletions {
            fn run(&self, batch: &[Command<'_>], timeout: Duration) -> Vec<Result<Reply, RemoteError>> {
                let deletes = batch.iter().all(|command| matches!(command.action, Action::Delete { .. }));
                self.0.offline(!deletes);
                self.0.run(batch, timeout)
            }
            fn max_value_len(&self) -> usize {
                self.0.max_value_len()
            }
        }
        let halved = outbox_on(Arc::new(OnlyDeletions(remote.clone())), |_| panic!("nothing is paid"));
        halved.0.state.lock().stopped = true;
        halved.owe(item(1));
        assert!(pay(&halved).is_empty() && halved.owes_item(&wire_key(1)));
        remote.offline(false);
        assert_eq!((read(&remote, &wire_key(1)), announced(&remote)), (None, vec![]));
        assert_eq!(pay(&outbox), [item(1)]);
        assert_eq!(announced(&remote), [Moved::KeyRemove(1)]);
    }

    #[test]
    fn too_many_debts_are_paid_by_one_bump_of_everything() {
        let remote = InMemoryRemote::new();
        remote.offline(true);
        let outbox = outbox(&remote);
        let slips: Vec<_> = (0..MAX_DEBTS + 10).map(|key| outbox.owe(item(key))).collect();
        assert_eq!(outbox.health().escalations, 1);
        assert!(outbox.owed() <= 10 && outbox.owes_group(123, Bump::Expire));
        remote.offline(false);
        assert_eq!(settles(&slips), Some(true));
        assert!(read(&remote, &keys().group_hard(ROOT_GROUP)).is_some());
        assert!(announced(&remote).contains(&Moved::All));
    }

    #[test]
    fn what_is_owed_again_while_it_is_being_paid_is_not_settled_by_the_old_send() {
        let remote = InMemoryRemote::new();
        let again: Arc<Mutex<Option<Arc<Slip>>>> = Arc::default();
        let this: Arc<OnceLock<Weak<Shared>>> = Arc::default();
        let outbox = outbox_without_thread(&remote, {
            let (again, this) = (again.clone(), this.clone());
            move |subjects| {
                // After the acknowledgement, before the settlement.
                if again.lock().is_none() {
                    let slip = this.get().unwrap().upgrade().unwrap().owe(subjects[0].clone(), Vec::new());
                    *again.lock() = Some(slip);
                }
            }
        });
        this.set(Arc::downgrade(&outbox.0)).unwrap();
        outbox.owe(GROUP);
        assert_eq!(pay(&outbox), [GROUP]);
        let again = again.lock().take().unwrap();
        assert!(outbox.owes_group(5, Bump::Kill) && again.standing() != Standing::Settled);
    }

    #[test]
    fn the_owner_hears_of_what_is_paid_while_it_still_counts_as_owed() {
        let remote = InMemoryRemote::new();
        let (heard, hears) = mpsc::channel();
        let this: Arc<OnceLock<Weak<Shared>>> = Arc::default();
        let outbox = outbox_without_thread(&remote, {
            let this = this.clone();
            move |subjects| {
                let shared = this.get().unwrap().upgrade().unwrap();
                heard.send((subjects.to_vec(), shared.owed.load(Ordering::Acquire))).unwrap();
            }
        });
        this.set(Arc::downgrade(&outbox.0)).unwrap();
        outbox.owe(GROUP);
        outbox.owe(item(1));
        remote.fail_next(100);
        assert!(pay(&outbox).is_empty() && hears.try_recv().is_err());
        remote.fail_next(0);
        assert_eq!(pay(&outbox).len(), 2);
        assert_eq!(hears.recv().unwrap(), (vec![GROUP, item(1)], 2));
        assert_eq!(outbox.owed(), 0);
    }

    #[test]
    fn an_owner_that_panics_does_not_end_the_retries() {
        let remote = InMemoryRemote::new();
        let panicked = AtomicUsize::new(0);
        let outbox = outbox_on(Arc::new(remote), move |_| {
            assert!(panicked.fetch_add(1, Ordering::Relaxed) > 0, "the first time");
        });
        assert_eq!(settles(&[outbox.owe(GROUP)]), Some(true));
        assert!(outbox.health().last_error.unwrap().to_string().contains("panicked"));
    }

    #[test]
    fn a_shutdown_sends_what_is_owed() {
        let remote = InMemoryRemote::new();
        remote.offline(true);
        let outbox = outbox(&remote);
        let slips: Vec<_> = (0..200).map(|key| outbox.owe(item(key))).collect();
        thread::scope(|scope| {
            let shutdown = scope.spawn(|| outbox.shutdown(PATIENCE));
            remote.offline(false);
            assert!(shutdown.join().unwrap().is_ok());
        });
        assert!(slips.iter().all(|slip| slip.standing() == Standing::Settled));
        assert!(outbox.shutdown(Duration::ZERO).is_ok());
    }

    #[test]
    fn a_shutdown_that_is_too_short_says_what_is_left_and_the_next_one_sends_it() {
        let remote = InMemoryRemote::new();
        remote.offline(true);
        let outbox = outbox(&remote);
        let slip = outbox.owe(item(1));
        outbox.owe(GROUP);
        eventually(|| outbox.health().last_error.is_some());
        let unsent = outbox.shutdown(Duration::ZERO).unwrap_err();
        assert_eq!((unsent.deletions(), unsent.bumps(), unsent.writes()), (1, 1, 0));
        assert!(unsent.to_string().contains("offline"), "{unsent}");
        assert_eq!(settles(std::slice::from_ref(&slip)), Some(false));
        // From here on, debts are noted and wait for nobody.
        let late = outbox.owe(item(2));
        assert!(settles(&[late]) == Some(false) && outbox.owes_item(&wire_key(2)));
        remote.offline(false);
        assert!(outbox.shutdown(PATIENCE).is_ok());
        assert_eq!((slip.standing(), outbox.owed()), (Standing::Settled, 0));
    }

    /// A store that holds every exchange until the test lets go of it.
    struct Stuck {
        entered: Mutex<mpsc::Sender<()>>,
        released: Mutex<mpsc::Receiver<()>>,
    }

    impl RemoteTier for Stuck {
        fn run(&self, batch: &[Command<'_>], _timeout: Duration) -> Vec<Result<Reply, RemoteError>> {
            self.entered.lock().send(()).unwrap();
            assert!(self.released.lock().recv().is_err());
            batch.iter().map(|_| Err(RemoteError::new(RemoteErrorKind::TimedOut, "stuck"))).collect()
        }
        fn max_value_len(&self) -> usize {
            1 << 20
        }
    }

    #[test]
    fn dropping_it_waits_for_nothing_and_ends_the_thread() {
        let ((entered, enters), (release, released)) = (mpsc::channel(), mpsc::channel());
        let tier = Arc::new(Stuck { entered: Mutex::new(entered), released: Mutex::new(released) });
        let outbox = outbox_on(tier.clone(), |_| {});
        let slip = outbox.owe(GROUP);
        enters.recv().unwrap();
        drop(outbox);
        assert_eq!(settles(&[slip]), Some(false));
        drop(release);
        eventually(|| Arc::strong_count(&tier) == 1);
    }

    #[test]
    fn a_shutdown_does_not_wait_for_an_exchange_that_is_stuck() {
        let ((entered, enters), (release, released)) = (mpsc::channel(), mpsc::channel());
        let tier = Arc::new(Stuck { entered: Mutex::new(entered), released: Mutex::new(released) });
        let outbox = outbox_on(tier.clone(), |_| {});
        outbox.owe(GROUP);
        enters.recv().unwrap();
        assert_eq!(outbox.shutdown(Duration::from_millis(1)).unwrap_err().bumps(), 1);
        drop((release, outbox));
        eventually(|| Arc::strong_count(&tier) == 1);
    }

    #[test]
    fn a_bump_of_everything_is_sent_alone_and_settles_the_rest() {
        let remote = InMemoryRemote::new();
        let outbox = outbox_without_thread(&remote, |_| {});
        outbox.owe(item(1));
        outbox.owe(EVERYTHING);
        assert_eq!(pay(&outbox), [EVERYTHING]);
        assert_eq!(outbox.owed(), 0);
        assert!(announced(&remote).iter().all(|moved| *moved == Moved::All));
    }

    #[test]
    fn queued_writes_are_counted_with_what_else_was_not_sent() {
        assert!(Unsent::with_writes(None, 0, None).is_none());
        let writes = Unsent::with_writes(None, 3, None).unwrap();
        assert_eq!((writes.deletions(), writes.bumps(), writes.writes()), (0, 0, 3));
        let all = Unsent::with_writes(Some(Unsent { deletions: 1, bumps: 2, ..writes }), 4, None).unwrap();
        assert_eq!((all.deletions(), all.bumps(), all.writes(), all.error().is_none()), (1, 2, 7, true));
    }

    /// By what its health says, since a test does not wait for what takes minutes.
    #[test]
    fn old_debts_are_told_of_once_in_a_while_and_so_is_their_end() {
        let outbox = outbox_without_thread(&InMemoryRemote::new(), |_| {});
        let state = &outbox.0.state;
        let mut reminder = Reminder::default();
        let started = now();
        assert_eq!(reminder.look_at(state, started), None);
        drop(outbox.owe(GROUP));
        assert_eq!(reminder.look_at(state, started + STAYS_PENDING / 2), None);
        assert_eq!(reminder.look_at(state, started + 2 * STAYS_PENDING), Some(Told::Waiting));
        assert_eq!(reminder.look_at(state, started + 3 * STAYS_PENDING), None);
        assert_eq!(reminder.look_at(state, started + 2 * STAYS_PENDING + REMIND_EVERY), Some(Told::Waiting));
        assert_eq!(pay(&outbox), [GROUP]);
        assert_eq!(reminder.look_at(state, started + 4 * REMIND_EVERY), Some(Told::Done));
        assert_eq!(reminder.look_at(state, started + 8 * REMIND_EVERY), None);
    }
}
