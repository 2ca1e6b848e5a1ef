//! What a build is asked for, checked before anything runs.

use std::path::PathBuf;

use ve::Name;

use super::suite::Suite;

/// Packages that one request may name.
const PACKAGES_MAX: usize = 500;

/// What is to be built, and under which name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildRequest {
    /// Name in the catalogue.
    pub name: Name,
    /// `debian-12`, `ubuntu-24.04`, or a suite's own word (`bookworm`, `sid`).
    pub suite: String,
    /// Packages besides the usual set of a server.
    pub packages: Vec<String>,
    /// Where to fetch packages from instead of the distribution's own servers: the suite itself only,
    /// for a mirror need not have its updates. The template still names the distribution's own servers,
    /// so its VEs get those updates from there.
    pub mirror: Option<String>,
    /// Where the programs' words go. An older file is replaced.
    pub log: PathBuf,
}

/// A request that cannot be a build.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRequest {
    /// No suite's word.
    #[error(
        "`{suite}` is no suite; give one like `debian-12`, `ubuntu-24.04` or a suite's own word like `bookworm`"
    )]
    Suite {
        /// What was given.
        suite: String,
    },
    /// No package's name.
    #[error(
        "`{package}` is no package name: small letters, digits, `+`, `-` and `.`, and `=VERSION` if wanted"
    )]
    Package {
        /// What was given.
        package: String,
    },
    /// Too many.
    #[error("more than {PACKAGES_MAX} packages were given; make a metapackage of them")]
    Packages,
    /// No URL that apt knows.
    #[error("`{mirror}` is no mirror; give a URL like `http://deb.debian.org/debian`")]
    Mirror {
        /// What was given.
        mirror: String,
    },
}

/// Everything of it becomes an argument of a program: nothing may look like an option, a list or a
/// pattern of that program.
pub(super) fn check(request: &BuildRequest) -> Result<Suite, InvalidRequest> {
    let shown = |text: &str| text.escape_debug().take(100).collect::<String>();
    let suite = Suite::parse(&request.suite).map_err(|_| InvalidRequest::Suite {
        suite: shown(&request.suite),
    })?;
    if request.packages.len() > PACKAGES_MAX {
        return Err(InvalidRequest::Packages);
    }
    if let Some(bad) = request.packages.iter().find(|name| !is_package(name)) {
        return Err(InvalidRequest::Package {
            package: shown(bad),
        });
    }
    if let Some(mirror) = &request.mirror
        && !is_mirror(mirror)
    {
        return Err(InvalidRequest::Mirror {
            mirror: shown(mirror),
        });
    }
    Ok(suite)
}

/// Debian Policy 5.6.1, with an optional version (5.6.12) as apt takes it.
fn is_package(text: &str) -> bool {
    let (name, version) = match text.split_once('=') {
        Some((name, version)) => (name, Some(version)),
        None => (text, None),
    };
    let begins = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c);
    let version_plain = |c: char| c.is_ascii_alphanumeric() || "+-.~:".contains(c);
    begins
        && (2..=100).contains(&name.len())
        && name.chars().all(plain)
        && version.is_none_or(|v| !v.is_empty() && v.len() <= 100 && v.chars().all(version_plain))
}

fn is_mirror(text: &str) -> bool {
    let known = ["http://", "https://", "file:///", "copy:///"]
        .iter()
        .any(|scheme| text.len() > scheme.len() && text.starts_with(scheme));
    let plain = |c: char| c.is_ascii_alphanumeric() || ":/.-_~%+@[]".contains(c);
    known && text.len() <= 500 && text.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_cannot_be_options_or_lists() {
        for good in [
            "nginx",
            "g++",
            "libc6",
            "python3.11",
            "nginx=1.22.1-9+deb12u1",
        ] {
            assert!(is_package(good), "{good}");
        }
        for bad in [
            "",
            "a",
            "-x",
            "a,b",
            "?priority(required)",
            "a b",
            "~i",
            "a=",
            "Nginx",
            "a/b",
        ] {
            assert!(!is_package(bad), "{bad}");
        }
        for good in [
            "http://deb.debian.org/debian",
            "file:///srv/mirror",
            "http://[::1]:80/x",
        ] {
            assert!(is_mirror(good), "{good}");
        }
        for bad in [
            "",
            "deb.debian.org",
            "http://",
            "http://a b",
            "-",
            "http://a\nb",
            "ftp://a",
        ] {
            assert!(!is_mirror(bad), "{bad}");
        }
    }
}
