//! Rules for every text file: clean ends of lines, and no place of one machine in it.

use std::path::Path;

/// Folders that many machines have. A tree below one of these says nothing about a machine.
const COMMON_FOLDERS: [&str; 8] = [
    "/", "/tmp", "/root", "/home", "/src", "/usr/src", "/opt", "/var/tmp",
];

/// Files that tools or others wrote.
const NOT_OURS: [&str; 2] = ["Cargo.lock", "LICENSE"];

/// Finds untidy ends.
pub(super) fn check(path: &str, text: &str, findings: &mut Vec<String>) {
    if NOT_OURS.contains(&path) {
        return;
    }
    for (number, line) in text.lines().enumerate() {
        if line.ends_with([' ', '\t', '\r']) {
            findings.push(format!(
                "{path}:{}: space at the end of the line",
                number + 1
            ));
        }
    }
    if !text.is_empty() && (!text.ends_with('\n') || text.ends_with("\n\n")) {
        findings.push(format!("{path}: end with exactly one newline"));
    }
}

/// Finds paths that exist only where this tree happens to lie.
pub(super) fn check_places(path: &str, text: &str, root: &Path, findings: &mut Vec<String>) {
    let places = [Some(root), root.parent()];
    for place in places.into_iter().flatten().filter_map(Path::to_str) {
        if COMMON_FOLDERS.contains(&place) {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            if names(line, place) {
                findings.push(format!("{path}:{}: a path of this machine", number + 1));
            }
        }
    }
}

/// Whether a line names `place` or something in it, and not another path that merely ends so.
fn names(line: &str, place: &str) -> bool {
    line.match_indices(place).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + place.len()..].chars().next();
        let is_word = |c: char| c.is_alphanumeric() || "._-/{}<>$".contains(c);
        !before.is_some_and(is_word) && after == Some('/')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_clean() {
        let found = |text: &str| {
            let mut findings = Vec::new();
            check("a.md", text, &mut findings);
            findings.len()
        };
        assert_eq!(found("a\n"), 0);
        assert_eq!(found("a \n"), 1);
        assert_eq!(found("a"), 1);
        assert_eq!(found("a\n\n"), 1);
        assert_eq!(found(""), 0);
    }

    #[test]
    fn no_place_of_one_machine_is_named() {
        let found = |text: &str, root: &str| {
            let mut findings = Vec::new();
            check_places("a.md", text, Path::new(root), &mut findings);
            findings.len()
        };
        assert_eq!(found("see /place/tree/README.md", "/place/tree"), 2);
        assert_eq!(found("in `/place/other/x`", "/place/tree"), 1);
        assert_eq!(found("ID/place/x and <id>/place/", "/place/tree"), 0);
        assert_eq!(found("files in /tmp/x", "/tmp/tree"), 0);
    }
}
