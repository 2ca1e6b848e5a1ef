//! Settings that an application offers to whoever creates a VE.

use serde::{Deserialize, Serialize};

/// Bytes of a value.
const VALUE_BYTES_MAX: usize = 1024;
/// Bytes of a setting's name.
const NAME_BYTES_MAX: usize = 40;

/// A setting that an application offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfferedSetting {
    /// What it is, for people.
    pub description: String,
    /// Its value when nobody chooses one.
    pub default: String,
    /// What its values look like.
    #[serde(default)]
    pub kind: Kind,
    /// The only values that it takes, if it takes few.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<String>,
}

/// What values of a setting look like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// One line of text, empty allowed.
    #[default]
    Text,
    /// A word: letters, digits, `_`, `-` and `.`.
    Word,
    /// A whole number that is not negative.
    Number,
    /// A port of TCP or UDP, 1 to 65,535.
    Port,
    /// A number, with one of the letters `k`, `m`, `g` and `b` behind it if wanted: as servers' own files have it.
    Size,
    /// `yes` or `no`.
    YesNo,
}

/// Something was chosen that an application does not offer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOption {
    /// There is no such setting.
    #[error("the application `{application}` has no setting `{name}`; it offers: {offered}")]
    Unknown {
        /// The application.
        application: String,
        /// What was chosen.
        name: String,
        /// What could be.
        offered: String,
    },
    /// The value is not of the setting's kind.
    #[error("`{value}` cannot be the setting `{name}` of the application `{application}`: {rule}")]
    Value {
        /// The application.
        application: String,
        /// The setting.
        name: String,
        /// The value, shortened.
        value: String,
        /// What it must be.
        rule: String,
    },
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Word => "word",
            Self::Number => "number",
            Self::Port => "port",
            Self::Size => "size",
            Self::YesNo => "yes-no",
        })
    }
}

impl OfferedSetting {
    /// Whether the offer itself makes sense; says what does not.
    pub(super) fn check_offer(&self) -> Result<(), &'static str> {
        if self.description.chars().any(char::is_control) {
            return Err("has a description of more than one line");
        }
        self.check(&self.default)
            .map_err(|_| "has a default that is not of its kind, or not one of its choices")
    }

    /// Whether a value is of this setting's kind; says what it must be.
    pub(super) fn check(&self, value: &str) -> Result<(), String> {
        if value.len() > VALUE_BYTES_MAX {
            return Err(format!("it has more than {VALUE_BYTES_MAX} bytes"));
        }
        if !self.choices.is_empty() && !self.choices.iter().any(|choice| choice == value) {
            return Err(format!("it must be one of {}", self.choices.join(", ")));
        }
        let digits = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
        let (fits, rule) = match self.kind {
            Kind::Text => (!value.chars().any(char::is_control), "one line of text"),
            Kind::Word => {
                let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
                (
                    !value.is_empty() && value.chars().all(plain),
                    "letters, digits, `_`, `-` and `.`",
                )
            }
            Kind::Number => (digits(value) && value.len() <= 18, "a number"),
            Kind::Port => (
                value.parse::<u16>().is_ok_and(|port| port > 0) && digits(value),
                "a port, 1 to 65535",
            ),
            Kind::Size => {
                let number = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
                let unit = value[number.len()..].to_ascii_lowercase();
                let known = ["", "b", "k", "kb", "m", "mb", "g", "gb"];
                (
                    digits(number) && number.len() <= 18 && known.contains(&unit.as_str()),
                    "a size, as 64mb",
                )
            }
            Kind::YesNo => (matches!(value, "yes" | "no"), "yes or no"),
        };
        match fits {
            true => Ok(()),
            false => Err(format!("it must be {rule}")),
        }
    }
}

/// Whether a text can be a setting's name.
pub(super) fn is_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.len() <= NAME_BYTES_MAX
        && text.chars().all(plain)
        // What would change how `configure` itself runs.
        && !matches!(text, "path" | "home" | "ifs" | "env" | "shell" | "pwd")
        && !text.starts_with("ld_")
}

/// The variable that `configure` finds a setting in.
pub(super) fn variable(name: &str) -> String {
    name.to_ascii_uppercase()
}
