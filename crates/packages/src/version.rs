//! Which of two versions is the older, as the package manager itself decides it.

mod apk;
mod dpkg;
mod rpm;

use std::cmp::Ordering;

use crate::Manager;

/// Compares two versions as this manager does. pacman's comparison came from rpm's, and is taken for it.
#[must_use]
pub fn compare(manager: Manager, a: &str, b: &str) -> Ordering {
    match manager {
        Manager::Dpkg => dpkg::compare(a, b),
        Manager::Apk => apk::compare(a, b),
        Manager::Rpm | Manager::Pacman => rpm::compare(a, b),
    }
}

/// The epoch before the first colon, and what is behind it.
fn epoch(version: &str) -> (u64, &str) {
    match version.split_once(':') {
        Some((epoch, rest)) => (epoch.parse().unwrap_or(0), rest),
        None => (0, version),
    }
}

/// Two runs of digits as numbers of any length.
fn compare_digits(a: &str, b: &str) -> Ordering {
    let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

/// The text's beginning as far as its bytes are of a kind, and the rest. The kind is one of ASCII.
fn run(text: &str, kind: impl Fn(&u8) -> bool) -> (&str, &str) {
    let end = text.bytes().position(|b| !kind(&b)).unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
pub(crate) mod testing {
    use std::cmp::Ordering;

    /// Asserts that each version is older than all behind it, and equal to itself.
    pub(crate) fn ascends(versions: &[&str], compare: impl Fn(&str, &str) -> Ordering) {
        for (i, a) in versions.iter().enumerate() {
            assert_eq!(compare(a, a), Ordering::Equal, "{a}");
            for b in &versions[i + 1..] {
                assert_eq!(compare(a, b), Ordering::Less, "{a} < {b}");
                assert_eq!(compare(b, a), Ordering::Greater, "{b} > {a}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn turned_round_it_is_the_other_way_round(
            a in "[0-9]{0,3}[a-c:.~^_+é-]{0,3}[0-9a-z.~-]{0,6}",
            b in "[0-9]{0,3}[a-c:.~^_+é-]{0,3}[0-9a-z.~-]{0,6}",
        ) {
            for manager in [Manager::Dpkg, Manager::Rpm, Manager::Pacman, Manager::Apk] {
                prop_assert_eq!(compare(manager, &a, &b), compare(manager, &b, &a).reverse());
                prop_assert_eq!(compare(manager, &a, &a), Ordering::Equal);
            }
        }

        #[test]
        fn dpkg_orders_all_versions(mut versions in proptest::collection::vec("[0-9]{1,2}[a-b.~+-]{0,2}[0-9a-b~]{0,3}", 3)) {
            versions.sort_by(|a, b| dpkg::compare(a, b));
            prop_assert_ne!(dpkg::compare(&versions[0], &versions[2]), Ordering::Greater);
        }

        #[test]
        fn plain_numbers_compare_as_numbers(a in proptest::collection::vec(1_u32.., 3), b in proptest::collection::vec(1_u32.., 3)) {
            let text = |v: &[u32]| format!("{}.{}.{}", v[0], v[1], v[2]);
            for manager in [Manager::Dpkg, Manager::Rpm, Manager::Apk] {
                prop_assert_eq!(compare(manager, &text(&a), &text(&b)), a.cmp(&b));
            }
        }
    }
}
