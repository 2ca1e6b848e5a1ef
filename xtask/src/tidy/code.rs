//! Rules for Rust files.

use crate::workspace::TextFile;

/// Longest file, in lines, its own tests at the end left out. What outgrows it holds two concepts.
const LINES_MAX: usize = 500;

/// Longest file with its tests; beyond that, they have a file of their own.
const LINES_WITH_TESTS_MAX: usize = 800;

/// Files that may be longer, each with its reason.
const LONG_FILES: &[(&str, &str)] = &[];

/// What must not be in code, and what to write instead. Split in two so that this table does not
/// find itself.
const BANNED: &[([&str; 2], &str)] = &[
    (["todo", "!("], "finish it, or refuse by name at run time"),
    (["unimplemented", "!("], "refuse by name at run time"),
    (["dbg", "!("], "use tracing"),
    (["FIX", "ME"], "fix it before it is committed"),
    (
        ["XX", "X "],
        "say what is wrong and why it stays, in a sentence",
    ),
    (
        ["#[ign", "ore"],
        "declare what the test needs, so that a skip is reported",
    ),
    (
        ["#[should_", "panic"],
        "assert on the error that is returned",
    ),
    (
        ["#[all", "ow("],
        "use #[expect(..., reason = ...)], which is reported when it is no longer needed",
    ),
];

/// Finds what breaks a rule in one file.
pub(super) fn check(path: &str, text: &str, findings: &mut Vec<String>) {
    let first = text.lines().map(str::trim).find(|line| !line.is_empty());
    if !first.is_some_and(|line| line.starts_with("//!")) {
        findings.push(format!(
            "{path}: begin with `//!`: what this file is, and for whom"
        ));
    }
    if is_long(text) && !LONG_FILES.iter().any(|(long, _)| *long == path) {
        findings.push(format!(
            "{path}: {} lines, {LINES_MAX} allowed ({LINES_WITH_TESTS_MAX} with tests): split it by concept",
            text.lines().count()
        ));
    }
    for (number, line) in text.lines().enumerate() {
        for (parts, instead) in BANNED {
            let banned = parts.concat();
            if line.contains(&banned) {
                findings.push(format!("{path}:{}: `{banned}`: {instead}", number + 1));
            }
        }
    }
}

fn is_long(text: &str) -> bool {
    let before_tests = text
        .lines()
        .take_while(|line| *line != "#[cfg(test)]")
        .count();
    before_tests > LINES_MAX || text.lines().count() > LINES_WITH_TESTS_MAX
}

/// An exception that is not needed any more must go.
pub(super) fn check_exceptions(files: &[TextFile], findings: &mut Vec<String>) {
    for (path, _) in LONG_FILES {
        let file = files.iter().find(|file| file.path == *path);
        if file.is_none_or(|file| !is_long(&file.text)) {
            findings.push(format!(
                "{path}: no longer too long: take it out of LONG_FILES"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(text: &str) -> Vec<String> {
        let mut findings = Vec::new();
        check("a.rs", text, &mut findings);
        findings
    }

    #[test]
    fn a_file_begins_by_saying_what_it_is() {
        assert_eq!(findings("\n//! Things.\nfn a() {}\n"), [""; 0]);
        assert_eq!(findings("// Copyright\n//! Things.\n").len(), 1);
        assert_eq!(findings("").len(), 1);
    }

    #[test]
    fn a_file_has_a_longest_length() {
        let text = format!("//! Things.\n{}", "\n".repeat(LINES_MAX - 1));
        assert_eq!(findings(&text), [""; 0]);
        assert_eq!(findings(&format!("{text}\n")).len(), 1);
        let tests = format!("{text}#[cfg(test)]\n");
        assert_eq!(findings(&format!("{tests}{}", "\n".repeat(299))), [""; 0]);
        assert_eq!(findings(&format!("{tests}{}", "\n".repeat(300))).len(), 1);
    }

    #[test]
    fn banned_code_is_found_with_its_line_and_what_to_do() {
        for (parts, instead) in BANNED {
            let found = findings(&format!("//! Things.\n    {}\n", parts.concat()));
            assert_eq!(found.len(), 1);
            assert!(
                found[0].starts_with("a.rs:2:") && found[0].ends_with(instead),
                "{found:?}"
            );
        }
    }
}
