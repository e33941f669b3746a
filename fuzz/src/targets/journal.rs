//! The journal: any bytes are replayed as they are written, or refused.

use larder::fuzzing::{self, Chronicle};

use crate::heap;
use crate::input::Input;

const MAGIC: &[u8] = b"lrj1";
const BASE_AT: usize = 20;
const HEADER_LEN: usize = 28;
const ENTRY_LEN: usize = 24;
const MAX_LEN: usize = 1 << 20;

const SLACK: usize = 4 << 10;

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let far = input.u64();
    let bytes = input.rest();
    let read = heap::within(bytes.len() + SLACK, || fuzzing::journal(bytes));
    let expected = is_journal(bytes);
    assert_eq!(read.is_ok(), expected, "{read:?}");
    let Ok(Chronicle { epoch, end, last_sender, newer_half }) = read else {
        assert_eq!(fuzzing::journal_since(bytes, [0; 16], 0), None);
        return;
    };
    let base = u64::from_le_bytes(bytes[BASE_AT..HEADER_LEN].try_into().expect("eight bytes"));
    let entries: Vec<&[u8]> = bytes[HEADER_LEN..].chunks(ENTRY_LEN).collect();
    assert_eq!(epoch, bytes[4..BASE_AT]);
    assert_eq!(end, base + entries.len() as u64);
    let expected = entries.last().filter(|entry| is_entry(entry)).map(|entry| entry[16..].try_into().unwrap());
    assert_eq!(last_sender, expected.map(u64::from_le_bytes));

    let middle = base + entries.len() as u64 / 3;
    for position in [base, base.wrapping_sub(1), middle, end, end.wrapping_add(1), far] {
        let seen = position.checked_sub(base).filter(|seen| *seen <= entries.len() as u64);
        let expected: Option<Vec<_>> = seen.map(|seen| {
            let rest = entries[seen as usize..].iter();
            rest.map(|entry| is_entry(entry).then(|| entry.to_vec())).collect()
        });
        assert_eq!(fuzzing::journal_since(bytes, epoch, position), expected, "from {position}");
    }
    let mut other = epoch;
    other[far as usize % 16] ^= 1;
    assert_eq!(fuzzing::journal_since(bytes, other, base), None, "another epoch is another journal");

    // Compaction drops the older half, and moves no position.
    let half = fuzzing::journal(&newer_half).expect("it was read");
    assert_eq!((half.epoch, half.end, half.last_sender), (epoch, end, last_sender.filter(|_| entries.len() > 1)));
    let dropped = entries.len().div_ceil(2);
    assert_eq!(&newer_half[HEADER_LEN..], &bytes[HEADER_LEN + dropped * ENTRY_LEN..]);

    // An append moves the end, and what was there stays.
    let grown = [bytes, &[6], &[0; 15], b"a sender"].concat();
    match fuzzing::journal(&grown) {
        Ok(grown) => assert_eq!((grown.epoch, grown.end), (epoch, end + 1)),
        Err(_) => assert!(grown.len() > MAX_LEN || end == u64::MAX),
    }
    assert!(fuzzing::journal(&grown[..grown.len() - 1]).is_err(), "an append is whole");
}

fn is_journal(bytes: &[u8]) -> bool {
    bytes.len() >= HEADER_LEN
        && bytes.len() <= MAX_LEN
        && bytes.starts_with(MAGIC)
        && (bytes.len() - HEADER_LEN).is_multiple_of(ENTRY_LEN)
        && {
            let base = u64::from_le_bytes(bytes[BASE_AT..HEADER_LEN].try_into().expect("eight bytes"));
            base.checked_add(((bytes.len() - HEADER_LEN) / ENTRY_LEN) as u64).is_some()
        }
}

fn is_entry(entry: &[u8]) -> bool {
    let is_all = entry[0] == 6;
    matches!(entry[0], 1..=6) && entry[1..8] == [0; 7] && (!is_all || entry[8..16] == [0; 8])
}
