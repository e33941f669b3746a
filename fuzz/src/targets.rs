//! The targets.

pub mod compressed;
pub mod envelope;
pub mod http_headers;
pub mod journal;
pub mod keys;
pub mod local;
pub mod memcached;
pub mod pages;
pub mod replies;
pub mod tiered;
