//! One call of a cache with a registered loader: how long it waits for what runs in the background, and what it makes of that.

use std::time::Duration;

use super::Outcome;
use super::answer::Answer;
use super::claimed::{Claimed, Fallbacks, Values, put};
use crate::call::CallOptions;
use crate::claim::Fallback;
use crate::clock::{Clock, Deadline};
use crate::error::LoadError;
use crate::limit::Limited;
use crate::store::Store;
use crate::sync::Arc;

/// Who makes a call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// A thread, which may be blocked.
    Thread,
    /// A future, which may not.
    Task,
}

/// One call, with the settings that hold for it.
pub(crate) struct Call {
    pub(crate) by: By,
    pub(crate) options: CallOptions,
    pub(crate) soft_timeout: Duration,
    pub(crate) hard_timeout: Option<Duration>,
    /// Until when the caller waits, whatever for.
    pub(crate) until: Deadline,
}

impl Call {
    /// Allows the load of several keys as much time as the call says, for all of them together.
    pub(crate) fn limit<K, V>(&self, store: &Arc<Store<K, V>>, claimed: &Claimed<K, V>) -> Option<Limited>
    where
        K: Send + Sync + 'static,
        V: Send + Sync + 'static,
    {
        let limited = Limited::start(&store.settings.clock, self.hard_timeout?, store.clone());
        claimed.claims.iter().for_each(|(_, claim)| claim.submit_to(limited.limit()));
        Some(limited)
    }

    /// Waits for a load that this caller has begun, for as long as it may.
    pub(crate) async fn await_load<T, E>(&self, clock: &Clock, answer: Answer<Outcome<T, E>>) -> Outcome<T, E> {
        let answered = await_answer(clock, answer, self.until).await;
        answered.unwrap_or_else(|| Err(LoadError::timed_out(self.hard_timeout.unwrap_or_default())))
    }

    /// Returns what a refresh brings, if one has begun, or the stale value. `None` if that is dead once it has been waited for:
    /// the caller looks again, and waits for the load like any other that has no value.
    pub(crate) async fn refreshed<K, V: Clone, E>(
        &self,
        store: &Store<K, V>,
        answer: Option<Answer<Outcome<V, E>>>,
        fallback: Fallback<K, V>,
        stale: V,
    ) -> Outcome<Option<V>, E> {
        let Some(answer) = answer else { return Ok(Some(stale)) };
        match self.await_refresh(&store.settings.clock, answer).await {
            Some(Ok(value)) => Ok(Some(value)),
            Some(Err(error)) => fallback.answer(store).map(Some).ok_or(error),
            None if fallback.is_alive(store) => Ok(Some(stale)),
            None => Ok(None),
        }
    }

    /// Puts what a refresh of several keys brings, if one has begun, in the place of their stale values. Returns the places of
    /// those that are dead once it has been waited for, and still to be answered.
    pub(crate) async fn refreshed_batch<K, V: Clone, E>(
        &self,
        store: &Store<K, V>,
        answer: Option<Answer<Outcome<Values<V>, E>>>,
        fallbacks: Fallbacks<K, V>,
        answers: &mut [Option<V>],
    ) -> Outcome<Vec<usize>, E> {
        let Some(answer) = answer else { return Ok(Vec::new()) };
        let refreshed = self.await_refresh(&store.settings.clock, answer).await;
        // What has died meanwhile is no answer any more.
        let dead = fallbacks.into_iter().filter(|(_, fallback)| !fallback.is_alive(store));
        let dead: Vec<usize> = dead.map(|(at, _)| at).collect();
        dead.iter().for_each(|&at| answers[at] = None);
        match refreshed {
            Some(Ok(values)) => put(answers, values),
            Some(Err(error)) if !dead.is_empty() => return Err(error),
            Some(Err(_)) => {}
            None => return Ok(dead),
        }
        Ok(Vec::new())
    }

    /// Waits for a refresh as long as this caller would; `None` if it has brought nothing by then.
    async fn await_refresh<T, E>(&self, clock: &Clock, answer: Answer<Outcome<T, E>>) -> Option<Outcome<T, E>> {
        if self.soft_timeout.is_zero() {
            return None;
        }
        let until = Deadline::after(clock.now(), self.soft_timeout).min(self.until);
        await_answer(clock, answer, until).await
    }
}

/// Waits until `until` for the answer to a load; `None` if there is none by then.
async fn await_answer<T, E>(clock: &Clock, answer: Answer<Outcome<T, E>>, until: Deadline) -> Option<Outcome<T, E>> {
    let answer = clock.timeout(answer, until).await?;
    // The runtime dropped the load, or no thread could be started for it.
    Some(answer.unwrap_or_else(|| Err(LoadError::cancelled())))
}
