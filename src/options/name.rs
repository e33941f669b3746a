//! A name that somebody has asked for, and that costs no allocation where it is short.

use std::fmt;

/// How long a short name is at most: what fits beside its length where a long one keeps a pointer and a length.
const SHORT: usize = 22;

/// A name in UTF-8. Told in bytes alone: that they are text is not looked at again each time that an entry is stored.
#[derive(Clone)]
pub(super) enum Name {
    Short { length: u8, bytes: [u8; SHORT] },
    Long(Box<str>),
}

const _: () = assert!(size_of::<Name>() == 24);

impl Name {
    pub(super) fn new(name: &str) -> Name {
        let mut bytes = [0; SHORT];
        match bytes.get_mut(..name.len()) {
            Some(begin) => {
                begin.copy_from_slice(name.as_bytes());
                Name::Short { length: name.len() as u8, bytes }
            }
            None => Name::Long(name.into()),
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Name::Short { length, bytes } => &bytes[..usize::from(*length)],
            Name::Long(name) => name.as_bytes(),
        }
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        String::from_utf8_lossy(self.as_bytes()).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_as_it_was_given_whatever_its_length() {
        for name in ["", "a", "größe", &"n".repeat(SHORT), &"n".repeat(SHORT + 1), &"ö".repeat(1_000)] {
            let kept = Name::new(name);
            assert_eq!(kept.as_bytes(), name.as_bytes());
            assert_eq!(matches!(kept, Name::Short { .. }), name.len() <= SHORT);
            assert_eq!(format!("{kept:?}"), format!("{name:?}"));
        }
    }
}
