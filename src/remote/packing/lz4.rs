//! LZ4 blocks, with the length of what they unpack to before them.
//!
//! ```text
//!  0  len    u32   of the payload, at least 1
//!  4  block        LZ4, to the end
//! ```

use lz4_flex::block::{compress_prepend_size, decompress_into};

use crate::error::BuildError;
use crate::remote::envelope::MAX_PAYLOAD_LEN;
use crate::remote::reader::{DecodeError, Reader};

/// What a byte of a block unpacks to at most. A peer could otherwise announce any length in a few bytes, and have it allocated.
const MAX_RATIO: usize = 255;

/// Compresses the values of a cache in the remote tier, with LZ4. See
/// [`TieredCacheBuilder::compression`](crate::TieredCacheBuilder::compression).
///
/// A value that does not become smaller is stored as it is. Every process whose build has the feature `lz4` reads compressed
/// values, whether it compresses its own or not; to one without, they are misses. So the feature has to be everywhere before
/// the setting is anywhere.
///
/// # Examples
/// ```
/// use larder::Compression;
///
/// let compression = Compression::lz4().above(4 << 10).unpacks_to_at_most(32 << 20);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Compression {
    above: usize,
    max_unpacked: usize,
}

impl Compression {
    /// A value of less is in one packet either way.
    const ABOVE: usize = 1 << 10;

    /// Eight times the largest item that memcached takes unless told otherwise.
    const MAX_UNPACKED: usize = 8 << 20;

    /// Returns compression with LZ4, of what is longer than 1 KiB, to be unpacked to at most 8 MiB.
    pub fn lz4() -> Compression {
        Compression { above: Self::ABOVE, max_unpacked: Self::MAX_UNPACKED }
    }

    /// Sets how many bytes a value may have, as its codec writes it, and still be stored as it is. Default: 1 KiB.
    pub fn above(mut self, bytes: usize) -> Compression {
        self.above = bytes;
        self
    }

    /// Sets how many bytes a compressed value may become when it is read: one that says more is a miss, and nothing is allocated
    /// for it. A longer value of this cache is stored as it is. Default: 8 MiB, which also holds where a cache does not compress.
    /// From more than [`above`](Self::above) to 64 MiB. The same in every process, or what one writes is a miss to another.
    pub fn unpacks_to_at_most(mut self, bytes: usize) -> Compression {
        self.max_unpacked = bytes;
        self
    }

    pub(crate) fn check(self) -> Result<Compression, BuildError> {
        let Compression { above, max_unpacked } = self;
        if max_unpacked > MAX_PAYLOAD_LEN {
            return Err(BuildError::new(format!(
                "compression unpacks to at most {max_unpacked} bytes, but no value has more than {MAX_PAYLOAD_LEN}; set that or \
                 less"
            )));
        }
        if above >= max_unpacked {
            return Err(BuildError::new(format!(
                "compression is for values above {above} bytes, and unpacks to at most {max_unpacked}, so nothing would be \
                 compressed; set the latter above the former"
            )));
        }
        Ok(self)
    }

    /// Returns `payload` compressed, if it is long enough for that and becomes smaller.
    pub(super) fn pack(self, payload: &[u8]) -> Option<Vec<u8>> {
        let wanted = payload.len() > self.above && payload.len() <= self.max_unpacked;
        wanted.then(|| compress_prepend_size(payload)).filter(|packed| packed.len() < payload.len())
    }

    /// Returns what [`pack`](Self::pack) made `stored` of.
    pub(super) fn unpack(self, stored: &[u8]) -> Result<Vec<u8>, DecodeError> {
        let mut reader = Reader::new(stored);
        let len = reader.u32()? as usize;
        let block = reader.rest();
        if len > self.max_unpacked {
            return Err(DecodeError::TooLong);
        }
        if len == 0 || len > block.len().saturating_mul(MAX_RATIO) {
            return Err(DecodeError::Unpackable);
        }
        // The decoder takes a block to its end: more behind it is more output, or the beginning of some.
        let mut payload = vec![0; len];
        match decompress_into(block, &mut payload) {
            Ok(unpacked) if unpacked == len => Ok(payload),
            _ => Err(DecodeError::Unpackable),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: Compression = Compression { above: 0, max_unpacked: 1 << 16 };

    fn packed(payload: &[u8]) -> Vec<u8> {
        ALL.pack(payload).expect("this becomes smaller")
    }

    /// Returns 300 bytes of which a half repeats itself.
    fn payload() -> Vec<u8> {
        let noise: Vec<u8> = (0..150_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        [&noise[..], &noise].concat()
    }

    #[test]
    fn only_what_is_long_enough_and_becomes_smaller_is_packed() {
        let of = |above, max_unpacked, len| Compression { above, max_unpacked }.pack(&vec![7; len]).is_some();
        assert!(!of(1_000, 2_000, 1_000) && of(1_000, 2_000, 1_001));
        assert!(of(1_000, 2_000, 2_000) && !of(1_000, 2_000, 2_001), "nobody would unpack it");
        assert_eq!((ALL.pack(b""), ALL.pack(b"short")), (None, None));
        let noise: Vec<u8> = (0..64_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        assert_eq!(ALL.pack(&noise), None);
        assert_eq!(ALL.unpack(&packed(&payload())).unwrap(), payload());
    }

    #[test]
    fn bad_settings_are_errors_that_name_the_values() {
        let refused = |above, max, says: &str| {
            let error = Compression::lz4().above(above).unpacks_to_at_most(max).check().unwrap_err().to_string();
            assert!(error.contains(says) && error.contains(&max.to_string()), "{error}");
        };
        refused(0, 0, "nothing would be compressed");
        refused(1_024, 1_024, "above 1024 bytes");
        refused(0, MAX_PAYLOAD_LEN + 1, "no value has more than 67108864");
        refused(usize::MAX, usize::MAX, "67108864");
        for (above, max) in [(0, 1), (0, MAX_PAYLOAD_LEN), (MAX_PAYLOAD_LEN - 1, MAX_PAYLOAD_LEN)] {
            assert!(Compression::lz4().above(above).unpacks_to_at_most(max).check().is_ok());
        }
        assert!(Compression::lz4().check().is_ok());
    }

    #[test]
    fn every_truncation_is_an_error() {
        let packed = packed(&payload());
        for len in 0..packed.len() {
            assert!(ALL.unpack(&packed[..len]).is_err(), "{len}");
        }
    }

    #[test]
    fn trailing_bytes_are_an_error() {
        // Zeros at the end, so that the last bytes of payload and block are no proof.
        for payload in [payload(), vec![0; 300]] {
            let packed = packed(&payload);
            for byte in 0..=u8::MAX {
                assert_eq!(ALL.unpack(&[&packed[..], &[byte]].concat()), Err(DecodeError::Unpackable), "{byte}");
            }
            assert!(ALL.unpack(&[&packed[..], &packed].concat()).is_err());
        }
    }

    #[test]
    fn lengths_that_lie_are_errors() {
        let honest = packed(&payload());
        let lying = |len: u32| ALL.unpack(&[&len.to_le_bytes()[..], &honest[4..]].concat());
        assert!(lying(300).is_ok());
        for len in [0, 1, 299, 301, 1 << 16] {
            assert_eq!(lying(len), Err(DecodeError::Unpackable), "{len}");
        }
        for len in [(1 << 16) + 1, u32::MAX] {
            assert_eq!(lying(len), Err(DecodeError::TooLong), "{len}");
        }
        let roomy = Compression { above: 0, max_unpacked: usize::MAX };
        assert_eq!(roomy.unpack(&[255, 255, 255, 255, 0]), Err(DecodeError::Unpackable), "4 GiB, of one byte");
    }

    #[test]
    fn what_unpacks_to_more_than_its_cap_is_an_error() {
        let bomb = Compression { above: 0, max_unpacked: 8 << 20 }.pack(&vec![0; 8 << 20]).unwrap();
        assert!(bomb.len() < 40_000);
        assert_eq!(Compression { above: 0, max_unpacked: (8 << 20) - 1 }.unpack(&bomb), Err(DecodeError::TooLong));
        assert_eq!(Compression::lz4().unpack(&bomb).unwrap().len(), 8 << 20);
    }

    proptest! {
        #[test]
        fn payloads_survive(part: Vec<u8>, times in 1..50_usize) {
            let payload = part.repeat(times);
            if let Some(packed) = ALL.pack(&payload) {
                prop_assert!(packed.len() < payload.len());
                prop_assert_eq!(ALL.unpack(&packed).unwrap(), payload);
            }
        }

        #[test]
        fn any_bytes_unpack_to_their_length_or_fail(len in 0..2_000_u32, block: Vec<u8>) {
            if let Ok(payload) = ALL.unpack(&[&len.to_le_bytes()[..], &block].concat()) {
                prop_assert_eq!(payload.len(), len as usize);
            }
        }

        /// As above, of blocks that are nearly sound.
        #[test]
        fn any_damage_unpacks_to_its_length_or_fails(part: Vec<u8>, at: prop::sample::Index, byte: u8) {
            let payload = part.repeat(9);
            if let Some(mut packed) = ALL.pack(&payload) {
                let at = 4 + at.index(packed.len() - 4);
                packed[at] = byte;
                if let Ok(unpacked) = ALL.unpack(&packed) {
                    prop_assert_eq!(unpacked.len(), payload.len());
                }
            }
        }
    }
}
