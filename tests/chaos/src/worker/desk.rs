//! What the threads of a process share.

use std::error::Error;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use larder::{CallOptions, Compression, LostTrust, Memcached, Namespace, RawBytes, TieredCache};
use shared::clock::{now_ns, ns};
use shared::truth::{GROUPS, Truth, group_name};

use super::Settings;
use super::calls::Calls;
use super::clerk::Clerk;
use super::log::Log;
use crate::plant::Plant;
use crate::record::Record;
use crate::value::{Stamp, groups_of};
use crate::verb::{LONGEST_LOAD, TIMEOUT, Verb};

/// The defaults of larder.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
const TRUST: Duration = Duration::from_millis(500);

/// The shortest that larder takes, so that the loads of those who were killed begin again soon.
const LEASE: Duration = Duration::from_secs(3);

/// In bytes of values: less than they take, so that some are evicted.
const CAPACITY: u64 = 1 << 20;

/// How long a page is fresh: some time out within a run.
const PAGE_SOFT_TTL: Duration = Duration::from_secs(10);

/// How long a value of no group lives. Then the next who asks loads it.
const SINGLE_TTL: Duration = Duration::from_secs(4);

/// The longest load of a page, in microseconds: bumps fall into it.
const LONGEST_PAGE_LOAD_US: u64 = 2_000;

/// What is taken off a time that larder keeps in whole milliseconds.
const ROUNDING: Duration = Duration::from_millis(2);

/// What a process has done since it last said so.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) reads: AtomicU64,
    pub(super) loads: AtomicU64,
    pub(super) bumps: AtomicU64,
    pub(super) pending: AtomicU64,
}

pub(super) struct Desk {
    pub(super) settings: Settings,
    pub(super) namespace: Namespace,
    pub(super) pages: TieredCache<u32, Vec<u8>>,
    /// Values of no group.
    pub(super) singles: TieredCache<u32, Vec<u8>>,
    pub(super) truth: Truth,
    pub(super) log: Log,
    pub(super) calls: Calls,
    pub(super) counts: Counts,
    /// By group: the version of the last bump of this process that has returned.
    bumped: [AtomicU64; GROUPS as usize],
    pub(super) finishing: AtomicBool,
}

impl Desk {
    pub(super) fn new(settings: Settings) -> Result<Desk, Box<dyn Error>> {
        let servers = settings.servers.iter().fold(Memcached::builder(), |memcached, server| memcached.server(server));
        let lost = if settings.plant == Some(Plant::ServeStale) { LostTrust::ServeStale } else { LostTrust::default() };
        let namespace = Namespace::builder("chaos", servers.connect_timeout(TIMEOUT).build()?)
            .timeout(TIMEOUT)
            .poll_interval(POLL_INTERVAL)
            .trust(TRUST)
            .lease(LEASE)
            .on_lost_trust(lost)
            .build()?;
        let pages = TieredCache::builder(&namespace, "pages")
            .capacity(CAPACITY)
            .weigher(|_, value: &Vec<u8>| value.len() as u64)
            .soft_ttl(PAGE_SOFT_TTL)
            .compression(Compression::lz4())
            .codec(RawBytes)
            .build()?;
        let singles = TieredCache::builder(&namespace, "singles").capacity(1_000).ttl(SINGLE_TTL).codec(RawBytes);
        let desk = Desk {
            singles: singles.build()?,
            pages,
            namespace,
            truth: Truth::open(&settings.folder)?,
            log: Log::open()?,
            calls: Calls::default(),
            counts: Counts::default(),
            bumped: std::array::from_fn(|_| AtomicU64::new(0)),
            finishing: AtomicBool::new(false),
            settings,
        };
        Ok(desk)
    }

    pub(super) fn has(&self, plant: Plant) -> bool {
        self.settings.plant == Some(plant)
    }

    /// Runs a call of larder's on the thread with number `at`.
    pub(super) fn call<T>(&self, at: usize, verb: Verb, call: impl FnOnce() -> T) -> T {
        self.calls.run(at, verb, &self.log, call)
    }

    /// Returns the time until when this process knows, as its trust lease tells, what was acknowledged; `None` if the lease
    /// does not hold.
    ///
    /// The lease reaches from the note of the last look that was applied. Whoever reads from now on has to know what was
    /// acknowledged before that look.
    pub(super) fn noted_ns(&self) -> Option<u64> {
        // Before the lease is asked for, so that the note is never taken for later than it was.
        let now = now_ns();
        let left = self.namespace.health().trust_left;
        (!left.is_zero()).then(|| (now + ns(left)).saturating_sub(ns(TRUST + ROUNDING)))
    }

    /// Returns for how long the last look at the journal is past, if the trust lease holds.
    pub(super) fn look_age_ns(&self) -> Option<u64> {
        let left = self.namespace.health().trust_left;
        (!left.is_zero()).then(|| ns(TRUST.saturating_sub(left)))
    }

    /// Takes note that a bump of this process has returned.
    pub(super) fn bumped(&self, group: u32, version: u64) {
        self.bumped[group as usize].store(version, Ordering::SeqCst);
    }

    /// Reads one page or several by `verb`, and takes note of what they say. `noted_ns` is from before.
    pub(super) fn read(&self, at: usize, verb: Verb, keys: &[u32], noted_ns: Option<u64>, clerk: &mut Clerk) -> usize {
        let bumped = |group: u32| self.bumped[group as usize].load(Ordering::SeqCst);
        let own: Vec<_> = keys.iter().map(|key| groups_of(*key).map(bumped)).collect();
        let began_ns = now_ns();
        // However the lease stands, nothing is served that was acknowledged to be dead before as long as it.
        let known_ns = noted_ns.unwrap_or(0).max(began_ns - ns(TRUST + ROUNDING));
        let values = self.call(at, verb, || match verb {
            Verb::Local => vec![self.pages.local().get(&keys[0])],
            Verb::Get => vec![self.pages.get(&keys[0])],
            Verb::GetMany => self.pages.get_many(keys),
            _ => vec![self.load_page(keys[0])],
        });
        self.counts.reads.fetch_add(values.len() as u64, Ordering::Relaxed);
        let mut found = 0;
        for ((key, own), mut value) in keys.iter().zip(own).zip(values).filter_map(|(key, value)| Some((key, value?))) {
            if self.has(Plant::WrongByte) && fastrand::u16(..1_000) == 0 {
                value[0] ^= 1;
            }
            let Some(stamp) = Stamp::of(*key, &value) else {
                self.log.note(Record::Wrong { key: *key as u16 });
                continue;
            };
            found += 1;
            for ((group, version), bumped) in groups_of(*key).into_iter().zip(stamp.versions).zip(own) {
                clerk.see(&self.log, group, version, (known_ns, began_ns));
                if version < bumped {
                    self.log.note(Record::OwnStale { group: group as u16, version, bumped });
                }
            }
        }
        found
    }

    fn load_page(&self, key: u32) -> Option<Vec<u8>> {
        let loaded = self.pages.get_or_load(&key, |load| {
            let [early, late] = groups_of(key);
            load.groups([group_name(early)]);
            let versions = [self.version(early), self.version(late)];
            thread::sleep(Duration::from_micros(fastrand::u64(..LONGEST_PAGE_LOAD_US)));
            // What a load names at its end must be fenced just as well.
            load.groups([group_name(late)]);
            self.counts.loads.fetch_add(1, Ordering::Relaxed);
            Ok::<_, std::io::Error>(Stamp { key, versions }.value())
        });
        loaded.ok()
    }

    /// Reads a value of no group, and writes down when it is loaded.
    pub(super) fn read_single(&self, at: usize, key: u32) {
        let lone = self.has(Plant::LoneLoads);
        let options = if lone { CallOptions::new().skip_remote() } else { CallOptions::new() };
        let loaded = self.call(at, Verb::GetOrLoad, || {
            self.singles.get_or_load_with(&key, options, |_| {
                let load = fastrand::u64(..);
                self.log.note(Record::LoadBegan { key: key as u16, load, at_ns: now_ns() });
                thread::sleep(LONGEST_LOAD.mul_f64(fastrand::f64()));
                self.log.note(Record::LoadEnded { key: key as u16, load, at_ns: now_ns() });
                self.counts.loads.fetch_add(1, Ordering::Relaxed);
                Ok::<_, std::io::Error>(Stamp { key, versions: [load, 0] }.value())
            })
        });
        self.counts.reads.fetch_add(1, Ordering::Relaxed);
        if loaded.is_ok_and(|value| Stamp::of(key, &value).is_none()) {
            self.log.note(Record::Wrong { key: key as u16 });
        }
    }

    /// Counts a change of a group that this process changes alone, and returns how many that makes.
    pub(super) fn change(&self, group: u32) -> u64 {
        self.truth.change(group, 0).expect("the source can be written")
    }

    pub(super) fn version(&self, group: u32) -> u64 {
        self.truth.versions(group).expect("the source can be read").0[0]
    }
}
