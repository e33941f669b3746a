//! What stands for spans where there are none.

use std::future::Future;

use super::cache::CacheWatch;
use crate::clock::Clock;

#[derive(Debug, Default)]
pub(crate) struct LoadSpan {}

impl LoadSpan {
    #[inline]
    pub(crate) fn begin(&self, _cache: &CacheWatch, _clock: &Clock) {}

    #[inline]
    pub(crate) fn enter(&self, _keys: usize) -> Option<EnteredSpan> {
        None
    }

    #[inline]
    pub(crate) fn end(&self, _outcome: &'static str) {}
}

pub(crate) struct EnteredSpan;

pub(crate) const PANICKED: &str = "panicked";

pub(crate) struct Background;

impl Background {
    #[inline]
    pub(crate) fn new() -> Background {
        Background
    }

    #[inline]
    pub(crate) fn follow<F: Future>(self, future: F) -> F {
        future
    }
}
