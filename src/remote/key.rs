//! Keys of the remote tier: how a user's key becomes bytes, and what the store takes for a key.

use std::borrow::Cow;
use std::fmt;
use std::io::Write;

use uuid::Uuid;

use super::error::{RemoteError, RemoteErrorKind};
use crate::sync::Arc;

/// The longest key that memcached takes, in bytes.
pub(crate) const MAX_WIRE_KEY_LEN: usize = 250;

/// Separates the parts of a tuple's encoding.
const SEPARATOR: u8 = b':';
/// Begins the escape of a [`SEPARATOR`], or of itself, inside a part.
const ESCAPE: u8 = b'%';

/// A key that other processes can look up: one that writes itself as bytes.
///
/// Implemented for strings, byte slices, integers, `bool`, `char`, [`Uuid`], for references, boxes and other pointers to
/// these, and for tuples of one to eight of them.
///
/// # Contract
/// - *Injective*: two keys of one type that are not equal have different encodings. Otherwise they share one remote item,
///   and each is answered with the other's value.
/// - *Stable*: the encoding depends on the key alone, never on the process, the machine or the build.
/// - *Agrees with lookups*: a borrowed form that finds a key (`str` for `String`) encodes as that key does.
/// - `encode` only appends to `out`.
///
/// Injectivity is asked for within one type only, because a cache has one type of key: `42_u64` and `"42"` encode alike.
/// Caches with different types of key, or of value, need different names.
///
/// # Encodings
/// Encodings stay readable, so that an item can be found with memcached's own tools:
///
/// | key | encoding |
/// |---|---|
/// | strings, `char` | their UTF-8 |
/// | byte slices, arrays, vectors | their bytes |
/// | integers | decimal: `42`, `-7`; the same for `usize` on every machine |
/// | `bool` | `true`, `false` |
/// | `Uuid` | hyphenated, lower case |
/// | tuples | their parts joined by `:`; in all but the last part `%` becomes `%25`, and `:` becomes `%3A` |
///
/// The item is then called `<namespace>:<version>:v:<cache>:` and the encoding, as it is where it is printable ASCII
/// without spaces and short enough for memcached, otherwise as its digest. So an encoding may be of any length and hold any
/// byte.
///
/// # Examples
/// ```
/// use larder::RemoteKey;
///
/// struct PostId {
///     author: String,
///     number: u64,
/// }
///
/// impl RemoteKey for PostId {
///     fn encode(&self, out: &mut Vec<u8>) {
///         // Tuples are injective, so what encodes as a tuple of all its fields is as well.
///         (&self.author, self.number).encode(out);
///     }
/// }
///
/// let mut key = Vec::new();
/// PostId { author: "ann:b".to_owned(), number: 7 }.encode(&mut key);
/// assert_eq!(key, b"ann%3Ab:7");
/// ```
pub trait RemoteKey {
    /// Appends the key's encoding to `out`.
    fn encode(&self, out: &mut Vec<u8>);
}

macro_rules! encode_as_bytes {
    ($([$($generics:tt)*] $key:ty, $bytes:expr;)*) => {$(
        impl<$($generics)*> RemoteKey for $key {
            fn encode(&self, out: &mut Vec<u8>) {
                let bytes: fn(&Self) -> &[u8] = $bytes;
                out.extend_from_slice(bytes(self));
            }
        }
    )*};
}

encode_as_bytes! {
    [] str, |key| key.as_bytes();
    [] String, |key| key.as_bytes();
    [] [u8], |key| key;
    [] Vec<u8>, |key| key;
    [const N: usize] [u8; N], |key| key;
    [] bool, |key| if *key { b"true" } else { b"false" };
}

macro_rules! encode_as_decimal {
    ($($integer:ty)*) => {$(
        impl RemoteKey for $integer {
            fn encode(&self, out: &mut Vec<u8>) {
                write!(out, "{self}").expect("a Vec takes every write");
            }
        }
    )*};
}

encode_as_decimal! { u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize }

impl RemoteKey for char {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.encode_utf8(&mut [0; 4]).as_bytes());
    }
}

impl RemoteKey for Uuid {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.hyphenated().encode_lower(&mut Uuid::encode_buffer()).as_bytes());
    }
}

macro_rules! encode_as_pointee {
    ($($pointer:ty)*) => {$(
        impl<T: RemoteKey + ?Sized> RemoteKey for $pointer {
            fn encode(&self, out: &mut Vec<u8>) {
                (**self).encode(out);
            }
        }
    )*};
}

encode_as_pointee! { &T Box<T> Arc<T> }

impl<T: RemoteKey + ToOwned + ?Sized> RemoteKey for Cow<'_, T> {
    fn encode(&self, out: &mut Vec<u8>) {
        (**self).encode(out);
    }
}

/// Appends one part of a tuple that has more parts to come.
///
/// Why tuples are injective, provided that their parts are: escaping can be undone, so it keeps different parts different;
/// an escaped part holds no separator. So of a tuple of n parts the first n - 1 separators are those written here, and
/// splitting there recovers every part. The last part needs no escaping: nothing follows that it could be taken for.
fn encode_part(part: &(impl RemoteKey + ?Sized), out: &mut Vec<u8>) {
    let start = out.len();
    part.encode(out);
    if out.get(start..).is_some_and(|part| part.iter().any(|byte| matches!(*byte, SEPARATOR | ESCAPE))) {
        for byte in out.split_off(start) {
            match byte {
                SEPARATOR => out.extend_from_slice(b"%3A"),
                ESCAPE => out.extend_from_slice(b"%25"),
                other => out.push(other),
            }
        }
    }
    out.push(SEPARATOR);
}

macro_rules! encode_tuples {
    ($(($($part:ident)*) $last:ident;)*) => {$(
        impl<$($part: RemoteKey,)* $last: RemoteKey> RemoteKey for ($($part,)* $last,) {
            #[allow(non_snake_case, reason = "each part is named after its type")]
            fn encode(&self, out: &mut Vec<u8>) {
                let ($($part,)* $last,) = self;
                $(encode_part($part, out);)*
                $last.encode(out);
            }
        }
    )*};
}

encode_tuples! {
    () A;
    (A) B;
    (A B) C;
    (A B C) D;
    (A B C D) E;
    (A B C D E) F;
    (A B C D E F) G;
    (A B C D E F G) H;
}

/// An item's key as the store sees it: printable ASCII without spaces, 1 to 250 bytes. Clones share the bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct WireKey(Arc<[u8]>);

impl WireKey {
    /// Makes a key of `bytes` as they are.
    ///
    /// # Errors
    /// [`Config`](RemoteErrorKind::Config) unless they are 1 to 250 bytes of printable ASCII (`!` to `~`, so no space):
    /// anything else could be read as the end of the key and the beginning of another command.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, RemoteError> {
        let bytes = bytes.into();
        Self::check(&bytes)?;
        Ok(Self(bytes.into()))
    }

    fn check(bytes: &[u8]) -> Result<(), RemoteError> {
        if bytes.is_empty() || bytes.len() > MAX_WIRE_KEY_LEN {
            let message = format!("a wire key has 1 to {MAX_WIRE_KEY_LEN} bytes, not {}", bytes.len());
            return Err(RemoteError::new(RemoteErrorKind::Config, message));
        }
        if let Some(byte) = bytes.iter().find(|byte| !byte.is_ascii_graphic()) {
            let message = format!("a wire key holds printable ASCII only, not the byte {byte:#04x}");
            return Err(RemoteError::new(RemoteErrorKind::Config, message));
        }
        Ok(())
    }

    /// Makes a key of bytes that are known to be one.
    pub(super) fn from_valid(bytes: &[u8]) -> Self {
        debug_assert!(Self::check(bytes).is_ok(), "{}", bytes.escape_ascii());
        Self(bytes.into())
    }

    /// Returns the key's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for WireKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WireKey({})", self.0.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(key: &(impl RemoteKey + ?Sized)) -> Vec<u8> {
        let mut out = Vec::new();
        key.encode(&mut out);
        out
    }

    fn readable(key: &(impl RemoteKey + ?Sized)) -> String {
        String::from_utf8(encoded(key)).unwrap()
    }

    #[test]
    fn keys_are_readable() {
        assert_eq!(readable("user:1"), "user:1");
        assert_eq!(readable(&42_u64), "42");
        assert_eq!(readable(&i128::MIN), "-170141183460469231731687303715884105728");
        assert_eq!(readable(&usize::MAX), usize::MAX.to_string());
        assert_eq!(readable(&-7_isize), "-7");
        assert_eq!(readable(&true), "true");
        assert_eq!(readable(&false), "false");
        assert_eq!(readable(&'ß'), "ß");
        assert_eq!(readable(&Uuid::from_u128(0xA)), "00000000-0000-0000-0000-00000000000a");
        assert_eq!(readable(&("user", 7_u32)), "user:7");
        assert_eq!(readable(&("only",)), "only");
        assert_eq!(readable(&("", "")), ":");
        assert_eq!(readable(&("a:b", "100%", "c:d%")), "a%3Ab:100%25:c:d%");
        assert_eq!(readable(&(("a", "b"), "c")), "a%3Ab:c");
        assert_eq!(readable(&("a", ("b", "c"))), "a:b:c");
        assert_eq!(readable(&(1_u8, 2_u8, 3_u8, 4_u8, 5_u8, 6_u8, 7_u8, 8_u8)), "1:2:3:4:5:6:7:8");
    }

    #[test]
    fn every_form_of_a_key_encodes_alike() {
        let text = "käse";
        for form in [
            encoded(&text),
            encoded(&text.to_owned()),
            encoded(&Box::<str>::from(text)),
            encoded(&Arc::<str>::from(text)),
            encoded(&Cow::Borrowed(text)),
            encoded(&Cow::<str>::Owned(text.to_owned())),
        ] {
            assert_eq!(form, text.as_bytes());
        }
        let bytes = [0_u8, 255, 3];
        for form in [
            encoded(&bytes),
            encoded(&bytes[..]),
            encoded(&bytes.to_vec()),
            encoded(&Box::<[u8]>::from(bytes)),
            encoded(&Arc::<[u8]>::from(bytes)),
            encoded(&Cow::Borrowed(&bytes[..])),
        ] {
            assert_eq!(form, bytes);
        }
    }

    #[test]
    fn tuples_append_to_what_is_there() {
        let mut out = b"a:b%".to_vec();
        ("c:", "d").encode(&mut out);
        assert_eq!(out, b"a:b%c%3A:d");
    }

    /// Whatever breaks its promise to append must not bring the caller down.
    #[test]
    fn a_part_that_truncates_does_not_panic() {
        struct Truncates;
        impl RemoteKey for Truncates {
            fn encode(&self, out: &mut Vec<u8>) {
                out.clear();
            }
        }
        assert_eq!(encoded(&("a", Truncates, "b")), b":b");
    }

    #[test]
    fn wire_keys_are_1_to_250_printable_bytes() {
        for good in ["a".repeat(250), "!".to_owned(), "~".to_owned(), "a:b".to_owned()] {
            assert_eq!(WireKey::new(good.as_str()).unwrap().as_bytes(), good.as_bytes());
        }
        for bad in [&b""[..], &[b'a'; 251], b"a b", b"a\r\n", b"\x7f", b"\x00", "ä".as_bytes(), b"\xff"] {
            let error = WireKey::new(bad).unwrap_err();
            assert_eq!(error.kind(), RemoteErrorKind::Config, "{bad:?}");
        }
        assert_eq!(format!("{:?}", WireKey::new("a\"b").unwrap()), r#"WireKey(a\"b)"#);
    }

    /// Few letters and the ones that tuples treat specially, so that random parts nearly collide.
    fn part() -> impl Strategy<Value = String> {
        "[a:%235A]{0,4}"
    }

    proptest! {
        #[test]
        fn pairs_are_injective(a in (part(), part()), b in (part(), part())) {
            prop_assert_eq!(a == b, encoded(&a) == encoded(&b));
        }

        #[test]
        fn triples_are_injective(a in (part(), part(), part()), b in (part(), part(), part())) {
            prop_assert_eq!(a == b, encoded(&a) == encoded(&b));
        }

        #[test]
        fn nested_tuples_are_injective(
            a in ((part(), part()), part(), (part(), part())),
            b in ((part(), part()), part(), (part(), part())),
        ) {
            prop_assert_eq!(a == b, encoded(&a) == encoded(&b));
        }

        /// The proof in `encode_part`, carried out: an encoding leads back to the one tuple that it came from.
        #[test]
        fn tuples_can_be_decoded(parts in any::<[Vec<u8>; 4]>()) {
            let [a, b, c, d] = &parts;
            let encoding = encoded(&(a, b, c, d));
            let mut split = encoding.splitn(4, |byte| *byte == b':');
            for part in [a, b, c] {
                let escaped = split.next().unwrap().escape_ascii().to_string();
                let unescaped = escaped.replace("%3A", ":").replace("%25", "%");
                prop_assert_eq!(unescaped, part.escape_ascii().to_string());
            }
            prop_assert_eq!(split.next().unwrap(), d);
        }

        #[test]
        fn integers_are_injective(a: i128, b: i128, c: u64, d: u64) {
            prop_assert_eq!(a == b, encoded(&a) == encoded(&b));
            prop_assert_eq!(c == d, encoded(&c) == encoded(&d));
            prop_assert_eq!(readable(&a).parse::<i128>().unwrap(), a);
            prop_assert_eq!(readable(&c).parse::<u64>().unwrap(), c);
        }

        #[test]
        fn scalars_can_be_decoded(letter: char, flag: bool, id: u128) {
            prop_assert_eq!(readable(&letter).parse::<char>().unwrap(), letter);
            prop_assert_eq!(readable(&flag).parse::<bool>().unwrap(), flag);
            prop_assert_eq!(readable(&Uuid::from_u128(id)).parse::<Uuid>().unwrap(), Uuid::from_u128(id));
        }

        #[test]
        fn wire_keys_never_panic(bytes: Vec<u8>) {
            if let Ok(key) = WireKey::new(bytes.clone()) {
                prop_assert_eq!(key.as_bytes(), bytes);
            }
        }
    }
}
