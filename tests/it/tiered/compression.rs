//! Compressed values: between processes that compress and those that do not, and as nobody has compressed them.

use larder::{Compression, Namespace, RawBytes, TieredCache, WireKey};

use super::{Pages, Stand, load, own, process};

const PAYLOAD_LEN_AT: usize = 4;
const CRC_AT: usize = 36;
/// Of a value in two groups, those that all values are in.
const PAYLOAD_AT: usize = 44 + 2 * 24;

fn wire_key(name: &str) -> WireKey {
    WireKey::new(format!("{name}:1:v:pages:k")).unwrap()
}

fn compressing(stand: &Stand, name: &str, compression: Compression) -> Pages {
    process(name, stand.gate.ungated(), |pages| pages.compression(compression))
}

fn insert(pages: &Pages, value: &str) {
    assert!(pages.insert(own("k"), own(value)).is_through());
}

/// Returns how long the item is, beyond what surrounds its payload.
fn stored_len(stand: &Stand, name: &str) -> usize {
    stand.gate.peek(&wire_key(name)).unwrap().len() - PAYLOAD_AT
}

#[test]
fn a_long_value_is_stored_in_fewer_bytes_and_read_by_every_process() {
    for stand in Stand::all() {
        let name = stand.fresh();
        let kind = stand.kind();
        let (here, there) = (compressing(&stand, &name, Compression::lz4()), stand.bystander(&name));
        let long = "long ".repeat(2_000);
        insert(&here, &long);
        assert!(stored_len(&stand, &name) < 200, "{kind}");
        assert_eq!(there.get("k").as_deref(), Some(&*long), "one that does not compress, {kind}");
        assert_eq!(compressing(&stand, &name, Compression::lz4()).get("k").as_deref(), Some(&*long), "{kind}");
        // And the other way.
        insert(&there, &long);
        assert_eq!(stored_len(&stand, &name), 10_000, "{kind}");
        assert_eq!(compressing(&stand, &name, Compression::lz4()).get("k").as_deref(), Some(&*long), "{kind}");

        let short = "a".repeat(1_024);
        insert(&here, &short);
        assert_eq!(stored_len(&stand, &name), 1_024, "not above 1 KiB, {kind}");
        let noise: String = (0..4_000).map(|_| fastrand::char(..)).collect();
        insert(&here, &noise);
        assert!(stored_len(&stand, &name) <= noise.len(), "{kind}");
        assert_eq!(stand.bystander(&name).get("k").as_deref(), Some(&*noise), "{kind}");

        // By a load as well, and longer than the store would take.
        assert!(here.remove("k").is_acknowledged());
        let huge = "huge ".repeat(500_000);
        assert_eq!(load(&here, "k", &huge, &[]), huge);
        assert!(stored_len(&stand, &name) < 20_000, "{kind}");
        assert_eq!(stand.bystander(&name).get("k").as_deref(), Some(&*huge), "{kind}");
        assert_eq!(here.remote_stats().errors, 0, "{kind}");
    }
}

#[test]
fn limits_are_kept_by_who_writes_and_by_who_reads() {
    let stand = Stand::memory();
    let name = stand.fresh();
    let small = Compression::lz4().above(10).unpacks_to_at_most(1_000);
    let here = compressing(&stand, &name, small);
    insert(&here, &"a".repeat(1_000));
    assert!(stored_len(&stand, &name) < 50);
    insert(&here, &"a".repeat(1_001));
    assert_eq!(stored_len(&stand, &name), 1_001, "it could not be read");
    assert_eq!(compressing(&stand, &name, small).get("k").map(|value| value.len()), Some(1_001));

    insert(&compressing(&stand, &name, Compression::lz4()), &"a".repeat(2_000));
    let reader = compressing(&stand, &name, small);
    assert_eq!((reader.get("k"), reader.remote_stats().unreadable), (None, 1));
    assert_eq!(load(&reader, "k", "loaded", &[]), "loaded", "and is replaced");
    assert_eq!(stand.bystander(&name).get("k").as_deref(), Some("loaded"));
}

#[test]
fn what_no_process_has_compressed_is_a_miss() {
    let stand = Stand::memory();
    let name = stand.fresh();
    insert(&compressing(&stand, &name, Compression::lz4()), &"damaged ".repeat(1_000));
    let good = stand.gate.peek(&wire_key(&name)).unwrap();
    let reader = process(&name, stand.gate.ungated(), |pages| pages.capacity(0));
    assert!(reader.get("k").is_some());
    let forged = |stored: &[u8]| {
        let mut bytes = [&good[..PAYLOAD_AT], stored].concat();
        bytes[PAYLOAD_LEN_AT..][..4].copy_from_slice(&u32::try_from(stored.len()).unwrap().to_le_bytes());
        bytes[CRC_AT..][..4].fill(0);
        let crc = crc32c::crc32c(&bytes);
        bytes[CRC_AT..][..4].copy_from_slice(&crc.to_le_bytes());
        bytes
    };
    let miss = |bytes: &[u8], what: &str| {
        stand.gate.poke(&wire_key(&name), bytes);
        let before = reader.remote_stats();
        assert_eq!(reader.get("k"), None, "{what}");
        let seen = reader.remote_stats() - before;
        assert_eq!((seen.misses, seen.unreadable), (1, 1), "{what}");
    };
    let stored = &good[PAYLOAD_AT..];
    let block = &stored[4..];
    let lying = |len: u32| forged(&[&len.to_le_bytes()[..], block].concat());
    stand.gate.poke(&wire_key(&name), &forged(stored));
    assert!(reader.get("k").is_some(), "as it was");
    for len in 0..stored.len() {
        miss(&forged(&stored[..len]), &format!("cut to {len}"));
    }
    for len in [0, 1, 7_999, 8_001, 8 << 20, (8 << 20) + 1, u32::MAX] {
        miss(&lying(len), &format!("said to be {len} long"));
    }
    for byte in [0, 1, 15, 16, 255] {
        miss(&forged(&[stored, &[byte]].concat()), &format!("with {byte} behind it"));
    }
    // Under the checksum of what was stored, not of what it unpacks to.
    for at in PAYLOAD_AT..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        miss(&bytes, &format!("byte {at} damaged"));
    }
}

#[test]
fn limits_that_cannot_be_are_refused() {
    let namespace = Namespace::builder("limits", Stand::memory().gate).build().unwrap();
    let build = |compression| {
        let builder = TieredCache::<String, String>::builder(&namespace, "pages").capacity(1).codec(RawBytes);
        builder.compression(compression).build().map(drop).map_err(|error| error.to_string())
    };
    assert!(build(Compression::lz4().above(9_000_000)).unwrap_err().contains("9000000"));
    assert!(build(Compression::lz4().unpacks_to_at_most(0)).unwrap_err().contains("nothing would be compressed"));
    assert!(build(Compression::lz4().unpacks_to_at_most(1 << 30)).unwrap_err().contains("67108864"));
    assert_eq!(build(Compression::lz4().above(0)), Ok(()));
}
