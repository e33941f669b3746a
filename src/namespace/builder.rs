//! Building a namespace.

use std::fmt;
use std::time::Duration;

use super::core::Core;
use super::settings::{Announce, LostTrust, MAX_LEASE, MIN_LEASE, Settings, WriteMode};
use super::threads::Threads;
use super::{Handle, Namespace};
use crate::clock::Clock;
use crate::error::BuildError;
use crate::group::Groups;
use crate::remote::batch::Batcher;
use crate::remote::keyspace::{Keyspace, group_hash};
use crate::remote::tier::RemoteTier;
use crate::sync::Arc;
use crate::watch::WayWatch;

/// How long one exchange with the remote tier may take, unless the builder says otherwise.
const TIMEOUT: Duration = Duration::from_millis(500);

/// How often the journal is looked at, unless the builder says otherwise.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// How long the local tier is served after a look at the journal, unless the builder says otherwise: ten looks.
const TRUST: Duration = Duration::from_millis(500);

/// How long a lease lasts, unless the builder says otherwise.
const LEASE: Duration = Duration::from_secs(30);

/// The longest interval between two looks: without one a day, processes do not agree on anything.
const MAX_POLL_INTERVAL: Duration = Duration::from_secs(24 * 3_600);

/// Builds a [`Namespace`]. Made by [`Namespace::builder`].
#[must_use = "a builder does nothing until it is built"]
pub struct NamespaceBuilder {
    name: String,
    tier: Arc<dyn RemoteTier>,
    version: String,
    timeout: Duration,
    clock: Clock,
    settings: Settings,
}

impl NamespaceBuilder {
    pub(super) fn new(name: &str, tier: Arc<dyn RemoteTier>) -> Self {
        NamespaceBuilder {
            name: name.to_owned(),
            tier,
            version: String::new(),
            timeout: TIMEOUT,
            clock: Clock::system(),
            settings: Settings {
                poll_interval: POLL_INTERVAL,
                trust: TRUST,
                on_lost_trust: LostTrust::default(),
                write_mode: WriteMode::default(),
                announce: Announce::default(),
                lease: LEASE,
            },
        }
    }

    /// Sets the version of what is stored: values of another version are not seen. Change it with the shape of a value's
    /// type. Default: empty. Up to 64 bytes of printable ASCII without `:`.
    pub fn version(mut self, version: &str) -> Self {
        self.version = version.to_owned();
        self
    }

    /// Sets how long one exchange with the remote tier may take; a lookup takes one as a rule, and two at most. Default:
    /// 500 ms. Zero is an error.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets how often the journal is looked at: how late this process may learn, while it is connected, what another has
    /// invalidated. Default: 50 ms. From 1 ms to a day, and less than [`trust`](Self::trust).
    ///
    /// A look is one small exchange with one server, whatever happens; every process makes as many.
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.settings.poll_interval = interval;
        self
    }

    /// Sets how long the local tier is served after the last look at the journal that was answered: the bound on staleness of
    /// a process that is cut off from the remote tier. Default: 500 ms. More than [`poll_interval`](Self::poll_interval);
    /// several times as much, so that one slow answer costs nothing.
    pub fn trust(mut self, trust: Duration) -> Self {
        self.settings.trust = trust;
        self
    }

    /// Sets what the local tier does once that time is over. Default: [`LostTrust::Revalidate`].
    pub fn on_lost_trust(mut self, policy: LostTrust) -> Self {
        self.settings.on_lost_trust = policy;
        self
    }

    /// Sets when writes return. Default: [`WriteMode::Through`].
    pub fn write_mode(mut self, mode: WriteMode) -> Self {
        self.settings.write_mode = mode;
        self
    }

    /// Sets which changes of single keys are told to other processes. Default: [`Announce::All`].
    pub fn announce(mut self, announce: Announce) -> Self {
        self.settings.announce = announce;
        self
    }

    /// Sets how long the lease of a load lasts: when another process may load the key of one that has vanished. It is renewed
    /// while the load runs. Default: 30 s. From 3 s to a day; whole seconds, rounded up.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.settings.lease = lease;
        self
    }

    /// Sets where the local tiers, the trust lease and the poll interval take their time from. What waits for the remote tier
    /// goes by the system's clock in any case. Default: the system's monotonic clock.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Builds the namespace, and starts the thread that follows the journal. Does no I/O itself.
    ///
    /// # Errors
    /// [`BuildError`], with the value and what to do, if a name or a setting cannot be used, or the thread cannot be started.
    pub fn build(self) -> Result<Namespace, BuildError> {
        let Settings { poll_interval, trust, lease, write_mode, .. } = self.settings;
        let refuse = |message: String| Err(BuildError::new(message));
        if self.timeout.is_zero() {
            return refuse(
                "timeout is zero, so every exchange with the remote tier would fail; set how long one may take"
                    .to_owned(),
            );
        }
        if !(Duration::from_millis(1)..=MAX_POLL_INTERVAL).contains(&poll_interval) {
            return refuse(format!("poll_interval is {poll_interval:?}; set 1 ms to {MAX_POLL_INTERVAL:?}"));
        }
        if trust <= poll_interval {
            return refuse(format!(
                "trust is {trust:?} and poll_interval is {poll_interval:?}, so the local tier would lapse between two looks \
                 at the journal; set trust to several times the poll interval"
            ));
        }
        if !(MIN_LEASE..=MAX_LEASE).contains(&lease) {
            return refuse(format!("lease is {lease:?}; set {MIN_LEASE:?} to {MAX_LEASE:?}"));
        }
        if write_mode == (WriteMode::Behind { queue: 0 }) {
            return refuse("write_mode is Behind with a queue of 0, which takes no write; set 1 or more".to_owned());
        }
        let keys = Keyspace::new(&self.name, &self.version).map_err(|error| BuildError::new(error.to_string()))?;
        let dedicated = self.tier.dedicated().map_or_else(|| self.tier.clone(), Arc::from);
        let follower = Batcher::watched(dedicated, self.timeout, &WayWatch::new(&self.name, true));
        let batcher = Arc::new(Batcher::watched(self.tier, self.timeout, &WayWatch::new(&self.name, false)));
        let groups = Groups::by_hash(group_hash);
        let core = Core::new(batcher, keys, groups, self.clock, self.settings);
        let threads = Threads::start(&core, follower).map_err(|error| {
            BuildError::new(format!("the thread that follows the journal cannot be started: {error}"))
        })?;
        Ok(Namespace(Arc::new(Handle { core, threads })))
    }
}

impl fmt::Debug for NamespaceBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NamespaceBuilder")
            .field("name", &self.name)
            .field("version", &self.version)
            .field("timeout", &self.timeout)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
