//! Pages of the cache of responses, as the remote tier has them: any bytes are a page that can be served, or an error.

use larder::SharedBytes;
use larder::fuzzing;

use crate::heap;

/// What a header takes in memory beside its bytes, with the table that it stands in.
const HEADER_OVERHEAD: usize = 512;

/// The shortest header, and the shortest text of a list, as they are written.
const SHORTEST: usize = 4;

pub fn run(data: &[u8]) {
    let most = 16 * data.len() + HEADER_OVERHEAD * (data.len() / SHORTEST) + (64 << 10);
    let shared = SharedBytes::from(data.to_vec());
    let Ok(written) = heap::within(most, || fuzzing::page(&shared)) else { return };
    // Headers of one name stand together once they have been read; but for that, there is one way to write a page.
    assert_eq!(written.len(), data.len());
    let again = fuzzing::page(&written.clone().into()).expect("it was written");
    assert_eq!(again, written);
}
