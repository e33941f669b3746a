//! Keys of the remote tier: how a user's key becomes bytes, and how those become a key that the store takes.

use super::error::{RemoteError, RemoteErrorKind};

/// The longest key that memcached takes, in bytes.
const MAX_WIRE_KEY_LEN: usize = 250;

/// An item's key as the store sees it: printable ASCII without spaces, 1 to 250 bytes.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct WireKey(Box<[u8]>);

impl WireKey {
    /// Makes a key of `bytes` as they are.
    ///
    /// # Errors
    /// [`Config`](RemoteErrorKind::Config) unless they are 1 to 250 bytes of printable ASCII (`!` to `~`, so no space):
    /// anything else could be read as the end of the key and the beginning of another command.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, RemoteError> {
        let bytes = bytes.into();
        if bytes.is_empty() || bytes.len() > MAX_WIRE_KEY_LEN {
            let message = format!("a wire key has 1 to {MAX_WIRE_KEY_LEN} bytes, not {}", bytes.len());
            return Err(RemoteError::new(RemoteErrorKind::Config, message));
        }
        if let Some(byte) = bytes.iter().find(|byte| !byte.is_ascii_graphic()) {
            let message = format!("a wire key holds printable ASCII only, not the byte {byte:#04x}");
            return Err(RemoteError::new(RemoteErrorKind::Config, message));
        }
        Ok(Self(bytes.into()))
    }

    /// Returns the key's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_keys_are_short_and_printable() {
        assert_eq!(WireKey::new("a:b").unwrap().as_bytes(), b"a:b");
        assert!(WireKey::new(vec![b'~'; MAX_WIRE_KEY_LEN]).is_ok());
        for bad in [&b""[..], &[b'x'; MAX_WIRE_KEY_LEN + 1], b"a b", b"a\r\nflush_all", b"\x7f", b"\xc3\xa9"] {
            assert_eq!(WireKey::new(bad).unwrap_err().kind(), RemoteErrorKind::Config, "{bad:?}");
        }
    }
}
