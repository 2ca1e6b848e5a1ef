//! Names that people give to VEs and templates.

use std::fmt;
use std::str::FromStr;

/// A name of a VE or a template: one DNS label (RFC 1035, section 2.3.1).
///
/// One to 63 characters, small letters, digits and dashes, beginning with a letter and not ending
/// with a dash. So it is a valid host name, and never looks like a number or an option.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

/// A text that cannot be a name, and which rule it breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` cannot be a name: {rule}")]
pub struct InvalidName {
    given: String,
    rule: &'static str,
}

impl Name {
    /// Longest name in characters: the length of a DNS label.
    pub const LENGTH_MAX: usize = 63;

    /// Takes a text as a name.
    ///
    /// # Errors
    /// Refuses what is no DNS label as described at [`Name`], and says which rule it breaks.
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        let refuse = |rule| {
            Err(InvalidName {
                given: text.chars().take(80).collect(),
                rule,
            })
        };
        if text.is_empty() {
            return refuse("it is empty");
        }
        if text
            .chars()
            .any(|c| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'))
        {
            return refuse("only small letters a to z, digits and dashes are allowed");
        }
        if text.len() > Self::LENGTH_MAX {
            return refuse("it is longer than 63 characters");
        }
        if !text.starts_with(|c: char| c.is_ascii_lowercase()) {
            return refuse("it must begin with a letter");
        }
        if text.ends_with('-') {
            return refuse("it must not end with a dash");
        }
        Ok(Self(text.to_owned()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for Name {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        Self::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn says_which_rule_is_broken() {
        for (text, rule) in [
            ("", "empty"),
            ("Web", "small letters"),
            ("web_1", "small letters"),
            ("../etc", "small letters"),
            ("1web", "begin with a letter"),
            ("-web", "begin with a letter"),
            ("web-", "end with a dash"),
            (&"a".repeat(64), "63 characters"),
        ] {
            let error = Name::new(text).unwrap_err().to_string();
            assert!(error.contains(rule), "{error}");
        }
    }

    proptest! {
        #[test]
        fn every_name_is_a_safe_path_component(text in "\\PC{0,70}") {
            if let Ok(name) = Name::new(&text) {
                prop_assert!(!name.as_str().contains(['/', '.', '\0', ' ']));
                prop_assert!(name.as_str().parse::<u32>().is_err());
            }
        }
    }
}
