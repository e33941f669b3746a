//! Fuzz targets of larder. Each is a function of bytes, which panics where larder breaks a promise.
//!
//! libFuzzer runs them (`cargo fuzz run <target>`), and so does `replay`, on any toolchain: it runs each corpus, and then
//! mutations of it.

mod heap;
mod input;
pub mod targets;

#[cfg(not(fuzzing))]
compile_error!("build in the folder of this package, whose .cargo/config.toml sets --cfg fuzzing, or with cargo-fuzz");

/// A target: what it does with an input.
pub type Target = fn(&[u8]);

/// All targets, by the names of their corpora.
pub const TARGETS: [(&str, Target); 10] = [
    ("compressed", targets::compressed::run),
    ("envelope", targets::envelope::run),
    ("http_headers", targets::http_headers::run),
    ("journal", targets::journal::run),
    ("keys", targets::keys::run),
    ("local", targets::local::run),
    ("memcached", targets::memcached::run),
    ("pages", targets::pages::run),
    ("replies", targets::replies::run),
    ("tiered", targets::tiered::run),
];
