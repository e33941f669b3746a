//! The verbs of a cache, whatever its types: keys and values as text.

use std::fmt::{Debug, Display};
use std::hash::Hash;
use std::io;
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use larder::{Bump, RemoteKey, TieredCache, ToKey, Write};
use shared::clock::sleep_until;
use shared::order::Loaded;

/// How long a removal may take to be acknowledged.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is asked for a key, and when.
pub(crate) struct Callers<'a> {
    pub(crate) callers: usize,
    pub(crate) at_ns: u64,
    /// What goes on while the value is loaded.
    pub(crate) load: &'a (dyn Fn() + Sync),
}

pub(crate) trait Goods {
    fn local(&self, key: &str) -> Option<String>;
    fn get(&self, key: &str) -> Option<String>;
    /// Returns whether both tiers have it. So do the others: whether the remote tier has acknowledged it.
    fn insert(&self, key: &str, value: &str) -> bool;
    fn remove(&self, key: &str) -> bool;
    fn expire(&self, key: &str) -> bool;
    fn clear(&self) -> bool;
    fn load(&self, key: &str, value: &str, callers: Callers<'_>) -> Vec<Loaded>;
}

impl<K, V> Goods for TieredCache<K, V>
where
    K: FromStr<Err: Debug> + Hash + Eq + ToKey<K> + RemoteKey + Send + Sync + 'static,
    V: FromStr<Err: Debug> + Display + Clone + Send + Sync + 'static,
{
    fn local(&self, key: &str) -> Option<String> {
        self.local().get(&parse::<K>(key)).map(|value| value.to_string())
    }

    fn get(&self, key: &str) -> Option<String> {
        self.get(&parse::<K>(key)).map(|value| value.to_string())
    }

    fn insert(&self, key: &str, value: &str) -> bool {
        matches!(self.insert(parse(key), parse(value)), Write::Through)
    }

    fn remove(&self, key: &str) -> bool {
        acknowledged(self.remove(&parse::<K>(key)))
    }

    fn expire(&self, key: &str) -> bool {
        acknowledged(self.expire(&parse::<K>(key)))
    }

    fn clear(&self) -> bool {
        acknowledged(self.clear())
    }

    fn load(&self, key: &str, value: &str, Callers { callers, at_ns, load }: Callers<'_>) -> Vec<Loaded> {
        let ask = || {
            sleep_until(at_ns);
            let start = Instant::now();
            let loaded = self.get_or_load(&parse::<K>(key), |_| {
                load();
                Ok::<_, io::Error>(parse::<V>(value))
            });
            Loaded { value: loaded.expect("a value").to_string(), took: start.elapsed() }
        };
        thread::scope(|scope| {
            let asking: Vec<_> = (0..callers).map(|_| scope.spawn(ask)).collect();
            asking.into_iter().map(|asking| asking.join().expect("a caller that does not panic")).collect()
        })
    }
}

fn parse<T: FromStr<Err: Debug>>(text: &str) -> T {
    text.parse().expect("a key or value of this cache")
}

fn acknowledged(bump: Bump) -> bool {
    match bump {
        Bump::Acknowledged => true,
        Bump::Pending(receipt) => receipt.wait(PATIENCE),
        other => panic!("{other:?} is neither acknowledged nor pending"),
    }
}
