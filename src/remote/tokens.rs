//! Tokens: 8 random bytes for each group and kind of bump, by which a value from the store is judged.

use std::collections::HashMap;
use std::time::Duration;

use smallvec::SmallVec;
use uuid::Uuid;

use super::batch::{Batcher, Caller};
use super::envelope::GroupTokens;
use super::error::RemoteError;
use super::key::WireKey;
use super::keyspace::Keyspace;
use super::request::{Request, Requests};
use super::tier::{Cas, Expiry, Reply, Route, SetMode};
use super::unexpected;
use crate::clock::{Clock, Deadline};
use crate::group::Bump;
use crate::sync::{AtomicU64, Mutex, Ordering};

/// The tokens of a group, in the order in which they are asked for.
const KINDS: [Bump; 2] = [Bump::Kill, Bump::Expire];

/// How often a token that is neither there nor can be added is asked for, before the store counts as broken.
const ATTEMPTS: usize = 3;

/// How many locks the known tokens spread over.
const STRIPES: usize = 16;

/// How many groups' tokens a stripe keeps in each of its two halves: about 5 MB for a full cache of a quarter of a million
/// groups.
const MAX_PER_HALF: usize = 8_192;

/// How long tokens are kept without being read again. A store that is short of memory forgets what nobody reads; and one that
/// has forgotten a token is noticed within this time.
const MAX_AGE: Duration = Duration::from_secs(30);

/// The tokens of one group at present; `None` for one that is missing, so that no value matches it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tokens {
    pub(crate) hard: Option<u64>,
    pub(crate) soft: Option<u64>,
}

impl From<GroupTokens> for Tokens {
    fn from(tokens: GroupTokens) -> Tokens {
        Tokens { hard: Some(tokens.hard), soft: Some(tokens.soft) }
    }
}

/// How many groups of a value are handled without an allocation: the two roots, and two of the user's.
pub(crate) const USUAL_GROUPS: usize = 4;

/// The tokens of some groups, to judge values by.
#[derive(Debug, Default)]
pub(crate) struct TokenTable {
    /// In the order of the groups, each once.
    entries: SmallVec<[(u64, Tokens); USUAL_GROUPS]>,
}

impl TokenTable {
    /// Makes a table of `entries`, which are in the order of their groups, each once.
    pub(crate) fn new(entries: impl IntoIterator<Item = (u64, Tokens)>) -> TokenTable {
        let entries: SmallVec<_> = entries.into_iter().collect();
        debug_assert!(entries.is_sorted_by(|(a, _), (b, _)| a < b), "a search finds only what is in order");
        TokenTable { entries }
    }

    /// Returns the tokens of a group; missing ones where nothing is known of it, so that no value matches.
    pub(crate) fn get(&self, group: u64) -> Tokens {
        let entries = self.entries.as_slice();
        let at = match entries.len() {
            // Few are found sooner one by one.
            ..=USUAL_GROUPS => entries.iter().position(|(known, _)| *known == group),
            _ => entries.binary_search_by_key(&group, |(known, _)| *known).ok(),
        };
        at.map_or(Tokens::default(), |at| entries[at].1)
    }

    /// Returns the table with what `newer` says in the place of what this one does.
    pub(crate) fn updated(mut self, newer: TokenTable) -> TokenTable {
        let entries = &newer.entries;
        self.entries.retain(|(group, _)| entries.binary_search_by_key(group, |(group, _)| *group).is_err());
        self.entries.extend(newer.entries);
        self.entries.sort_unstable_by_key(|(group, _)| *group);
        self
    }
}

/// Returns 64 random bits. Tokens are never counters, which a restart would start again, nor times.
pub(crate) fn new_token() -> [u8; 8] {
    let (high, low) = Uuid::new_v4().as_u64_pair();
    // The version and variant bits of a uuid are fixed, in different places of its halves.
    (high ^ low.rotate_left(32)).to_le_bytes()
}

/// Reads the tokens of groups as they are.
///
/// # Errors
/// Any failure to reach the store.
pub(crate) async fn read(
    batcher: &Batcher,
    caller: Caller,
    keys: &Keyspace,
    groups: &[u64],
) -> Result<Vec<Tokens>, RemoteError> {
    let gets = groups.iter().flat_map(|&group| KINDS.map(|kind| Request::get(keys.token(group, kind), Route::Control)));
    let mut tokens = Vec::with_capacity(2 * groups.len());
    for reply in batcher.run(caller, gets.collect::<Requests>()).await {
        tokens.push(token(reply?).unwrap_or(None));
    }
    Ok(tokens.chunks_exact(2).map(|pair| Tokens { hard: pair[0], soft: pair[1] }).collect())
}

/// Reads the tokens of groups, and gives one to those that have none. Runs `last` behind them, on the same connection.
///
/// A token that is missing was never there or was lost; either way values that recorded another are dead. Of several
/// processes that add one, the first succeeds, and the others read what it added.
///
/// # Errors
/// Any failure to reach the store: a value must not be stored without the tokens of all its groups.
pub(crate) async fn read_or_add(
    batcher: &Batcher,
    caller: Caller,
    keys: &Keyspace,
    groups: &[u64],
    last: Option<&Request>,
) -> Result<(Vec<GroupTokens>, Option<Reply>), RemoteError> {
    let mut spoilt: Vec<(usize, Cas)> = Vec::new();
    for _ in 0..ATTEMPTS {
        let mut batch = Vec::with_capacity(4 * groups.len() + 1);
        for (at, (&group, kind)) in groups.iter().flat_map(|group| KINDS.map(|kind| (group, kind))).enumerate() {
            let key = keys.token(group, kind);
            // What is no token is replaced, if it is still that. Otherwise nothing that is there is.
            let cas = spoilt.iter().find(|(known, _)| *known == at).map(|(_, cas)| *cas);
            let mode = if cas.is_some() { SetMode::Always } else { SetMode::Add };
            batch.push(set_token(key.clone(), new_token(), mode, cas));
            batch.push(Request::get(key, Route::Control));
        }
        batch.extend(last.cloned());
        let mut replies = batcher.run(caller, batch).await.into_iter();
        let mut tokens = Vec::with_capacity(2 * groups.len());
        spoilt.clear();
        for at in 0..2 * groups.len() {
            let (Some(set), Some(got)) = (replies.next(), replies.next()) else {
                return Err(unexpected("to the tokens of groups"));
            };
            set?;
            match token(got?) {
                Ok(token) => tokens.push(token),
                Err(cas) => spoilt.push((at, cas)),
            }
        }
        let both = |(&group_hash, pair): (&u64, &[Option<u64>])| {
            Some(GroupTokens { group_hash, hard: pair[0]?, soft: pair[1]? })
        };
        let known: Vec<GroupTokens> = groups.iter().zip(tokens.chunks_exact(2)).filter_map(both).collect();
        if known.len() == groups.len() && spoilt.is_empty() {
            return Ok((known, replies.next().transpose()?));
        }
    }
    Err(unexpected("to a group's token, which is neither there nor can be added"))
}

/// Returns the request that gives a group's kind of bump this token.
pub(crate) fn set_token(key: WireKey, token: [u8; 8], mode: SetMode, cas: Option<Cas>) -> Request {
    Request::set(key, Route::Control, token.to_vec(), Expiry::Never, mode, cas)
}

/// Returns the token in an answer, `None` where there is none; or the version of what is there and is no token.
fn token(reply: Reply) -> Result<Option<u64>, Cas> {
    match reply {
        Reply::Hit(item) => match <[u8; 8]>::try_from(&*item.value) {
            Ok(token) => Ok(Some(u64::from_le_bytes(token))),
            Err(_) => Err(item.cas),
        },
        Reply::Busy(cas) | Reply::Won(cas) => Err(cas),
        _ => Ok(None),
    }
}

/// The tokens that this process has read, for as long as nothing says that they have moved.
///
/// A token is kept only if its group has not been [forgotten](Self::forget) since before it was asked for, and everything that
/// moves a group forgets its tokens, before and after: so none is kept that an invalidation known here has overtaken. One of
/// another process is known here once its journal entry is applied; whoever *judges* by known tokens therefore has to hold the
/// trust lease. Recording one in a value needs no trust: a token that has moved makes the value dead to others.
#[derive(Debug)]
pub(crate) struct KnownTokens {
    stripes: [Mutex<Stripe>; STRIPES],
    /// Counts what was kept, so that what was known before a moment can be told from what was learnt since.
    kept: AtomicU64,
}

#[derive(Debug, Default)]
struct Stripe {
    /// How often something was forgotten here.
    forgotten: u64,
    young: HashMap<u64, Known, ahash::RandomState>,
    /// What was young before `young` was full last: it goes when that happens again, unless it is asked for.
    old: HashMap<u64, Known, ahash::RandomState>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    tokens: GroupTokens,
    /// The number it was kept under.
    kept: u64,
    until: Deadline,
}

/// A moment in the life of [`KnownTokens`]: what was kept up to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(u64);

/// How often the stripe of each of some groups had forgotten something, before their tokens were asked for.
#[derive(Debug)]
pub(crate) struct Asked(Vec<(u64, u64)>);

impl Default for KnownTokens {
    fn default() -> Self {
        KnownTokens { stripes: std::array::from_fn(|_| Mutex::default()), kept: AtomicU64::new(0) }
    }
}

impl KnownTokens {
    fn stripe(&self, group: u64) -> &Mutex<Stripe> {
        &self.stripes[group as usize % STRIPES]
    }

    /// Returns this moment.
    pub(crate) fn moment(&self) -> Moment {
        // Relaxed: the number is raised under the lock of the stripe that keeps the token under it, and a token is known
        // before a moment only if it is found with a smaller or equal number under that lock.
        Moment(self.kept.load(Ordering::Relaxed))
    }

    /// Returns the tokens of a group, if they are known.
    pub(crate) fn get(&self, group: u64) -> Option<GroupTokens> {
        self.known(group).map(|known| known.tokens)
    }

    /// Returns the tokens of a group, if they were known at `moment` already and have been since.
    pub(crate) fn get_since(&self, group: u64, moment: Moment) -> Option<GroupTokens> {
        self.known(group).filter(|known| known.kept <= moment.0).map(|known| known.tokens)
    }

    fn known(&self, group: u64) -> Option<Known> {
        // The coarse clock does for an age.
        let now = Clock::system().coarse();
        let mut stripe = self.stripe(group).lock();
        let known = match stripe.young.get(&group) {
            Some(known) => *known,
            None => {
                let known = stripe.old.remove(&group)?;
                stripe.insert(group, known);
                known
            }
        };
        (!known.until.has_passed(now)).then_some(known)
    }

    /// Notes that the tokens of `groups` are about to be asked for.
    pub(crate) fn ask(&self, groups: &[u64]) -> Asked {
        Asked(groups.iter().map(|&group| (group, self.stripe(group).lock().forgotten)).collect())
    }

    /// Keeps what was read, unless its group may have moved since it was asked for.
    pub(crate) fn keep(&self, asked: &Asked, tokens: &[GroupTokens]) {
        let until = Deadline::after(Clock::system().coarse(), MAX_AGE);
        for ((group, forgotten), tokens) in asked.0.iter().zip(tokens) {
            debug_assert_eq!(*group, tokens.group_hash, "answers are in the order of the questions");
            let mut stripe = self.stripe(*group).lock();
            if stripe.forgotten == *forgotten {
                let kept = self.kept.fetch_add(1, Ordering::Relaxed) + 1;
                stripe.insert(*group, Known { tokens: *tokens, kept, until });
            }
        }
    }

    /// Forgets the tokens of a group that has moved.
    pub(crate) fn forget(&self, group: u64) {
        let mut stripe = self.stripe(group).lock();
        stripe.forgotten += 1;
        stripe.young.remove(&group);
        stripe.old.remove(&group);
    }

    /// Forgets all tokens.
    pub(crate) fn forget_all(&self) {
        for stripe in &self.stripes {
            let mut stripe = stripe.lock();
            stripe.forgotten += 1;
            stripe.young.clear();
            stripe.old.clear();
        }
    }
}

impl Stripe {
    fn insert(&mut self, group: u64, known: Known) {
        if self.young.len() >= MAX_PER_HALF {
            self.old = std::mem::take(&mut self.young);
        }
        self.old.remove(&group);
        self.young.insert(group, known);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(group_hash: u64) -> GroupTokens {
        GroupTokens { group_hash, hard: group_hash + 1, soft: group_hash + 2 }
    }

    #[test]
    fn what_moved_since_it_was_asked_for_is_not_kept() {
        let known = KnownTokens::default();
        let asked = known.ask(&[7, 8]);
        known.forget(7);
        known.keep(&asked, &[tokens(7), tokens(8)]);
        assert_eq!((known.get(7), known.get(8)), (None, Some(tokens(8))));
        let asked = known.ask(&[7]);
        known.keep(&asked, &[tokens(7)]);
        assert_eq!(known.get(7), Some(tokens(7)));
        known.forget_all();
        assert_eq!((known.get(7), known.get(8)), (None, None));
    }

    #[test]
    fn what_was_learnt_after_a_moment_was_not_known_at_it() {
        let known = KnownTokens::default();
        known.keep(&known.ask(&[1]), &[tokens(1)]);
        let moment = known.moment();
        known.keep(&known.ask(&[2]), &[tokens(2)]);
        assert_eq!((known.get_since(1, moment), known.get_since(2, moment)), (Some(tokens(1)), None));
        // Forgotten and learnt again: not known all the time.
        known.forget(1);
        known.keep(&known.ask(&[1]), &[tokens(1)]);
        assert_eq!((known.get_since(1, moment), known.get(1)), (None, Some(tokens(1))));
    }

    #[test]
    fn tokens_are_bounded_and_those_asked_for_stay() {
        let known = KnownTokens::default();
        known.keep(&known.ask(&[0]), &[tokens(0)]);
        // All in one stripe.
        for group in (1..3 * MAX_PER_HALF as u64).map(|number| number * STRIPES as u64) {
            known.keep(&known.ask(&[group]), &[tokens(group)]);
            if group % 1_024 == 0 {
                assert_eq!(known.get(0), Some(tokens(0)));
            }
        }
        let stripe = known.stripe(0).lock();
        assert!(stripe.young.len() <= MAX_PER_HALF && stripe.old.len() <= MAX_PER_HALF);
        assert!(stripe.young.len() + stripe.old.len() > MAX_PER_HALF);
    }

    #[test]
    fn a_table_says_what_was_said_last() {
        let both = |token| Tokens { hard: Some(token), soft: Some(token) };
        let table = TokenTable::new([(1, both(1)), (3, both(3)), (5, both(5))]);
        let table = table.updated(TokenTable::new([(0, both(10)), (3, both(13)), (4, Tokens::default())]));
        let found = [0, 1, 2, 3, 4, 5].map(|group| table.get(group).hard);
        assert_eq!(found, [Some(10), Some(1), None, Some(13), None, Some(5)]);
    }

    #[test]
    fn tokens_differ() {
        let made: std::collections::HashSet<_> = (0..1_000).map(|_| new_token()).collect();
        assert_eq!(made.len(), 1_000);
    }
}
