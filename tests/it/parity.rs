//! What five older systems did, one module each: every test is named after something that its system did, or left undone.

mod antidogpiling;
mod cache_utils;
mod cachecow;
#[cfg(feature = "http")]
mod etag_cache;
mod namespace_recipe;

use std::time::Duration;

use larder::{Clock, EntryOptions, InMemoryRemote, ManualClock, NamespaceBuilder, TieredCacheBuilder};

use crate::rules::Process;

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// A store and its processes, which share a clock that stands still.
pub(crate) struct World {
    pub(crate) store: InMemoryRemote,
    clock: Clock,
    pub(crate) time: ManualClock,
}

impl World {
    pub(crate) fn new() -> World {
        let (clock, time) = Clock::manual();
        World { store: InMemoryRemote::new().with_clock(clock.clone()), clock, time }
    }

    pub(crate) fn clock(&self) -> Clock {
        self.clock.clone()
    }

    /// Starts a process.
    pub(crate) fn process(&self) -> Process {
        self.process_with(|namespace| namespace, |pages| pages)
    }

    pub(crate) fn process_with(
        &self,
        namespace: impl FnOnce(NamespaceBuilder) -> NamespaceBuilder,
        pages: impl FnOnce(TieredCacheBuilder<String, String>) -> TieredCacheBuilder<String, String>,
    ) -> Process {
        Process::with(&self.store, |builder| namespace(builder.clock(self.clock())), pages)
    }
}

pub(crate) fn in_group(group: &str) -> EntryOptions {
    EntryOptions::new().groups([group])
}
