//! Bytes that no cache has written: damaged, foreign, and forged.

use larder::{CodecId, EntryOptions, WireKey};

use super::{HOUR, Pages, Stand, load, own, process};
use crate::support::eventually;

const LEN_AT: usize = 4;
const CRC_AT: usize = 36;
const NGROUPS_AT: usize = 40;

fn wire_key(name: &str, key: &str) -> WireKey {
    WireKey::new(format!("{name}:1:v:pages:{key}")).unwrap()
}

/// Returns the bytes of a sound value of `key`.
fn sound(stand: &Stand, name: &str, key: &str) -> Vec<u8> {
    let writer = stand.bystander(name);
    assert!(writer.insert_with(own(key), own("sound"), EntryOptions::new().groups(["g"])).is_through());
    stand.gate.peek(&wire_key(name, key)).unwrap()
}

/// Makes the checksum right again.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes[CRC_AT..CRC_AT + 4].fill(0);
    let crc = crc32c::crc32c(&bytes);
    bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn with(mut bytes: Vec<u8>, at: usize, new: &[u8]) -> Vec<u8> {
    bytes[at..at + new.len()].copy_from_slice(new);
    sealed(bytes)
}

/// Puts `bytes` under the key of a value: no process takes them, and the next load replaces them.
fn assert_miss(stand: &Stand, name: &str, bytes: &[u8], what: &str) {
    let key = wire_key(name, "k");
    let reader = process(name, stand.gate.ungated(), |pages| pages.capacity(0));
    stand.gate.poke(&key, bytes);
    let before = reader.remote_stats();
    assert_eq!(reader.get("k"), None, "{what}");
    let seen = reader.remote_stats() - before;
    assert_eq!((seen.misses, seen.hits_fresh, seen.hits_stale), (1, 0, 0), "{what}");
    assert_eq!(seen.unreadable + seen.dead, 1, "{what}: {seen:?}");
    assert_eq!(load(&reader, "k", "loaded", &[]), "loaded", "{what}");
    assert_eq!(reader.get("k").as_deref(), Some("loaded"), "{what}");
}

#[test]
fn damaged_and_foreign_bytes_are_misses_that_the_next_load_replaces() {
    for stand in Stand::all() {
        let name = stand.fresh();
        let good = sound(&stand, &name, "k");
        for len in 1..good.len() {
            assert_miss(&stand, &name, &good[..len], &format!("cut to {len}"));
        }
        for bit in (0..good.len() * 8).step_by(3) {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_miss(&stand, &name, &bytes, &format!("bit {bit} flipped"));
        }
        assert_miss(&stand, &name, &sound(&stand, &name, "other"), "the value of another key");
        assert_miss(&stand, &name, &with(good.clone(), 2, &[2]), "another version");
        assert_miss(&stand, &name, &with(good.clone(), 3, &[8]), "another codec");
        assert_miss(&stand, &name, &with(good.clone(), 3, &[0x40]), "unknown flags");
        assert_miss(&stand, &name, &with(good.clone(), LEN_AT, &u32::MAX.to_le_bytes()), "a huge payload");
        assert_miss(&stand, &name, &with(good.clone(), NGROUPS_AT, &[255]), "more groups than there are");
        assert_miss(&stand, &name, &with(good.clone(), NGROUPS_AT, &[0]), "no groups, and trailing bytes");
        assert_miss(&stand, &name, &[&good[..], b"x"].concat(), "trailing bytes");
        assert_miss(&stand, &name, b"plain text of another program", "text");
        assert_miss(&stand, &name, &vec![0; 1 << 19], "zeros");
    }
}

#[test]
fn a_sound_value_of_groups_that_nobody_bumped_is_dead_without_their_tokens() {
    let stand = Stand::memory();
    let name = stand.fresh();
    let good = sound(&stand, &name, "k");
    let header = 44;
    let payload = &good[good.len() - "sound".len()..];
    let roots = &good[header..header + 2 * 24];
    let of = |groups: usize, roots: &[u8]| {
        let forged = (0..groups as u64).flat_map(|group| [group + 1, 7, 7]).flat_map(u64::to_le_bytes);
        let mut bytes = [&good[..header], roots].concat();
        bytes.extend(forged);
        bytes.extend_from_slice(payload);
        bytes[NGROUPS_AT] = u8::try_from(groups + roots.len() / 24).unwrap();
        sealed(bytes)
    };
    assert_miss(&stand, &name, &of(253, roots), "255 groups");
    assert_miss(&stand, &name, &of(0, &[]), "no roots, which no clear would reach");
    assert_miss(&stand, &name, &of(0, &roots[..24]), "one root");
    stand.gate.poke(&wire_key(&name, "k"), &of(0, roots));
    assert_eq!(stand.bystander(&name).get("k").as_deref(), Some("sound"));
}

#[test]
fn an_empty_item_of_another_program_is_a_miss_that_a_load_replaces() {
    for stand in Stand::all() {
        let name = stand.fresh();
        let pages = stand.bystander(&name);
        stand.gate.poke(&wire_key(&name, "k"), b"");
        assert_eq!(pages.get("k"), None);
        assert_eq!(load(&pages, "k", "loaded", &[]), "loaded");
        assert_eq!(stand.bystander(&name).get("k").as_deref(), Some("loaded"));
    }
}

#[test]
fn a_spoilt_token_is_replaced() {
    for stand in Stand::all() {
        let name = stand.fresh();
        let pages = stand.process(&name);
        assert_eq!(load(&pages, "k", "1", &["g"]), "1");
        let tokens: Vec<_> = stand
            .gate
            .keys()
            .into_iter()
            .filter(|key| key.as_bytes().starts_with(format!("{name}:g:").as_bytes()))
            .collect();
        // Hard and soft, of the namespace, of the cache and of the group.
        assert_eq!(tokens.len(), 6);
        for token in &tokens {
            for spoilt in [&b""[..], b"7 bytes", b"nine byte", &[0xFF; 1000]] {
                let key = format!("{token:?} {}", spoilt.len());
                stand.gate.poke_control(token, spoilt);
                let reader = stand.bystander(&name);
                let found = reader.get("k");
                let seen = reader.remote_stats();
                let soft = token.as_bytes().starts_with(format!("{name}:g:s:").as_bytes());
                assert_eq!((found.is_some(), seen.hits_fresh, seen.hits_stale), (soft, 0, u64::from(soft)), "{key}");
                // By a process that does not know the token yet.
                let writer = stand.bystander(&name);
                assert!(
                    writer.insert_with(own("k"), own("2"), EntryOptions::new().groups(["g"])).is_through(),
                    "{key}"
                );
                assert_eq!(stand.bystander(&name).get("k").as_deref(), Some("2"), "{key}");
            }
        }
    }
}

/// Refuses some values, and panics at others.
struct Moody;

impl larder::Codec<String> for Moody {
    fn id(&self) -> CodecId {
        CodecId::custom::<1>()
    }

    fn encode(&self, value: &String, out: &mut Vec<u8>) -> Result<(), larder::CodecError> {
        out.extend_from_slice(value.as_bytes());
        match value.as_str() {
            "refused" => Err(larder::CodecError::new("refused")),
            "panic" => panic!("a codec's own"),
            _ => Ok(()),
        }
    }

    fn decode(&self, bytes: &[u8]) -> Result<String, larder::CodecError> {
        match bytes {
            b"unreadable" => Err(larder::CodecError::new("unreadable")),
            b"unreadable panic" => panic!("a codec's own"),
            _ => String::from_utf8(bytes.to_vec()).map_err(|_| larder::CodecError::new("no text")),
        }
    }
}

fn moody(stand: &Stand, name: &str) -> Pages {
    process(name, stand.gate.ungated(), |pages| pages.codec(Moody))
}

fn panics(f: impl FnOnce()) -> bool {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).is_err()
}

#[test]
fn a_value_that_the_codec_refuses_stays_local_and_leaves_nothing_older_behind() {
    for stand in Stand::all() {
        let name = stand.fresh();
        let pages = moody(&stand, &name);
        for bad in ["refused", "panic"] {
            assert!(pages.insert(own("k"), own("old")).is_through());
            if bad == "panic" {
                assert!(panics(|| drop(pages.insert(own("k"), own(bad)))));
            } else {
                let written = pages.insert(own("k"), own(bad));
                assert!(matches!(written, larder::Write::LocalOnly(..)), "{written:?}");
            }
            assert_eq!(pages.get("k").as_deref(), Some(bad));
            // The deletion of the old value is owed.
            eventually("the deletion", || (pages.namespace().owed() == 0).then_some(()));
            assert_eq!(moody(&stand, &name).get("k"), None);

            // A load leaves no lease behind that would keep others from writing.
            if bad == "panic" {
                assert!(panics(|| drop(load(&pages, "l", bad, &[]))));
            } else {
                assert_eq!(load(&pages, "l", bad, &[]), bad);
            }
            assert_eq!(load(&moody(&stand, &name), "l", "good", &[]), "good");
            assert_eq!(moody(&stand, &name).get("l").as_deref(), Some("good"));
            assert!(pages.remove_many(["k", "l"]).is_acknowledged());
        }
    }
}

#[test]
fn a_value_that_the_codec_cannot_read_is_a_miss() {
    let stand = Stand::memory();
    let name = stand.fresh();
    assert!(moody(&stand, &name).insert(own("k"), own("unreadable")).is_through());
    let reader = moody(&stand, &name);
    assert_eq!(reader.get("k"), None);
    assert_eq!(reader.remote_stats().unreadable, 1);
    assert!(moody(&stand, &name).insert(own("k"), own("unreadable panic")).is_through());
    assert!(panics(|| drop(reader.get("k"))));
    // Nobody holds the key.
    assert!(reader.insert(own("k"), own("good")).is_through());
    assert_eq!(load(&moody(&stand, &name), "k", "other", &[]), "good");
}

#[test]
fn a_value_that_is_too_large_stays_local_and_the_old_one_is_gone() {
    for stand in Stand::all() {
        let name = stand.fresh();
        let pages = stand.bystander(&name);
        assert!(pages.insert(own("k"), own("old")).is_through());
        let large = "x".repeat(1 << 20);
        let larder::Write::LocalOnly(error, receipt) = pages.insert(own("k"), large.clone()) else { panic!("it fits") };
        assert_eq!(error.kind(), larder::RemoteErrorKind::TooLarge);
        assert_eq!(pages.get("k").as_ref(), Some(&large));
        assert!(receipt.wait(HOUR));
        assert_eq!(stand.bystander(&name).get("k"), None);
        // Without room in the local tier, it is nowhere, and the old one is not back.
        let nowhere = process(&name, stand.gate.ungated(), |pages| pages.capacity(0));
        assert!(matches!(nowhere.insert(own("n"), own("old")), larder::Write::RemoteOnly(_)));
        assert!(matches!(nowhere.insert(own("n"), large.clone()), larder::Write::Nowhere(..)));
        assert_eq!(nowhere.get("n"), None);
        // A load gives its lease back.
        assert_eq!(load(&pages, "l", &large, &[]), large);
        assert_eq!(load(&stand.bystander(&name), "l", "small", &[]), "small");
        assert_eq!(stand.bystander(&name).get("l").as_deref(), Some("small"));
    }
}
