//! Revisions of templates: what is counted up each time that a template is updated.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

/// Which of the revisions of a template: 1, 2, and so on.
///
/// A revision is a tree of files of its own and never changes. How a template was first made is revision 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(NonZeroU32);

/// A text or a number that is no revision.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is no revision of a template: those are numbers from 1 on, as in `debian-12@2`")]
pub struct InvalidRevision {
    given: String,
}

impl Revision {
    /// What a template is before it is updated.
    pub const FIRST: Self = Self(NonZeroU32::MIN);

    /// The revision of this number.
    ///
    /// # Errors
    /// Refuses 0.
    pub fn new(number: u32) -> Result<Self, InvalidRevision> {
        let given = || InvalidRevision {
            given: number.to_string(),
        };
        NonZeroU32::new(number).map(Self).ok_or_else(given)
    }

    /// Its number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0.get()
    }

    /// The one that an update makes of it; nothing behind the last number.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }
}

impl Default for Revision {
    fn default() -> Self {
        Self::FIRST
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Revision {
    type Err = InvalidRevision;

    /// Reads what [`Revision`] writes and nothing else: each revision has one text.
    fn from_str(text: &str) -> Result<Self, InvalidRevision> {
        let revision = text.parse().ok().map(Self);
        revision
            .filter(|revision| revision.to_string() == text)
            .ok_or_else(|| InvalidRevision {
                given: text.chars().take(80).collect(),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_is_one_revision() {
        assert_eq!("2".parse(), Revision::new(2));
        assert_eq!(Revision::FIRST.next(), Revision::new(2).ok());
        for bad in ["", "0", "01", "+1", "-1", "1 ", "a", "4294967296"] {
            assert!(bad.parse::<Revision>().is_err(), "{bad}");
        }
        assert_eq!(Revision::new(u32::MAX).unwrap().next(), None);
    }
}
