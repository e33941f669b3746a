//! The golden files of the wire format, for tests.

use std::fs;
use std::path::Path;

/// Compares `encoded` with the file `name` in `tests/data`, byte for byte: other processes and later builds read these
/// bytes.
///
/// `LARDER_BLESS=1 cargo test --all-features` writes files that are missing. It never changes one: a new format is a new
/// version, with files of its own.
pub(crate) fn assert_golden(name: &str, encoded: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    if !path.exists() && std::env::var_os("LARDER_BLESS").is_some_and(|bless| bless == "1") {
        fs::write(&path, encoded).unwrap();
    }
    let golden = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; see LARDER_BLESS", path.display()));
    assert!(encoded == golden, "{name} reads\n{}\nnow\n{}", golden.escape_ascii(), encoded.escape_ascii());
}
