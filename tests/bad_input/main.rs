//! Bad input: the empty, the huge, the zero, the NaN, the overflowing and the non-UTF-8, given to every public function. What
//! each of them does is in `src/docs/bad_input.md`, row by row, with the test that shows it; [`table`] holds the two together.

mod entries;
#[cfg(feature = "http")]
mod http;
mod loads;
mod local;
#[cfg(feature = "memcached")]
mod memcached;
#[cfg(feature = "tiered")]
mod remote;
mod table;
#[cfg(feature = "tiered")]
mod tiered;

use std::fmt::{Debug, Display};
use std::time::Duration;

/// A name, or a key, of a megabyte.
fn huge() -> String {
    "h".repeat(1 << 20)
}

const SECOND: Duration = Duration::from_secs(1);

/// Checks that there is an error, and that its message says all of this.
#[track_caller]
fn refused<T: Debug, E: Display>(result: Result<T, E>, says: &[&str]) {
    let message = result.expect_err("this is an error").to_string();
    for part in says {
        assert!(message.contains(part), "{message:?} does not say {part:?}");
    }
}
