//! What people write for a stack.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use super::{InvalidStack, Stack};
use crate::name::Name;
use crate::revision::Revision;

/// A stack as a person names it: `debian-12@2+nginx`, or `debian-12+nginx` for the newest revision that there is.
///
/// Only a catalogue knows which that is. A [`Stack`] on the other hand is one for good, and the text of its first revision
/// is the bare name: the two are never to be taken for each other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StackReference {
    template: Name,
    revision: Option<Revision>,
    applications: BTreeSet<Name>,
}

impl StackReference {
    /// The template of the operating system.
    #[must_use]
    pub fn template(&self) -> &Name {
        &self.template
    }

    /// The revision, if one is named.
    #[must_use]
    pub fn revision(&self) -> Option<Revision> {
        self.revision
    }

    /// The applications, by name.
    pub fn applications(&self) -> impl ExactSizeIterator<Item = &Name> {
        self.applications.iter()
    }

    /// The stack that it is with this revision, whatever revision it names itself.
    ///
    /// # Errors
    /// Refuses what is too long then.
    pub fn at(&self, revision: Revision) -> Result<Stack, InvalidStack> {
        Stack::new(
            self.template.clone(),
            revision,
            self.applications.iter().cloned(),
        )
    }

    /// The same without a revision.
    #[must_use]
    pub fn of_any_revision(self) -> Self {
        Self {
            revision: None,
            ..self
        }
    }

    /// Whether it names this stack, be it by its revision or by none.
    #[must_use]
    pub fn names(&self, stack: &Stack) -> bool {
        self.template == stack.template
            && self.revision.is_none_or(|own| own == stack.revision)
            && self.applications == stack.applications
    }
}

impl From<Stack> for StackReference {
    fn from(stack: Stack) -> Self {
        Self {
            template: stack.template,
            revision: Some(stack.revision),
            applications: stack.applications,
        }
    }
}

/// The newest revision of a template.
impl From<Name> for StackReference {
    fn from(template: Name) -> Self {
        Self {
            template,
            revision: None,
            applications: BTreeSet::new(),
        }
    }
}

impl fmt::Display for StackReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.template.to_string();
        if let Some(revision) = self.revision {
            text.push(Stack::REVISION_MARK);
            text.push_str(&revision.to_string());
        }
        f.pad(&super::with_applications(text, &self.applications))
    }
}

impl FromStr for StackReference {
    type Err = InvalidStack;

    fn from_str(text: &str) -> Result<Self, InvalidStack> {
        let mut parts = text.split(Stack::SEPARATOR);
        let first = parts.next().unwrap_or_default();
        let (template, revision) = match first.split_once(Stack::REVISION_MARK) {
            Some((template, revision)) => (template, Some(revision.parse()?)),
            None => (first, None),
        };
        let applications = parts.map(Name::new).collect::<Result<BTreeSet<_>, _>>()?;
        let reference = Self {
            template: Name::new(template)?,
            revision,
            applications,
        };
        // What fits no revision fits nowhere.
        reference.at(revision.unwrap_or_default())?;
        Ok(reference)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(text: &str) -> StackReference {
        text.parse().unwrap()
    }

    #[test]
    fn no_revision_is_not_the_first() {
        let bare = reference("debian-12+nginx");
        assert_eq!(bare.revision(), None);
        assert_eq!(
            reference("debian-12@1+nginx").revision(),
            Some(Revision::FIRST)
        );
        let second = bare.at(Revision::new(2).unwrap()).unwrap();
        assert_eq!(second.to_string(), "debian-12@2+nginx");
        assert_eq!(StackReference::from(second.clone()).of_any_revision(), bare);
        assert!(bare.names(&second) && reference("debian-12@2+nginx").names(&second));
        assert!(!reference("debian-12@1+nginx").names(&second));
        assert!(!reference("debian-12").names(&second));
    }

    #[test]
    fn every_text_is_read_back() {
        for text in [
            "debian-12",
            "debian-12@1",
            "debian-12@7+nginx+redis",
            "d+redis",
        ] {
            assert_eq!(reference(text).to_string(), text);
        }
        for bad in [
            "",
            "@1",
            "debian-12@",
            "debian-12@0",
            "debian-12@x",
            "debian-12@1@2",
            "debian-12+nginx@2",
        ] {
            assert!(bad.parse::<StackReference>().is_err(), "{bad}");
        }
    }
}
