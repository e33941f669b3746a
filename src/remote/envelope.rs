//! What surrounds a value in the store, so that a reader can tell whether it may use it.
//!
//! Little-endian, without gaps:
//!
//! ```text
//!  0  magic            u16   "lv"
//!  2  version          u8    1
//!  3  flags            u8    bits 0-3: codec; bit 4: within `Optional`; bit 5: the payload is compressed; bits 6-7: 0
//!  4  payload_len      u32
//!  8  key_fingerprint  u64   of namespace, version, cache and key
//! 16  created_ms       u64   Unix time, advisory: clocks differ between hosts, so no deadline is derived from it
//! 24  soft_ms          u32   from creation to the soft deadline; 2^32 - 1: there is none
//! 28  hard_ms          u32   from creation to the hard deadline; 2^32 - 1: there is none
//! 32  load_cost_us     u32   how long the load took; 0: unknown
//! 36  crc32c           u32   of all the bytes, these four taken for zeros
//! 40  ngroups          u8
//! 41  pad              [3]   0
//! 44  ngroups times    group_hash u64, hard_token u64, soft_token u64
//!     payload          payload_len bytes, to the end; compressed: its own length u32, then an LZ4 block
//! ```
//!
//! There is one encoding of each envelope, save that a block may be any of those that unpack to its payload: whatever deviates
//! is an error, down to reserved bits and trailing bytes.

use std::time::Duration;

use xxhash_rust::xxh3::Xxh3Default;

use super::bytes::SharedBytes;
use super::codec::{Codec, CodecError, CodecId};
use super::error::{RemoteError, RemoteErrorKind};
use super::packing::{COMPRESSED, Packing};
use super::reader::{DecodeError, Reader};

/// The most groups that a value may belong to, roots included: their number is one byte, and a peer can make a reader ask
/// for the tokens of as many.
pub(crate) const MAX_GROUPS: usize = u8::MAX as usize;

/// The longest payload. memcached takes 1 MiB unless told otherwise; a peer that stores more than this cannot make a
/// reader hand it to a codec.
pub(crate) const MAX_PAYLOAD_LEN: usize = 64 << 20;

const MAGIC: u16 = u16::from_le_bytes(*b"lv");
const VERSION: u8 = 1;
const FLAGS_AT: usize = 3;
const PAYLOAD_LEN_AT: usize = 4;
const CREATED_AT: usize = 16;
const CRC_AT: usize = 36;
const CRC_LEN: usize = 4;
const PAD: [u8; 3] = [0; 3];
const HEADER_LEN: usize = 44;
const TOKENS_LEN: usize = 24;

const _: () = {
    assert!(CREATED_AT == 2 + 1 + 1 + 4 + 8);
    let before_crc = CREATED_AT + 8 + 4 + 4 + 4;
    assert!(before_crc == CRC_AT && CRC_AT + CRC_LEN + 1 + PAD.len() == HEADER_LEN);
    assert!(MAX_PAYLOAD_LEN <= u32::MAX as usize);
};

/// A group that a value belongs to, with the group's tokens as they were before the value was loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupTokens {
    /// Which group: [`group_hash`](super::keyspace::group_hash).
    pub(crate) group_hash: u64,
    /// Whether the value is alive: it is while the store has this one.
    pub(crate) hard: u64,
    /// Whether it is fresh, as far as the group goes.
    pub(crate) soft: u64,
}

/// How long from an entry's creation to one of its deadlines, as the wire has it: milliseconds, or never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WireTtl {
    ms: u32,
}

impl WireTtl {
    /// There is no such deadline.
    pub(crate) const NEVER: Self = Self { ms: u32::MAX };

    /// Rounds down to milliseconds, so that a value lives no longer than was asked for. 2^32 - 2 ms, nearly 50 days, is the
    /// longest: a longer one is cut to that, and never becomes `None`.
    pub(crate) fn new(ttl: Option<Duration>) -> Self {
        const LONGEST_MS: u32 = u32::MAX - 1;
        ttl.map_or(Self::NEVER, |ttl| Self {
            ms: u32::try_from(ttl.as_millis()).map_or(LONGEST_MS, |ms| ms.min(LONGEST_MS)),
        })
    }

    /// Returns the time to the deadline, or `None` if there is none.
    pub(crate) fn get(self) -> Option<Duration> {
        (self != Self::NEVER).then(|| Duration::from_millis(self.ms.into()))
    }
}

/// Returns what a load cost in microseconds, rounded down, at least 1 and at most 2^32 - 1 (71 minutes); 0 stands for
/// unknown.
pub(crate) fn load_cost_us(cost: Option<Duration>) -> u32 {
    cost.map_or(0, |cost| u32::try_from(cost.as_micros()).unwrap_or(u32::MAX).max(1))
}

/// What is known of a value besides its groups and its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Whose value it is: [`fingerprint`](super::keyspace::CacheKeyspace::fingerprint).
    pub(crate) key_fingerprint: u64,
    /// When it was made, in Unix milliseconds; advisory.
    pub(crate) created_ms: u64,
    /// When it becomes stale.
    pub(crate) soft_ttl: WireTtl,
    /// When it becomes dead.
    pub(crate) hard_ttl: WireTtl,
    /// What the load took, in microseconds; 0 stands for unknown.
    pub(crate) load_cost_us: u32,
}

/// A value about to be stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Envelope<'a> {
    pub(crate) header: Header,
    /// At most [`MAX_GROUPS`].
    pub(crate) groups: &'a [GroupTokens],
}

impl Envelope<'_> {
    /// Returns the envelope around a payload that `codec` wrote, in a vector of just its length.
    ///
    /// # Errors
    /// [`RemoteErrorKind::Codec`] with more than [`MAX_GROUPS`] groups, [`RemoteErrorKind::TooLarge`] with a payload longer
    /// than [`MAX_PAYLOAD_LEN`].
    #[cfg(test)]
    pub(crate) fn encode(&self, codec: CodecId, payload: &[u8]) -> Result<Vec<u8>, RemoteError> {
        self.encode_with(codec, Packing::default(), payload.len(), |out| {
            out.extend_from_slice(payload);
            Ok(())
        })
    }

    /// Returns the envelope around `value`, which the codec writes into its place, and `packing` may compress there.
    ///
    /// # Errors
    /// [`RemoteErrorKind::Codec`] when `codec` refuses the value, or with more than [`MAX_GROUPS`] groups;
    /// [`RemoteErrorKind::TooLarge`] with a payload longer than [`MAX_PAYLOAD_LEN`].
    pub(crate) fn encode_value<V>(
        &self,
        codec: &(impl Codec<V> + ?Sized),
        packing: Packing,
        value: &V,
    ) -> Result<Vec<u8>, RemoteError> {
        self.encode_with(codec.id(), packing, 0, |out| codec.encode(value, out))
    }

    fn encode_with(
        &self,
        codec: CodecId,
        packing: Packing,
        payload_capacity: usize,
        write_payload: impl FnOnce(&mut Vec<u8>) -> Result<(), CodecError>,
    ) -> Result<Vec<u8>, RemoteError> {
        let Ok(ngroups) = u8::try_from(self.groups.len()) else {
            return Err(RemoteError::new(
                RemoteErrorKind::Codec,
                format!("a value belongs to {} groups, and at most {MAX_GROUPS} can be recorded", self.groups.len()),
            ));
        };
        let payload_at = HEADER_LEN + self.groups.len() * TOKENS_LEN;
        let Header { key_fingerprint, created_ms, soft_ttl, hard_ttl, load_cost_us } = self.header;

        let mut out = Vec::with_capacity(payload_at + payload_capacity.min(MAX_PAYLOAD_LEN));
        out.extend_from_slice(&MAGIC.to_le_bytes());
        out.extend_from_slice(&[VERSION, codec.to_flags()]);
        out.extend_from_slice(&[0; 4]); // payload_len, not known yet
        out.extend_from_slice(&key_fingerprint.to_le_bytes());
        out.extend_from_slice(&created_ms.to_le_bytes());
        out.extend_from_slice(&soft_ttl.ms.to_le_bytes());
        out.extend_from_slice(&hard_ttl.ms.to_le_bytes());
        out.extend_from_slice(&load_cost_us.to_le_bytes());
        out.extend_from_slice(&[0; 4]); // crc32c, of zeros in its own place
        out.push(ngroups);
        out.extend_from_slice(&PAD);
        for GroupTokens { group_hash, hard, soft } in self.groups {
            out.extend_from_slice(&group_hash.to_le_bytes());
            out.extend_from_slice(&hard.to_le_bytes());
            out.extend_from_slice(&soft.to_le_bytes());
        }
        write_payload(&mut out)?;

        // A codec of the application's may have broken its promise to append; the header it spoilt is then a miss to all
        // readers, but must not be a panic here.
        let payload_len =
            out.len().checked_sub(payload_at).ok_or_else(|| CodecError::new("the codec removed bytes"))?;
        if payload_len > MAX_PAYLOAD_LEN {
            return Err(RemoteError::new(
                RemoteErrorKind::TooLarge,
                format!("a value has {payload_len} bytes, and at most {MAX_PAYLOAD_LEN} can be stored"),
            ));
        }
        if let Some(packed) = packing.pack(&out[payload_at..]) {
            // In a vector of its own: this one has room for what was compressed, and may wait in a queue.
            out = [&out[..payload_at], &packed].concat();
            out[FLAGS_AT] |= COMPRESSED;
        }
        let payload_len = (out.len() - payload_at) as u32;
        out[PAYLOAD_LEN_AT..][..4].copy_from_slice(&payload_len.to_le_bytes());
        let crc = crc32c::crc32c(&out);
        out[CRC_AT..][..CRC_LEN].copy_from_slice(&crc.to_le_bytes());
        Ok(out)
    }
}

/// A value as read, checked, and borrowed from the bytes of its item.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    pub(crate) header: Header,
    codec: CodecId,
    is_compressed: bool,
    /// Hash, hard token and soft token of each group, each little-endian.
    groups: &'a [[[u8; 8]; 3]],
    payload: &'a [u8],
}

impl<'a> View<'a> {
    /// Checks that `bytes` are one whole envelope of the key with `expected_fingerprint`. Copies and allocates nothing.
    ///
    /// # Errors
    /// A miss to whoever reads: see [`DecodeError`].
    pub(crate) fn decode(bytes: &'a [u8], expected_fingerprint: u64) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        if reader.u16()? != MAGIC {
            return Err(DecodeError::UnknownMagic);
        }
        let version = reader.u8()?;
        if version != VERSION {
            return Err(DecodeError::UnknownVersion(version));
        }
        let flags = reader.u8()?;
        if flags & !Packing::KNOWN_FLAGS != 0 {
            return Err(DecodeError::UnknownFlags(flags));
        }
        let payload_len = reader.u32()? as usize;
        if payload_len > MAX_PAYLOAD_LEN {
            return Err(DecodeError::TooLong);
        }
        let header = Header {
            key_fingerprint: reader.u64()?,
            created_ms: reader.u64()?,
            soft_ttl: WireTtl { ms: reader.u32()? },
            hard_ttl: WireTtl { ms: reader.u32()? },
            load_cost_us: reader.u32()?,
        };
        let crc = reader.u32()?;
        let ngroups = usize::from(reader.u8()?);
        if reader.array()? != PAD {
            return Err(DecodeError::ReservedBits);
        }
        let (words, []) = reader.take(ngroups * TOKENS_LEN)?.as_chunks() else {
            return Err(DecodeError::Truncated);
        };
        let (groups, []) = words.as_chunks() else {
            return Err(DecodeError::Truncated);
        };
        let payload = reader.take(payload_len)?;
        reader.finish()?;

        if checksum(bytes)? != crc {
            return Err(DecodeError::ChecksumMismatch);
        }
        // Last, so that it means what it says: the value is sound, and somebody else's.
        if header.key_fingerprint != expected_fingerprint {
            return Err(DecodeError::WrongKey);
        }
        let (codec, is_compressed) = (CodecId::from_flags(flags), flags & COMPRESSED != 0);
        Ok(Self { header, codec, is_compressed, groups, payload })
    }

    /// Returns the groups that the value belongs to, with the tokens as they were before its load.
    pub(crate) fn groups(&self) -> impl ExactSizeIterator<Item = GroupTokens> + 'a {
        self.groups.iter().map(|&[group_hash, hard, soft]| GroupTokens {
            group_hash: u64::from_le_bytes(group_hash),
            hard: u64::from_le_bytes(hard),
            soft: u64::from_le_bytes(soft),
        })
    }

    /// Returns the payload as it is stored, if `codec` wrote it.
    ///
    /// # Errors
    /// [`DecodeError::WrongCodec`] if another did.
    fn payload(&self, codec: CodecId) -> Result<&'a [u8], DecodeError> {
        if self.codec == codec { Ok(self.payload) } else { Err(DecodeError::WrongCodec { found: self.codec }) }
    }

    /// Reads the value out of `bytes`, which this is a view of, if `codec` wrote it.
    ///
    /// # Errors
    /// [`RemoteErrorKind::Codec`] if another did, when the payload cannot be unpacked, or when `codec` refuses it.
    pub(crate) fn value<V>(
        &self,
        codec: &(impl Codec<V> + ?Sized),
        packing: Packing,
        bytes: &SharedBytes,
    ) -> Result<V, RemoteError> {
        let payload = self.payload(codec.id())?;
        let value = if self.is_compressed {
            codec.decode_shared(&packing.unpack(payload)?.into())
        } else {
            // A payload goes to the end.
            codec.decode_shared(&bytes.slice(bytes.len() - payload.len()..bytes.len()))
        };
        Ok(value?)
    }
}

/// Returns what tells a sound envelope from every other, but for its times and the cost of its load: two with the same hold the
/// same payload, stored alike, in the same groups with the same tokens. `None` for what is too short to be one.
pub(crate) fn substance(envelope: &[u8]) -> Option<u128> {
    let mut hasher = Xxh3Default::new();
    hasher.update(envelope.get(..CREATED_AT)?);
    hasher.update(envelope.get(CRC_AT + CRC_LEN..)?);
    Some(hasher.digest128())
}

/// Returns the checksum of an envelope, whatever stands in the place of its own.
fn checksum(bytes: &[u8]) -> Result<u32, DecodeError> {
    let mut reader = Reader::new(bytes);
    let crc = crc32c::crc32c(reader.take(CRC_AT)?);
    reader.take(CRC_LEN)?;
    let crc = crc32c::crc32c_append(crc, &[0; CRC_LEN]);
    Ok(crc32c::crc32c_append(crc, reader.rest()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::codec::{Optional, RawBytes};
    use super::*;
    use crate::golden::assert_golden;

    const PLAIN: Packing = Packing {
        #[cfg(feature = "lz4")]
        compression: None,
    };

    const FINGERPRINT: u64 = 0x0123_4567_89AB_CDEF;

    const HEADER: Header = Header {
        key_fingerprint: FINGERPRINT,
        created_ms: 1_735_689_600_123,
        soft_ttl: WireTtl { ms: 60_000 },
        hard_ttl: WireTtl { ms: 480_000 },
        load_cost_us: 1_500,
    };

    const GROUPS: [GroupTokens; 3] = [
        GroupTokens { group_hash: 0, hard: 0x1111_1111_1111_1111, soft: 0x2222_2222_2222_2222 },
        GroupTokens { group_hash: 0x3333_3333_3333_3333, hard: 0x4444_4444_4444_4444, soft: 0x5555_5555_5555_5555 },
        GroupTokens { group_hash: u64::MAX, hard: 0, soft: 1 },
    ];

    fn sealed(groups: &[GroupTokens], payload: &[u8]) -> Vec<u8> {
        Envelope { header: HEADER, groups }.encode(CodecId::RAW, payload).unwrap()
    }

    /// Changes one byte of a sound envelope and makes its checksum right again.
    fn tampered(at: usize, byte: u8) -> Vec<u8> {
        let mut bytes = sealed(&GROUPS[..1], b"payload");
        bytes[at] = byte;
        let crc = checksum(&bytes).unwrap();
        bytes[CRC_AT..][..CRC_LEN].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Says of a sound envelope whether its payload is compressed.
    fn flagged(mut bytes: Vec<u8>, is_compressed: bool) -> Vec<u8> {
        if is_compressed {
            bytes[FLAGS_AT] |= COMPRESSED;
            let crc = checksum(&bytes).unwrap();
            bytes[CRC_AT..][..CRC_LEN].copy_from_slice(&crc.to_le_bytes());
        }
        bytes
    }

    fn shared(bytes: &[u8]) -> SharedBytes {
        bytes.to_vec().into()
    }

    fn decode_error(bytes: &[u8]) -> DecodeError {
        View::decode(bytes, FINGERPRINT).unwrap_err()
    }

    #[test]
    fn takes_its_own_length_and_no_more() {
        for (groups, payload) in [(0, 0), (1, 1), (3, 1000)] {
            let bytes = sealed(&GROUPS[..groups], &vec![7; payload]);
            assert_eq!(bytes.len(), HEADER_LEN + groups * TOKENS_LEN + payload);
            assert_eq!(bytes.capacity(), bytes.len());
        }
    }

    /// Two values that differ in anything else must not be taken for one another.
    #[test]
    fn its_substance_is_all_but_times_and_cost() {
        let sound = sealed(&GROUPS, b"payload");
        for at in 0..sound.len() {
            let mut other = sound.clone();
            other[at] ^= 1;
            let is_time = (16..40).contains(&at);
            assert_eq!(substance(&other) == substance(&sound), is_time, "byte {at}");
        }
        assert_ne!(substance(&sound[..sound.len() - 1]), substance(&sound));
        assert_eq!((substance(&sound[..39]), substance(&[])), (None, None));
    }

    #[test]
    fn borrows_the_payload() {
        let bytes = sealed(&GROUPS, b"payload");
        let view = View::decode(&bytes, FINGERPRINT).unwrap();
        assert_eq!(view.payload(CodecId::RAW).unwrap().as_ptr(), bytes[HEADER_LEN + 3 * TOKENS_LEN..].as_ptr());
        assert_eq!(view.groups().len(), 3);
    }

    #[test]
    fn every_truncation_is_an_error() {
        for groups in 0..=3 {
            let bytes = sealed(&GROUPS[..groups], b"payload");
            for len in 0..bytes.len() {
                assert_eq!(decode_error(&bytes[..len]), DecodeError::Truncated, "{len}");
            }
        }
    }

    #[test]
    fn every_flipped_bit_is_an_error() {
        let bytes = sealed(&GROUPS, b"payload");
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let error = decode_error(&flipped);
            // Where the structure does not say so already, the checksum does.
            if !(0..8).contains(&(bit / 8)) && !(40..44).contains(&(bit / 8)) {
                assert_eq!(error, DecodeError::ChecksumMismatch, "bit {bit}");
            }
        }
    }

    #[test]
    fn trailing_bytes_are_an_error() {
        let mut bytes = sealed(&GROUPS, b"payload");
        bytes.push(0);
        assert_eq!(decode_error(&bytes), DecodeError::TrailingBytes);
    }

    #[test]
    fn what_is_unknown_is_an_error_though_the_checksum_is_right() {
        assert!(View::decode(&tampered(0, b'l'), FINGERPRINT).is_ok());
        assert_eq!(decode_error(&tampered(0, b'L')), DecodeError::UnknownMagic);
        assert_eq!(decode_error(&tampered(1, b'V')), DecodeError::UnknownMagic);
        for version in [0, 2, 255] {
            assert_eq!(decode_error(&tampered(2, version)), DecodeError::UnknownVersion(version));
        }
        for flags in [0x40, 0x80, 0xC1, 0xF1] {
            assert_eq!(decode_error(&tampered(3, flags)), DecodeError::UnknownFlags(flags));
        }
        let compressed = tampered(3, COMPRESSED);
        if cfg!(feature = "lz4") {
            // It is not, and so it cannot be unpacked.
            let view = View::decode(&compressed, FINGERPRINT).unwrap();
            assert_eq!(
                view.value::<Vec<u8>>(&RawBytes, PLAIN, &shared(&compressed)).unwrap_err().kind(),
                RemoteErrorKind::Codec
            );
        } else {
            assert_eq!(decode_error(&compressed), DecodeError::UnknownFlags(COMPRESSED));
        }
        for at in 41..44 {
            assert_eq!(decode_error(&tampered(at, 1)), DecodeError::ReservedBits);
        }
    }

    #[test]
    fn lengths_that_lie_are_errors_though_the_checksum_is_right() {
        assert_eq!(decode_error(&tampered(4, 8)), DecodeError::Truncated);
        assert_eq!(decode_error(&tampered(4, 6)), DecodeError::TrailingBytes);
        assert_eq!(decode_error(&tampered(40, 2)), DecodeError::Truncated);
        assert_eq!(decode_error(&tampered(40, 255)), DecodeError::Truncated);
        assert_eq!(decode_error(&tampered(40, 0)), DecodeError::TrailingBytes);
        assert_eq!(decode_error(&tampered(7, 4)), DecodeError::TooLong);
        assert_eq!(decode_error(&tampered(7, 255)), DecodeError::TooLong);
        // The cap itself is no lie yet.
        let mut longest = tampered(7, 4);
        longest[4] = 0;
        assert_eq!(decode_error(&longest), DecodeError::Truncated);
    }

    #[test]
    fn another_keys_value_is_told_from_a_damaged_one() {
        let bytes = sealed(&GROUPS, b"payload");
        assert_eq!(View::decode(&bytes, FINGERPRINT + 1).unwrap_err(), DecodeError::WrongKey);
        assert_eq!(decode_error(&tampered(8, 0)), DecodeError::WrongKey);
    }

    #[test]
    fn another_codecs_value_is_not_decoded() {
        let bytes = Envelope { header: HEADER, groups: &[] }.encode(CodecId::custom::<2>(), b"payload").unwrap();
        let view = View::decode(&bytes, FINGERPRINT).unwrap();
        let found = CodecId::custom::<2>();
        assert_eq!(view.payload(CodecId::RAW), Err(DecodeError::WrongCodec { found }));
        assert_eq!(view.payload(found), Ok(&b"payload"[..]));
        let error = view.value::<String>(&RawBytes, PLAIN, &shared(&bytes)).unwrap_err();
        assert_eq!(error.kind(), RemoteErrorKind::Codec);
    }

    #[test]
    fn at_most_255_groups_and_64_mib() {
        let groups = vec![GROUPS[0]; 256];
        assert_eq!(View::decode(&sealed(&groups[..255], b"p"), FINGERPRINT).unwrap().groups().len(), 255);
        let error = Envelope { header: HEADER, groups: &groups }.encode(CodecId::RAW, b"p").unwrap_err();
        assert_eq!(error.kind(), RemoteErrorKind::Codec);
        assert!(error.to_string().contains("256 groups"), "{error}");

        let payload = vec![0; MAX_PAYLOAD_LEN + 1];
        assert!(View::decode(&sealed(&[], &payload[1..]), FINGERPRINT).is_ok());
        let error = Envelope { header: HEADER, groups: &[] }.encode(CodecId::RAW, &payload).unwrap_err();
        assert_eq!(error.kind(), RemoteErrorKind::TooLarge);
        assert!(error.to_string().contains("67108865 bytes"), "{error}");
    }

    #[test]
    fn a_codec_that_removes_bytes_is_an_error() {
        struct Truncates(usize);
        impl Codec<()> for Truncates {
            fn id(&self) -> CodecId {
                CodecId::custom::<0>()
            }
            fn encode(&self, (): &(), out: &mut Vec<u8>) -> Result<(), CodecError> {
                out.truncate(self.0);
                Ok(())
            }
            fn decode(&self, _: &[u8]) -> Result<(), CodecError> {
                Ok(())
            }
        }
        for len in 0..HEADER_LEN {
            let error = Envelope { header: HEADER, groups: &[] }.encode_value(&Truncates(len), PLAIN, &()).unwrap_err();
            assert_eq!(error.kind(), RemoteErrorKind::Codec);
        }
    }

    #[test]
    fn ttls_round_down_and_never_become_never() {
        let round_trip = |ttl| WireTtl::new(Some(ttl)).get();
        assert_eq!(WireTtl::new(None).get(), None);
        assert_eq!(round_trip(Duration::ZERO), Some(Duration::ZERO));
        assert_eq!(round_trip(Duration::from_micros(1_999)), Some(Duration::from_millis(1)));
        let longest = Duration::from_millis(u64::from(u32::MAX) - 1);
        assert_eq!(round_trip(longest), Some(longest));
        assert_eq!(round_trip(longest + Duration::from_millis(1)), Some(longest));
        assert_eq!(round_trip(Duration::MAX), Some(longest));
    }

    #[test]
    fn load_costs_saturate_and_are_told_from_unknown() {
        assert_eq!(load_cost_us(None), 0);
        assert_eq!(load_cost_us(Some(Duration::ZERO)), 1);
        assert_eq!(load_cost_us(Some(Duration::from_nanos(2_999))), 2);
        assert_eq!(load_cost_us(Some(Duration::MAX)), u32::MAX);
    }

    #[test]
    fn golden_raw_values() {
        let never = Header { soft_ttl: WireTtl::NEVER, hard_ttl: WireTtl::NEVER, load_cost_us: 0, ..HEADER };
        for (name, header, groups, payload) in [
            ("value-v1-no-groups.bin", HEADER, &GROUPS[..0], &b"a value"[..]),
            ("value-v1-one-group.bin", HEADER, &GROUPS[..1], b"a value"),
            ("value-v1-three-groups.bin", HEADER, &GROUPS[..], b"a value"),
            ("value-v1-never-expires.bin", never, &GROUPS[..1], b"a value"),
            ("value-v1-empty.bin", HEADER, &GROUPS[..1], b""),
            ("value-v1-raw.bin", HEADER, &GROUPS[..1], &std::array::from_fn::<_, 256, _>(|byte| byte as u8)),
        ] {
            let encoded = Envelope { header, groups }.encode_value(&RawBytes, PLAIN, &payload.to_vec()).unwrap();
            assert_golden(name, &encoded);
            let view = View::decode(&encoded, FINGERPRINT).unwrap();
            assert_eq!(view.header, header);
            assert!(view.groups().eq(groups.iter().copied()));
            assert_eq!(view.value::<Vec<u8>>(&RawBytes, PLAIN, &shared(&encoded)).unwrap(), payload);
        }
    }

    #[test]
    fn golden_optional_values() {
        for (name, value) in
            [("value-v1-optional-some.bin", Some("a value".to_owned())), ("value-v1-optional-none.bin", None)]
        {
            let envelope = Envelope { header: HEADER, groups: &GROUPS[..1] };
            let encoded = envelope.encode_value(&Optional(RawBytes), PLAIN, &value).unwrap();
            assert_golden(name, &encoded);
            let view = View::decode(&encoded, FINGERPRINT).unwrap();
            assert_eq!(view.value::<Option<String>>(&Optional(RawBytes), PLAIN, &shared(&encoded)).unwrap(), value);
            assert!(view.value::<String>(&RawBytes, PLAIN, &shared(&encoded)).is_err());
        }
    }

    /// What an encoder makes of a payload may change, what a block unpacks to may not: this one is written by hand.
    #[cfg(feature = "lz4")]
    #[test]
    fn golden_compressed_value() {
        // The length; "ab", then 14 bytes from two back; five literals.
        let stored = b"\x15\0\0\0\x2Aab\x02\0\x50cdefg";
        let encoded = flagged(sealed(&GROUPS[..1], stored), true);
        assert_golden("value-v1-compressed.bin", &encoded);
        let view = View::decode(&encoded, FINGERPRINT).unwrap();
        assert_eq!(view.value::<String>(&RawBytes, PLAIN, &shared(&encoded)).unwrap(), "ababababababababcdefg");
    }

    #[cfg(feature = "lz4")]
    #[test]
    fn a_compressed_value_is_smaller_and_says_so() {
        use super::super::packing::lz4::Compression;

        let packing = Packing { compression: Some(Compression::lz4()) };
        let envelope = Envelope { header: HEADER, groups: &GROUPS };
        for (len, is_compressed) in [(1_024, false), (1_025, true), (100_000, true)] {
            let value = "a".repeat(len);
            let encoded = envelope.encode_value(&RawBytes, packing, &value).unwrap();
            assert_eq!(encoded[FLAGS_AT] & COMPRESSED != 0, is_compressed, "{len}");
            assert_eq!(encoded.len() < HEADER_LEN + len / 2, is_compressed, "{len}");
            let view = View::decode(&encoded, FINGERPRINT).unwrap();
            // Whether the reader compresses or not.
            assert_eq!(view.value::<String>(&RawBytes, PLAIN, &shared(&encoded)).unwrap(), value);
            assert_eq!(view.value::<String>(&RawBytes, packing, &shared(&encoded)).unwrap(), value);
            for cut in 0..encoded.len() {
                assert_eq!(decode_error(&encoded[..cut]), DecodeError::Truncated);
            }
        }
    }

    #[cfg(feature = "serde")]
    #[test]
    fn golden_postcard_value() {
        use super::super::codec::Postcard;

        #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        struct User {
            id: u64,
            name: String,
            email: Option<String>,
            balance: i32,
        }

        let user = User { id: 300, name: "Änne".to_owned(), email: None, balance: -3 };
        let encoded = Envelope { header: HEADER, groups: &GROUPS[..2] }.encode_value(&Postcard, PLAIN, &user).unwrap();
        assert_golden("value-v1-postcard.bin", &encoded);
        let view = View::decode(&encoded, FINGERPRINT).unwrap();
        assert_eq!(view.value::<User>(&Postcard, PLAIN, &shared(&encoded)).unwrap(), user);
        assert!(view.value::<String>(&RawBytes, PLAIN, &shared(&encoded)).is_err());
    }

    fn headers() -> impl Strategy<Value = Header> {
        any::<(u64, u64, u32, u32, u32)>().prop_map(|(key_fingerprint, created_ms, soft_ms, hard_ms, load_cost_us)| {
            let (soft_ttl, hard_ttl) = (WireTtl { ms: soft_ms }, WireTtl { ms: hard_ms });
            Header { key_fingerprint, created_ms, soft_ttl, hard_ttl, load_cost_us }
        })
    }

    fn groups() -> impl Strategy<Value = Vec<GroupTokens>> {
        let tokens = any::<(u64, u64, u64)>();
        proptest::collection::vec(
            tokens.prop_map(|(group_hash, hard, soft)| GroupTokens { group_hash, hard, soft }),
            0..=MAX_GROUPS,
        )
    }

    proptest! {
        #[test]
        fn envelopes_survive(header in headers(), groups in groups(), codec in 0..32_u8, payload: Vec<u8>) {
            let codec = CodecId::from_flags(codec);
            let encoded = Envelope { header, groups: &groups }.encode(codec, &payload).unwrap();
            let view = View::decode(&encoded, header.key_fingerprint).unwrap();
            prop_assert_eq!(view.header, header);
            prop_assert!(view.groups().eq(groups.iter().copied()));
            prop_assert_eq!(view.payload(codec).unwrap(), payload);
        }

        #[test]
        fn any_bytes_are_refused_without_panic(bytes: Vec<u8>, fingerprint: u64) {
            prop_assert!(View::decode(&bytes, fingerprint).is_err());
        }

        /// As above, past the magic number and with a checksum that is right, so that all of `decode` is reached. What is
        /// accepted is just what `encode` writes.
        #[test]
        fn any_sound_looking_bytes_decode_or_fail(mut bytes: Vec<u8>, start in 0..8_usize, ngroups in 0..4_u8) {
            let sound = sealed(&[], b"");
            for (byte, sound) in bytes.iter_mut().zip(&sound).take(start) {
                *byte = *sound;
            }
            if let Some(tail) = bytes.get_mut(CRC_AT + CRC_LEN..HEADER_LEN) {
                tail.copy_from_slice(&[ngroups, 0, 0, 0]);
            }
            if start == 7 && bytes.len() >= HEADER_LEN {
                let len = bytes.len().saturating_sub(HEADER_LEN + usize::from(ngroups) * TOKENS_LEN) as u32;
                bytes[PAYLOAD_LEN_AT..][..4].copy_from_slice(&len.to_le_bytes());
            }
            if let Ok(crc) = checksum(&bytes) {
                bytes[CRC_AT..][..CRC_LEN].copy_from_slice(&crc.to_le_bytes());
            }
            let fingerprint = bytes.get(8..).and_then(<[u8]>::first_chunk).map_or(0, |own| u64::from_le_bytes(*own));
            if let Ok(view) = View::decode(&bytes, fingerprint) {
                let groups: Vec<_> = view.groups().collect();
                let again = Envelope { header: view.header, groups: &groups };
                let again = again.encode(view.codec, view.payload).unwrap();
                prop_assert_eq!(flagged(again, view.is_compressed), bytes);
            }
        }
    }
}
