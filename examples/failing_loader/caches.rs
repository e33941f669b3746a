//! The caches that are put to the test: in one tier and in two, with a loader that blocks and with one that is a future.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use larder::{
    Cache, CacheBuilder, CallOptions, InMemoryRemote, Load, LoadError, Namespace, RawBytes, Stats, TieredCache,
    TieredCacheBuilder,
};
use tokio::runtime::{Builder, Runtime};

use crate::options::{Options, Sabotage};
use crate::pulse::Pulse;
use crate::source::{Plan, Refused, Source, dies_soon};

/// How long a caller that has a stale value waits for its refresh.
pub(crate) const SOFT_TIMEOUT: Duration = Duration::from_millis(20);

/// How long that refresh may take. Longer than a caller may be kept on the slowest machine, so that one that waits for all of it
/// is found out.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a caller without a value waits for one, and how long the load may take that it begins.
pub(crate) const HARD_TIMEOUT: Duration = Duration::from_millis(100);

/// From when on a value is stale.
const SOFT_TTL: Duration = Duration::from_millis(50);

/// How long no refresh is tried after one that failed.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// Longer than any run.
const FOR_EVER: Duration = Duration::from_secs(7 * 86_400);

pub(crate) const LOAD_THREADS: usize = 16;

type Call = Box<dyn Fn(&str, CallOptions) -> Result<String, LoadError<Refused>> + Send + Sync>;
type Count = Box<dyn Fn() -> Stats + Send + Sync>;
type Loaded = Pin<Box<dyn Future<Output = Result<String, Refused>> + Send>>;

/// A cache, its source, and how it is called.
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    pub(crate) source: Arc<Source>,
    /// One, as a rule: where loads are not to be shared, there are two that know nothing of each other.
    caches: Vec<(Call, Count)>,
    has_timeouts: bool,
}

impl Subject {
    pub(crate) fn all(plan: &Plan, options: &Options, pulse: &Arc<Pulse>) -> Vec<Subject> {
        let runtime = Builder::new_multi_thread().worker_threads(2).build().expect("a runtime");
        let runtime = Arc::new(runtime);
        let subject = |name, cache: &dyn Fn(Settings, Arc<Source>) -> (Call, Count)| {
            let (source, settings) = (Source::new(plan, options, pulse), Settings::of(options));
            let count = if options.sabotage == Some(Sabotage::UnsharedLoads) { 2 } else { 1 };
            let caches = (0..count).map(|_| cache(settings, source.clone())).collect();
            Subject { name, source, caches, has_timeouts: options.sabotage != Some(Sabotage::NoTimeouts) }
        };
        vec![
            subject("Cache, with a loader that blocks", &local_blocking),
            subject("Cache, with a loader that is a future", &|settings, source| {
                local_future(settings, source, runtime.clone())
            }),
            subject("TieredCache, with a loader that blocks", &tiered_blocking),
            subject("TieredCache, with a loader that is a future", &|settings, source| {
                tiered_future(settings, source, runtime.clone())
            }),
        ]
    }

    /// Calls as a caller would who has so much time.
    pub(crate) fn call(&self, key: &str) -> Result<String, LoadError<Refused>> {
        let mut options = CallOptions::new();
        if self.has_timeouts && dies_soon(key) {
            options = options.hard_timeout(HARD_TIMEOUT);
        }
        (self.caches[fastrand::usize(..self.caches.len())].0)(key, options)
    }

    pub(crate) fn hits_stale(&self) -> u64 {
        self.caches.iter().map(|(_, count)| count().hits_stale).sum()
    }
}

/// How a cache is built.
#[derive(Clone, Copy)]
struct Settings {
    hard_ttl: Duration,
    soft_timeout: Duration,
    hard_timeout: Duration,
}

impl Settings {
    fn of(options: &Options) -> Settings {
        let settings = Settings { hard_ttl: FOR_EVER, soft_timeout: SOFT_TIMEOUT, hard_timeout: REFRESH_TIMEOUT };
        match options.sabotage {
            Some(Sabotage::NothingStale) => Settings { hard_ttl: SOFT_TTL, ..settings },
            Some(Sabotage::NoTimeouts) => Settings { soft_timeout: FOR_EVER, hard_timeout: FOR_EVER, ..settings },
            _ => settings,
        }
    }
}

fn blocking(source: Arc<Source>) -> impl Fn(&String, Load<String>) -> Result<String, Refused> + Send + Sync {
    move |key, load| source.load(key, load)
}

fn future(source: Arc<Source>) -> impl Fn(String, Load<String>) -> Loaded + Send + Sync {
    move |key, load| {
        let source = source.clone();
        Box::pin(async move { source.load_async(&key, load).await })
    }
}

fn local(settings: Settings) -> CacheBuilder<String, String> {
    Cache::builder().capacity(1_000).soft_ttl(SOFT_TTL).hard_ttl(settings.hard_ttl).stale_if_error(RETRY_AFTER)
}

fn local_blocking(settings: Settings, source: Arc<Source>) -> (Call, Count) {
    let builder = local(settings).loader(blocking(source)).load_threads(LOAD_THREADS);
    let cache = builder.soft_timeout(settings.soft_timeout).hard_timeout(settings.hard_timeout).build().expect(GOOD);
    let counted = cache.clone();
    (Box::new(move |key, options| cache.load_with(key, options)), Box::new(move || counted.stats()))
}

fn local_future(settings: Settings, source: Arc<Source>, runtime: Arc<Runtime>) -> (Call, Count) {
    let handle = runtime.handle().clone();
    let builder = local(settings).async_loader(future(source)).spawner(move |load| drop(handle.spawn(load)));
    let cache = builder.soft_timeout(settings.soft_timeout).hard_timeout(settings.hard_timeout).build().expect(GOOD);
    let counted = cache.clone();
    let call = move |key: &str, options| runtime.block_on(cache.load_with_async(key, options));
    (Box::new(call), Box::new(move || counted.stats()))
}

fn tiered(settings: Settings) -> TieredCacheBuilder<String, String> {
    let namespace = Namespace::builder("failing", InMemoryRemote::new()).build().expect(GOOD);
    let builder = TieredCache::builder(&namespace, "values").capacity(1_000).codec(RawBytes);
    builder.soft_ttl(SOFT_TTL).hard_ttl(settings.hard_ttl).stale_if_error(RETRY_AFTER)
}

fn tiered_blocking(settings: Settings, source: Arc<Source>) -> (Call, Count) {
    let builder = tiered(settings).loader(blocking(source)).load_threads(LOAD_THREADS);
    let cache = builder.soft_timeout(settings.soft_timeout).hard_timeout(settings.hard_timeout).build().expect(GOOD);
    let counted = cache.clone();
    (Box::new(move |key, options| cache.load_with(key, options)), Box::new(move || counted.stats()))
}

fn tiered_future(settings: Settings, source: Arc<Source>, runtime: Arc<Runtime>) -> (Call, Count) {
    let handle = runtime.handle().clone();
    let builder = tiered(settings).async_loader(future(source)).spawner(move |load| drop(handle.spawn(load)));
    let cache = builder.soft_timeout(settings.soft_timeout).hard_timeout(settings.hard_timeout).build().expect(GOOD);
    let counted = cache.clone();
    let call = move |key: &str, options| runtime.block_on(cache.load_with_async(key, options));
    (Box::new(call), Box::new(move || counted.stats()))
}

const GOOD: &str = "these settings are good";
