//! What is cached: values that tell which key they are of, how old they are, and whether they are whole.

use shared::truth::GROUPS;

/// How many keys there are. Each belongs to two groups.
pub(crate) const KEYS: u32 = 4 * GROUPS;

/// How many keys there are of no group, which only time takes away.
pub(crate) const SINGLES: u32 = 64;

/// The lengths of values, by key: from one that shares a buffer with many others to one with a buffer of its own.
const LENGTHS: [usize; 4] = [64, 700, 4_000, 20_000];

const HEADER_LEN: usize = 4 + 2 * 8;

/// The state of the source that a value was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) key: u32,
    /// The versions of the key's two groups.
    pub(crate) versions: [u64; 2],
}

/// Returns the groups of a key: one that a load names at its beginning, and one that it names at its end.
pub(crate) fn groups_of(key: u32) -> [u32; 2] {
    [key % GROUPS, (key * 7 + 3) % GROUPS]
}

impl Stamp {
    /// Returns the value: the stamp, and bytes that follow from it, of which every other is random.
    pub(crate) fn value(self) -> Vec<u8> {
        let len = LENGTHS[self.key as usize / GROUPS as usize % LENGTHS.len()];
        let mut value = Vec::with_capacity(len);
        value.extend(self.key.to_le_bytes());
        self.versions.iter().for_each(|version| value.extend(version.to_le_bytes()));
        let seed = u64::from(self.key) ^ self.versions[0].rotate_left(20) ^ self.versions[1].rotate_left(40);
        let mut random = fastrand::Rng::with_seed(seed);
        while value.len() < len {
            value.extend([random.u8(..), b'.']);
        }
        value.truncate(len);
        value
    }

    /// Returns the stamp of a value; `None` if it is not, byte for byte, one that was made for `key`.
    pub(crate) fn of(key: u32, value: &[u8]) -> Option<Stamp> {
        let header = value.get(..HEADER_LEN)?;
        let word = |at: usize| header[at..at + 8].try_into().map(u64::from_le_bytes).ok();
        let stamp = Stamp { key, versions: [word(4)?, word(12)?] };
        (header[..4] == key.to_le_bytes() && stamp.value() == value).then_some(stamp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_told_from_that_of_another_key_and_from_a_damaged_one() {
        for key in (0..KEYS).step_by(13) {
            let stamp = Stamp { key, versions: [7, 9] };
            let value = stamp.value();
            assert_eq!(Stamp::of(key, &value), Some(stamp));
            assert_eq!(Stamp::of(key + 1, &value), None);
            for at in [0, 4, 12, value.len() - 1] {
                let mut damaged = value.clone();
                damaged[at] ^= 1;
                assert_eq!(Stamp::of(key, &damaged), None);
            }
            assert_eq!(Stamp::of(key, &value[..value.len() - 1]), None);
        }
    }
}
