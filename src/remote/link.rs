//! What the caches of one namespace share of the remote tier: the way to it, the truth about groups, and what this process
//! still owes it.

use std::collections::HashMap;
use std::time::Duration;

use uuid::Uuid;

use super::debt::{Debt, Debts, Subject};
use super::envelope::GroupTokens;
use super::error::{RemoteError, RemoteErrorKind};
use super::key::WireKey;
use super::keyspace::Keyspace;
use super::tier::{Action, Cas, Command, Expiry, RemoteTier, Reply, Route, SetMode};
use crate::group::Bump;
use crate::sync::Mutex;

/// The tokens of a group, in the order in which they are asked for.
const KINDS: [Bump; 2] = [Bump::Kill, Bump::Expire];

/// How often a token that is neither there nor can be added is asked for, before the store counts as broken.
const TOKEN_ATTEMPTS: usize = 3;

/// The way to the remote tier.
pub(crate) struct Link {
    tier: Box<dyn RemoteTier>,
    timeout: Duration,
    pub(crate) keys: Keyspace,
    debts: Mutex<Debts>,
}

impl Link {
    pub(crate) fn new(tier: Box<dyn RemoteTier>, timeout: Duration, keys: Keyspace) -> Link {
        Link { tier, timeout, keys, debts: Mutex::default() }
    }

    /// Runs `commands`, and with them whatever this process still owes the store.
    ///
    /// Debts go first: a read in the same batch already sees them paid.
    pub(crate) fn run(&self, commands: &[Command<'_>]) -> Vec<Result<Reply, RemoteError>> {
        let due = self.debts.lock().due();
        if due.is_empty() {
            return self.tier.run(commands, self.timeout);
        }
        // Every send has a token of its own: two sends that are carried out late and in another order must not make an old
        // token valid again.
        let payments: Vec<_> = due.iter().map(|debt| (self.item_of(&debt.subject), new_token())).collect();
        let mut batch: Vec<_> =
            due.iter().zip(&payments).map(|(debt, (key, token))| payment(&debt.subject, key, token)).collect();
        batch.extend_from_slice(commands);
        let mut replies = self.tier.run(&batch, self.timeout);
        let answers = replies.split_off(due.len().min(replies.len()));
        let mut debts = self.debts.lock();
        for (debt, reply) in due.iter().zip(&replies) {
            if matches!(reply, Ok(Reply::Done | Reply::Miss)) {
                debts.settle(debt);
            }
        }
        answers
    }

    /// Runs one command.
    pub(crate) fn run_one(&self, key: &WireKey, route: Route, action: Action<'_>) -> Result<Reply, RemoteError> {
        let reply = self.run(&[Command { key, route, action }]).pop();
        reply.unwrap_or_else(|| Err(RemoteError::new(RemoteErrorKind::Protocol, "the store left a command unanswered")))
    }

    /// Tries to pay some of what is owed, and returns whether that made it less.
    pub(crate) fn pay(&self) -> bool {
        let before = self.owed();
        self.run(&[]);
        self.owed() < before
    }

    pub(crate) fn is_settled(&self, debt: &Debt) -> bool {
        self.debts.lock().is_settled(debt)
    }

    /// Returns how many deletions and bumps this process owes the store.
    pub(crate) fn owed(&self) -> usize {
        self.debts.lock().len()
    }

    /// Returns whether the item of `key` is still to be deleted, so that what it holds counts for nothing.
    pub(crate) fn owes_item(&self, key: &WireKey) -> bool {
        self.debts.lock().owes_item(key)
    }

    /// Notes that the store has yet to do what the local tier has done.
    pub(crate) fn owe(&self, subject: Subject) -> Debt {
        self.debts.lock().owe(subject)
    }

    /// Gives each group a new token. Values with the old one are dead or stale to whoever asks from then on.
    ///
    /// # Errors
    /// Why the store did not take them all, and what is owed to it now.
    pub(crate) fn bump(&self, groups: &[u64], bump: Bump) -> Result<(), Owed> {
        let keys: Vec<WireKey> = groups.iter().map(|&group| self.token_key(group, bump)).collect();
        let tokens: Vec<_> = groups.iter().map(|_| new_token()).collect();
        let set = |(key, token)| Command { key, route: Route::Control, action: set_token(token, SetMode::Always) };
        let commands: Vec<_> = keys.iter().zip(&tokens).map(set).collect();
        self.carry_out(&commands, |at| Subject::Group(groups[at], bump))
    }

    /// Deletes items.
    ///
    /// # Errors
    /// Why the store did not delete them all, and what is owed to it now.
    pub(crate) fn delete(&self, keys: &[WireKey]) -> Result<(), Owed> {
        let delete = |key| Command { key, route: Route::ByKey, action: Action::Delete { cas: None } };
        self.carry_out(&keys.iter().map(delete).collect::<Vec<_>>(), |at| Subject::Item(keys[at].clone()))
    }

    /// Marks an item stale.
    ///
    /// # Errors
    /// Why the store did not, and what is owed to it now: the deletion of the item, which can be paid at any later time
    /// without making a value stale that has been refreshed since.
    pub(crate) fn mark_stale(&self, key: &WireKey) -> Result<(), Owed> {
        let mark = Command { key, route: Route::ByKey, action: Action::MarkStale { expiry: None } };
        self.carry_out(&[mark], |_| Subject::Item(key.clone()))
    }

    /// Runs commands, and owes the store those that it does not acknowledge.
    fn carry_out(&self, commands: &[Command<'_>], subject: impl Fn(usize) -> Subject) -> Result<(), Owed> {
        let mut replies = self.run(commands).into_iter();
        let mut owed: Option<Owed> = None;
        for at in 0..commands.len() {
            let error = match replies.next() {
                Some(Ok(Reply::Done | Reply::Miss)) => continue,
                Some(Err(error)) => error,
                _ => unexpected("to an invalidation"),
            };
            let debt = self.owe(subject(at));
            owed.get_or_insert_with(|| Owed { error, debts: Vec::new() }).debts.push(debt);
        }
        owed.map_or(Ok(()), Err)
    }

    /// Reads the tokens of groups, and gives one to those that have none.
    ///
    /// # Errors
    /// Any failure to reach the store: a value must not be stored without the tokens of all its groups.
    pub(crate) fn tokens_for_store(&self, groups: &[u64]) -> Result<Vec<GroupTokens>, RemoteError> {
        let keys = self.token_keys(groups);
        let mut tokens = vec![None; keys.len()];
        for _ in 0..TOKEN_ATTEMPTS {
            let spoilt = self.read_tokens(&keys, &mut tokens)?;
            let missing: Vec<usize> = (0..keys.len()).filter(|&at| tokens[at].is_none()).collect();
            if missing.is_empty() {
                break;
            }
            // A token that is missing was never there or was lost; either way values that recorded another are dead. Of
            // several processes that add one, the first succeeds, and the others read what it added.
            let fresh: Vec<_> = missing.iter().map(|_| new_token()).collect();
            let mut adds = Vec::with_capacity(missing.len());
            for (&at, token) in missing.iter().zip(&fresh) {
                let cas = spoilt.get(&at).copied();
                let mode = if cas.is_some() { SetMode::Always } else { SetMode::Add };
                let action = Action::Set { value: token, expiry: Expiry::Never, mode, cas };
                adds.push(Command { key: &keys[at], route: Route::Control, action });
            }
            for ((&at, token), reply) in missing.iter().zip(&fresh).zip(self.run(&adds)) {
                if reply? == Reply::Done {
                    tokens[at] = Some(u64::from_le_bytes(*token));
                }
            }
        }
        let mut pairs = tokens.chunks_exact(2);
        let both = |group_hash: &u64| match pairs.next() {
            Some(&[Some(hard), Some(soft)]) => Ok(GroupTokens { group_hash: *group_hash, hard, soft }),
            _ => Err(unexpected("to a group's token, which is neither there nor can be added")),
        };
        groups.iter().map(both).collect()
    }

    /// Reads the tokens of groups as they are; `None` for one that is missing, or that a bump is owed to, so that no value
    /// matches it.
    ///
    /// # Errors
    /// Any failure to reach the store.
    pub(crate) fn tokens(&self, groups: &[u64]) -> Result<Vec<Tokens>, RemoteError> {
        // Before the read: what is owed now may be paid, by another caller, between the read and the look at its answer.
        let owed: Vec<bool> = {
            let debts = self.debts.lock();
            groups.iter().flat_map(|&group| KINDS.map(|bump| debts.owes_group(group, bump))).collect()
        };
        let keys = self.token_keys(groups);
        let mut tokens = vec![None; keys.len()];
        self.read_tokens(&keys, &mut tokens)?;
        for (token, owed) in tokens.iter_mut().zip(owed) {
            if owed {
                *token = None;
            }
        }
        Ok(tokens.chunks_exact(2).map(|pair| Tokens { hard: pair[0], soft: pair[1] }).collect())
    }

    /// Fills in the tokens that are still `None`, where the store has them; returns the versions of those that are no tokens.
    fn read_tokens(&self, keys: &[WireKey], tokens: &mut [Option<u64>]) -> Result<HashMap<usize, Cas>, RemoteError> {
        let mut spoilt = HashMap::new();
        let unknown: Vec<usize> = (0..keys.len()).filter(|&at| tokens[at].is_none()).collect();
        if unknown.is_empty() {
            return Ok(spoilt);
        }
        let gets: Vec<_> = unknown.iter().map(|&at| get(&keys[at], Route::Control)).collect();
        for (&at, reply) in unknown.iter().zip(self.run(&gets)) {
            match reply? {
                Reply::Hit(item) => match <[u8; 8]>::try_from(item.value) {
                    Ok(token) => tokens[at] = Some(u64::from_le_bytes(token)),
                    Err(_) => drop(spoilt.insert(at, item.cas)),
                },
                Reply::Busy(cas) => drop(spoilt.insert(at, cas)),
                _ => {}
            }
        }
        Ok(spoilt)
    }

    fn token_keys(&self, groups: &[u64]) -> Vec<WireKey> {
        groups.iter().flat_map(|&group| KINDS.map(|bump| self.token_key(group, bump))).collect()
    }

    fn item_of(&self, subject: &Subject) -> WireKey {
        match subject {
            Subject::Item(key) => key.clone(),
            Subject::Group(group_hash, bump) => self.token_key(*group_hash, *bump),
        }
    }

    fn token_key(&self, group_hash: u64, bump: Bump) -> WireKey {
        match bump {
            Bump::Kill => self.keys.group_hard(group_hash),
            Bump::Expire => self.keys.group_soft(group_hash),
        }
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("keys", &self.keys)
            .field("timeout", &self.timeout)
            .field("owed", &self.owed())
            .finish()
    }
}

/// What the store has not acknowledged, and why.
#[derive(Debug)]
pub(crate) struct Owed {
    pub(crate) error: RemoteError,
    pub(crate) debts: Vec<Debt>,
}

/// The tokens of one group at present.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tokens {
    pub(crate) hard: Option<u64>,
    pub(crate) soft: Option<u64>,
}

/// Returns the command that reads a whole item.
pub(crate) fn get(key: &WireKey, route: Route) -> Command<'_> {
    Command { key, route, action: Action::Get { value: true, lease: None, touch: None } }
}

/// Returns the command that pays a debt.
fn payment<'a>(subject: &Subject, key: &'a WireKey, token: &'a [u8; 8]) -> Command<'a> {
    match subject {
        Subject::Item(_) => Command { key, route: Route::ByKey, action: Action::Delete { cas: None } },
        Subject::Group(..) => Command { key, route: Route::Control, action: set_token(token, SetMode::Always) },
    }
}

fn set_token(token: &[u8; 8], mode: SetMode) -> Action<'_> {
    Action::Set { value: token, expiry: Expiry::Never, mode, cas: None }
}

/// Returns 64 random bits. Tokens are never counters, which a restart would start again, nor times.
fn new_token() -> [u8; 8] {
    let (high, low) = Uuid::new_v4().as_u64_pair();
    // The version and variant bits of a uuid are fixed, in different places of its halves.
    (high ^ low.rotate_left(32)).to_le_bytes()
}

pub(crate) fn unexpected(to_what: &str) -> RemoteError {
    RemoteError::new(RemoteErrorKind::Protocol, format!("the store gave an answer that makes no sense {to_what}"))
}
