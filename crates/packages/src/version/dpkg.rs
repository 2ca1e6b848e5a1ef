//! Debian's order: deb-version(7), `verrevcmp` of dpkg's `lib/dpkg/version.c`.

use std::cmp::Ordering;

use super::{compare_digits, epoch, run};

/// Compares `[EPOCH:]UPSTREAM[-REVISION]`.
pub(super) fn compare(a: &str, b: &str) -> Ordering {
    let ((epoch_a, a), (epoch_b, b)) = (epoch(a), epoch(b));
    let split = |version| str::rsplit_once(version, '-').unwrap_or((version, ""));
    let ((upstream_a, revision_a), (upstream_b, revision_b)) = (split(a), split(b));
    epoch_a
        .cmp(&epoch_b)
        .then_with(|| compare_part(upstream_a, upstream_b))
        .then_with(|| compare_part(revision_a, revision_b))
}

/// Runs of other characters and runs of digits in turn.
fn compare_part(mut a: &str, mut b: &str) -> Ordering {
    while !a.is_empty() || !b.is_empty() {
        let other = |byte: &u8| !byte.is_ascii_digit();
        let ((words_a, rest_a), (words_b, rest_b)) = (run(a, other), run(b, other));
        let length = words_a.len().max(words_b.len());
        let weights = |words: &str| -> Vec<i32> {
            (0..length)
                .map(|i| weight(words.as_bytes().get(i)))
                .collect()
        };
        let ((digits_a, next_a), (digits_b, next_b)) = (
            run(rest_a, u8::is_ascii_digit),
            run(rest_b, u8::is_ascii_digit),
        );
        let order = weights(words_a)
            .cmp(&weights(words_b))
            .then_with(|| compare_digits(digits_a, digits_b));
        if order != Ordering::Equal {
            return order;
        }
        (a, b) = (next_a, next_b);
    }
    Ordering::Equal
}

/// A tilde is before the end, letters are before all other characters.
fn weight(byte: Option<&u8>) -> i32 {
    match byte {
        None => 0,
        Some(b'~') => -1,
        Some(letter) if letter.is_ascii_alphabetic() => i32::from(*letter),
        Some(other) => i32::from(*other) + 256,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::ascends;
    use super::*;

    #[test]
    fn orders_as_dpkg_does() {
        // Of deb-version(7), of dpkg's own t/t-version.c, and of Debian's archive.
        ascends(&["1.0~~", "1.0~~a", "1.0~", "1.0", "1.0a"], compare);
        ascends(
            &["1.0~beta1~svn1245", "1.0~beta1", "1.0", "1.0-1", "1.0-1+b1"],
            compare,
        );
        ascends(&["9:0", "10:0", "11:0"], compare);
        ascends(
            &[
                "3.0.9-1",
                "3.0.11",
                "3.0.11-1~deb12u1",
                "3.0.11-1~deb12u2",
                "3.0.11-1",
                "3.0.16-1~deb12u1",
                "3.0.100",
                "1:0",
            ],
            compare,
        );
        ascends(&["2.36-9+deb12u4", "2.36-9+deb12u10", "2.36-10"], compare);
        ascends(
            &["5.3.28+dfsg1", "5.3.28+dfsg1-0.8", "5.3.28+dfsg2-1"],
            compare,
        );
    }

    #[test]
    fn writes_of_one_version_are_equal() {
        for (a, b) in [
            ("0:1-0", "1"),
            ("1.0-00", "1.0"),
            ("1.01", "1.1"),
            ("", "0"),
        ] {
            assert_eq!(compare(a, b), Ordering::Equal, "{a} {b}");
        }
    }
}
