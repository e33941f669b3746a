//! Codecs: how a value becomes bytes for the store, and a value again.

#[cfg(feature = "serde")]
mod guard;
#[cfg(feature = "serde")]
mod postcard;

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

use super::bytes::SharedBytes;
use super::error::{RemoteError, RemoteErrorKind};
use crate::sync::Arc;

#[cfg(feature = "serde")]
pub use self::postcard::Postcard;

/// Writes values of type `V` as bytes, and reads them again.
///
/// larder calls it outside all its locks, on the thread of the caller or of the I/O.
///
/// # Contract
/// - `encode` only appends to `out`; what it appended before an error is thrown away.
/// - `decode` takes what any process may have written, and what no process has: it answers an error for bytes that it did
///   not write, without panic, and without allocating out of proportion to their number. A checksum protects from damage,
///   not from malice.
/// - A codec that changes how it writes also changes its [`id`](Self::id), or the application changes the version of its
///   namespace. The same goes for a type `V` that changes its shape.
///
/// # Examples
/// ```
/// use larder::{Codec, CodecError, CodecId};
///
/// /// Temperatures in hundredths of a degree.
/// struct Centi;
///
/// impl Codec<f64> for Centi {
///     fn id(&self) -> CodecId {
///         CodecId::custom::<0>()
///     }
///
///     fn encode(&self, degrees: &f64, out: &mut Vec<u8>) -> Result<(), CodecError> {
///         out.extend_from_slice(&((degrees * 100.0) as i32).to_le_bytes());
///         Ok(())
///     }
///
///     fn decode(&self, bytes: &[u8]) -> Result<f64, CodecError> {
///         let bytes = bytes.try_into().map_err(|error| CodecError::with_source("no temperature", error))?;
///         Ok(f64::from(i32::from_le_bytes(bytes)) / 100.0)
///     }
/// }
///
/// let mut bytes = Vec::new();
/// Centi.encode(&21.5, &mut bytes)?;
/// assert_eq!(Centi.decode(&bytes)?, 21.5);
/// assert!(Centi.decode(&bytes[1..]).is_err());
/// # Ok::<(), CodecError>(())
/// ```
pub trait Codec<V>: Send + Sync + 'static {
    /// Returns what marks a value as written by this codec. A value with another mark counts as a miss.
    fn id(&self) -> CodecId;

    /// Appends `value` to `out`.
    ///
    /// # Errors
    /// When `value` has no encoding. It then lives in the local tier only.
    fn encode(&self, value: &V, out: &mut Vec<u8>) -> Result<(), CodecError>;

    /// Reads a value that takes up all of `bytes`.
    ///
    /// # Errors
    /// When `bytes` are not what `encode` writes, or go on after it. The read counts as a miss.
    fn decode(&self, bytes: &[u8]) -> Result<V, CodecError>;

    /// Reads a value as [`decode`](Self::decode) does, from bytes that it may keep a share of instead of copying them. What it
    /// keeps for long should be [`compact`](SharedBytes::compact). Default: `decode`.
    ///
    /// # Errors
    /// As [`decode`](Self::decode).
    fn decode_shared(&self, bytes: &SharedBytes) -> Result<V, CodecError> {
        self.decode(bytes)
    }
}

/// Which codec wrote a value: one of 16, of which 8 are the application's, each by itself or within [`Optional`].
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CodecId(u8);

impl CodecId {
    /// [`RawBytes`].
    pub const RAW: Self = Self(0);
    /// `Postcard`, in the feature `serde`.
    pub const POSTCARD: Self = Self(1);
    /// The one of the cache of HTTP responses, in the feature `http`.
    #[cfg(feature = "http")]
    pub(crate) const PAGES: Self = Self(7);

    /// How many bits of the header's flags hold an id.
    pub(crate) const BITS: u32 = 5;
    /// All of these bits.
    pub(crate) const ALL_FLAGS: u8 = (1 << Self::BITS) - 1;
    /// How many of them say which codec it is.
    const CODEC_BITS: u32 = 4;
    /// The one that says that the codec's bytes stand behind a tag of [`Optional`].
    const OPTIONAL: u8 = 1 << Self::CODEC_BITS;
    /// The first that is the application's; those between are kept for codecs to come.
    const FIRST_CUSTOM: u8 = 8;

    /// Returns the id of the application's own codec number `N`, from 0 to 7. A greater `N` does not compile.
    #[must_use]
    pub const fn custom<const N: u8>() -> Self {
        const { assert!(N < (1 << Self::CODEC_BITS) - Self::FIRST_CUSTOM, "custom codecs are numbered from 0 to 7") };
        Self(Self::FIRST_CUSTOM + N)
    }

    /// Returns the id of [`Optional`] around the codec with this one.
    const fn optional(self) -> Self {
        Self(self.0 | Self::OPTIONAL)
    }

    /// Returns the id in the low bits of `flags`.
    pub(crate) fn from_flags(flags: u8) -> Self {
        Self(flags & Self::ALL_FLAGS)
    }

    /// Returns flags that hold the id and nothing else.
    pub(crate) fn to_flags(self) -> u8 {
        self.0
    }
}

impl fmt::Debug for CodecId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0 & Self::OPTIONAL == 0 { "CodecId(" } else { "CodecId(optional " })?;
        match Self(self.0 & !Self::OPTIONAL) {
            Self::RAW => f.write_str("raw)"),
            Self::POSTCARD => f.write_str("postcard)"),
            Self(id) if id >= Self::FIRST_CUSTOM => write!(f, "custom {})", id - Self::FIRST_CUSTOM),
            Self(id) => write!(f, "unknown {id})"),
        }
    }
}

/// A value that could not be written, or bytes that are no value.
pub struct CodecError {
    message: Cow<'static, str>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl CodecError {
    /// Makes an error that says `message`.
    #[must_use]
    pub fn new(message: impl Into<Cow<'static, str>>) -> Self {
        Self { message: message.into(), source: None }
    }

    /// Makes an error that says `message` and has a cause.
    #[must_use]
    pub fn with_source(message: impl Into<Cow<'static, str>>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { message: message.into(), source: Some(source.into()) }
    }
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CodecError").field("message", &self.message).field("source", &self.source).finish()
    }
}

impl Error for CodecError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

impl From<CodecError> for RemoteError {
    fn from(error: CodecError) -> Self {
        RemoteError::with_source(RemoteErrorKind::Codec, "the codec refused a value", error)
    }
}

/// Writes byte vectors and strings as they are.
///
/// For `Vec<u8>`, `Box<[u8]>`, `Arc<[u8]>`, `String`, `Box<str>` and `Arc<str>`. Bytes that are not UTF-8 are an error
/// where a string is asked for. And for [`SharedBytes`], which are not copied where they came in alone: from 16 KiB on.
#[derive(Clone, Copy, Debug, Default)]
pub struct RawBytes;

macro_rules! raw_bytes {
    ($($value:ty: $as_bytes:ident, $from_bytes:path;)*) => {$(
        impl Codec<$value> for RawBytes {
            fn id(&self) -> CodecId {
                CodecId::RAW
            }

            fn encode(&self, value: &$value, out: &mut Vec<u8>) -> Result<(), CodecError> {
                out.extend_from_slice(value.$as_bytes());
                Ok(())
            }

            fn decode(&self, bytes: &[u8]) -> Result<$value, CodecError> {
                $from_bytes(bytes).map(Into::into)
            }
        }
    )*};
}

impl Codec<SharedBytes> for RawBytes {
    fn id(&self) -> CodecId {
        CodecId::RAW
    }

    fn encode(&self, value: &SharedBytes, out: &mut Vec<u8>) -> Result<(), CodecError> {
        out.extend_from_slice(value);
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<SharedBytes, CodecError> {
        Ok(bytes.to_vec().into())
    }

    fn decode_shared(&self, bytes: &SharedBytes) -> Result<SharedBytes, CodecError> {
        // A small value in a cache would keep a buffer with what came beside it.
        Ok(bytes.clone().compact())
    }
}

raw_bytes! {
    Vec<u8>: as_ref, Ok;
    Box<[u8]>: as_ref, Ok;
    Arc<[u8]>: as_ref, Ok;
    String: as_bytes, utf8;
    Box<str>: as_bytes, utf8;
    Arc<str>: as_bytes, utf8;
}

/// Teaches a codec to write that there is no value: `Optional(RawBytes)` writes an `Option<String>`, say. For caches that
/// remember what was not found ([`negative_ttl`](crate::TieredCacheBuilder::negative_ttl)).
///
/// [`Postcard`](crate::Postcard) writes options by itself. A value so written is marked by a bit of its own, and a miss to a
/// process whose cache has the codec without `Optional`; so is one written without, to a process that has it with. An `Optional`
/// within another has the same mark as one alone: a cache that goes from one to the other changes its namespace's version.
///
/// # Examples
/// ```
/// use larder::{Codec, Optional, RawBytes};
///
/// let codec = Optional(RawBytes);
/// let mut bytes = Vec::new();
/// codec.encode(&Some("Ann".to_owned()), &mut bytes)?;
/// assert_eq!(codec.decode(&bytes)?, Some("Ann".to_owned()));
///
/// bytes.clear();
/// codec.encode(&None::<String>, &mut bytes)?;
/// assert_eq!(codec.decode(&bytes)?, None::<String>);
/// # Ok::<(), larder::CodecError>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Optional<C>(pub C);

impl<C> Optional<C> {
    /// The first byte, where nothing follows.
    const NONE: u8 = 0;
    /// The first byte, where the value follows as the inner codec writes it.
    const SOME: u8 = 1;
}

impl<V, C: Codec<V>> Codec<Option<V>> for Optional<C> {
    fn id(&self) -> CodecId {
        self.0.id().optional()
    }

    fn encode(&self, value: &Option<V>, out: &mut Vec<u8>) -> Result<(), CodecError> {
        match value {
            None => out.push(Self::NONE),
            Some(value) => {
                out.push(Self::SOME);
                self.0.encode(value, out)?;
            }
        }
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<Option<V>, CodecError> {
        match bytes.split_first() {
            Some((&Self::NONE, [])) => Ok(None),
            Some((&Self::SOME, value)) => self.0.decode(value).map(Some),
            _ => Err(CodecError::new("neither a value nor the mark of its absence")),
        }
    }

    fn decode_shared(&self, bytes: &SharedBytes) -> Result<Option<V>, CodecError> {
        match bytes.first() {
            Some(&Self::SOME) => self.0.decode_shared(&bytes.slice(1..bytes.len())).map(Some),
            _ => self.decode(bytes),
        }
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, CodecError> {
    std::str::from_utf8(bytes).map_err(|error| CodecError::with_source("the value is not UTF-8", error))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round_trip<V>(value: &V) -> V
    where
        RawBytes: Codec<V>,
    {
        let mut bytes = Vec::new();
        RawBytes.encode(value, &mut bytes).unwrap();
        RawBytes.decode(&bytes).unwrap()
    }

    #[test]
    fn ids_are_fixed() {
        assert_eq!(CodecId::RAW.to_flags(), 0);
        assert_eq!(CodecId::POSTCARD.to_flags(), 1);
        assert_eq!(CodecId::custom::<0>().to_flags(), 8);
        assert_eq!(CodecId::custom::<7>().to_flags(), 15);
        assert_eq!(Codec::<String>::id(&RawBytes), CodecId::RAW);
        for flags in 0..=31 {
            assert_eq!(CodecId::from_flags(flags).to_flags(), flags);
            assert_eq!(CodecId::from_flags(flags | 0xE0).to_flags(), flags);
        }
        assert_eq!(Codec::<Option<String>>::id(&Optional(RawBytes)).to_flags(), 16);
        assert_eq!(CodecId::custom::<7>().optional().to_flags(), 31);
        assert_eq!(format!("{:?}", CodecId::custom::<3>()), "CodecId(custom 3)");
        assert_eq!(format!("{:?}", CodecId::from_flags(5)), "CodecId(unknown 5)");
        assert_eq!(format!("{:?}", CodecId::custom::<3>().optional()), "CodecId(optional custom 3)");
    }

    #[test]
    fn shared_bytes_are_kept_where_they_fill_their_buffer_and_copied_out_of_a_larger_one() {
        let large = SharedBytes::from(vec![7; 1_000]);
        let decode = |bytes: &SharedBytes| -> SharedBytes { RawBytes.decode_shared(bytes).unwrap() };
        assert_eq!(decode(&large).as_ptr(), large.as_ptr());
        let small = large.slice(10..20);
        assert_eq!(decode(&small), small);
        assert_ne!(decode(&small).as_ptr(), small.as_ptr());

        let bytes = SharedBytes::from([&[1][..], &[7; 1_000]].concat());
        let decoded = Codec::<Option<SharedBytes>>::decode_shared(&Optional(RawBytes), &bytes).unwrap().unwrap();
        assert_eq!((decoded.as_ptr(), decoded.len()), (bytes[1..].as_ptr(), 1_000));
        for bad in [&[][..], &[2], &[0, 0]] {
            let bytes = SharedBytes::from(bad.to_vec());
            assert!(Codec::<Option<SharedBytes>>::decode_shared(&Optional(RawBytes), &bytes).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_neither_a_value_nor_none_is_an_error() {
        let decode = |bytes: &[u8]| Codec::<Option<String>>::decode(&Optional(RawBytes), bytes);
        assert_eq!(decode(&[0]).unwrap(), None);
        assert_eq!(decode(&[1]).unwrap(), Some(String::new()));
        for bad in [&[][..], &[2], &[255, b'a'], &[0, 0], &[0, b'a'], &[1, 0xFF]] {
            assert!(decode(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn raw_strings_are_utf8() {
        for bad in [&b"\xff"[..], b"a\xc3", b"\xed\xa0\x80"] {
            assert!(Codec::<String>::decode(&RawBytes, bad).is_err());
            assert!(Codec::<Box<str>>::decode(&RawBytes, bad).is_err());
            let error = Codec::<Arc<str>>::decode(&RawBytes, bad).unwrap_err();
            assert_eq!(error.to_string(), "the value is not UTF-8");
            assert!(error.source().is_some());
            assert_eq!(Codec::<Vec<u8>>::decode(&RawBytes, bad).unwrap(), bad);
        }
    }

    #[test]
    fn becomes_an_error_of_the_remote_tier() {
        let error = RemoteError::from(CodecError::new("no such colour"));
        assert_eq!(error.kind(), RemoteErrorKind::Codec);
        assert_eq!(error.source().unwrap().to_string(), "no such colour");
    }

    proptest! {
        #[test]
        fn raw_values_survive(bytes: Vec<u8>, text: String) {
            prop_assert_eq!(round_trip(&bytes), bytes.clone());
            prop_assert_eq!(&*round_trip(&Box::<[u8]>::from(&*bytes)), &*bytes);
            prop_assert_eq!(&*round_trip(&Arc::<[u8]>::from(&*bytes)), &*bytes);
            prop_assert_eq!(round_trip(&text), text.clone());
            prop_assert_eq!(&*round_trip(&Box::<str>::from(&*text)), &*text);
            prop_assert_eq!(&*round_trip(&Arc::<str>::from(&*text)), &*text);
        }

        #[test]
        fn optional_values_survive(value: Option<Option<Vec<u8>>>) {
            let codec = Optional(Optional(RawBytes));
            let mut bytes = Vec::new();
            codec.encode(&value, &mut bytes).unwrap();
            prop_assert_eq!(codec.decode(&bytes).unwrap(), value);
        }
    }
}
