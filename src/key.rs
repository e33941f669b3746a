//! Keys of the local tier: what a cache can be asked by, and how that becomes a key to keep.

use equivalent::Equivalent;

use crate::sync::Arc;

/// A borrowed form of a key that can become the key itself.
///
/// Verbs that may create an entry take their key as `&Q` with `Q: ToKey<K>`, so that a cache of `String` is asked by `&str`
/// and allocates only for what it keeps. Implemented for every `K: Clone` itself, and for `str` and `[T]` with their owned
/// forms.
///
/// Equivalent keys must hash alike, as [`Equivalent`] asks.
pub trait ToKey<K>: Equivalent<K> {
    /// Returns the key to keep. Called outside all locks.
    fn to_key(&self) -> K;
}

impl<K: Clone + Eq> ToKey<K> for K {
    fn to_key(&self) -> K {
        self.clone()
    }
}

macro_rules! owned_forms {
    ($(impl<$($bounded:ident: Clone)?> $borrowed:ty => $owned:ty;)*) => {
        $(
            impl$(<$bounded: Clone + Eq>)? ToKey<$owned> for $borrowed {
                fn to_key(&self) -> $owned {
                    self.into()
                }
            }
        )*
    };
}

owned_forms! {
    impl<> str => String;
    impl<> str => Box<str>;
    impl<> str => Arc<str>;
    impl<T: Clone> [T] => Vec<T>;
    impl<T: Clone> [T] => Box<[T]>;
    impl<T: Clone> [T] => Arc<[T]>;
}
