//! Value headers and codecs. There is one encoding of each envelope, and whatever deviates from it is an error.

use std::collections::BTreeMap;
use std::fmt::Debug;

use larder::fuzzing;
use larder::{Codec, Optional, Postcard, RawBytes, SharedBytes};
use serde::{Deserialize, Serialize};

use crate::heap;
use crate::input::Input;

/// Where the header has its parts.
const FLAGS_AT: usize = 3;
const FINGERPRINT_AT: usize = 8;
const CRC_AT: usize = 36;
const NGROUPS_AT: usize = 40;
const HEADER_LEN: usize = 44;
const TOKENS_LEN: usize = 24;

const COMPRESSED: u8 = 1 << 5;

/// What decoding may hold beside what it is given: an error, with its message and its cause.
const SLACK: usize = 4 << 10;

/// The most that a sequence takes on the word of its length alone, for each level of nesting.
const CAUTIOUS: usize = 1 << 20;

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let how = input.u8();
    let (at, bit) = (input.u64(), input.below(8));
    let mut bytes = input.rest().to_vec();
    if how & 1 != 0 {
        repair(&mut bytes);
    }
    let fingerprint = match bytes.get(FINGERPRINT_AT..FINGERPRINT_AT + 8) {
        Some(written) if how & 2 == 0 => u64::from_le_bytes(written.try_into().expect("eight bytes")),
        _ => 7,
    };
    let len = bytes.len();
    let shared = SharedBytes::from(bytes.clone());
    // A compressed payload unpacks to 255 times its length at most; groups are told in as many bytes as they are written.
    let opened = heap::within(257 * len + SLACK, || fuzzing::open(&shared, fingerprint, None));
    values(&shared, fingerprint);
    let Ok(opened) = opened else { return };

    let ngroups = usize::from(bytes[NGROUPS_AT]);
    assert_eq!(opened.groups.len(), ngroups);
    if bytes[FLAGS_AT] & COMPRESSED == 0 {
        assert_eq!(opened.payload, bytes[HEADER_LEN + ngroups * TOKENS_LEN..]);
        assert_eq!(fuzzing::seal(&opened, fingerprint, None).expect("it was sealed before"), bytes);
    }
    assert!(fuzzing::open(&shared, fingerprint ^ 1 << bit, None).is_err(), "it is another key's");
    let at = at as usize % len;
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut changed = bytes.clone();
        change(&mut changed);
        fuzzing::open(&changed.into(), fingerprint, None)
    };
    assert!(changed(&|bytes| bytes[at] ^= 1 << bit).is_err(), "bit {bit} of byte {at} may be wrong");
    assert!(changed(&|bytes| bytes.truncate(at)).is_err(), "it may end after {at} bytes");
    let trailing = changed(&|bytes| {
        bytes.push(bit as u8);
        repair(bytes);
    });
    assert!(trailing.is_err(), "it may go on");
}

/// Makes the checksum one that holds.
fn repair(bytes: &mut [u8]) {
    if bytes.len() >= HEADER_LEN {
        bytes[CRC_AT..][..4].fill(0);
        let crc = crc32c::crc32c(bytes);
        bytes[CRC_AT..][..4].copy_from_slice(&crc.to_le_bytes());
    }
}

#[derive(Debug, Deserialize, Serialize)]
struct Tree {
    name: String,
    children: Vec<Tree>,
}

#[derive(Debug, Deserialize, Serialize)]
enum Shape {
    Point,
    Circle(f64),
    Path { dots: Vec<(i32, i64)>, name: Option<char> },
}

/// Reads the envelope as the value of any cache: none may take another's for its own.
fn values(bytes: &SharedBytes, fingerprint: u64) {
    value::<Vec<u8>>(bytes, fingerprint, 0, &RawBytes);
    value::<String>(bytes, fingerprint, 0, &RawBytes);
    value::<SharedBytes>(bytes, fingerprint, 0, &RawBytes);
    value::<Option<String>>(bytes, fingerprint, 0, &Optional(RawBytes));
    value::<Option<SharedBytes>>(bytes, fingerprint, 0, &Optional(RawBytes));
    value::<Option<Option<String>>>(bytes, fingerprint, 0, &Optional(Optional(RawBytes)));
    value::<u64>(bytes, fingerprint, 0, &Postcard);
    value::<String>(bytes, fingerprint, 0, &Postcard);
    value::<Vec<()>>(bytes, fingerprint, 1, &Postcard);
    value::<Vec<Vec<u16>>>(bytes, fingerprint, 2, &Postcard);
    value::<BTreeMap<String, Option<i128>>>(bytes, fingerprint, 1, &Postcard);
    value::<Vec<Shape>>(bytes, fingerprint, 2, &Postcard);
    // Two levels of nesting for each of 64 trees.
    value::<Tree>(bytes, fingerprint, 64, &Postcard);
    value::<Option<Vec<u8>>>(bytes, fingerprint, 1, &Optional(Postcard));
}

fn value<V: Debug>(bytes: &SharedBytes, fingerprint: u64, levels: usize, codec: &impl Codec<V>) {
    // Elements of a byte each may be larger in memory; none of these is by more than this, and a vector grows to its double.
    let most = levels * CAUTIOUS + (257 + 255 * 2 * size_of::<Shape>()) * bytes.len() + (64 << 10);
    let read = heap::within(most, || fuzzing::value(bytes, fingerprint, codec));
    let Ok(read) = read else { return };
    assert_eq!(fuzzing::codec_of(bytes), codec.id());
    // Floats are not equal to themselves, and numbers have several encodings; what is written is read as what is written.
    let written = |value: &V| {
        let mut out = Vec::new();
        codec.encode(value, &mut out).expect("it was read");
        out
    };
    let first = written(&read);
    let again = codec.decode(&first).unwrap_or_else(|error| panic!("{read:?} is not read again: {error}"));
    assert_eq!(written(&again), first, "{read:?}");
    let shared = codec.decode_shared(&first.clone().into()).expect("it was decoded");
    assert_eq!(written(&shared), first, "{read:?}");
}
