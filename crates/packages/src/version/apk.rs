//! Alpine's order: `apk_version_compare` of apk-tools' `src/version.c` (3.0).
//!
//! A version is `NUMBER{.NUMBER}[LETTER]{_SUFFIX[NUMBER]}[~HASH][-rNUMBER]`. Both are read token by token;
//! the first token whose value or kind differs decides.

use std::cmp::Ordering;

use super::{compare_digits, run};

/// Suffixes, oldest first; those before the empty one are from before a release.
const SUFFIXES: [&str; 10] = [
    "alpha", "beta", "pre", "rc", "", "cvs", "svn", "git", "hg", "p",
];

/// Kinds of tokens, in the order in which they may follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    First,
    /// Behind a dot, where leading zeros make a fraction.
    Number,
    Letter,
    Suffix,
    SuffixNumber,
    Hash,
    Revision,
    End,
    Invalid,
}

/// A version that is read.
#[derive(Clone, Copy, Debug)]
struct Reader<'a> {
    rest: &'a str,
    kind: Kind,
    value: &'a str,
}

/// Compares two versions.
pub(super) fn compare(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (Reader::new(a), Reader::new(b));
    while a.kind == b.kind && !matches!(a.kind, Kind::End | Kind::Invalid) {
        let order = compare_values(a.kind, a.value, b.value);
        if order != Ordering::Equal {
            return order;
        }
        a.advance();
        b.advance();
    }
    // The one that goes on is the newer, unless it goes on with a suffix from before a release.
    let before =
        |reader: Reader<'_>| reader.kind == Kind::Suffix && place(reader.value) < place("");
    match (before(a), before(b)) {
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        _ => b.kind.cmp(&a.kind),
    }
}

fn compare_values(kind: Kind, a: &str, b: &str) -> Ordering {
    match kind {
        Kind::Number if a.starts_with('0') || b.starts_with('0') => a.cmp(b),
        Kind::First | Kind::Number | Kind::SuffixNumber | Kind::Revision => compare_digits(a, b),
        Kind::Suffix => place(a).cmp(&place(b)),
        _ => a.cmp(b),
    }
}

fn place(suffix: &str) -> Option<usize> {
    SUFFIXES.iter().position(|known| *known == suffix)
}

impl<'a> Reader<'a> {
    /// At the first token.
    fn new(text: &'a str) -> Self {
        let (value, rest) = run(text, u8::is_ascii_digit);
        let kind = if value.is_empty() {
            Kind::Invalid
        } else {
            Kind::First
        };
        Self { rest, kind, value }
    }

    /// Goes to the next token.
    fn advance(&mut self) {
        let text = self.rest;
        let lower = |byte: &u8| byte.is_ascii_lowercase();
        let numeric = self.kind <= Kind::Number;
        let (kind, (value, rest)) = match text.as_bytes() {
            [] => (Kind::End, ("", "")),
            [b'a'..=b'z', ..] if numeric => (Kind::Letter, text.split_at(1)),
            [b'.', ..] if numeric => (Kind::Number, run(&text[1..], u8::is_ascii_digit)),
            [b'0'..=b'9', ..] if self.kind == Kind::Suffix => {
                (Kind::SuffixNumber, run(text, u8::is_ascii_digit))
            }
            [b'_', ..] if self.kind <= Kind::SuffixNumber => (Kind::Suffix, run(&text[1..], lower)),
            [b'~', ..] if self.kind < Kind::Hash => {
                (Kind::Hash, run(&text[1..], u8::is_ascii_hexdigit))
            }
            [b'-', b'r', ..] if self.kind < Kind::Revision => {
                (Kind::Revision, run(&text[2..], u8::is_ascii_digit))
            }
            _ => (Kind::Invalid, ("", "")),
        };
        let whole = match kind {
            Kind::Suffix => place(value).is_some_and(|_| !value.is_empty()),
            Kind::End | Kind::Invalid => true,
            _ => !value.is_empty(),
        };
        *self = Self {
            rest,
            kind: if whole { kind } else { Kind::Invalid },
            value,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::ascends;
    use super::*;

    #[test]
    fn orders_as_apk_does() {
        // Of apk-tools' own test/version.data.
        ascends(&["2.34", "2.34.1"], compare);
        ascends(
            &[
                "1.0_alpha1",
                "1.0_beta1",
                "1.0_pre2",
                "1.0_rc1",
                "1.0",
                "1.0_p1",
                "1.0_p10",
            ],
            compare,
        );
        ascends(&["0.12.1", "0.12.1-r1", "0.12.1-r10", "0.12.1a"], compare);
        ascends(
            &["0.1.0_alpha_pre2", "0.1.0_alpha", "0.1.0_alpha1", "0.1.0"],
            compare,
        );
        ascends(&["6.0", "6.0_p1", "6.1", "6.1.1", "6.10"], compare);
        ascends(&["1.0", "1.0.1", "1.0.3", "1.0.10"], compare);
        ascends(&["4_beta", "23_beta", "23"], compare);
        ascends(
            &["3.0.11-r0", "3.0.12-r1", "3.1.4-r6", "3.10.0-r0"],
            compare,
        );
        ascends(&["20050718-r1", "20050718-r2", "20050719"], compare);
    }

    #[test]
    fn fractions_count_their_zeros() {
        ascends(&["0.01", "0.1"], compare);
        ascends(&["1.0001", "1.001", "1.01", "1.1"], compare);
    }
}
