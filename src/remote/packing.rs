//! How payloads lie in the store: as their codec wrote them, or compressed.

#[cfg(feature = "lz4")]
pub(crate) mod lz4;

use super::codec::CodecId;
use super::reader::DecodeError;

/// The flag of a header whose payload is compressed with LZ4.
pub(crate) const COMPRESSED: u8 = 1 << CodecId::BITS;

/// How a cache stores payloads, and which it reads.
///
/// Reading does not depend on what is written: a process whose build knows compressed values reads them, so that the setting
/// may reach one process after the other.
#[cfg(feature = "lz4")]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Packing {
    pub(crate) compression: Option<lz4::Compression>,
}

#[cfg(feature = "lz4")]
impl Packing {
    /// The flags that this build knows. Values with another are misses.
    pub(super) const KNOWN_FLAGS: u8 = CodecId::ALL_FLAGS | COMPRESSED;

    /// Returns `payload` compressed, if the cache does that and it becomes smaller.
    pub(super) fn pack(self, payload: &[u8]) -> Option<Vec<u8>> {
        self.compression?.pack(payload)
    }

    /// Returns what was compressed to `stored`.
    ///
    /// # Errors
    /// A miss to whoever reads: see [`DecodeError`].
    pub(super) fn unpack(self, stored: &[u8]) -> Result<Vec<u8>, DecodeError> {
        self.compression.unwrap_or(lz4::Compression::lz4()).unpack(stored)
    }
}

/// How a cache stores payloads, and which it reads: as codecs write them.
#[cfg(not(feature = "lz4"))]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Packing {}

#[cfg(not(feature = "lz4"))]
impl Packing {
    pub(super) const KNOWN_FLAGS: u8 = CodecId::ALL_FLAGS;

    pub(super) fn pack(self, _payload: &[u8]) -> Option<Vec<u8>> {
        None
    }

    pub(super) fn unpack(self, _stored: &[u8]) -> Result<Vec<u8>, DecodeError> {
        Err(DecodeError::UnknownFlags(COMPRESSED))
    }
}
