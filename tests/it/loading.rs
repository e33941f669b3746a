//! Registered loaders: what callers wait for, what runs in the background, and what becomes of loads that fail or hang.

mod adversary;
mod batches;
#[cfg(feature = "tiered")]
mod both_tiers;
mod builder;
mod calls;
mod futures;
mod pool;
mod refreshes;
mod sharing;
mod timeouts;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use larder::{Load, LoadingCache, ManualClock};

use crate::scene::{Gate, ms, roomy};

/// How long values of these tests are fresh; they are dead after eight times as long.
const SOFT_TTL: Duration = Duration::from_secs(60);

/// The hard timeout where a test has one.
const HARD: Duration = Duration::from_secs(5);

/// How long no other refresh is tried after one that failed.
const RETRY_AFTER: Duration = Duration::from_secs(1);

type Numbers = LoadingCache<u32, u32, &'static str>;

/// What the loader of a test does at its next call; all after the last one are like that.
#[derive(Clone)]
enum Act {
    Return(u32),
    Fail(&'static str),
    Panic,
    /// Hangs until the gate opens, then returns.
    Hang(Gate, u32),
}

/// A loader that follows a script, and counts its calls.
#[derive(Clone, Default)]
struct Script(Arc<(std::sync::Mutex<Vec<Act>>, AtomicU32)>);

impl Script {
    fn of(acts: impl IntoIterator<Item = Act>) -> Script {
        let script = Script::default();
        script.0.0.lock().unwrap().extend(acts);
        script
    }

    fn calls(&self) -> u32 {
        self.0.1.load(Ordering::SeqCst)
    }

    fn play(&self) -> Result<u32, &'static str> {
        let call = self.0.1.fetch_add(1, Ordering::SeqCst) as usize;
        let act = {
            let acts = self.0.0.lock().unwrap();
            acts[call.min(acts.len() - 1)].clone()
        };
        match act {
            Act::Return(value) => Ok(value),
            Act::Fail(error) => Err(error),
            Act::Panic => panic!("as the script says"),
            Act::Hang(gate, value) => {
                gate.pass();
                Ok(value)
            }
        }
    }

    fn loader(&self) -> impl Fn(&u32, Load<u32>) -> Result<u32, &'static str> + Send + Sync + 'static {
        let script = self.clone();
        move |_: &u32, _: Load<u32>| script.play()
    }
}

/// Returns a cache whose loader follows `script`, on a manual clock.
fn scripted(script: &Script) -> (Numbers, ManualClock) {
    let (builder, time) = roomy();
    (builder.soft_ttl(SOFT_TTL).loader(script.loader()).build().unwrap(), time)
}

/// The same with a hard timeout.
fn limited(script: &Script) -> (Numbers, ManualClock) {
    let (builder, time) = roomy();
    (builder.soft_ttl(SOFT_TTL).loader(script.loader()).hard_timeout(HARD).build().unwrap(), time)
}

/// Returns a cache on whose key 1 a value 1 has just become stale.
fn stale(cache: (Numbers, ManualClock)) -> (Numbers, ManualClock) {
    cache.0.insert(1, 1).unwrap();
    cache.1.advance(SOFT_TTL);
    cache
}

/// A moment that is no more than what deadlines round to.
const MOMENT: Duration = ms(1);
