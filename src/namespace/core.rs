//! What the caches of one namespace share: the way to the store, the truth about groups, and how news come and go.

use super::leases::Leases;
use super::settings::{LostTrust, Settings, WriteMode};
use crate::broadcast::announce;
use crate::broadcast::behind::{Behind, Shade};
use crate::broadcast::debts::Subject;
use crate::broadcast::follower::{Digest, Follower, Lost, Moves, News};
use crate::broadcast::journal::{Entry, Moved, part_of};
use crate::broadcast::outbox::Outbox;
use crate::broadcast::poller::{self, Source};
use crate::broadcast::slip::Slip;
use crate::broadcast::trust::Trust;
use crate::clock::{Clock, Deadline};
use crate::group::{Bump, Groups};
use crate::remote::batch::{Answers, Batcher, Caller};
use crate::remote::envelope::GroupTokens;
use crate::remote::error::RemoteError;
use crate::remote::key::WireKey;
use crate::remote::keyspace::{Keyspace, ROOT_GROUP};
use crate::remote::request::{Request, Requests};
use crate::remote::tier::Reply;
use crate::remote::tokens::{self, KnownTokens, TokenTable, Tokens};
use crate::remote::unexpected;
use crate::sync::{Arc, AtomicBool, AtomicU64, Mutex, Ordering, Weak};
use crate::watch::{Limit, event};

/// How many groups are bumped with one exchange: their entries leave room in the journal for those of others.
const GROUPS_PER_BUMP: usize = 512;

/// A cache that news are for.
pub(crate) trait Audience: Send + Sync {
    /// Is told what a process, `sender`, has done to a key.
    fn key_moved(&self, moved: Moved, sender: u64);

    /// Is told that a group was bumped, which may be the root of this cache.
    fn group_moved(&self, group: u64, bump: Bump);

    /// Hands its figures to the recorder of metrics.
    #[cfg(feature = "metrics")]
    fn publish(&self);
}

/// What counts as an answer at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// What is in the local tier.
    Trusted,
    /// What the store says, and what a load of this process has brought within the time of the trust lease.
    Lapsed,
    /// The latter alone: the store cannot be asked.
    CutOff,
    /// Nothing.
    Refused,
}

/// Why the store has not done what the local tier has, and what it owes for that.
#[derive(Debug)]
pub(crate) struct Owed {
    pub(crate) error: RemoteError,
    pub(crate) slips: Vec<Arc<Slip>>,
}

/// What a namespace is, beside the handles to it.
pub(crate) struct Core {
    pub(crate) batcher: Arc<Batcher>,
    pub(crate) keys: Keyspace,
    pub(crate) groups: Groups,
    pub(crate) clock: Clock,
    pub(crate) known: KnownTokens,
    pub(crate) outbox: Arc<Outbox>,
    /// Writes that wait, where writes may.
    pub(crate) behind: Option<Behind>,
    pub(crate) leases: Arc<Leases>,
    pub(crate) settings: Settings,
    pub(crate) trust: Trust,
    journal: WireKey,
    follower: Follower,
    /// Whether the first look at the journal has been heard.
    has_looked: AtomicBool,
    /// Held while one is, of several that were under way together.
    hearing_first: Mutex<()>,
    audience: Mutex<Vec<Weak<dyn Audience>>>,
    /// Who this process is in the journal, as far as groups go; caches have numbers of their own.
    sender: u64,
    /// How many caches were given a number.
    caches: AtomicU64,
    resyncs: AtomicU64,
    failed_looks: AtomicU64,
    /// Whether the trust lease held when that was last told of.
    was_trusted: AtomicBool,
    /// Bounds how often resyncs are told of.
    losses: Limit,
}

impl Core {
    pub(crate) fn new(
        batcher: Arc<Batcher>,
        keys: Keyspace,
        groups: Groups,
        clock: Clock,
        settings: Settings,
    ) -> Arc<Core> {
        let sender = part_of(u64::from_le_bytes(tokens::new_token()), 0);
        Arc::new_cyclic(|core: &Weak<Core>| {
            let core = core.clone();
            let on_paid = move |subjects: &[Subject]| {
                if let Some(core) = core.upgrade() {
                    core.paid(subjects);
                }
            };
            let outbox = Arc::new(Outbox::new(batcher.clone(), keys.clone(), sender, on_paid));
            let behind = match settings.write_mode {
                WriteMode::Through => None,
                WriteMode::Behind { queue } => Some(Behind::new(queue, outbox.clone())),
            };
            Core {
                leases: Arc::new(Leases::new(batcher.clone(), clock.clone())),
                outbox,
                behind,
                trust: Trust::new(clock.clone(), settings.trust),
                journal: keys.journal(),
                follower: Follower::new(sender),
                has_looked: AtomicBool::new(false),
                hearing_first: Mutex::default(),
                audience: Mutex::default(),
                known: KnownTokens::default(),
                resyncs: AtomicU64::new(0),
                failed_looks: AtomicU64::new(0),
                was_trusted: AtomicBool::new(true),
                losses: Limit::default(),
                batcher,
                keys,
                groups,
                clock,
                settings,
                sender,
                caches: AtomicU64::new(0),
            }
        })
    }

    /// Adds a cache to those that are told what moves, for as long as it lives.
    pub(crate) fn join(&self, cache: Weak<dyn Audience>) {
        let mut audience = self.audience.lock();
        audience.retain(|cache| cache.strong_count() > 0);
        audience.push(cache);
    }

    /// Returns who another cache of this process is in the journal.
    pub(crate) fn next_sender(&self) -> u64 {
        part_of(self.sender, self.caches.fetch_add(1, Ordering::Relaxed) + 1)
    }

    pub(crate) fn resyncs(&self) -> u64 {
        self.resyncs.load(Ordering::Relaxed)
    }

    pub(crate) fn failed_looks(&self) -> u64 {
        self.failed_looks.load(Ordering::Relaxed)
    }

    // ---- Requests ----

    pub(crate) fn run(&self, caller: Caller, requests: impl Into<Requests>) -> impl Future<Output = Answers> {
        self.batcher.run(caller, requests)
    }

    pub(crate) async fn run_one(&self, caller: Caller, request: Request) -> Result<Reply, RemoteError> {
        self.run(caller, [request]).await.pop().unwrap_or_else(|| Err(unexpected("to a command: none")))
    }

    // ---- Trust ----

    /// Returns whether the local tier may answer without a question.
    #[inline]
    pub(crate) fn may_serve(&self) -> bool {
        self.trust.holds() || self.settings.on_lost_trust == LostTrust::ServeStale && self.has_tried()
    }

    /// Returns whether the journal has been looked at, or cannot be. What begins before the first look would be void with it.
    fn has_tried(&self) -> bool {
        // Acquire pairs with the Release in `hear`, so that what that voids is voided already.
        self.has_looked.load(Ordering::Acquire) || self.failed_looks.load(Ordering::Relaxed) > 0
    }

    /// Looks at the journal, if nobody has yet: the first look voids what there was before it.
    pub(crate) async fn meet(&self, caller: Caller) {
        // Acquire pairs with the Release in `hear`, so that what that voids is voided already.
        if !self.has_looked.load(Ordering::Acquire) {
            drop(self.look(caller).await);
        }
    }

    /// Returns what counts as an answer now. Where the trust lease is over, looks at the journal to have it again.
    pub(crate) async fn standing(&self, caller: Caller) -> Standing {
        if self.may_serve() {
            return Standing::Trusted;
        }
        let looked = self.look(caller).await;
        if self.trust.holds() {
            return Standing::Trusted;
        }
        match (self.settings.on_lost_trust, looked) {
            (LostTrust::Refuse, _) => Standing::Refused,
            // Values are judged by tokens, which are where the journal is.
            (LostTrust::Revalidate | LostTrust::ServeStale, Err(_)) => Standing::CutOff,
            // It took longer than the trust lease lasts.
            (LostTrust::Revalidate | LostTrust::ServeStale, Ok(())) => Standing::Lapsed,
        }
    }

    // ---- The journal ----

    /// Looks at the journal and does what it says.
    ///
    /// # Errors
    /// Why it could not be read.
    pub(crate) async fn look(&self, caller: Caller) -> Result<(), RemoteError> {
        // Once more where another thread was heard first: what that has read may be older than this call.
        while !self.hear(self.counted(self.source(&self.batcher, caller).look().await)?) {}
        Ok(())
    }

    /// Counts a look at the journal that failed.
    fn counted<T>(&self, looked: Result<T, RemoteError>) -> Result<T, RemoteError> {
        if looked.is_err() {
            self.failed_looks.fetch_add(1, Ordering::Relaxed);
            self.tell_of_trust();
        }
        looked
    }

    /// Looks at the journal on the thread that does nothing else, and shortens it when it is this process's turn.
    pub(crate) async fn look_by(&self, batcher: &Batcher) -> Result<(), RemoteError> {
        let news = self.counted(self.source(batcher, Caller::Thread).look().await)?;
        let crowded = news.crowded();
        self.hear(news);
        if crowded {
            // Last, since the news cannot wait, and this can.
            announce::compact(batcher, Caller::Thread, &self.journal).await?;
        }
        Ok(())
    }

    /// Returns the journal as a caller reaches it.
    fn source<'a>(&'a self, batcher: &'a Batcher, caller: Caller) -> Source<'a> {
        Source { batcher, caller, journal: &self.journal, follower: &self.follower, clock: &self.clock }
    }

    /// Does what the journal says: only then does this process count as having heard it, and only then is it trusted. Returns
    /// whether it was done: of threads that look for the first time together one is heard, and the others have to look again,
    /// since another time would void what has begun since.
    fn hear(&self, news: News) -> bool {
        // Until the position is adopted, which whoever comes second goes on from. Nothing foreign runs under it: a first look
        // applies no entries.
        let first = news.is_first().then(|| self.hearing_first.lock());
        if first.is_some() && self.has_looked.load(Ordering::Relaxed) {
            return false;
        }
        let mut lost = None;
        match news.moved() {
            Moves::Nothing => {}
            Moves::Entries(entries) => entries.iter().for_each(|entry| self.apply(entry)),
            Moves::Lost(why) => {
                self.resyncs.fetch_add(1, Ordering::Relaxed);
                self.groups.clear();
                self.known.forget_all();
                lost = Some((*why, news.is_first()));
            }
        }
        // After what it says was done. Release pairs with the Acquire in `has_tried` and `meet`.
        self.has_looked.store(true, Ordering::Release);
        self.follower.adopt(news, &self.trust);
        drop(first);
        if let Some((why, is_first)) = lost {
            self.tell_of_loss(why, is_first);
        }
        self.tell_of_trust();
        true
    }

    /// Tells that the trust lease is over, or holds again, once each time.
    fn tell_of_trust(&self) {
        let trusted = self.trust.holds();
        // Relaxed: it orders nothing. Threads that look at once may tell of a moment that is over; the next look mends it.
        if self.was_trusted.swap(trusted, Ordering::Relaxed) == trusted {
            return;
        }
        let namespace = self.keys.namespace();
        if trusted {
            event!(info, [namespace = namespace], "the local tiers of {namespace} are trusted again");
        } else {
            let then = self.settings.on_lost_trust;
            event!(
                warn,
                [namespace = namespace],
                "the trust lease of {namespace} is over: the journal was not reached in time, and local tiers follow {then:?}"
            );
        }
    }

    /// Tells that everything local counts as invalidated.
    fn tell_of_loss(&self, why: Lost, is_first: bool) {
        let namespace = self.keys.namespace();
        if is_first {
            event!(debug, [namespace = namespace], "first look at the journal of {namespace}: {why:?}");
        } else if let Some(others) = self.losses.pass() {
            event!(
                warn,
                [namespace = namespace, reason = ::tracing::field::debug(why), others = others.0],
                "everything held locally of {namespace} counts as invalidated: {why}{others}"
            );
        }
    }

    fn apply(&self, entry: &Entry) {
        match entry.moved {
            Moved::All | Moved::GroupHard(ROOT_GROUP) => {
                self.groups.clear();
                self.known.forget_all();
            }
            Moved::GroupHard(group) => self.move_group(group, Bump::Kill),
            Moved::GroupSoft(group) => self.move_group(group, Bump::Expire),
            Moved::KeyInsert(_) | Moved::KeyRemove(_) | Moved::KeyExpire(_) => {
                self.tell(|cache| cache.key_moved(entry.moved, entry.sender));
            }
        }
    }

    /// Calls every cache of this namespace, outside the lock: what they drop may run code of the user's.
    pub(crate) fn tell(&self, tell: impl Fn(&dyn Audience)) {
        let audience: Vec<_> = self.audience.lock().iter().filter_map(Weak::upgrade).collect();
        audience.iter().for_each(|cache| tell(&**cache));
    }

    /// Moves a group in this process.
    fn move_group(&self, group: u64, bump: Bump) {
        // In this order: tokens that are asked for after the group has moved are younger than the move, and what was asked
        // for before is not kept.
        self.groups.bump_hash(group, bump);
        self.tell(|cache| cache.group_moved(group, bump));
        self.known.forget(group);
    }

    /// Appends to the journal that keys have moved.
    pub(crate) async fn announce(&self, caller: Caller, entries: &[Entry]) -> Result<(), RemoteError> {
        if entries.is_empty() {
            return Ok(());
        }
        announce::append(&self.batcher, caller, &self.journal, entries).await
    }

    // ---- Groups ----

    /// Bumps groups, in this process and in the store.
    ///
    /// # Errors
    /// Why the store did not, and what is owed to it now.
    pub(crate) async fn bump(&self, caller: Caller, groups: &[u64], bump: Bump) -> Result<(), Owed> {
        // Before, so that nothing old is served from here on. And after, because a value that was read from the store
        // meanwhile may have been judged by the old token, or have brought it here.
        self.move_groups(groups, bump);
        let mut unacknowledged = Unacknowledged { core: self, groups, bump };
        let mut owed: Option<Owed> = None;
        for part in groups.chunks(GROUPS_PER_BUMP) {
            let bumped = self.bump_remotely(caller, part, bump).await;
            unacknowledged.groups = &unacknowledged.groups[part.len()..];
            if let Err(error) = bumped {
                let slips = self.owe_groups(part, bump);
                owed.get_or_insert_with(|| Owed { error, slips: Vec::new() }).slips.extend(slips);
            }
        }
        self.move_groups(groups, bump);
        owed.map_or(Ok(()), Err)
    }

    async fn bump_remotely(&self, caller: Caller, groups: &[u64], bump: Bump) -> Result<(), RemoteError> {
        let tokens: Vec<WireKey> = groups.iter().map(|&group| self.keys.token(group, bump)).collect();
        let entries: Vec<Entry> = groups.iter().map(|&group| self.news_of(group, bump)).collect();
        let look = self.follower.begin(self.clock.now());
        let journal =
            announce::bump(&self.batcher, caller, &self.journal, &tokens, tokens::new_token, &entries).await?;
        // Its own entries too, now: heard with the next look, they would void what is loaded and written from here on.
        if let Some(Digest::News(news)) = journal.map(|item| self.follower.digest(look, &item)) {
            self.hear(news);
        }
        Ok(())
    }

    fn owe_groups(&self, groups: &[u64], bump: Bump) -> Vec<Arc<Slip>> {
        groups.iter().map(|&group| self.outbox.owe(Subject::Group(group, bump))).collect()
    }

    fn news_of(&self, group: u64, bump: Bump) -> Entry {
        let moved = match (group, bump) {
            (ROOT_GROUP, Bump::Kill) => Moved::All,
            (group, Bump::Kill) => Moved::GroupHard(group),
            (group, Bump::Expire) => Moved::GroupSoft(group),
        };
        Entry { moved, sender: self.sender }
    }

    fn move_groups(&self, groups: &[u64], bump: Bump) {
        groups.iter().for_each(|&group| self.apply(&self.news_of(group, bump)));
    }

    /// Does again in this process what was owed to the store and is done there now.
    pub(crate) fn paid(&self, subjects: &[Subject]) {
        for subject in subjects {
            if let Subject::Group(group, bump) = subject {
                self.move_groups(&[*group], *bump);
            }
        }
    }

    // ---- Tokens ----

    /// Returns the tokens of groups, which are in order, to judge by, as far as they are known and may be used without asking.
    pub(crate) fn tokens_at_hand(&self, groups: &[u64]) -> TokenTable {
        // After the values were read: tokens count like an entry of the local tier.
        if !self.trust.holds() {
            return TokenTable::default();
        }
        // Whether a bump is owed, before its token is looked up: once that is paid, the token from before it is forgotten first.
        let settled = groups.iter().copied().filter(|&group| !self.owes_group(group));
        TokenTable::new(settled.filter_map(|group| self.known.get(group).map(|tokens| (group, tokens.into()))))
    }

    /// Reads the tokens of groups, which are in order, to judge by. One that a bump is owed to counts as missing, so that no
    /// value matches it.
    pub(crate) async fn read_tokens(&self, caller: Caller, groups: &[u64]) -> Result<TokenTable, RemoteError> {
        // Before the read: what is owed now may be paid, by another caller, between the read and the look at its answer.
        let owed: Vec<[bool; 2]> = groups
            .iter()
            .map(|&group| [Bump::Kill, Bump::Expire].map(|bump| self.outbox.owes_group(group, bump)))
            .collect();
        let asked = self.known.ask(groups);
        let mut read = tokens::read(&self.batcher, caller, &self.keys, groups).await?;
        if let Some(complete) = complete(groups, &read) {
            self.known.keep(&asked, &complete);
        }
        for (tokens, [hard, soft]) in read.iter_mut().zip(owed) {
            tokens.hard = tokens.hard.filter(|_| !hard);
            tokens.soft = tokens.soft.filter(|_| !soft);
        }
        Ok(TokenTable::new(groups.iter().copied().zip(read)))
    }

    /// Returns the tokens of groups to record in a value, from the store where they are not known.
    pub(crate) async fn tokens_to_record(
        &self,
        caller: Caller,
        groups: &[u64],
    ) -> Result<Vec<GroupTokens>, RemoteError> {
        let known: Vec<Option<GroupTokens>> = groups.iter().map(|&group| self.known.get(group)).collect();
        let unknown: Vec<u64> =
            groups.iter().zip(&known).filter(|(_, known)| known.is_none()).map(|(g, _)| *g).collect();
        let mut read = self.read_or_add(caller, &unknown, None).await?.0.into_iter();
        Ok(known.into_iter().filter_map(|known| known.or_else(|| read.next())).collect())
    }

    /// Returns the tokens of groups that a load has named after it began, and hears what the journal says after them.
    ///
    /// A bump since the load began either shows in the journal, and then in the generations of this process, or moves the
    /// token after it was read here. The order is what counts: first the tokens, then the journal.
    pub(crate) async fn tokens_of_late(&self, caller: Caller, groups: &[u64]) -> Result<Vec<GroupTokens>, RemoteError> {
        if groups.is_empty() {
            return Ok(Vec::new());
        }
        let look = self.follower.begin(self.clock.now());
        let (tokens, journal) = self.read_or_add(caller, groups, Some(&poller::peek(&self.journal))).await?;
        let unchanged = match &journal {
            Some(Reply::Hit(item)) => self.follower.unchanged(look, item),
            _ => None,
        };
        let news = match unchanged {
            Some(news) => news,
            None => self.source(&self.batcher, caller).read().await?,
        };
        if !self.hear(news) {
            self.look(caller).await?;
        }
        Ok(tokens)
    }

    async fn read_or_add(
        &self,
        caller: Caller,
        groups: &[u64],
        last: Option<&Request>,
    ) -> Result<(Vec<GroupTokens>, Option<Reply>), RemoteError> {
        if groups.is_empty() {
            return Ok((Vec::new(), None));
        }
        let asked = self.known.ask(groups);
        let (read, reply) = tokens::read_or_add(&self.batcher, caller, &self.keys, groups, last).await?;
        self.known.keep(&asked, &read);
        Ok((read, reply))
    }

    fn owes_group(&self, group: u64) -> bool {
        [Bump::Kill, Bump::Expire].iter().any(|&bump| self.outbox.owes_group(group, bump))
    }

    // ---- Items ----

    /// Returns whether what the store holds under `key` is not to be used, because this process has yet to change it.
    pub(crate) fn owes_item(&self, key: &WireKey) -> bool {
        self.outbox.owes_item(key) || self.behind.as_ref().is_some_and(|behind| behind.holds(key))
    }

    /// Owes the store the deletion of an item.
    ///
    /// `heir` is the cache of this process that has a newer value, as the journal calls it: it keeps that when the deletion is
    /// announced.
    pub(crate) fn owe_item(&self, key: &WireKey, fingerprint: u64, heir: Option<u64>) -> Arc<Slip> {
        self.outbox.owe(Subject::Item { key: key.clone(), fingerprint, heir })
    }

    /// Takes what waits to be written under a key out of its queue, for a removal that follows; `None` where nothing does.
    pub(crate) async fn purge(&self, key: &WireKey, fingerprint: u64) -> Option<Superseded<'_>> {
        let mut purged = self.behind.as_ref().filter(|behind| behind.holds(key))?.purge(key);
        let subject = Subject::Item { key: key.clone(), fingerprint, heir: None };
        let slips = std::mem::take(&mut purged.slips);
        let shade = purged.shade.take();
        let mut superseded =
            Superseded { outbox: &self.outbox, subject: Some(subject), slips, is_over: false, _shade: shade };
        // Not for ever: a codec may be stuck, or this be its own removal, or that of a listener on the queue's thread.
        let system = Clock::system();
        let patience = Deadline::after(system.now(), self.batcher.timeout());
        superseded.is_over = system.timeout(purged.over(), patience).await.is_some();
        Some(superseded)
    }

    /// Takes what waits to be written under a key out of its queue, and owes the store the deletion of the item instead; as
    /// [`owe_item`](Self::owe_item).
    pub(crate) fn owe_instead(&self, key: &WireKey, fingerprint: u64, heir: Option<u64>) {
        // Kept until the deletion is owed: at no moment does this process take the old value for good.
        let purged = self.behind.as_ref().map(|behind| behind.purge(key));
        let (older, _shade) = purged.map_or_else(Default::default, |purged| (purged.slips, purged.shade));
        self.outbox.owe_for(Subject::Item { key: key.clone(), fingerprint, heir }, older);
    }
}

/// Queued writes that a removal takes the place of, and those who wait for them. Dropping it owes the store the deletion of
/// the item, which covers them: the removal has failed, or its future was dropped half-way.
pub(crate) struct Superseded<'a> {
    outbox: &'a Outbox,
    /// `None` once the removal is through.
    subject: Option<Subject>,
    slips: Vec<Arc<Slip>>,
    /// Whether none of the writes is being sent any more.
    pub(crate) is_over: bool,
    /// Until the removal is through, or the deletion is owed, what the store holds is older than the writes.
    _shade: Option<Shade>,
}

impl Superseded<'_> {
    /// Says that the removal is through.
    pub(crate) fn settle(mut self) {
        self.subject = None;
        self.slips.iter().for_each(|slip| slip.settle());
    }
}

impl Drop for Superseded<'_> {
    fn drop(&mut self) {
        if let Some(subject) = self.subject.take() {
            self.outbox.owe_for(subject, std::mem::take(&mut self.slips));
        }
    }
}

/// A bump that the store has not answered. Dropping it half-way, because a future was, owes the store that bump.
struct Unacknowledged<'a> {
    core: &'a Core,
    groups: &'a [u64],
    bump: Bump,
}

impl Drop for Unacknowledged<'_> {
    fn drop(&mut self) {
        if !self.groups.is_empty() {
            drop(self.core.owe_groups(self.groups, self.bump));
            self.core.move_groups(self.groups, self.bump);
        }
    }
}

/// Returns the tokens of groups that lack none.
fn complete(groups: &[u64], read: &[Tokens]) -> Option<Vec<GroupTokens>> {
    let both = |(&group_hash, tokens): (&u64, &Tokens)| {
        Some(GroupTokens { group_hash, hard: tokens.hard?, soft: tokens.soft? })
    };
    groups.iter().zip(read).map(both).collect()
}
