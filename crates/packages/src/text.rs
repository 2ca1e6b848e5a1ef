//! Databases that are text, and pacman's, which is names of folders.

use crate::{PACKAGES_MAX, Package, WORD_BYTES_MAX};

/// A word fit to be shown: no control characters, not empty, not too long.
#[must_use]
pub fn word(text: &str) -> Option<String> {
    let text = text.trim();
    let fits = !text.is_empty() && text.len() <= WORD_BYTES_MAX;
    (fits && !text.chars().any(char::is_control)).then(|| text.to_owned())
}

/// dpkg's `status`: paragraphs of `Key: value` lines; only installed packages count
/// (deb-substvars(5), dpkg-query(1) "status").
#[must_use]
pub fn dpkg(text: &str) -> Vec<Package> {
    paragraphs(text, ": ", |lines| {
        let (mut package, mut installed) = (Package::default(), false);
        for (key, value) in lines {
            match *key {
                "Package" => package.name = word(value)?,
                "Version" => package.version = word(value)?,
                "Architecture" => package.architecture = word(value)?,
                // With a version of its own behind it, as `openssl (3.0.11-1)`.
                "Source" => package.source = word(value.split(" (").next()?),
                "Status" => installed = value.ends_with(" installed"),
                _ => {}
            }
        }
        installed.then_some(package)
    })
}

/// apk's `installed`: paragraphs of `K:value` lines (apk-package(5)).
#[must_use]
pub fn apk(text: &str) -> Vec<Package> {
    paragraphs(text, ":", |lines| {
        let mut package = Package::default();
        for (key, value) in lines {
            match *key {
                "P" => package.name = word(value)?,
                "V" => package.version = word(value)?,
                "A" => package.architecture = word(value)?,
                "o" => package.source = word(value),
                _ => {}
            }
        }
        Some(package)
    })
}

/// pacman's: folders called `NAME-VERSION-RELEASE`.
#[must_use]
pub fn pacman(folders: &[String]) -> Vec<Package> {
    let packages = folders.iter().filter_map(|folder| {
        let (rest, release) = folder.rsplit_once('-')?;
        let (name, version) = rest.rsplit_once('-')?;
        Some(Package {
            name: word(name)?,
            version: word(&format!("{version}-{release}"))?,
            ..Package::default()
        })
    });
    sorted(packages.take(PACKAGES_MAX).collect())
}

/// Reads each paragraph's keys and values, and keeps what has a name and a version.
fn paragraphs(
    text: &str,
    separator: &str,
    read: impl Fn(&[(&str, &str)]) -> Option<Package>,
) -> Vec<Package> {
    let mut found = Vec::new();
    let mut lines = Vec::new();
    // The last paragraph may lack the empty line behind it.
    for line in text.lines().chain([""]) {
        if !line.is_empty() {
            lines.extend(line.split_once(separator));
            continue;
        }
        let package = read(&lines).filter(|p| !p.name.is_empty() && !p.version.is_empty());
        found.extend(package.map(without_own_source));
        lines.clear();
        if found.len() == PACKAGES_MAX {
            break;
        }
    }
    sorted(found)
}

/// A source that has the package's own name tells nothing.
fn without_own_source(mut package: Package) -> Package {
    let name = &package.name;
    package.source = package.source.take().filter(|source| source != name);
    package
}

pub(crate) fn sorted(mut packages: Vec<Package>) -> Vec<Package> {
    packages.sort();
    packages
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn told(packages: &[Package]) -> Vec<String> {
        packages
            .iter()
            .map(|p| {
                let source = p.source.as_deref().unwrap_or("-");
                format!("{} {} {} {source}", p.name, p.version, p.architecture)
            })
            .collect()
    }

    #[test]
    fn dpkg_lists_what_is_installed() {
        let status = "Package: libssl3\nStatus: install ok installed\nArchitecture: amd64\nSource: openssl (3.0.11-1)\n\
                      Version: 1:2-3\nDescription: x\n Version: 9\n\nPackage: gone\nStatus: deinstall ok config-files\n\
                      Version: 1\n\nPackage: b\nStatus: hold ok installed\nVersion: 4\nSource: b\n";
        assert_eq!(
            told(&dpkg(status)),
            ["b 4  -", "libssl3 1:2-3 amd64 openssl"]
        );
    }

    #[test]
    fn apk_lists_what_is_installed() {
        let installed = "C:Q1\nP:musl\nV:1.2.4-r2\nA:x86_64\no:musl\n\nP:libssl3\nV:3.1-r2\no:openssl\n\nF:etc\n";
        assert_eq!(
            told(&apk(installed)),
            ["libssl3 3.1-r2  openssl", "musl 1.2.4-r2 x86_64 -"]
        );
    }

    #[test]
    fn pacman_names_its_folders() {
        let folders = ["gcc-libs-14.2-1".to_owned(), "ALPM_DB_VERSION".to_owned()];
        assert_eq!(told(&pacman(&folders)), ["gcc-libs 14.2-1  -"]);
    }

    #[test]
    fn words_are_fit_to_be_shown() {
        assert_eq!(word(" a b "), Some("a b".to_owned()));
        assert_eq!(word("a\x1b[31m"), None);
        assert_eq!(word(""), None);
        assert_eq!(word(&"a".repeat(201)), None);
    }

    #[test]
    fn no_more_is_listed_than_the_bound() {
        let many = "P:a\nV:1\n\n".repeat(PACKAGES_MAX + 10);
        assert_eq!(apk(&many).len(), PACKAGES_MAX);
    }

    proptest! {
        #[test]
        fn no_text_gives_a_package_without_a_word(text in "(P:|V:|Package: |Version: |Status: | installed|[a\u{1b}:\n ]){0,60}") {
            for package in apk(&text).into_iter().chain(dpkg(&text)) {
                prop_assert!(word(&package.name).is_some() && word(&package.version).is_some());
            }
        }
    }
}
