//! Keys: no two items share a name, whatever users call their keys, and every name is one that memcached takes.

use std::borrow::Cow;
use std::sync::Arc;

use larder::fuzzing::{self, Names};
use larder::{RemoteKey, WireKey};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::input::Input;

const MAX_WIRE_KEY_LEN: usize = 250;
const MAX_NAME_LEN: usize = 64;

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.below(3) {
        0 => named(input),
        1 => encoded(input),
        _ => {
            let bytes = input.rest();
            let is_key = is_wire_key(bytes);
            assert_eq!(WireKey::new(bytes).is_ok(), is_key, "{}", bytes.escape_ascii());
        }
    }
}

/// What a name of the store says, taken apart as its documentation has it.
#[derive(Debug, PartialEq)]
enum Item<'a> {
    Journal { namespace: &'a [u8] },
    Token { namespace: &'a [u8], kind: u8, hash: &'a [u8] },
    Counter { namespace: &'a [u8], version: &'a [u8], name: &'a [u8] },
    Value { namespace: &'a [u8], version: &'a [u8], kind: u8, cache: &'a [u8], key: &'a [u8] },
}

fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|byte| *byte == b':')?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

fn parse(key: &[u8]) -> Option<Item<'_>> {
    let (namespace, rest) = split(key)?;
    if rest == b"j" {
        return Some(Item::Journal { namespace });
    }
    let (version, rest) = split(rest)?;
    let (&[kind], rest) = split(rest).map(|(tag, rest)| (<&[u8; 1]>::try_from(tag).expect("one letter"), rest))?;
    match kind {
        b'h' | b's' if version == b"g" => Some(Item::Token { namespace, kind, hash: rest }),
        b'c' => Some(Item::Counter { namespace, version, name: rest }),
        b'v' | b'r' => {
            let (cache, key) = split(rest)?;
            Some(Item::Value { namespace, version, kind, cache, key })
        }
        _ => None,
    }
}

fn named(mut input: Input<'_>) {
    let parts = [input.text(), input.text(), input.text()];
    let (group, counter) = (input.text(), input.text());
    let key = input.rest();
    let [namespace, version, cache] = &parts;
    let names = fuzzing::names([namespace, version, cache], key, &group, &counter);
    let may_be = is_name(namespace) && (version.is_empty() || is_name(version)) && is_name(cache);
    let Names {
        value, refresh, hard_token, soft_token, journal, counter: wire_counter, fingerprint, group_hash, ..
    } = match names {
        Ok(names) => names,
        Err(error) => {
            assert!(!may_be, "{parts:?}: {error}");
            let message = error.to_string();
            let wrong = parts.iter().any(|part| message.contains(&format!("{part:?}")));
            assert!(wrong, "{message} does not say which of {parts:?} it is about");
            return;
        }
    };
    assert!(may_be, "{parts:?}");
    let [namespace, version, cache] = [namespace, version, cache].map(|part| part.as_bytes());
    for wire in [&value, &refresh, &hard_token, &soft_token, &journal, &wire_counter] {
        assert!(is_wire_key(wire.as_bytes()), "{wire:?}");
    }
    assert_eq!(parse(journal.as_bytes()), Some(Item::Journal { namespace }));
    let hash = format!("{group_hash:016x}");
    for (token, kind) in [(&hard_token, b'h'), (&soft_token, b's')] {
        assert_eq!(parse(token.as_bytes()), Some(Item::Token { namespace, kind, hash: hash.as_bytes() }));
    }
    let prefix = namespace.len() + version.len() + cache.len() + 5;
    let written = as_written(key, prefix);
    for (wire, kind) in [(&value, b'v'), (&refresh, b'r')] {
        let item = Item::Value { namespace, version, kind, cache, key: &written };
        assert_eq!(parse(wire.as_bytes()), Some(item), "{wire:?}");
    }
    let name = as_written(counter.as_bytes(), namespace.len() + version.len() + 4);
    let item = Item::Counter { namespace, version, name: &name };
    assert_eq!(parse(wire_counter.as_bytes()), Some(item), "{wire_counter:?}");
    // Whoever has the same key finds the same item.
    let again = fuzzing::names([&parts[0], &parts[1], &parts[2]], &key.to_vec(), &group, &counter).expect("as before");
    assert_eq!((again.value, again.fingerprint, again.group_hash), (value, fingerprint, group_hash));
}

/// Returns how a user's name is written behind a prefix of this length: as it is, or as its digest, which begins with a mark.
fn as_written(name: &[u8], prefix: usize) -> Cow<'_, [u8]> {
    let fits = prefix + name.len() <= MAX_WIRE_KEY_LEN && !name.starts_with(b"~");
    if fits && name.iter().all(u8::is_ascii_graphic) {
        return name.into();
    }
    let digest: String = Sha256::digest(name).iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("~{digest}").into_bytes().into()
}

fn is_wire_key(bytes: &[u8]) -> bool {
    (1..=MAX_WIRE_KEY_LEN).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
}

fn is_name(name: &str) -> bool {
    (1..=MAX_NAME_LEN).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':')
}

/// Encodings are injective: each is taken apart again.
fn encoded(mut input: Input<'_>) {
    let (one, other) = (input.chunk(), input.chunk());
    let text = input.text();
    let (number, small) = (input.u64(), i128::from(input.u64()).wrapping_mul(-(1 << 70)));
    assert_eq!(encoding(one), one);
    assert_eq!(encoding(&one.to_vec()), one);
    assert_eq!(encoding(&Arc::<[u8]>::from(one)), one);
    assert_eq!(encoding(&text), text.as_bytes());
    assert_eq!(parsed::<u64>(&number), number);
    assert_eq!(parsed::<i128>(&small), small);
    let uuid = Uuid::from_u128(small as u128);
    assert_eq!(Uuid::try_parse_ascii(&encoding(&uuid)).expect("a uuid"), uuid);

    assert_eq!(parts(&encoding(&(one, other, &text)), 3), [one, other, text.as_bytes()]);
    assert_eq!(parts(&encoding(&(number, one)), 2), [number.to_string().as_bytes(), one]);
    // A tuple within a tuple is one part, wherever it stands.
    let inner = (other, &text);
    for (outer, at) in [(encoding(&(inner, one)), 0), (encoding(&(one, inner)), 1)] {
        let outer = parts(&outer, 2);
        assert_eq!(parts(&outer[at], 2), [other, text.as_bytes()]);
        assert_eq!(outer[1 - at], one);
    }
}

fn encoding(key: &(impl RemoteKey + ?Sized)) -> Vec<u8> {
    let mut out = b"before".to_vec();
    key.encode(&mut out);
    out.strip_prefix(b"before").expect("it only appends").to_vec()
}

fn parsed<T: std::str::FromStr>(key: &impl RemoteKey) -> T {
    let text = String::from_utf8(encoding(key)).expect("digits");
    text.parse().unwrap_or_else(|_| panic!("{text} is no number"))
}

/// Takes a tuple of so many parts apart.
fn parts(tuple: &[u8], count: usize) -> Vec<Vec<u8>> {
    let parts: Vec<&[u8]> = tuple.splitn(count, |byte| *byte == b':').collect();
    assert_eq!(parts.len(), count, "{}", tuple.escape_ascii());
    let (last, escaped) = parts.split_last().expect("a part");
    escaped.iter().map(|part| unescaped(part)).chain([last.to_vec()]).collect()
}

fn unescaped(mut part: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let [first, rest @ ..] = part {
        let (byte, rest) = match part {
            [b'%', b'2', b'5', rest @ ..] => (b'%', rest),
            [b'%', b'3', b'A', rest @ ..] => (b':', rest),
            [b'%', ..] => panic!("{} is no escape", part.escape_ascii()),
            _ => (*first, rest),
        };
        out.push(byte);
        part = rest;
    }
    out
}
