//! Compressed payloads: a block unpacks to what the format says and to nothing else, within its cap.

use std::time::Duration;

use larder::Compression;
use larder::fuzzing::{self, Opened};

use crate::heap;
use crate::input::Input;

const FINGERPRINT: u64 = 7;
const FLAGS_AT: usize = 3;
const CRC_AT: usize = 36;
const HEADER_LEN: usize = 44;
const COMPRESSED: u8 = 1 << 5;

/// What a byte of a block stands for at most.
const MAX_RATIO: usize = 255;

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let packs = input.rarely(2);
    let cap = input.one_of(&[1 << 16, 2, 100, 1 << 10, 8 << 20]);
    let compression = Compression::lz4().above(1).unpacks_to_at_most(cap);
    if packs {
        let times = 1 + input.below(256);
        survives(&input.rest().repeat(times), compression, cap);
    } else {
        unpacks(input.rest(), compression, cap);
    }
}

/// Compresses what a codec has written.
fn survives(payload: &[u8], compression: Compression, cap: usize) {
    let opened = Opened {
        codec: fuzzing::codec_of(&[]),
        created_ms: 1,
        soft_ttl: None,
        hard_ttl: Some(Duration::from_millis(2)),
        load_cost_us: 3,
        groups: Vec::new(),
        payload: payload.to_vec().into(),
    };
    let sealed = fuzzing::seal(&opened, FINGERPRINT, Some(compression)).expect("it is not long");
    let is_compressed = sealed[FLAGS_AT] & COMPRESSED != 0;
    assert!(sealed.len() <= HEADER_LEN + payload.len(), "compression makes nothing longer");
    assert!(!is_compressed || payload.len() <= cap, "nobody with this cap would read it");
    let read = fuzzing::open(&sealed.into(), FINGERPRINT, Some(compression));
    assert_eq!(read.expect("it was sealed"), opened);
}

/// Unpacks what anybody may have written.
fn unpacks(stored: &[u8], compression: Compression, cap: usize) {
    let mut bytes = b"lv\x01".to_vec();
    bytes.push(COMPRESSED);
    bytes.extend_from_slice(&(stored.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&FINGERPRINT.to_le_bytes());
    bytes.resize(HEADER_LEN, 0);
    bytes.extend_from_slice(stored);
    let crc = crc32c::crc32c(&bytes);
    bytes[CRC_AT..][..4].copy_from_slice(&crc.to_le_bytes());

    let most = cap.min(MAX_RATIO * stored.len()) + (4 << 10);
    let opened = heap::within(most, || fuzzing::open(&bytes.into(), FINGERPRINT, Some(compression)));
    let expected = reference(stored).filter(|payload| payload.len() <= cap);
    match (opened, expected) {
        (Ok(opened), Some(expected)) => assert_eq!(opened.payload, expected),
        // A decoder that writes where it reads may refuse what is sound and odd; never the other way round.
        (Err(_), _) => {}
        (Ok(opened), None) => panic!("{} bytes came of what is no block", opened.payload.len()),
    }
}

/// Reads the length and the block, by the text of the format.
fn reference(stored: &[u8]) -> Option<Vec<u8>> {
    let (len, mut block) = stored.split_first_chunk().map(|(len, block)| (u32::from_le_bytes(*len) as usize, block))?;
    let mut out = Vec::new();
    loop {
        let token = take(&mut block, 1)?[0];
        let literals = length(&mut block, token >> 4)?;
        out.extend_from_slice(take(&mut block, literals)?);
        if block.is_empty() {
            return (out.len() == len && len > 0).then_some(out);
        }
        let offset = usize::from(u16::from_le_bytes(take(&mut block, 2)?.try_into().ok()?));
        let matched = length(&mut block, token & 15)? + 4;
        let start = out.len().checked_sub(offset).filter(|_| offset > 0)?;
        if out.len() + matched > len {
            return None;
        }
        // One by one: what is copied may be what has just been.
        for from in start..start + matched {
            out.push(out[from]);
        }
    }
}

fn length(block: &mut &[u8], nibble: u8) -> Option<usize> {
    let mut length = usize::from(nibble);
    if nibble == 15 {
        loop {
            let more = take(block, 1)?[0];
            length += usize::from(more);
            if more < 255 {
                break;
            }
        }
    }
    Some(length)
}

fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(taken)
}
