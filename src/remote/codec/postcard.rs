//! The codec for whatever serde can write and read.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::guard::Guard;
use super::{Codec, CodecError, CodecId};

/// Writes every type that serde can write and read, in the compact [postcard](https://postcard.jamesmunns.com) format.
///
/// The format holds neither names nor types: a type that gains, loses or reorders fields needs another version of the
/// namespace. `#[serde(untagged)]`, `#[serde(flatten)]` and internally tagged enums do not work in it. Values in an `Arc`
/// need serde's feature `rc`.
///
/// # Limits
/// What comes from the store is untrusted, and what postcard and serde leave open is closed here:
/// - Values nested deeper than 128 (each option, newtype, sequence, map, struct or enum is one level) are not read. So a
///   recursive type cannot exhaust the stack.
/// - A length prefix allocates at most 1 MiB before the elements that it promises have been read, for each level of
///   nesting that is being read.
/// - Of elements that take no bytes, such as those of a `Vec<()>`, at most 1,024 are read in a value. So a length prefix
///   cannot keep a thread busy for years.
///
/// The rest is in proportion: a value has at most one element for each byte and those 1,024, each of the element's size.
/// A value beyond these limits is written without complaint, but is a miss wherever it is read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Postcard;

impl<V: Serialize + DeserializeOwned> Codec<V> for Postcard {
    fn id(&self) -> CodecId {
        CodecId::POSTCARD
    }

    fn encode(&self, value: &V, out: &mut Vec<u8>) -> Result<(), CodecError> {
        match postcard::to_io(value, out) {
            Ok(_) => Ok(()),
            Err(error) => Err(CodecError::with_source("postcard cannot write the value", error)),
        }
    }

    fn decode(&self, bytes: &[u8]) -> Result<V, CodecError> {
        let mut deserializer = postcard::Deserializer::from_bytes(bytes);
        let value = Guard::decode(&mut deserializer, bytes.len())?;
        match deserializer.finalize() {
            Ok([]) => Ok(value),
            Ok(rest) => Err(CodecError::new(format!("{} bytes are left after the value", rest.len()))),
            Err(error) => Err(CodecError::with_source("postcard cannot read the value", error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap, HashSet};
    use std::error::Error;
    use std::fmt::Debug;

    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    enum Shape {
        Unit,
        Newtype(Box<Shape>),
        Tuple(u8, i64),
        Struct { name: String, tags: Vec<Option<char>> },
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Everything {
        shapes: Vec<Shape>,
        map: BTreeMap<String, (u128, f64)>,
        bytes: [u8; 3],
        unit: (),
        deep: Option<Box<Everything>>,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Tree {
        children: Vec<Tree>,
    }

    fn encoded<V: Serialize + DeserializeOwned>(value: &V) -> Vec<u8> {
        let mut out = Vec::new();
        Postcard.encode(value, &mut out).unwrap();
        out
    }

    fn everything() -> Everything {
        Everything {
            shapes: vec![
                Shape::Unit,
                Shape::Newtype(Box::new(Shape::Tuple(7, -1))),
                Shape::Struct { name: "n".to_owned(), tags: vec![None, Some('ß')] },
            ],
            map: BTreeMap::from([("k".to_owned(), (u128::MAX, 0.5))]),
            bytes: [1, 2, 3],
            unit: (),
            deep: None,
        }
    }

    /// A varint as postcard writes it, which is how a length gets in front of a sequence.
    fn varint(value: u64) -> Vec<u8> {
        encoded(&value)
    }

    /// The message and its cause.
    fn refusal<V: Debug + Serialize + DeserializeOwned>(bytes: &[u8]) -> String {
        let error = Codec::<V>::decode(&Postcard, bytes).unwrap_err();
        error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
    }

    #[test]
    fn values_survive() {
        let value = Everything { deep: Some(Box::new(everything())), ..everything() };
        assert_eq!(Codec::<Everything>::decode(&Postcard, &encoded(&value)).unwrap(), value);
    }

    #[test]
    fn writes_what_postcard_writes() {
        let value = everything();
        assert_eq!(encoded(&value), postcard::to_stdvec(&value).unwrap());
        let mut out = b"before".to_vec();
        Postcard.encode(&5_u8, &mut out).unwrap();
        assert_eq!(out, b"before\x05");
    }

    #[test]
    fn truncations_and_trailing_bytes_are_errors() {
        let bytes = encoded(&everything());
        for len in 0..bytes.len() {
            assert!(Codec::<Everything>::decode(&Postcard, &bytes[..len]).is_err(), "{len}");
        }
        assert_eq!(refusal::<Everything>(&[&bytes[..], &[0, 0]].concat()), "2 bytes are left after the value");
        assert_eq!(refusal::<()>(&[0]), "1 bytes are left after the value");
    }

    #[test]
    fn a_length_prefix_alone_allocates_little_and_ends_soon() {
        for len in [1 << 20, 1 << 32, 1 << 60, u64::MAX] {
            let bytes = varint(len);
            assert!(Codec::<Vec<u64>>::decode(&Postcard, &bytes).is_err());
            assert!(Codec::<String>::decode(&Postcard, &bytes).is_err());
            assert!(Codec::<Vec<String>>::decode(&Postcard, &bytes).is_err());
            assert!(Codec::<HashMap<u64, u64>>::decode(&Postcard, &bytes).is_err());
        }
    }

    /// postcard itself counts to 2^60 here.
    #[test]
    fn elements_without_bytes_are_limited() {
        #[derive(Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        struct Nothing {
            nothing: [(); 4],
        }
        let bytes = varint(1 << 60);
        let reason = "the value has more elements than bytes";
        assert_eq!(refusal::<Vec<()>>(&bytes), reason);
        assert_eq!(refusal::<Vec<Nothing>>(&bytes), reason);
        assert_eq!(refusal::<HashSet<Nothing>>(&bytes), reason);
        assert_eq!(refusal::<HashMap<(), ()>>(&bytes), reason);
        // Many small lies are worth no more than a big one.
        assert_eq!(refusal::<Vec<Vec<()>>>(&[varint(100), varint(100).repeat(100)].concat()), reason);

        let few = vec![(); 1000];
        assert_eq!(Codec::<Vec<()>>::decode(&Postcard, &encoded(&few)).unwrap(), few);
    }

    /// postcard itself overflows the stack here, which aborts the process.
    #[test]
    fn nesting_is_limited() {
        assert_eq!(refusal::<Tree>(&[1; 1_000_000]), "the value is nested too deeply");
        assert_eq!(refusal::<Shape>(&[1; 1_000_000]), "the value is nested too deeply");

        // A tree of n levels nests n structs and n sequences.
        let tree = |levels: usize| [vec![1; levels - 1], vec![0]].concat();
        assert!(Codec::<Tree>::decode(&Postcard, &tree(64)).is_ok());
        assert!(Codec::<Tree>::decode(&Postcard, &tree(65)).is_err());
    }

    #[test]
    fn one_element_a_byte_is_always_enough() {
        let nested: Vec<Vec<Vec<u8>>> = vec![vec![vec![0; 50]; 50]; 50];
        assert_eq!(Codec::<Vec<Vec<Vec<u8>>>>::decode(&Postcard, &encoded(&nested)).unwrap(), nested);
        let empty: Vec<Vec<u8>> = vec![Vec::new(); 100_000];
        assert_eq!(Codec::<Vec<Vec<u8>>>::decode(&Postcard, &encoded(&empty)).unwrap(), empty);
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_fail(bytes: Vec<u8>) {
            let _ = Codec::<Everything>::decode(&Postcard, &bytes);
            let _ = Codec::<Tree>::decode(&Postcard, &bytes);
            let _ = Codec::<Vec<Vec<()>>>::decode(&Postcard, &bytes);
            let _ = Codec::<HashMap<String, Vec<Shape>>>::decode(&Postcard, &bytes);
        }

        #[test]
        fn damaged_values_decode_or_fail(at in 0..100_usize, byte: u8) {
            let mut bytes = encoded(&Everything { deep: Some(Box::new(everything())), ..everything() });
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = Codec::<Everything>::decode(&Postcard, &bytes);
        }

        #[test]
        fn maps_survive(map in proptest::collection::hash_map("[a-zß]{0,8}", any::<[Option<i64>; 2]>(), 0..50)) {
            prop_assert_eq!(Codec::<HashMap<_, _>>::decode(&Postcard, &encoded(&map)).unwrap(), map);
        }
    }
}
