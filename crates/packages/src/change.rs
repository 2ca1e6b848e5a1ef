//! What became of packages between two states of one system.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use crate::Package;

/// A package that is in another version, was added, or was removed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// Its name.
    pub name: String,
    /// Its version before; nothing if it was not there.
    pub old: Option<String>,
    /// Its version now; nothing if it is not there any more.
    pub new: Option<String>,
}

/// What differs between two lists of packages, by name.
///
/// A name may stand in a list several times, as a kernel's does that is kept beside the older one, or a library's for two
/// kinds of processors. What is in both lists is then left out, and the rest is laid side by side in its order.
#[must_use]
pub fn changes(old: &[Package], new: &[Package]) -> Vec<Change> {
    let (before, after) = (by_name(old), by_name(new));
    let names: BTreeSet<_> = before.keys().chain(after.keys()).copied().collect();
    let mut changes = Vec::new();
    for name in names {
        let (gone, come) = apart(versions(&before, name), versions(&after, name));
        let text = |versions: &[&str], row: usize| versions.get(row).map(|v| (*v).to_owned());
        changes.extend((0..gone.len().max(come.len())).map(|row| Change {
            name: name.to_owned(),
            old: text(&gone, row),
            new: text(&come, row),
        }));
    }
    changes.sort();
    changes
}

fn versions<'m, 'a>(all: &'m BTreeMap<&str, Vec<&'a str>>, name: &str) -> &'m [&'a str] {
    all.get(name).map_or(&[], Vec::as_slice)
}

/// What only the first and what only the second of two sorted lists has.
fn apart<'a>(one: &[&'a str], other: &[&'a str]) -> (Vec<&'a str>, Vec<&'a str>) {
    let (mut only_one, mut only_other) = (Vec::new(), Vec::new());
    let (mut one, mut other) = (one.iter().peekable(), other.iter().peekable());
    loop {
        let order = match (one.peek(), other.peek()) {
            (Some(a), Some(b)) => a.cmp(b),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return (only_one, only_other),
        };
        match order {
            Ordering::Less => only_one.extend(one.next()),
            Ordering::Greater => only_other.extend(other.next()),
            Ordering::Equal => drop((one.next(), other.next())),
        }
    }
}

fn by_name(packages: &[Package]) -> BTreeMap<&str, Vec<&str>> {
    let mut all: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in packages {
        let versions = all.entry(&package.name).or_default();
        versions.push(&package.version);
    }
    all.values_mut()
        .for_each(|versions| versions.sort_unstable());
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn package(name: &str, version: &str) -> Package {
        Package {
            name: name.to_owned(),
            version: version.to_owned(),
            ..Package::default()
        }
    }

    fn change(name: &str, old: Option<&str>, new: Option<&str>) -> Change {
        Change {
            name: name.to_owned(),
            old: old.map(str::to_owned),
            new: new.map(str::to_owned),
        }
    }

    #[test]
    fn tells_what_came_went_and_changed() {
        let old = [package("a", "1"), package("b", "1"), package("c", "1")];
        let new = [package("d", "1"), package("c", "2"), package("a", "1")];
        let expected = [
            change("b", Some("1"), None),
            change("c", Some("1"), Some("2")),
            change("d", None, Some("1")),
        ];
        assert_eq!(changes(&old, &new), expected);
        assert_eq!(changes(&old, &old), []);
    }

    #[test]
    fn a_kernel_beside_the_older_one_is_an_addition() {
        let old = [package("kernel", "1")];
        let new = [package("kernel", "2"), package("kernel", "1")];
        assert_eq!(changes(&old, &new), [change("kernel", None, Some("2"))]);
    }

    proptest! {
        #[test]
        fn the_changes_lead_from_the_one_to_the_other(
            old in proptest::collection::vec(("[a-d]", "[1-3]"), 0..8),
            new in proptest::collection::vec(("[a-d]", "[1-3]"), 0..8),
        ) {
            let list = |pairs: &[(String, String)]| -> Vec<Package> {
                pairs.iter().map(|(name, version)| package(name, version)).collect()
            };
            let (old, new) = (list(&old), list(&new));
            let mut now = old.clone();
            for change in changes(&old, &new) {
                prop_assert!(change.old != change.new);
                if let Some(version) = &change.old {
                    let at = now.iter().position(|p| p.name == change.name && p.version == *version);
                    now.remove(at.unwrap());
                }
                if let Some(version) = &change.new {
                    now.push(package(&change.name, version));
                }
            }
            let sorted = |mut list: Vec<Package>| { list.sort(); list };
            prop_assert_eq!(sorted(now), sorted(new));
        }
    }
}
