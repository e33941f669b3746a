//! What processes write down: 32 bytes each, in one write to a pipe, so that a process that is killed loses nothing.
//!
//! Times are nanoseconds of the clock that all processes share.

use std::io::{self, Read, Write};

/// The length of a record: far below what a pipe takes in one piece, so that those of several threads do not mix.
const LEN: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// Reads of a group's version, as many as `reads`, returned `version`. The one that had to know the most had to know what
    /// was acknowledged until `known_ns`.
    Seen {
        group: u16,
        reads: u32,
        version: u64,
        known_ns: u64,
        began_ns: u64,
    },
    /// A bump for this version was acknowledged.
    Acked {
        group: u16,
        version: u64,
        began_ns: u64,
        acked_ns: u64,
    },
    /// A load of a key of no group has run.
    LoadBegan {
        key: u16,
        load: u64,
        at_ns: u64,
    },
    LoadEnded {
        key: u16,
        load: u64,
        at_ns: u64,
    },
    /// The process did not run.
    Stalled {
        from_ns: u64,
        to_ns: u64,
    },
    /// Exchanges failed, or looks at the journal did, in this time.
    Troubled {
        from_ns: u64,
        to_ns: u64,
    },
    /// A call has been under way for longer than it may be.
    Overdue {
        verb: u8,
        began_ns: u64,
        took_ns: u64,
    },
    /// A value that is none of its key.
    Wrong {
        key: u16,
    },
    /// A version of a group that the process itself had bumped away before the read began.
    OwnStale {
        group: u16,
        version: u64,
        bumped: u64,
    },
    /// Something panicked; the words are on standard error.
    Panicked,
    /// What the process has done since it last said so; `pending` is of now.
    Done {
        reads: u32,
        loads: u32,
        bumps: u32,
        failures: u32,
        resyncs: u32,
        pending: u32,
    },
    /// For how long at most the last look at the journal was past, while the trust lease held; and the longest call of a verb,
    /// stops left out.
    Longest {
        look_ns: u64,
        verb: u8,
        call_ns: u64,
    },
    /// All is as it should be again, so long after the faults were over.
    Recovered {
        took_ns: u64,
    },
    /// It is not, and the last step that came true is this one.
    Unwell {
        step: u8,
        trust_ns: u64,
        owed: u64,
    },
}

impl Record {
    /// Writes the record, in one piece.
    pub(crate) fn write(self, to: &mut impl Write) -> io::Result<()> {
        to.write_all(&self.encode())
    }

    /// Reads a record; `None` where there are no more, or the writer was killed.
    pub(crate) fn read(from: &mut impl Read) -> Option<Record> {
        let mut bytes = [0; LEN];
        from.read_exact(&mut bytes).ok()?;
        Record::decode(bytes)
    }

    fn encode(self) -> [u8; LEN] {
        let (kind, byte, half, word, longs) = match self {
            Record::Seen { group, reads, version, known_ns, began_ns } => {
                (1, 0, group, reads, [version, known_ns, began_ns])
            }
            Record::Acked { group, version, began_ns, acked_ns } => (2, 0, group, 0, [version, began_ns, acked_ns]),
            Record::LoadBegan { key, load, at_ns } => (3, 0, key, 0, [load, at_ns, 0]),
            Record::LoadEnded { key, load, at_ns } => (4, 0, key, 0, [load, at_ns, 0]),
            Record::Stalled { from_ns, to_ns } => (5, 0, 0, 0, [from_ns, to_ns, 0]),
            Record::Troubled { from_ns, to_ns } => (6, 0, 0, 0, [from_ns, to_ns, 0]),
            Record::Overdue { verb, began_ns, took_ns } => (7, verb, 0, 0, [began_ns, took_ns, 0]),
            Record::Wrong { key } => (8, 0, key, 0, [0; 3]),
            Record::OwnStale { group, version, bumped } => (9, 0, group, 0, [version, bumped, 0]),
            Record::Panicked => (10, 0, 0, 0, [0; 3]),
            Record::Done { reads, loads, bumps, failures, resyncs, pending } => {
                let two = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
                (11, 0, 0, reads, [two(loads, bumps), two(failures, resyncs), pending.into()])
            }
            Record::Longest { look_ns, verb, call_ns } => (12, verb, 0, 0, [look_ns, call_ns, 0]),
            Record::Recovered { took_ns } => (13, 0, 0, 0, [took_ns, 0, 0]),
            Record::Unwell { step, trust_ns, owed } => (14, step, 0, 0, [trust_ns, owed, 0]),
        };
        let mut bytes = [0; LEN];
        (bytes[0], bytes[1]) = (kind, byte);
        bytes[2..4].copy_from_slice(&half.to_le_bytes());
        bytes[4..8].copy_from_slice(&word.to_le_bytes());
        for (at, long) in longs.into_iter().enumerate() {
            bytes[8 + 8 * at..16 + 8 * at].copy_from_slice(&long.to_le_bytes());
        }
        bytes
    }

    fn decode(bytes: [u8; LEN]) -> Option<Record> {
        let half = u16::from_le_bytes([bytes[2], bytes[3]]);
        let word = u32::from_le_bytes(bytes[4..8].try_into().ok()?);
        let mut longs = [0; 3];
        for (at, long) in longs.iter_mut().enumerate() {
            *long = u64::from_le_bytes(bytes[8 + 8 * at..16 + 8 * at].try_into().ok()?);
        }
        let [a, b, c] = longs;
        let (high, low) = (|long: u64| (long >> 32) as u32, |long: u64| long as u32);
        Some(match bytes[0] {
            1 => Record::Seen { group: half, reads: word, version: a, known_ns: b, began_ns: c },
            2 => Record::Acked { group: half, version: a, began_ns: b, acked_ns: c },
            3 => Record::LoadBegan { key: half, load: a, at_ns: b },
            4 => Record::LoadEnded { key: half, load: a, at_ns: b },
            5 => Record::Stalled { from_ns: a, to_ns: b },
            6 => Record::Troubled { from_ns: a, to_ns: b },
            7 => Record::Overdue { verb: bytes[1], began_ns: a, took_ns: b },
            8 => Record::Wrong { key: half },
            9 => Record::OwnStale { group: half, version: a, bumped: b },
            10 => Record::Panicked,
            11 => Record::Done {
                reads: word,
                loads: high(a),
                bumps: low(a),
                failures: high(b),
                resyncs: low(b),
                pending: low(c),
            },
            12 => Record::Longest { look_ns: a, verb: bytes[1], call_ns: b },
            13 => Record::Recovered { took_ns: a },
            14 => Record::Unwell { step: bytes[1], trust_ns: a, owed: b },
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_comes_out_as_it_went_in_and_a_part_of_one_is_none() {
        let records = [
            Record::Seen { group: 63, reads: 5, version: 1 << 40, known_ns: 2, began_ns: 3 },
            Record::Acked { group: 1, version: 2, began_ns: 3, acked_ns: 4 },
            Record::LoadBegan { key: 1, load: 2, at_ns: 3 },
            Record::LoadEnded { key: 1, load: 2, at_ns: 3 },
            Record::Stalled { from_ns: 1, to_ns: 2 },
            Record::Troubled { from_ns: 1, to_ns: 2 },
            Record::Overdue { verb: 7, began_ns: 1, took_ns: 2 },
            Record::Wrong { key: 9 },
            Record::OwnStale { group: 1, version: 2, bumped: 3 },
            Record::Panicked,
            Record::Done { reads: 1, loads: 2, bumps: 3, failures: 4, resyncs: 5, pending: 6 },
            Record::Longest { look_ns: 1, verb: 2, call_ns: 3 },
            Record::Recovered { took_ns: 1 },
            Record::Unwell { step: 1, trust_ns: 2, owed: 3 },
        ];
        let mut pipe = Vec::new();
        records.iter().for_each(|record| record.write(&mut pipe).unwrap());
        let mut rest = &pipe[..];
        for record in records {
            assert_eq!(Record::read(&mut rest), Some(record));
        }
        assert_eq!(Record::read(&mut rest), None);
        assert_eq!(Record::read(&mut &pipe[..LEN - 1]), None);
    }
}
