//! Suites: what can be built, and what apt inside says where packages come from.

/// A suite that `mmdebstrap` is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Suite {
    /// The distribution's own word: `bookworm`.
    pub codename: String,
    /// Whose it is, if that is known here.
    pub family: Option<Family>,
}

/// Distributions whose suites are known by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// Debian; whether the suite gets security updates apart (testing and stable ones do).
    Debian(Updates),
    /// Ubuntu.
    Ubuntu,
}

/// Whether a suite has parts for updates and security.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Updates {
    Apart,
    None,
}

const DEBIAN: [(&str, &str); 6] = [
    ("10", "buster"),
    ("11", "bullseye"),
    ("12", "bookworm"),
    ("13", "trixie"),
    ("14", "forky"),
    ("15", "duke"),
];

const UBUNTU: [(&str, &str); 6] = [
    ("20.04", "focal"),
    ("22.04", "jammy"),
    ("24.04", "noble"),
    ("25.04", "plucky"),
    ("25.10", "questing"),
    ("26.04", "resolute"),
];

/// A suite's word is malformed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl Suite {
    /// Understands `debian-12`, `ubuntu-24.04` and every suite's own word.
    pub(super) fn parse(text: &str) -> Result<Self, Malformed> {
        let number = |prefix: &str, table: &[(&str, &str)]| {
            let word = text.strip_prefix(prefix)?;
            let known = table.iter().find(|(number, _)| *number == word);
            Some(known.map_or(word, |(_, codename)| codename).to_owned())
        };
        let codename = number("debian-", &DEBIAN)
            .or_else(|| number("ubuntu-", &UBUNTU))
            .unwrap_or_else(|| text.to_owned());
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-_".contains(c);
        let begins = codename.starts_with(|c: char| c.is_ascii_lowercase());
        if codename.len() > 40 || !begins || !codename.chars().all(plain) {
            return Err(Malformed);
        }
        Ok(Self {
            family: family(&codename),
            codename,
        })
    }

    /// Debian's package with the keys that the suite is signed by, and the file it has.
    pub(super) fn keyring(&self) -> (&'static str, &'static str) {
        match self.family {
            Some(Family::Ubuntu) => (
                "ubuntu-keyring",
                "/usr/share/keyrings/ubuntu-archive-keyring.gpg",
            ),
            _ => (
                "debian-archive-keyring",
                "/usr/share/keyrings/debian-archive-keyring.gpg",
            ),
        }
    }

    /// `sources.list` of the distribution itself, with security and updates: what a system installed
    /// from the distribution's own medium has.
    pub(super) fn sources(&self) -> Option<String> {
        let code = &self.codename;
        Some(match self.family? {
            Family::Debian(Updates::None) => {
                format!("deb http://deb.debian.org/debian {code} main\n")
            }
            Family::Debian(Updates::Apart) => format!(
                "deb http://deb.debian.org/debian {code} main\n\
                 deb http://deb.debian.org/debian {code}-updates main\n\
                 deb http://security.debian.org/debian-security {code}-security main\n"
            ),
            Family::Ubuntu => format!(
                "deb http://archive.ubuntu.com/ubuntu {code} main universe\n\
                 deb http://archive.ubuntu.com/ubuntu {code}-updates main universe\n\
                 deb http://security.ubuntu.com/ubuntu {code}-security main universe\n"
            ),
        })
    }
}

fn family(codename: &str) -> Option<Family> {
    let known = |table: &[(&str, &str)]| table.iter().any(|(_, name)| *name == codename);
    match codename {
        "sid" | "unstable" | "experimental" => Some(Family::Debian(Updates::None)),
        "stable" | "oldstable" | "testing" => Some(Family::Debian(Updates::Apart)),
        name if known(&DEBIAN) || name.is_empty() => Some(Family::Debian(Updates::Apart)),
        _ if known(&UBUNTU) => Some(Family::Ubuntu),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_words_mean_the_same() {
        assert_eq!(Suite::parse("debian-12"), Suite::parse("bookworm"));
        assert_eq!(Suite::parse("ubuntu-24.04").unwrap().codename, "noble");
        assert_eq!(Suite::parse("debian-sid").unwrap().codename, "sid");
        let unknown = Suite::parse("kali-rolling").unwrap();
        assert_eq!(
            (unknown.codename.as_str(), unknown.family),
            ("kali-rolling", None)
        );
        for bad in [
            "",
            "-x",
            "--mode=root",
            "a b",
            "a/b",
            "debian-99",
            "Bookworm",
        ] {
            assert!(Suite::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sources_have_security() {
        let sources = Suite::parse("debian-13").unwrap().sources().unwrap();
        assert!(sources.contains("trixie-security main"));
        assert_eq!(
            Suite::parse("sid")
                .unwrap()
                .sources()
                .unwrap()
                .lines()
                .count(),
            1
        );
    }
}
