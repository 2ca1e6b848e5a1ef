//! rpm's order: `rpmvercmp` of rpm's `rpmio/rpmvercmp.c`, with `~` (4.10) and `^` (4.15).

use std::cmp::Ordering;

use super::{compare_digits, epoch, run};

/// Compares `[EPOCH:]VERSION[-RELEASE]`. A release that one of them lacks is not compared, as rpm does with
/// what a dependency says.
pub(super) fn compare(a: &str, b: &str) -> Ordering {
    let ((epoch_a, a), (epoch_b, b)) = (epoch(a), epoch(b));
    let split = |version| match str::rsplit_once(version, '-') {
        Some((version, release)) => (version, Some(release)),
        None => (version, None),
    };
    let ((version_a, release_a), (version_b, release_b)) = (split(a), split(b));
    let releases = || match (release_a, release_b) {
        (Some(a), Some(b)) => compare_part(a, b),
        _ => Ordering::Equal,
    };
    epoch_a
        .cmp(&epoch_b)
        .then_with(|| compare_part(version_a, version_b))
        .then_with(releases)
}

fn compare_part(mut a: &str, mut b: &str) -> Ordering {
    loop {
        let separator = |byte: &u8| !byte.is_ascii_alphanumeric() && !matches!(byte, b'~' | b'^');
        (a, b) = (run(a, separator).1, run(b, separator).1);
        // Before a release, then behind it: what rpm writes 1.0~rc1 < 1.0 < 1.0^git1.
        match (a.strip_prefix('~'), b.strip_prefix('~')) {
            (Some(rest_a), Some(rest_b)) => {
                (a, b) = (rest_a, rest_b);
                continue;
            }
            (Some(_), None) => return Ordering::Less,
            (None, Some(_)) => return Ordering::Greater,
            (None, None) => {}
        }
        match (a.strip_prefix('^'), b.strip_prefix('^')) {
            (Some(rest_a), Some(rest_b)) => {
                (a, b) = (rest_a, rest_b);
                continue;
            }
            (Some(_), None) if b.is_empty() => return Ordering::Greater,
            (Some(_), None) => return Ordering::Less,
            (None, Some(_)) if a.is_empty() => return Ordering::Less,
            (None, Some(_)) => return Ordering::Greater,
            (None, None) => {}
        }
        if a.is_empty() || b.is_empty() {
            // Whoever has more left is the newer.
            return a.is_empty().cmp(&b.is_empty()).reverse();
        }
        let order = compare_segment(&mut a, &mut b);
        if order != Ordering::Equal {
            return order;
        }
    }
}

/// Compares the runs of digits or letters at the beginning, of the kind that `a` begins with, and goes
/// behind them. Digits are newer than letters.
fn compare_segment(a: &mut &str, b: &mut &str) -> Ordering {
    let numbers = |text: &str| text.as_bytes().first().is_some_and(u8::is_ascii_digit);
    match (numbers(a), numbers(b)) {
        (true, false) => return Ordering::Greater,
        (false, true) => return Ordering::Less,
        _ => {}
    }
    let digits = numbers(a);
    let kind = |byte: &u8| match digits {
        true => byte.is_ascii_digit(),
        false => byte.is_ascii_alphabetic(),
    };
    let ((run_a, rest_a), (run_b, rest_b)) = (run(a, kind), run(b, kind));
    (*a, *b) = (rest_a, rest_b);
    match digits {
        true => compare_digits(run_a, run_b),
        false => run_a.cmp(run_b),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::ascends;
    use super::*;

    #[test]
    fn orders_as_rpm_does() {
        // Of rpm's own tests/rpmvercmp.at.
        ascends(&["1.0", "2.0"], compare);
        ascends(&["2.0", "2.0.1", "2.0.1a"], compare);
        ascends(&["5.5p1", "5.5p2", "5.5p10"], compare);
        ascends(&["10xyz", "10.1xyz"], compare);
        ascends(&["xyz10", "xyz10.1"], compare);
        ascends(&["xyz.4", "8"], compare);
        ascends(&["5.5p9", "5.6p1", "6.0"], compare);
        ascends(&["10a1", "10a2", "10b2"], compare);
        ascends(
            &[
                "1.0~rc1~git123",
                "1.0~rc1",
                "1.0~rc2",
                "1.0",
                "1.0^",
                "1.0^git1",
                "1.0^git2",
                "1.01",
            ],
            compare,
        );
        ascends(
            &["1.0^git1~pre", "1.0^git1", "1.0^git1^1", "1.0.1"],
            compare,
        );
        ascends(&["20101121", "20101122"], compare);
        // Of Fedora's and Red Hat's archives.
        ascends(
            &[
                "1:1.1.1k-7.el8_6",
                "1:1.1.1k-12.el8_9",
                "1:3.0.7-16.el9",
                "1:3.0.7-24.el9",
                "2:0",
            ],
            compare,
        );
    }

    #[test]
    fn separators_and_leading_zeros_do_not_count() {
        for (a, b) in [
            ("2_0", "2.0"),
            ("1.05", "1.5"),
            ("a+", "a"),
            ("fc4", "fc.4"),
            ("1.0-1", "1.0"),
            ("0:1", "1"),
        ] {
            assert_eq!(compare(a, b), Ordering::Equal, "{a} {b}");
        }
    }
}
