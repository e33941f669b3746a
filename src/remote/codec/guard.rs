//! Bounds what untrusted bytes can make a deserializer do.
//!
//! postcard reads a sequence's length and hands out elements for as long as the type asks for them. Two things are left
//! open by that: elements that take no bytes, so that a length of 2^60 is looped over; and types that contain themselves,
//! so that each byte is another stack frame. A [`Guard`] wraps every layer of serde's conversation (deserializer, visitor,
//! access, seed) so that each nested value passes by here again.

use std::cell::Cell;
use std::fmt;

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor,
};

use super::CodecError;

/// How deep values may nest: as in serde_json. Each level is a few stack frames, and a peer could otherwise add levels
/// until the stack overflows, which aborts the process.
const MAX_DEPTH: usize = 128;

/// How many elements that take no bytes a value may have, all its sequences and maps together. A peer could otherwise
/// write any number of them into nine bytes.
const MAX_EMPTY_ELEMENTS: usize = 1024;

/// A layer of the conversation, and what is left of its limits.
pub(super) struct Guard<'g, T> {
    inner: T,
    /// How much deeper values may nest from here.
    depth: usize,
    /// Whether this is about elements whose number the input says, and not the type.
    counted: bool,
    budget: &'g Budget,
}

/// What all layers of one value share.
struct Budget {
    /// How many more elements sequences and maps may have.
    ///
    /// One for each byte is enough for whatever takes bytes: charge an element to the first byte that it takes. Two
    /// elements never share that byte, because an element inside another comes after a length prefix inside that other.
    elements: Cell<usize>,
    /// Which limit was passed; postcard does not keep the text of errors.
    refusal: Cell<Option<&'static str>>,
}

impl<D> Guard<'_, D> {
    /// Reads a value from `deserializer`, which holds `len` bytes.
    pub(super) fn decode<'de, V>(deserializer: D, len: usize) -> Result<V, CodecError>
    where
        V: DeserializeOwned,
        D: Deserializer<'de, Error = postcard::Error>,
    {
        let budget = Budget { elements: Cell::new(len.saturating_add(MAX_EMPTY_ELEMENTS)), refusal: Cell::new(None) };
        let guard = Guard { inner: deserializer, depth: MAX_DEPTH, counted: false, budget: &budget };
        V::deserialize(guard).map_err(|error| match budget.refusal.get() {
            Some(refusal) => CodecError::new(refusal),
            None => CodecError::with_source("postcard cannot read the value", error),
        })
    }
}

impl<'g, T> Guard<'g, T> {
    /// Returns a guard for another layer on the same level.
    fn beside<U>(&self, inner: U) -> Guard<'g, U> {
        Guard { inner, depth: self.depth, counted: self.counted, budget: self.budget }
    }

    /// Splits off the inner layer and returns a guard for `visitor` one level deeper.
    fn enter<V, E: serde::de::Error>(self, visitor: V, counted: bool) -> Result<(T, Guard<'g, V>), E> {
        let Some(depth) = self.depth.checked_sub(1) else {
            return Err(self.budget.refuse("the value is nested too deeply"));
        };
        Ok((self.inner, Guard { inner: visitor, depth, counted, budget: self.budget }))
    }

    /// Takes one element off the budget, if the input says how many there are.
    fn charge<E: serde::de::Error>(&self) -> Result<(), E> {
        if self.counted {
            let Some(left) = self.budget.elements.get().checked_sub(1) else {
                return Err(self.budget.refuse("the value has more elements than bytes"));
            };
            self.budget.elements.set(left);
        }
        Ok(())
    }

    /// A hint that no allocation need be wary of.
    fn bounded(&self, hint: Option<usize>) -> Option<usize> {
        hint.map(|len| len.min(self.budget.elements.get()))
    }
}

impl Budget {
    fn refuse<E: serde::de::Error>(&self, reason: &'static str) -> E {
        self.refusal.set(Some(reason));
        E::custom(reason)
    }
}

macro_rules! pass_on {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.inner.$method(visitor)
        }
    )*};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Guard<'_, D> {
    type Error = D::Error;

    // None of these holds another value.
    pass_on! {
        deserialize_bool deserialize_char deserialize_unit deserialize_identifier
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
        deserialize_f32 deserialize_f64
        deserialize_str deserialize_string deserialize_bytes deserialize_byte_buf
        deserialize_any deserialize_ignored_any
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_unit_struct(name, visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let (inner, visitor) = self.enter(visitor, false)?;
        inner.deserialize_option(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        let (inner, visitor) = self.enter(visitor, false)?;
        inner.deserialize_newtype_struct(name, visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let (inner, visitor) = self.enter(visitor, true)?;
        inner.deserialize_seq(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, D::Error> {
        let (inner, visitor) = self.enter(visitor, false)?;
        inner.deserialize_tuple(len, visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let (inner, visitor) = self.enter(visitor, false)?;
        inner.deserialize_tuple_struct(name, len, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let (inner, visitor) = self.enter(visitor, true)?;
        inner.deserialize_map(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let (inner, visitor) = self.enter(visitor, false)?;
        inner.deserialize_struct(name, fields, visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let (inner, visitor) = self.enter(visitor, false)?;
        inner.deserialize_enum(name, variants, visitor)
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

/// Only what a value that holds others is visited with; for anything else serde's default answers an error.
impl<'de, V: Visitor<'de>> Visitor<'de> for Guard<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        let deserializer = self.beside(deserializer);
        self.inner.visit_some(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        let deserializer = self.beside(deserializer);
        self.inner.visit_newtype_struct(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let access = self.beside(access);
        self.inner.visit_seq(access)
    }

    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let access = self.beside(access);
        self.inner.visit_map(access)
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let access = self.beside(access);
        self.inner.visit_enum(access)
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Guard<'_, A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        let seed = self.beside(seed);
        self.inner.next_element_seed(seed)
    }

    fn size_hint(&self) -> Option<usize> {
        self.bounded(self.inner.size_hint())
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Guard<'_, A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        let seed = self.beside(seed);
        self.inner.next_key_seed(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        let seed = Guard { counted: false, ..self.beside(seed) };
        self.inner.next_value_seed(seed)
    }

    fn size_hint(&self) -> Option<usize> {
        self.bounded(self.inner.size_hint())
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Guard<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.charge()?;
        let deserializer = self.beside(deserializer);
        self.inner.deserialize(deserializer)
    }
}

impl<'de, 'g, A: EnumAccess<'de>> EnumAccess<'de> for Guard<'g, A> {
    type Error = A::Error;
    type Variant = Guard<'g, A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self::Variant), A::Error> {
        let Guard { inner, depth, counted, budget } = self;
        // The seed reads which variant it is, a plain number.
        let (variant, inner) = inner.variant_seed(seed)?;
        Ok((variant, Guard { inner, depth, counted, budget }))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Guard<'_, A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        let seed = self.beside(seed);
        self.inner.newtype_variant_seed(seed)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        let visitor = self.beside(visitor);
        self.inner.tuple_variant(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        let visitor = self.beside(visitor);
        self.inner.struct_variant(fields, visitor)
    }
}
