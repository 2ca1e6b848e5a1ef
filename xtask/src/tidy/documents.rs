//! Rules for Markdown: one title, links that lead somewhere, and a map that is true.

use crate::workspace::TextFile;

/// The document that must name every crate.
const MAP: &str = "ARCHITECTURE.md";

/// Top folders: a path in backticks that begins with one of these must exist.
const FOLDERS: [&str; 8] = [
    "crates/", "bin/", "xtask/", "tests/", "docs/", ".ci/", ".cargo/", "bench/",
];

/// Finds what breaks a rule in one document.
pub(super) fn check(path: &str, text: &str, paths: &[&str], findings: &mut Vec<String>) {
    let prose: Vec<(usize, &str)> = prose(text).collect();
    let titles = prose
        .iter()
        .filter(|(_, line)| line.starts_with("# "))
        .count();
    if titles != 1 {
        findings.push(format!(
            "{path}: {titles} titles (`# `): a document has one"
        ));
    }
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    for (number, line) in prose {
        for quoted in line.split('`').skip(1).step_by(2) {
            let is_path = FOLDERS.iter().any(|folder| quoted.starts_with(folder));
            if is_path && !quoted.contains([' ', '<', '*']) && !exists(quoted, paths) {
                findings.push(format!("{path}:{number}: `{quoted}` is not in the tree"));
            }
        }
        for target in links(line) {
            let target = target.split('#').next().unwrap_or_default();
            let outside = target.contains("://") || target.starts_with("mailto:");
            if !target.is_empty() && !outside && !exists(&join(folder, target), paths) {
                findings.push(format!(
                    "{path}:{number}: the link to {target} leads nowhere"
                ));
            }
        }
    }
}

/// The map names every member of the workspace, so that it cannot rot in silence.
pub(super) fn check_map(files: &[TextFile], findings: &mut Vec<String>) {
    let Some(map) = files.iter().find(|file| file.path == MAP) else {
        findings.push(format!("{MAP} is missing"));
        return;
    };
    let manifests = files
        .iter()
        .filter_map(|file| file.path.strip_suffix("/Cargo.toml"));
    for member in manifests {
        if !map.text.contains(&format!("`{member}`")) && !map.text.contains(&format!("`{member}/`"))
        {
            findings.push(format!("{MAP}: `{member}` is not described"));
        }
    }
}

/// Numbered lines outside fenced blocks.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(number, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (!fenced && !fence).then_some((number + 1, line))
    })
}

fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
}

fn exists(wanted: &str, paths: &[&str]) -> bool {
    let wanted = wanted.trim_end_matches('/');
    paths.iter().any(|path| {
        path.strip_prefix(wanted)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// A link's target as seen from the top of the tree.
fn join(folder: &str, target: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATHS: [&str; 3] = ["README.md", "docs/network.md", "crates/ve/Cargo.toml"];

    fn findings(path: &str, text: &str) -> Vec<String> {
        let mut findings = Vec::new();
        check(path, text, &PATHS, &mut findings);
        findings
    }

    #[test]
    fn a_document_has_one_title_outside_code() {
        assert_eq!(
            findings("a.md", "# Title\n```\n# a comment\n```\n## Part\n"),
            [""; 0]
        );
        assert_eq!(findings("a.md", "# One\n# Two\n").len(), 1);
        assert_eq!(findings("a.md", "text\n").len(), 1);
    }

    #[test]
    fn paths_and_links_exist() {
        assert_eq!(
            findings(
                "a.md",
                "# T\n`crates/ve` [x](docs/network.md#top) `docs/`\n"
            ),
            [""; 0]
        );
        assert_eq!(
            findings("docs/a.md", "# T\n[x](../README.md) [y](network.md)\n"),
            [""; 0]
        );
        assert_eq!(findings("a.md", "# T\n`crates/gone`\n").len(), 1);
        assert_eq!(
            findings("a.md", "# T\n`crates/v` [x](network.md)\n").len(),
            2
        );
        assert_eq!(
            findings("a.md", "# T\n[x](https://example.org/a) [y](#part)\n"),
            [""; 0]
        );
    }

    #[test]
    fn the_map_names_every_crate() {
        let file = |path: &str, text: &str| TextFile {
            path: path.into(),
            text: text.into(),
        };
        let mut found = Vec::new();
        let files = [
            file(MAP, "`crates/ve`"),
            file("crates/ve/Cargo.toml", ""),
            file("bin/a/Cargo.toml", ""),
        ];
        check_map(&files, &mut found);
        assert_eq!(found, [format!("{MAP}: `bin/a` is not described")]);
        found.clear();
        check_map(&[], &mut found);
        assert_eq!(found.len(), 1);
    }
}
