//! Bytes that came in together and are read apart.

use std::fmt;
use std::ops::{Deref, Range};

use crate::sync::Arc;

/// Bytes from the store: a part of a buffer that other values of the same exchange may lie in too. Clones share it.
///
/// The buffer lives as long as any part of it. So whoever keeps a value for long keeps it [`compact`](Self::compact).
///
/// # Examples
/// ```
/// use larder::SharedBytes;
///
/// let bytes = SharedBytes::from(b"hello".to_vec());
/// assert_eq!(bytes, b"hello");
/// assert_eq!(bytes.slice(1..3), b"el");
/// assert_eq!(Vec::from(bytes), b"hello");
/// ```
#[derive(Clone, Default)]
pub struct SharedBytes {
    /// `None` for no bytes, which so need no buffer.
    buffer: Option<Arc<Vec<u8>>>,
    start: usize,
    len: usize,
}

impl SharedBytes {
    /// Returns the bytes at `range` of a buffer.
    ///
    /// # Panics
    /// If the buffer ends before the range, or the range before it begins.
    #[cfg(any(test, feature = "memcached"))]
    pub(super) fn of(buffer: &Arc<Vec<u8>>, range: Range<usize>) -> Self {
        let len = buffer[range.clone()].len();
        if len == 0 { Self::default() } else { Self { buffer: Some(buffer.clone()), start: range.start, len } }
    }

    /// Returns a part of these bytes, in the same buffer.
    ///
    /// # Panics
    /// If the bytes end before the range, or the range before it begins.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        let start = self.start + range.start;
        let len = self[range].len();
        if len == 0 { Self::default() } else { Self { buffer: self.buffer.clone(), start, len } }
    }

    /// Returns the bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        self.buffer.as_ref().map_or(&[], |buffer| &buffer[self.start..][..self.len])
    }

    /// Returns whether these bytes are at least half of their buffer, so that keeping them keeps no more than twice their length.
    #[must_use]
    pub fn is_compact(&self) -> bool {
        self.buffer.as_ref().is_none_or(|buffer| self.len >= buffer.capacity().div_ceil(2))
    }

    /// Returns the same bytes in a buffer that they fill [at least half of](Self::is_compact): in a copy, where that is not this
    /// one.
    #[must_use]
    pub fn compact(self) -> Self {
        if self.is_compact() { self } else { Self::from(self.to_vec()) }
    }
}

impl Deref for SharedBytes {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl AsRef<[u8]> for SharedBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Vec<u8>> for SharedBytes {
    fn from(bytes: Vec<u8>) -> Self {
        let len = bytes.len();
        if len == 0 { Self::default() } else { Self { buffer: Some(Arc::new(bytes)), start: 0, len } }
    }
}

impl From<SharedBytes> for Vec<u8> {
    /// Takes the buffer itself where nobody shares it and it holds nothing else, and copies otherwise.
    fn from(bytes: SharedBytes) -> Vec<u8> {
        let (start, len) = (bytes.start, bytes.len);
        match bytes.buffer.map(Arc::try_unwrap) {
            None => Vec::new(),
            Some(Ok(buffer)) if len == buffer.len() => buffer,
            Some(Ok(buffer)) => buffer[start..][..len].to_vec(),
            Some(Err(shared)) => shared[start..][..len].to_vec(),
        }
    }
}

impl fmt::Debug for SharedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.escape_ascii())
    }
}

impl Eq for SharedBytes {}

impl PartialEq for SharedBytes {
    fn eq(&self, other: &SharedBytes) -> bool {
        **self == **other
    }
}

macro_rules! equal_to {
    ($([$($generics:tt)*] $other:ty;)*) => {$(
        impl<$($generics)*> PartialEq<$other> for SharedBytes {
            fn eq(&self, other: &$other) -> bool {
                let other: &[u8] = other.as_ref();
                **self == *other
            }
        }
    )*};
}

equal_to! {
    [] [u8];
    [] &[u8];
    [] Vec<u8>;
    [const N: usize] [u8; N];
    [const N: usize] &[u8; N];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_share_the_buffer_and_nothing_needs_none() {
        let buffer = Arc::new(b"abcdef".to_vec());
        let whole = SharedBytes::of(&buffer, 1..5);
        let part = whole.slice(1..3);
        assert_eq!((whole.as_slice(), part.as_slice()), (&b"bcde"[..], &b"cd"[..]));
        assert_eq!(Arc::strong_count(&buffer), 3);
        for empty in [SharedBytes::of(&buffer, 6..6), part.slice(2..2), Vec::new().into(), SharedBytes::default()] {
            assert!(empty.is_empty() && Vec::from(empty).is_empty());
        }
        assert_eq!(Arc::strong_count(&buffer), 3);
    }

    #[test]
    #[should_panic(expected = "out of range")]
    fn a_part_is_never_of_what_lies_beside_it() {
        drop(SharedBytes::of(&Arc::new(b"abcdef".to_vec()), 0..3).slice(2..5));
    }

    #[test]
    fn compact_bytes_keep_no_more_than_twice_their_length() {
        let buffer = Arc::new(vec![7; 100]);
        let (half, less) = (SharedBytes::of(&buffer, 25..75), SharedBytes::of(&buffer, 25..74));
        let (half, less) = (half.compact(), less.compact());
        assert_eq!((half.len(), less.len()), (50, 49));
        assert_eq!(Arc::strong_count(&buffer), 2);
        drop(half);
        assert_eq!(Arc::strong_count(&buffer), 1);
        let odd = Arc::new(vec![7; 3]);
        assert!(!SharedBytes::of(&odd, 0..1).is_compact() && SharedBytes::of(&odd, 0..2).is_compact());
    }

    #[test]
    fn a_buffer_of_ones_own_becomes_the_vector() {
        let bytes = b"abc".to_vec();
        let address = bytes.as_ptr();
        let shared = SharedBytes::from(bytes);
        let clone = shared.clone();
        let copy = Vec::from(clone);
        assert_ne!(copy.as_ptr(), address);
        let own = Vec::from(shared);
        assert_eq!(own.as_ptr(), address);
        assert_eq!(Vec::from(SharedBytes::from(b"abc".to_vec()).slice(1..2)), b"b");
    }
}
