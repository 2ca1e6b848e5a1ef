//! Stacks: the files that VEs share, an operating system's template with applications on it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use crate::name::{InvalidName, Name};
use crate::revision::{InvalidRevision, Revision};

mod reference;

pub use reference::StackReference;

/// What the creator of a VE chose for the settings that an application offers, by name.
pub type Options = BTreeMap<String, String>;

/// A revision of a template and the applications on it, as `debian-12@2+nginx+redis`.
///
/// The first revision is written by the template's name alone: `debian-12+nginx`.
///
/// Applications are a set: whoever asks for nginx and redis shares one stack with whoever asks for
/// redis and nginx. They are written, and built one on the other, in the order of their names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stack {
    template: Name,
    revision: Revision,
    applications: BTreeSet<Name>,
}

/// A text that is no stack, or one that is too large.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidStack {
    /// A part of it is no name.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// What stands for its revision is none.
    #[error(transparent)]
    Revision(#[from] InvalidRevision),
    /// The first revision of a template is written by its name alone.
    #[error("`{given}` is written without `{}1`", Stack::REVISION_MARK)]
    First {
        /// The text.
        given: String,
    },
    /// Too many applications.
    #[error(
        "a stack holds {} applications at most; {given} were given",
        Stack::APPLICATIONS_MAX
    )]
    Applications {
        /// How many.
        given: usize,
    },
    /// All names together are too long.
    #[error(
        "the names of a template and its applications have {} characters at most together; \
         these have {given}",
        Stack::LENGTH_MAX
    )]
    Length {
        /// How many.
        given: usize,
    },
}

impl Stack {
    /// Between the parts of a stack's text. No name holds it.
    pub const SEPARATOR: char = '+';

    /// Between a template's name and its revision. No name holds it.
    pub const REVISION_MARK: char = '@';

    /// Most applications of one stack: each is a build of its own, on the one below.
    pub const APPLICATIONS_MAX: usize = 12;

    /// Longest text of a stack: it is the name of a folder (255 characters), with room for an ending.
    pub const LENGTH_MAX: usize = 240;

    /// A revision of a template with applications on it.
    ///
    /// # Errors
    /// Refuses what is too much for one stack.
    pub fn new(
        template: Name,
        revision: Revision,
        applications: impl IntoIterator<Item = Name>,
    ) -> Result<Self, InvalidStack> {
        let applications: BTreeSet<Name> = applications.into_iter().collect();
        let given = applications.len();
        if given > Self::APPLICATIONS_MAX {
            return Err(InvalidStack::Applications { given });
        }
        let stack = Self {
            template,
            revision,
            applications,
        };
        match stack.to_string().len() {
            given if given > Self::LENGTH_MAX => Err(InvalidStack::Length { given }),
            _ => Ok(stack),
        }
    }

    /// The template of the operating system.
    #[must_use]
    pub fn template(&self) -> &Name {
        &self.template
    }

    /// Which revision of it.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The same applications on another revision of the same template.
    ///
    /// # Errors
    /// Refuses what is too long then.
    pub fn at(&self, revision: Revision) -> Result<Self, InvalidStack> {
        Self::new(
            self.template.clone(),
            revision,
            self.applications.iter().cloned(),
        )
    }

    /// The revision of the template, without applications.
    #[must_use]
    pub fn bare(&self) -> Self {
        Self {
            applications: BTreeSet::new(),
            ..self.clone()
        }
    }

    /// Whether another stack is made with this one: the same revision, and all of these applications.
    #[must_use]
    pub fn is_part_of(&self, whole: &Self) -> bool {
        self.template == whole.template
            && self.revision == whole.revision
            && self.applications.is_subset(&whole.applications)
    }

    /// The applications, by name.
    pub fn applications(&self) -> impl ExactSizeIterator<Item = &Name> {
        self.applications.iter()
    }

    /// Whether it has this application.
    #[must_use]
    pub fn has(&self, application: &Name) -> bool {
        self.applications.contains(application)
    }

    /// What this stack is built of: the stack below it and the application on top. Nothing for a bare template.
    #[must_use]
    pub fn parts(&self) -> Option<(Self, Name)> {
        let mut below = self.clone();
        let top = below.applications.pop_last()?;
        Some((below, top))
    }

    /// The stack of one of its applications alone, which is that application's own template.
    #[must_use]
    pub fn of_one(&self, application: &Name) -> Self {
        Self {
            applications: BTreeSet::from([application.clone()]),
            ..self.clone()
        }
    }

    /// What was admitted once and is read again.
    pub(crate) fn admitted(
        template: &Name,
        revision: Revision,
        applications: BTreeSet<Name>,
    ) -> Self {
        Self {
            template: template.clone(),
            revision,
            applications,
        }
    }
}

/// The first revision of a template.
impl From<Name> for Stack {
    fn from(template: Name) -> Self {
        Self {
            template,
            revision: Revision::FIRST,
            applications: BTreeSet::new(),
        }
    }
}

/// The first revision of a template.
impl From<&Name> for Stack {
    fn from(template: &Name) -> Self {
        Self::from(template.clone())
    }
}

impl fmt::Display for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.template.to_string();
        if self.revision > Revision::FIRST {
            text.push(Self::REVISION_MARK);
            text.push_str(&self.revision.to_string());
        }
        f.pad(&with_applications(text, &self.applications))
    }
}

fn with_applications(mut text: String, applications: &BTreeSet<Name>) -> String {
    for application in applications {
        text.push(Stack::SEPARATOR);
        text.push_str(application.as_str());
    }
    text
}

impl FromStr for Stack {
    type Err = InvalidStack;

    fn from_str(text: &str) -> Result<Self, InvalidStack> {
        let reference: StackReference = text.parse()?;
        match reference.revision() {
            // It would be a second name for the same folder of a catalogue.
            Some(Revision::FIRST) => Err(InvalidStack::First {
                given: text.to_owned(),
            }),
            revision => reference.at(revision.unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stack(text: &str) -> Stack {
        text.parse().unwrap()
    }

    #[test]
    fn the_order_in_which_applications_are_named_does_not_matter() {
        assert_eq!(
            stack("debian-12+redis+nginx"),
            stack("debian-12+nginx+redis+nginx")
        );
        assert_eq!(
            stack("debian-12+redis+nginx").to_string(),
            "debian-12+nginx+redis"
        );
    }

    #[test]
    fn is_built_one_on_the_other() {
        let (below, top) = stack("debian-12+nginx+redis").parts().unwrap();
        assert_eq!(
            (below.clone(), top.as_str()),
            (stack("debian-12+nginx"), "redis")
        );
        assert_eq!(below.parts().unwrap().0, stack("debian-12"));
        assert_eq!(stack("debian-12").parts(), None);
    }

    #[test]
    fn another_revision_is_another_stack() {
        let first = stack("debian-12+nginx");
        let second = stack("debian-12@2+nginx");
        assert_eq!(first.revision(), Revision::FIRST);
        assert_eq!(first.at(second.revision()).unwrap(), second);
        assert_eq!(second.bare(), stack("debian-12@2"));
        assert_eq!(second.parts().unwrap().0, stack("debian-12@2"));
        assert!(first.bare().is_part_of(&first) && first.is_part_of(&stack("debian-12+a+nginx")));
        assert!(!first.bare().is_part_of(&second) && !first.is_part_of(&first.bare()));
    }

    #[test]
    fn refuses_what_is_no_stack() {
        let many = (0..=Stack::APPLICATIONS_MAX).fold("t".to_owned(), |t, n| format!("{t}+a{n}"));
        let long = [
            "t",
            &"a".repeat(63),
            &"b".repeat(63),
            &"c".repeat(63),
            &"d".repeat(63),
        ];
        for bad in [
            "",
            "+nginx",
            "debian-12+",
            "debian-12+../x",
            "debian-12@1",
            "debian-12@02",
            "debian-12+nginx@2",
            &many,
            &long.join("+"),
        ] {
            assert!(bad.parse::<Stack>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_text_of_a_stack_is_read_back(
            names in proptest::collection::vec("[a-z][a-z0-9]{0,10}", 1..6),
            revision in 1_u32..,
        ) {
            let stack: Stack = names.join("+").parse().unwrap();
            let stack = stack.at(Revision::new(revision).unwrap()).unwrap();
            prop_assert_eq!(stack.to_string().parse::<Stack>().unwrap(), stack);
        }
    }
}
