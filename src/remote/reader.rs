//! Reads bytes that somebody else wrote: every read is checked, and what is left over is an error.

use std::fmt;

use super::codec::CodecId;
use super::error::{RemoteError, RemoteErrorKind};

/// Why bytes from the store are not what they should be.
///
/// A counted miss for whoever reads a value, and never the caller's fault: an older release, a foreign program or a broken
/// store wrote them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DecodeError {
    /// They end too early.
    Truncated,
    /// They go on after their end.
    TrailingBytes,
    /// They are not larder's, or not of this kind.
    UnknownMagic,
    /// They are of a version that this build does not know.
    UnknownVersion(u8),
    /// Flags are set that this build does not know.
    UnknownFlags(u8),
    /// They speak of something that this build does not know.
    UnknownKind(u8),
    /// What is reserved is not zero.
    ReservedBits,
    /// A length is above its cap.
    TooLong,
    /// They are not what compression makes of anything, or of something of another length.
    #[cfg_attr(not(feature = "lz4"), expect(dead_code))]
    Unpackable,
    /// They were damaged on their way.
    ChecksumMismatch,
    /// They belong to another key.
    WrongKey,
    /// Another codec wrote them.
    WrongCodec {
        /// The one that did.
        found: CodecId,
    },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeError::Truncated => f.write_str("the bytes end too early"),
            DecodeError::TrailingBytes => f.write_str("the bytes go on after their end"),
            DecodeError::UnknownMagic => f.write_str("the bytes begin with a foreign magic number"),
            DecodeError::UnknownVersion(version) => write!(f, "format version {version} is unknown"),
            DecodeError::UnknownFlags(flags) => write!(f, "flags {flags:#04x} are unknown"),
            DecodeError::UnknownKind(kind) => write!(f, "entries of kind {kind} are unknown"),
            DecodeError::ReservedBits => f.write_str("reserved bytes are not zero"),
            DecodeError::TooLong => f.write_str("a length is above its cap"),
            DecodeError::Unpackable => f.write_str("a compressed payload cannot be unpacked"),
            DecodeError::ChecksumMismatch => f.write_str("the checksum does not match"),
            DecodeError::WrongKey => f.write_str("the value belongs to another key"),
            DecodeError::WrongCodec { found } => write!(f, "the value was written by another codec, {found:?}"),
        }
    }
}

impl std::error::Error for DecodeError {}

impl From<DecodeError> for RemoteError {
    fn from(error: DecodeError) -> Self {
        RemoteError::with_source(RemoteErrorKind::Codec, "an item of the remote tier cannot be read", error)
    }
}

/// A cursor over untrusted bytes.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Takes the next `len` bytes.
    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Takes the next `N` bytes.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_le_bytes)
    }

    /// Takes whatever is left.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// Checks that nothing is left.
    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::TrailingBytes) }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    #[test]
    fn reads_little_endian_in_order() {
        let mut reader = Reader::new(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17]);
        assert_eq!(reader.u8(), Ok(1));
        assert_eq!(reader.u16(), Ok(0x0302));
        assert_eq!(reader.u32(), Ok(0x0706_0504));
        assert_eq!(reader.u64(), Ok(0x0F0E_0D0C_0B0A_0908));
        assert_eq!(reader.clone().finish(), Err(DecodeError::TrailingBytes));
        assert_eq!(reader.clone().rest(), [16, 17]);
        assert_eq!(reader.take(2), Ok(&[16, 17][..]));
        assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn never_reads_past_the_end() {
        let mut reader = Reader::new(&[1, 2, 3]);
        assert_eq!(reader.u32(), Err(DecodeError::Truncated));
        assert_eq!(reader.u64(), Err(DecodeError::Truncated));
        assert_eq!(reader.take(4), Err(DecodeError::Truncated));
        assert_eq!(reader.take(usize::MAX), Err(DecodeError::Truncated));
        // What failed took nothing.
        assert_eq!(reader.array(), Ok([1, 2, 3]));
        assert_eq!(reader.u8(), Err(DecodeError::Truncated));
        assert_eq!(reader.take(0), Ok(&[][..]));
    }

    #[test]
    fn is_a_codec_error_of_the_remote_tier() {
        let error = RemoteError::from(DecodeError::UnknownVersion(9));
        assert_eq!(error.kind(), RemoteErrorKind::Codec);
        assert_eq!(error.source().unwrap().to_string(), "format version 9 is unknown");
    }
}
