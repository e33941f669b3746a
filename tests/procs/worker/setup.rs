//! The namespace of a worker.

use larder::{Memcached, Namespace};
use shared::order::Settings;

pub(crate) fn namespace(settings: &Settings) -> Namespace {
    let memcached = Memcached::connect(&settings.memcached).expect("connect to memcached");
    Namespace::builder(&settings.namespace, memcached)
        .version(&settings.version)
        .timeout(settings.timeout)
        .poll_interval(settings.poll_interval)
        .trust(settings.trust)
        .lease(settings.lease)
        .build()
        .expect("a namespace")
}
