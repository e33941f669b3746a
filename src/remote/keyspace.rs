//! The names of everything that larder keeps in the store.
//!
//! ```text
//! <ns>:<version>:v:<cache>:<key>    a value
//! <ns>:<version>:r:<cache>:<key>    the claim to refresh it
//! <ns>:<version>:c:<name>           a counter
//! <ns>:g:h:<group hash>             the hard token of a group
//! <ns>:g:s:<group hash>             the soft token of a group
//! <ns>:j                            the journal
//! ```
//!
//! A namespace and a cache are named by 1 to 64 bytes of printable ASCII without `:`; a version by 0 to 64. A key or a
//! counter's name is any bytes at all. It is written as it is where that fits memcached's limits, otherwise as
//! [`DIGEST_MARK`] and the first 128 bits of its SHA-256 in hex (`printf %s <key> | sha256sum | cut -c-32`).
//!
//! **No two items share a key**, but for a collision of SHA-256. Take a key apart from the left. Up to the first `:` it is
//! the namespace, which holds none. If the rest is `j`, and has no further `:`, it is the journal. Otherwise a part, a
//! `:`, and a tag of one letter follow: `h` and `s` are group tokens, whose part is always `g`; `v`, `r` and `c` are not,
//! and their part is the version. The tags differ, so a version may well be called `g` or `j`. After `v:` and `r:` the
//! cache's name ends at the next `:`, and all that remains is the user's, `:` or not. What is written as it is never
//! begins with the mark, because a key that does is digested.
//!
//! **Tokens are named by the group's hash**, not by its name, because the header of a value records hashes: whoever reads
//! the value has to find the tokens of groups whose names it may never have heard. Should the hashes of two groups ever
//! collide, bumping either bumps both: misses, never stale values.

use std::cell::Cell;

use sha2::{Digest, Sha256};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::error::{RemoteError, RemoteErrorKind};
use super::key::{MAX_WIRE_KEY_LEN, RemoteKey, WireKey};
use crate::group::Bump;

/// The group that every entry of a namespace belongs to. A named group is this one only if its hash happens to be 0, and
/// then clearing either clears both.
pub(crate) const ROOT_GROUP: u64 = 0;

/// Longer names of namespaces, versions and caches would leave no room for a digest.
const MAX_NAME_LEN: usize = 64;
/// The most bytes that a thread keeps to write keys into: more than any that is written as it is.
const MAX_SCRATCH_LEN: usize = 1 << 10;
/// Begins a digest; chosen because hardly any key begins with it.
const DIGEST_MARK: u8 = b'~';
/// 128 bits: out of reach for accidents, and a forger needs 2^64 attempts for two keys that collide.
const DIGEST_BYTES: usize = 16;
/// The mark and the digest in hex.
const DIGEST_LEN: usize = 1 + 2 * DIGEST_BYTES;

const _: () = assert!(
    MAX_NAME_LEN + ":".len() + MAX_NAME_LEN + ":v:".len() + MAX_NAME_LEN + ":".len() + DIGEST_LEN <= MAX_WIRE_KEY_LEN,
    "a digest fits behind the longest prefix"
);

// Part of the wire format: two builds with different seeds would take each other's values for somebody else's. The seeds
// differ from each other so that no key's fingerprint says anything about a group's hash.
const FINGERPRINT_SEED: u64 = u64::from_le_bytes(*b"larder/k");
const GROUP_SEED: u64 = u64::from_le_bytes(*b"larder/g");
const CACHE_ROOT_SEED: u64 = u64::from_le_bytes(*b"larder/r");

thread_local! {
    /// What a thread writes keys into before they are made: one that only reads allocates for nothing but the key itself.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Returns what stands for the group `name` in values, in the journal and in the keys of tokens.
pub(crate) fn group_hash(name: &str) -> u64 {
    xxh3_64_with_seed(name.as_bytes(), GROUP_SEED)
}

/// Makes the keys of one version of one namespace.
#[derive(Clone, Debug)]
pub(crate) struct Keyspace {
    /// `<ns>:`
    shared: Box<str>,
    /// `<ns>:<version>:`
    versioned: Box<str>,
}

impl Keyspace {
    /// Checks the names of a namespace and of its version; an empty version is one like any other.
    ///
    /// Groups and the journal belong to all versions of a namespace, values and counters to one.
    ///
    /// # Errors
    /// [`RemoteErrorKind::Config`], naming what is wrong with which name.
    pub(crate) fn new(namespace: &str, version: &str) -> Result<Self, RemoteError> {
        check_name("namespace", namespace)?;
        if !version.is_empty() {
            check_name("version", version)?;
        }
        Ok(Self {
            shared: format!("{namespace}:").into_boxed_str(),
            versioned: format!("{namespace}:{version}:").into_boxed_str(),
        })
    }

    /// Returns the name of the namespace.
    pub(crate) fn namespace(&self) -> &str {
        self.shared.trim_end_matches(':')
    }

    /// Checks the name of a cache and returns the maker of its keys.
    ///
    /// # Errors
    /// [`RemoteErrorKind::Config`], naming what is wrong with the name.
    pub(crate) fn cache(&self, name: &str) -> Result<CacheKeyspace, RemoteError> {
        check_name("cache", name)?;
        let prefix = |tag: char| format!("{}{tag}:{name}:", self.versioned).into_bytes().into_boxed_slice();
        Ok(CacheKeyspace { value: prefix('v'), refresh: prefix('r') })
    }

    /// Returns the key of a group's token for this kind of bump.
    pub(crate) fn token(&self, group_hash: u64, bump: Bump) -> WireKey {
        match bump {
            Bump::Kill => self.group_hard(group_hash),
            Bump::Expire => self.group_soft(group_hash),
        }
    }

    /// Returns the key of a group's hard token.
    pub(crate) fn group_hard(&self, group_hash: u64) -> WireKey {
        WireKey::from_valid(format!("{}g:h:{group_hash:016x}", self.shared).as_bytes())
    }

    /// Returns the key of a group's soft token.
    pub(crate) fn group_soft(&self, group_hash: u64) -> WireKey {
        WireKey::from_valid(format!("{}g:s:{group_hash:016x}", self.shared).as_bytes())
    }

    /// Returns the key of the journal.
    pub(crate) fn journal(&self) -> WireKey {
        WireKey::from_valid(format!("{}j", self.shared).as_bytes())
    }

    /// Returns the key of the counter `name`.
    pub(crate) fn counter(&self, name: &str) -> WireKey {
        let prefix = format!("{}c:", self.versioned);
        wire_key(prefix.as_bytes(), &mut [prefix.as_bytes(), name.as_bytes()].concat())
    }
}

/// Makes the keys of one cache.
#[derive(Clone, Debug)]
pub(crate) struct CacheKeyspace {
    /// `<ns>:<version>:v:<cache>:`
    value: Box<[u8]>,
    /// `<ns>:<version>:r:<cache>:`
    refresh: Box<[u8]>,
}

impl CacheKeyspace {
    /// Returns where the value of `key` is, and what stands for it in the header of its value and in the journal.
    ///
    /// This *fingerprint* hashes namespace, version, cache and the whole key, digested or not. So a value that comes back
    /// under a wrong key, by a digest's collision or by an answer to another question, is found out.
    pub(crate) fn locate<Q: RemoteKey + ?Sized>(&self, key: &Q) -> (WireKey, u64) {
        // Taken, so that a key whose encoding comes here again finds another.
        let mut bytes = SCRATCH.try_with(Cell::take).unwrap_or_default();
        bytes.clear();
        bytes.extend_from_slice(&self.value);
        key.encode(&mut bytes);
        let fingerprint = xxh3_64_with_seed(&bytes, FINGERPRINT_SEED);
        let located = (wire_key(&self.value, &mut bytes), fingerprint);
        if bytes.capacity() <= MAX_SCRATCH_LEN {
            // A thread that is about to end has none.
            _ = SCRATCH.try_with(|scratch| scratch.set(bytes));
        }
        located
    }

    /// Returns the key of the claim to refresh the value under `value`, which is one of this cache.
    pub(crate) fn refresh_of(&self, value: &WireKey) -> WireKey {
        // The prefixes differ in one letter, so that what follows is written alike behind both: as it is, or digested.
        let mut bytes = Vec::with_capacity(value.as_bytes().len());
        bytes.extend_from_slice(&self.refresh);
        bytes.extend_from_slice(&value.as_bytes()[self.value.len()..]);
        WireKey::from_valid(&bytes)
    }

    /// Returns the group that every entry of this cache belongs to, and that no user can name.
    pub(crate) fn root_group(&self) -> u64 {
        xxh3_64_with_seed(&self.value, CACHE_ROOT_SEED)
    }
}

fn check_name(what: &str, name: &str) -> Result<(), RemoteError> {
    let problem = if name.is_empty() {
        "is empty".to_owned()
    } else if name.len() > MAX_NAME_LEN {
        format!("has {} bytes, and at most {MAX_NAME_LEN} fit", name.len())
    } else if name.contains(':') {
        "holds ':', which separates the parts of a remote key".to_owned()
    } else if let Some(bad) = name.chars().find(|letter| !letter.is_ascii_graphic()) {
        format!("holds {bad:?}, which is not printable ASCII")
    } else {
        return Ok(());
    };
    Err(RemoteError::new(
        RemoteErrorKind::Config,
        format!("the {what} name {name:?} {problem}: use letters, digits, '-', '_' and '.'"),
    ))
}

/// Makes a key of a checked prefix and, behind it in `bytes`, a name of any bytes: as they are, or as their digest.
fn wire_key(prefix: &[u8], bytes: &mut Vec<u8>) -> WireKey {
    // An encoding that broke its promise to append has spoilt the prefix: all of it counts as a name then.
    let (name, intact) = bytes.strip_prefix(prefix).map_or((&**bytes, false), |name| (name, true));
    let literal = intact
        && bytes.len() <= MAX_WIRE_KEY_LEN
        && name.first() != Some(&DIGEST_MARK)
        && name.iter().all(u8::is_ascii_graphic);
    if !literal {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let digest = Sha256::digest(name);
        bytes.clear();
        bytes.extend_from_slice(prefix);
        bytes.push(DIGEST_MARK);
        for byte in digest.iter().take(DIGEST_BYTES) {
            bytes.extend([HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    }
    WireKey::from_valid(bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    impl CacheKeyspace {
        fn value(&self, key: &[u8]) -> WireKey {
            self.locate(key).0
        }

        fn fingerprint(&self, key: &[u8]) -> u64 {
            self.locate(key).1
        }
    }

    fn keyspace(namespace: &str, version: &str) -> Keyspace {
        Keyspace::new(namespace, version).unwrap()
    }

    fn text(key: &WireKey) -> &str {
        std::str::from_utf8(key.as_bytes()).unwrap()
    }

    fn is_digest(key: &WireKey, prefix: &str) -> bool {
        text(key).strip_prefix(prefix).is_some_and(|rest| {
            rest.len() == DIGEST_LEN
                && rest.starts_with('~')
                && rest[1..].bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        })
    }

    #[test]
    fn layout_is_fixed() {
        let keys = keyspace("shop", "3");
        let cache = keys.cache("users").unwrap();
        assert_eq!(text(&cache.value(b"user:1")), "shop:3:v:users:user:1");
        assert_eq!(text(&cache.refresh_of(&cache.value(b"user:1"))), "shop:3:r:users:user:1");
        assert_eq!(text(&cache.value(b"")), "shop:3:v:users:");
        assert_eq!(text(&keys.counter("hits")), "shop:3:c:hits");
        assert_eq!(text(&keys.group_hard(0xA)), "shop:g:h:000000000000000a");
        assert_eq!(text(&keys.group_soft(u64::MAX)), "shop:g:s:ffffffffffffffff");
        assert_eq!(text(&keys.journal()), "shop:j");
        assert_eq!(text(&keyspace("shop", "").cache("users").unwrap().value(b"k")), "shop::v:users:k");
    }

    #[test]
    fn an_encoding_that_spoils_the_prefix_is_digested() {
        struct Spoils(&'static [u8]);
        impl RemoteKey for Spoils {
            fn encode(&self, out: &mut Vec<u8>) {
                out.clear();
                out.extend_from_slice(self.0);
            }
        }
        let cache = keyspace("shop", "3").cache("users").unwrap();
        for spoilt in [&b""[..], b"shop:3:v:user", b"k\r\nflush_all\r\n", &[b'k'; 300]] {
            assert!(is_digest(&cache.locate(&Spoils(spoilt)).0, "shop:3:v:users:"), "{}", spoilt.escape_ascii());
        }
    }

    /// These go to other processes, and into items that outlive a release: they never change.
    #[test]
    fn hashes_are_fixed() {
        let cache = keyspace("shop", "3").cache("users").unwrap();
        assert_eq!(cache.fingerprint(b"user:1"), 0x3FE5_5BE1_238B_6513);
        assert_eq!(cache.fingerprint(b""), 0x64F6_58C1_B730_9418);
        assert_eq!(cache.fingerprint(&[0xFF; 1000]), 0x5AE2_5973_D941_3D9A);
        assert_eq!(cache.root_group(), 0x7E99_F97F_BAEC_F436);
        assert_eq!(group_hash("orders"), 0xBC7F_86F5_996F_D7D7);
        assert_eq!(group_hash(""), 0x6DBC_A5C4_83CD_38B9);
        assert_eq!(ROOT_GROUP, 0);
        // printf %s 'two words' | sha256sum | cut -c-32
        assert_eq!(text(&cache.value(b"two words")), "shop:3:v:users:~a03f1d611645eb53ad16c1af546ca079");
    }

    #[test]
    fn a_fingerprint_is_one_hash_of_the_whole_key() {
        let cache = keyspace("shop", "3").cache("users").unwrap();
        for len in [0, 1, 100, 239, 240, 241, 256, 257, 5000] {
            let key = vec![b'x'; len];
            let whole = [b"shop:3:v:users:", key.as_slice()].concat();
            assert_eq!(cache.fingerprint(&key), xxh3_64_with_seed(&whole, FINGERPRINT_SEED), "{len}");
        }
    }

    #[test]
    fn keys_that_memcached_would_refuse_are_digested() {
        let cache = keyspace("shop", "3").cache("users").unwrap();
        let prefix = "shop:3:v:users:";
        let longest = vec![b'k'; MAX_WIRE_KEY_LEN - prefix.len()];
        assert_eq!(cache.value(&longest).as_bytes().len(), MAX_WIRE_KEY_LEN);
        assert!(text(&cache.value(&longest)).ends_with("kkk"));
        let too_long = vec![b'k'; longest.len() + 1];
        for key in [&too_long[..], &[b'k'; 251], &[b'k'; 100_000], b"a b", b"a\r\nset b", b"\0", b"\x7f", b"\xff\xfe"] {
            assert!(is_digest(&cache.value(key), prefix), "{}", key.escape_ascii());
        }
        assert!(is_digest(&keyspace("shop", "3").counter("küche"), "shop:3:c:"));
    }

    #[test]
    fn a_literal_key_never_looks_like_a_digest() {
        let cache = keyspace("shop", "3").cache("users").unwrap();
        let digested = cache.value(b"two words");
        let forged = text(&digested).strip_prefix("shop:3:v:users:").unwrap();
        assert!(is_digest(&cache.value(forged.as_bytes()), "shop:3:v:users:"));
        assert_ne!(cache.value(forged.as_bytes()), digested);
        assert!(is_digest(&cache.value(b"~"), "shop:3:v:users:"));
        assert_eq!(text(&cache.value(b"a~")), "shop:3:v:users:a~");
    }

    #[test]
    fn the_longest_names_leave_room_for_a_digest() {
        let name = "n".repeat(MAX_NAME_LEN);
        let cache = keyspace(&name, &name).cache(&name).unwrap();
        assert!(cache.value(&[b' '; 300]).as_bytes().len() <= MAX_WIRE_KEY_LEN);
        assert_eq!(cache.value(&[b'k'; 53]).as_bytes().len(), MAX_WIRE_KEY_LEN);
        assert!(keyspace(&name, &name).counter(&"é".repeat(300)).as_bytes().len() <= MAX_WIRE_KEY_LEN);
    }

    #[test]
    fn bad_names_are_refused_with_the_reason() {
        let too_long = "n".repeat(MAX_NAME_LEN + 1);
        for (bad, reason) in [
            ("a:b", "\"a:b\" holds ':'"),
            (":", "holds ':'"),
            ("a b", "holds ' '"),
            ("a\nb", r"holds '\n'"),
            ("é", "holds 'é'"),
            (too_long.as_str(), "has 65 bytes"),
        ] {
            for error in [
                Keyspace::new(bad, "1").unwrap_err(),
                Keyspace::new("ns", bad).unwrap_err(),
                keyspace("ns", "1").cache(bad).unwrap_err(),
            ] {
                assert_eq!(error.kind(), RemoteErrorKind::Config);
                assert!(error.to_string().contains(reason), "{error}");
            }
        }
        assert_eq!(
            Keyspace::new("", "1").unwrap_err().to_string(),
            "the namespace name \"\" is empty: use letters, digits, '-', '_' and '.'"
        );
        assert!(keyspace("ns", "").cache("").is_err());
    }

    /// What a key stands for, to tell whether two keys may be equal.
    #[derive(Clone, Debug, PartialEq, Eq)]
    enum Thing {
        Value(String, String, String, Vec<u8>),
        Refresh(String, String, String, Vec<u8>),
        Counter(String, String, String),
        Hard(String, u64),
        Soft(String, u64),
        Journal(String),
    }

    impl Thing {
        fn key(&self) -> WireKey {
            match self {
                Thing::Value(ns, version, cache, key) => keyspace(ns, version).cache(cache).unwrap().value(key),
                Thing::Refresh(ns, version, cache, key) => {
                    let cache = keyspace(ns, version).cache(cache).unwrap();
                    cache.refresh_of(&cache.value(key))
                }
                Thing::Counter(ns, version, name) => keyspace(ns, version).counter(name),
                Thing::Hard(ns, group) => keyspace(ns, "").group_hard(*group),
                Thing::Soft(ns, group) => keyspace(ns, "").group_soft(*group),
                Thing::Journal(ns) => keyspace(ns, "").journal(),
            }
        }
    }

    /// The letters that the layout itself uses, so that random things nearly collide.
    fn things() -> impl Strategy<Value = Thing> {
        let name = || "[gjvrchs0~]{1,2}";
        let version = || "[gjvrchs0~]{0,2}";
        let key = || "[gjvrchs0~: ]{0,8}".prop_map(String::into_bytes);
        prop_oneof![
            (name(), version(), name(), key()).prop_map(|(n, v, c, k)| Thing::Value(n, v, c, k)),
            (name(), version(), name(), key()).prop_map(|(n, v, c, k)| Thing::Refresh(n, v, c, k)),
            (name(), version(), "[gjvrchs0~: ]{0,8}").prop_map(|(n, v, k)| Thing::Counter(n, v, k)),
            (name(), 0..4_u64).prop_map(|(n, g)| Thing::Hard(n, g)),
            (name(), 0..4_u64).prop_map(|(n, g)| Thing::Soft(n, g)),
            name().prop_map(Thing::Journal),
        ]
    }

    proptest! {
        #[test]
        fn no_two_things_share_a_key(things in proptest::collection::vec(things(), 1..200)) {
            let mut seen = HashMap::new();
            for thing in things {
                let earlier = seen.entry(thing.key()).or_insert_with(|| thing.clone());
                prop_assert_eq!(&*earlier, &thing);
            }
        }

        #[test]
        fn every_key_is_one_that_memcached_takes(key: Vec<u8>, name: String) {
            let keys = keyspace("n", "");
            let cache = keys.cache("c").unwrap();
            for made in [cache.value(&key), cache.refresh_of(&cache.value(&key)), keys.counter(&name)] {
                prop_assert!(WireKey::new(made.as_bytes()).is_ok());
            }
        }
    }
}
