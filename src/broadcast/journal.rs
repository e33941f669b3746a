//! The journal: one item of the store, to which every process appends what moved, and which every process replays.
//!
//! Little-endian, without gaps:
//!
//! ```text
//!  0  magic     u32   "lrj1"
//!  4  epoch     [16]  a random uuid: another one is another journal, and its positions say nothing about this one
//! 20  base_seq  u64   how many entries of the epoch were dropped from the front
//! 28  entries, to the end, each
//!      0  kind    u8   1 key insert, 2 key remove, 3 key expire, 4 group hard, 5 group soft, 6 all
//!      1  pad     [7]  0
//!      8  hash    u64  the key's fingerprint or the group's hash; 0 for all
//!     16  sender  u64  who appended it: the process, and which part of it
//! ```
//!
//! An entry never says what something moved *to*: two bumps of a group may reach the group's token and the journal in
//! different orders. So entries may be replayed twice, and whoever cannot replay (another epoch, a position that was
//! dropped, an entry of an unknown kind) loses nothing by taking everything for moved.

use uuid::Uuid;

use crate::remote::reader::{DecodeError, Reader};

/// From this length on, whoever appends also drops the older half.
pub(crate) const COMPACT_AT_LEN: usize = 64 << 10;

/// Returns that length, or what a simulation has set in its place, to come to it after few entries.
pub(crate) fn compact_at_len() -> usize {
    #[cfg(larder_sim)]
    return crate::sync::sim::world::compact_at();
    #[cfg(not(larder_sim))]
    COMPACT_AT_LEN
}

/// The longest journal that is replayed, in bytes: what memcached stores unless told otherwise. A peer could otherwise make
/// every process replay more than that on every poll.
pub(crate) const MAX_JOURNAL_LEN: usize = 1 << 20;

/// What [`Entry::encode`] returns.
pub(crate) const ENTRY_LEN: usize = 24;

/// How many of the low bits of a sender say which part of its process it is. The others are the process's, and random.
const PART_BITS: u32 = 16;

const MAGIC: u32 = u32::from_le_bytes(*b"lrj1");
const HEADER_LEN: usize = 28;

const _: () = assert!(HEADER_LEN == 4 + 16 + 8 && ENTRY_LEN == 1 + 7 + 8 + 8 && COMPACT_AT_LEN < MAX_JOURNAL_LEN);

/// What an entry says has moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Moved {
    /// The key with this fingerprint has another value.
    KeyInsert(u64),
    /// The key with this fingerprint has no value.
    KeyRemove(u64),
    /// The value of the key with this fingerprint is stale.
    KeyExpire(u64),
    /// Entries of the group with this hash are dead.
    GroupHard(u64),
    /// Entries of the group with this hash are stale.
    GroupSoft(u64),
    /// Every entry of the namespace is dead.
    All,
}

/// One entry of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Entry {
    pub(crate) moved: Moved,
    /// The process that appended it, so that it may know its own.
    pub(crate) sender: u64,
}

impl Entry {
    /// Returns the bytes to append.
    pub(crate) fn encode(&self) -> [u8; ENTRY_LEN] {
        let (kind, hash) = match self.moved {
            Moved::KeyInsert(key) => (1, key),
            Moved::KeyRemove(key) => (2, key),
            Moved::KeyExpire(key) => (3, key),
            Moved::GroupHard(group) => (4, group),
            Moved::GroupSoft(group) => (5, group),
            Moved::All => (6, 0),
        };
        let mut bytes = [0; ENTRY_LEN];
        bytes[0] = kind;
        bytes[8..16].copy_from_slice(&u64::to_le_bytes(hash));
        bytes[16..].copy_from_slice(&self.sender.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; ENTRY_LEN]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let kind = reader.u8()?;
        if reader.array()? != [0; 7] {
            return Err(DecodeError::ReservedBits);
        }
        let hash = reader.u64()?;
        let moved = match kind {
            1 => Moved::KeyInsert(hash),
            2 => Moved::KeyRemove(hash),
            3 => Moved::KeyExpire(hash),
            4 => Moved::GroupHard(hash),
            5 => Moved::GroupSoft(hash),
            6 if hash == 0 => Moved::All,
            6 => return Err(DecodeError::ReservedBits),
            _ => return Err(DecodeError::UnknownKind(kind)),
        };
        let sender = reader.u64()?;
        reader.finish()?;
        Ok(Self { moved, sender })
    }
}

/// Returns the sender that is the part of this number of a process; `process` is any of its senders. Numbers repeat beyond
/// 65,535.
pub(crate) fn part_of(process: u64, number: u64) -> u64 {
    process >> PART_BITS << PART_BITS | number & ((1 << PART_BITS) - 1)
}

/// Returns whether two senders are of one process.
pub(crate) fn of_one_process(one: u64, other: u64) -> bool {
    one >> PART_BITS == other >> PART_BITS
}

/// The journal as read, borrowed from the bytes of its item.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Journal<'a> {
    epoch: Uuid,
    base_seq: u64,
    entries: &'a [[u8; ENTRY_LEN]],
}

impl<'a> Journal<'a> {
    /// Returns the bytes of a new journal that begins with `entries`. `epoch` has to be a fresh random one.
    pub(crate) fn encode_new(epoch: Uuid, entries: &[Entry]) -> Vec<u8> {
        let mut out = header(epoch, 0, entries.len());
        out.extend(entries.iter().flat_map(Entry::encode));
        out
    }

    /// Checks all of `bytes` but the entries themselves, which are checked as they are replayed.
    ///
    /// # Errors
    /// When it is no journal: see [`DecodeError`].
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        if bytes.len() > MAX_JOURNAL_LEN {
            return Err(DecodeError::TooLong);
        }
        let mut reader = Reader::new(bytes);
        if reader.u32()? != MAGIC {
            return Err(DecodeError::UnknownMagic);
        }
        let epoch = Uuid::from_bytes(reader.array()?);
        let base_seq = reader.u64()?;
        // Appends are atomic, so nobody ever sees part of an entry.
        let (entries, []) = reader.rest().as_chunks() else {
            return Err(DecodeError::Truncated);
        };
        if base_seq.checked_add(entries.len() as u64).is_none() {
            return Err(DecodeError::TooLong);
        }
        Ok(Self { epoch, base_seq, entries })
    }

    /// Returns which journal this is.
    pub(crate) fn epoch(&self) -> Uuid {
        self.epoch
    }

    /// Returns the position after the last entry: how many were ever appended in this epoch.
    pub(crate) fn end_seq(&self) -> u64 {
        // `decode` has checked that this does not overflow.
        self.base_seq + self.entries.len() as u64
    }

    /// Returns the entries from position `seq` of `epoch` on, oldest first, or `None` when they cannot be told: the journal
    /// is another one, has dropped that position, or has not come to it. An entry that is an error is as good as `None`.
    pub(crate) fn since(
        &self,
        epoch: Uuid,
        seq: u64,
    ) -> Option<impl ExactSizeIterator<Item = Result<Entry, DecodeError>> + 'a> {
        if epoch != self.epoch {
            return None;
        }
        let seen = usize::try_from(seq.checked_sub(self.base_seq)?).ok()?;
        Some(self.entries.get(seen..)?.iter().map(Entry::decode))
    }

    /// Returns who appended the last entry, if there is one that this build can read.
    pub(crate) fn last_sender(&self) -> Option<u64> {
        self.entries.last().and_then(|entry| Entry::decode(entry).ok()).map(|entry| entry.sender)
    }

    /// Returns the bytes of the same journal without its older half. Every position stays what it was.
    pub(crate) fn encode_newer_half(&self) -> Vec<u8> {
        let dropped = self.entries.len().div_ceil(2);
        let kept = &self.entries[dropped..];
        let mut out = header(self.epoch, self.base_seq + dropped as u64, kept.len());
        out.extend_from_slice(kept.as_flattened());
        out
    }
}

/// Returns a journal's header, with room for as many entries.
fn header(epoch: Uuid, base_seq: u64, entries: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_LEN + entries * ENTRY_LEN);
    out.extend_from_slice(&MAGIC.to_le_bytes());
    out.extend_from_slice(epoch.as_bytes());
    out.extend_from_slice(&base_seq.to_le_bytes());
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::golden::assert_golden;

    const EPOCH: Uuid = Uuid::from_u128(0x0123_4567_89AB_CDEF_0123_4567_89AB_CDEF);

    /// One of each kind.
    const ENTRIES: [Entry; 6] = [
        Entry { moved: Moved::KeyInsert(0x1111_1111_1111_1111), sender: 1 },
        Entry { moved: Moved::KeyRemove(0x2222_2222_2222_2222), sender: 2 },
        Entry { moved: Moved::KeyExpire(0x3333_3333_3333_3333), sender: 3 },
        Entry { moved: Moved::GroupHard(0x4444_4444_4444_4444), sender: u64::MAX },
        Entry { moved: Moved::GroupSoft(u64::MAX), sender: 5 },
        Entry { moved: Moved::All, sender: 0x6666_6666_6666_6666 },
    ];

    fn since(bytes: &[u8], epoch: Uuid, seq: u64) -> Option<Vec<Entry>> {
        let entries = Journal::decode(bytes).unwrap().since(epoch, seq)?;
        Some(entries.map(Result::unwrap).collect())
    }

    #[test]
    fn replays_from_any_position() {
        let bytes = Journal::encode_new(EPOCH, &ENTRIES);
        let journal = Journal::decode(&bytes).unwrap();
        assert_eq!((journal.epoch(), journal.end_seq()), (EPOCH, 6));
        assert_eq!(journal.last_sender(), Some(ENTRIES[5].sender));
        for seq in 0..=6 {
            assert_eq!(since(&bytes, EPOCH, seq).unwrap(), ENTRIES[seq as usize..]);
        }
        for seq in [7, 8, u64::MAX] {
            assert_eq!(since(&bytes, EPOCH, seq), None);
        }
        assert_eq!(since(&bytes, Uuid::nil(), 6), None);
    }

    #[test]
    fn grows_by_appending() {
        let mut bytes = Journal::encode_new(EPOCH, &[]);
        assert_eq!(since(&bytes, EPOCH, 0).unwrap(), []);
        for (seq, entry) in ENTRIES.iter().enumerate() {
            bytes.extend_from_slice(&entry.encode());
            assert_eq!(since(&bytes, EPOCH, seq as u64).unwrap(), [*entry]);
        }
        assert_eq!(bytes, Journal::encode_new(EPOCH, &ENTRIES));
    }

    #[test]
    fn keeps_positions_when_the_older_half_goes() {
        let bytes = Journal::encode_new(EPOCH, &ENTRIES[..5]);
        let mut newer = Journal::decode(&bytes).unwrap().encode_newer_half();
        assert_eq!(newer.len(), HEADER_LEN + 2 * ENTRY_LEN);
        assert_eq!(Journal::decode(&newer).unwrap().end_seq(), 5);
        assert_eq!(since(&newer, EPOCH, 2), None);
        assert_eq!(since(&newer, EPOCH, 3).unwrap(), ENTRIES[3..5]);
        assert_eq!(since(&newer, EPOCH, 5).unwrap(), []);
        // It always makes room, down to the last entry.
        for left in [1, 0, 0] {
            newer = Journal::decode(&newer).unwrap().encode_newer_half();
            assert_eq!(newer.len(), HEADER_LEN + left * ENTRY_LEN);
            assert_eq!(Journal::decode(&newer).unwrap().end_seq(), 5);
        }
    }

    #[test]
    fn every_truncation_is_seen() {
        let bytes = Journal::encode_new(EPOCH, &ENTRIES);
        for len in 0..bytes.len() {
            let decoded = Journal::decode(&bytes[..len]);
            if len >= HEADER_LEN && (len - HEADER_LEN).is_multiple_of(ENTRY_LEN) {
                // Entries that were lost as a whole are seen by who has replayed them already.
                assert!(decoded.unwrap().since(EPOCH, 6).is_none());
            } else {
                assert_eq!(decoded.unwrap_err(), DecodeError::Truncated);
            }
        }
        let trailing = [&bytes[..], &[0]].concat();
        assert_eq!(Journal::decode(&trailing).unwrap_err(), DecodeError::Truncated);
    }

    #[test]
    fn what_is_unknown_is_an_error() {
        let bytes = Journal::encode_new(EPOCH, &ENTRIES[5..]);
        let tampered = |at: usize, byte: u8| {
            let mut bytes = bytes.clone();
            bytes[at] = byte;
            Journal::decode(&bytes)?.since(EPOCH, 0).unwrap().next().unwrap()
        };
        assert_eq!(tampered(0, b'l'), Ok(ENTRIES[5]));
        for at in 0..4 {
            assert_eq!(tampered(at, 0), Err(DecodeError::UnknownMagic));
        }
        for kind in [0, 7, 255] {
            assert_eq!(tampered(HEADER_LEN, kind), Err(DecodeError::UnknownKind(kind)));
        }
        for at in 1..16 {
            assert_eq!(tampered(HEADER_LEN + at, 1), Err(DecodeError::ReservedBits), "{at}");
        }
    }

    #[test]
    fn lengths_above_their_caps_are_errors() {
        let most = (MAX_JOURNAL_LEN - HEADER_LEN) / ENTRY_LEN;
        assert!(Journal::decode(&Journal::encode_new(EPOCH, &vec![ENTRIES[0]; most])).is_ok());
        let longer = Journal::encode_new(EPOCH, &vec![ENTRIES[0]; most + 1]);
        assert_eq!(Journal::decode(&longer).unwrap_err(), DecodeError::TooLong);

        let mut late = Journal::encode_new(EPOCH, &ENTRIES);
        late[20..28].copy_from_slice(&(u64::MAX - 6).to_le_bytes());
        assert_eq!(Journal::decode(&late).unwrap().end_seq(), u64::MAX);
        late[20] += 1;
        assert_eq!(Journal::decode(&late).unwrap_err(), DecodeError::TooLong);
    }

    #[test]
    fn golden() {
        assert_golden("journal-v1-empty.bin", &Journal::encode_new(EPOCH, &[]));
        let bytes = Journal::encode_new(EPOCH, &ENTRIES);
        assert_golden("journal-v1-every-kind.bin", &bytes);
        assert_golden("journal-v1-newer-half.bin", &Journal::decode(&bytes).unwrap().encode_newer_half());
    }

    proptest! {
        #[test]
        fn any_bytes_are_replayed_or_refused(mut bytes: Vec<u8>, magic: bool, seq: u64) {
            if let (true, Some(start)) = (magic, bytes.first_chunk_mut()) {
                *start = MAGIC.to_le_bytes();
            }
            if let Ok(journal) = Journal::decode(&bytes) {
                for seq in [seq, journal.base_seq, journal.end_seq()] {
                    let _ = journal.since(journal.epoch(), seq).map(Iterator::count);
                }
                let _ = Journal::decode(&journal.encode_newer_half()).unwrap();
            }
        }

        #[test]
        fn entries_are_replayed_or_refused(bytes: [u8; ENTRY_LEN], kind in 0..8_u8, zeros: bool) {
            let mut bytes = bytes;
            bytes[0] = kind;
            if zeros {
                bytes[1..8].fill(0);
            }
            if let Ok(entry) = Entry::decode(&bytes) {
                prop_assert_eq!(entry.encode(), bytes);
            }
        }
    }
}
