//! Names of an archive's members, reduced to what they mean inside the tree.

use std::fmt;

use crate::limits::{DEPTH_MAX, NAME_BYTES_MAX, PATH_BYTES_MAX};

/// A path below the root of a tree: its components, none of them empty, `.` or `..`.
///
/// No components means the root itself. Bytes need not be UTF-8.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct MemberPath(Vec<Box<[u8]>>);

/// Why a name cannot be a member of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPath {
    /// A component is `..`. No tool writes that into an image of a system.
    #[error("it goes up by `..`")]
    Up,
    /// It holds a zero byte.
    #[error("it holds a zero byte")]
    Zero,
    /// A component is longer than [`NAME_BYTES_MAX`].
    #[error("one of its names is longer than {NAME_BYTES_MAX} bytes")]
    NameLength,
    /// The whole is longer than [`PATH_BYTES_MAX`].
    #[error("it is longer than {PATH_BYTES_MAX} bytes")]
    PathLength,
    /// It lies deeper than [`DEPTH_MAX`].
    #[error("it lies more than {DEPTH_MAX} directories deep")]
    Depth,
}

/// The directories above a name.
pub(crate) type Above<'a> = &'a [Box<[u8]>];

impl MemberPath {
    /// Reads a member's name. A leading `/`, doubled slashes and `.` mean nothing: the tree's root
    /// is the only root there is.
    ///
    /// # Errors
    /// Refuses `..` anywhere, zero bytes, and what is too long or too deep.
    pub(crate) fn parse(name: &[u8]) -> Result<Self, InvalidPath> {
        if name.len() > PATH_BYTES_MAX {
            return Err(InvalidPath::PathLength);
        }
        if name.contains(&0) {
            return Err(InvalidPath::Zero);
        }
        let mut components = Vec::new();
        for component in name.split(|byte| *byte == b'/') {
            match component {
                b"" | b"." => {}
                b".." => return Err(InvalidPath::Up),
                name if name.len() > NAME_BYTES_MAX => return Err(InvalidPath::NameLength),
                name => components.push(Box::from(name)),
            }
        }
        if components.len() > DEPTH_MAX {
            return Err(InvalidPath::Depth);
        }
        Ok(Self(components))
    }

    /// The directories above, and the last name; `None` for the root.
    pub(crate) fn split(&self) -> Option<(Above<'_>, &[u8])> {
        self.0.split_last().map(|(name, above)| (above, &**name))
    }

    /// All components.
    pub(crate) fn components(&self) -> &[Box<[u8]>] {
        &self.0
    }

    /// The path below `prefix`, if this is it or lies below it.
    pub(crate) fn below(&self, prefix: &[u8]) -> Option<Self> {
        match self.0.split_first() {
            Some((first, rest)) if **first == *prefix => Some(Self(rest.to_vec())),
            _ => None,
        }
    }

    /// This path with one more name. The caller gives a name that is a component already.
    pub(crate) fn join(&self, name: &[u8]) -> Self {
        let mut components = self.0.clone();
        components.push(Box::from(name));
        Self(components)
    }
}

impl fmt::Display for MemberPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("/");
        }
        for component in &self.0 {
            write!(f, "/{}", component.escape_ascii())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(name: &[u8]) -> String {
        MemberPath::parse(name).unwrap().to_string()
    }

    #[test]
    fn means_the_same_however_it_is_written() {
        for name in [
            "usr/bin",
            "./usr/bin",
            "/usr/bin",
            "//usr/./bin/",
            "usr//bin/.",
        ] {
            assert_eq!(parsed(name.as_bytes()), "/usr/bin", "{name}");
        }
        for name in ["", ".", "/", "./", "/.//"] {
            assert!(
                MemberPath::parse(name.as_bytes())
                    .unwrap()
                    .components()
                    .is_empty(),
                "{name}"
            );
        }
    }

    #[test]
    fn refuses_what_leads_out() {
        for name in ["..", "../etc", "a/../../b", "/..", "a/.."] {
            assert_eq!(
                MemberPath::parse(name.as_bytes()),
                Err(InvalidPath::Up),
                "{name}"
            );
        }
        assert_eq!(MemberPath::parse(b"a\0b"), Err(InvalidPath::Zero));
        assert_eq!(
            MemberPath::parse(&[b'a'; 256]),
            Err(InvalidPath::NameLength)
        );
        assert_eq!(
            MemberPath::parse(&b"a/".repeat(257)),
            Err(InvalidPath::Depth)
        );
        assert_eq!(
            MemberPath::parse(&b"a".repeat(4096)),
            Err(InvalidPath::PathLength)
        );
        assert_eq!(parsed(b"...\xff/..a"), "/...\\xff/..a");
    }

    proptest! {
        #[test]
        fn never_leaves_the_root(name in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(path) = MemberPath::parse(&name) {
                for component in path.components() {
                    prop_assert!(!component.is_empty());
                    prop_assert!(!component.contains(&b'/') && !component.contains(&0));
                    prop_assert!(**component != *b"." && **component != *b"..");
                }
                let joined = path.components().join(&b'/');
                prop_assert_eq!(MemberPath::parse(&joined).unwrap(), path);
            }
        }

        #[test]
        fn refuses_every_way_up(before in "[a-z./]{0,20}", after in "[a-z./]{0,20}") {
            let name = format!("{before}/../{after}");
            prop_assert_eq!(MemberPath::parse(name.as_bytes()), Err(InvalidPath::Up));
        }
    }
}
