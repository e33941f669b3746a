//! Keys of the remote tier: how a user's key becomes bytes, and how those become a key that the store takes.

/// An item's key as the store sees it: printable ASCII without spaces, 1 to 250 bytes.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct WireKey(Box<[u8]>);

impl WireKey {
    /// Returns the key's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}
