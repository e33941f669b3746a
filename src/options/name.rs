//! Names that somebody has asked for, and that cost no allocation where they are few and short.

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

/// Several names, in the order in which they came: nearly always one, for which there is a place.
#[derive(Clone, Default)]
pub(super) struct Names {
    first: Option<Name>,
    others: Vec<Name>,
}

impl Names {
    #[inline]
    pub(super) fn push(&mut self, name: Name) {
        if self.first.is_none() {
            self.first = Some(name);
        } else {
            self.others.push(name);
        }
    }

    #[inline]
    pub(super) fn iter(&self) -> impl Iterator<Item = &Name> {
        self.first.iter().chain(&self.others)
    }

    /// Returns the only name there is, or `None` where there is another number of them.
    #[inline]
    pub(super) fn only(&self) -> Option<&Name> {
        if self.others.is_empty() { self.first.as_ref() } else { None }
    }
}

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

    #[inline]
    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Name::Short { length, bytes } => &bytes[..usize::from(*length)],
            Name::Long(name) => name.as_bytes(),
        }
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
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

    #[test]
    fn names_keep_their_order_and_number() {
        let mut names = Names::default();
        for number in 0..5_u8 {
            let told: Vec<_> = names.iter().map(|name| name.as_bytes().to_vec()).collect();
            assert_eq!(told, (0..number).map(|known| known.to_string().into_bytes()).collect::<Vec<_>>());
            assert_eq!(names.only().is_some(), number == 1);
            names.push(Name::new(&number.to_string()));
        }
    }
}
