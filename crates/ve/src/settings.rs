//! The keys of `vessel set KEY=VALUE`, and their values.
//!
//! A [`Key`] is a word that people and scripts use; a [`Setting`] is a key with a value that was
//! read and found sensible on its own. Whether a node can grant it is decided elsewhere.

use std::fmt;
use std::net::IpAddr;

use crate::limits::{CpuSet, Limits};
use crate::spec::{Autostart, Spec};
use crate::units::{Bytes, Cores, InvalidUnit};

/// A key that `set` knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// `cpu.limit`
    CpuLimit,
    /// `cpu.share`
    CpuShare,
    /// `cpu.set`
    CpuSet,
    /// `memory.limit`
    MemoryLimit,
    /// `memory.swap`
    MemorySwap,
    /// `processes.limit`
    ProcessesLimit,
    /// `disk.limit`
    DiskLimit,
    /// `address`
    Address,
    /// `hostname`
    Hostname,
    /// `dns`
    Dns,
    /// `autostart`
    Autostart,
    /// `protected`
    Protected,
    /// `nesting`
    Nesting,
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    /// Processor time per time; `None` lifts the limit.
    CpuLimit(Option<Cores>),
    /// Weight, 1 to 10,000; `None` is the default of 100.
    CpuShare(Option<u32>),
    /// Processors to run on; `None` is all.
    CpuSet(Option<CpuSet>),
    /// Memory; `None` lifts the limit.
    MemoryLimit(Option<Bytes>),
    /// Swap; `None` lifts the limit.
    MemorySwap(Option<Bytes>),
    /// Processes and threads; `None` lifts the limit.
    ProcessesLimit(Option<u32>),
    /// Space in the pool; `None` lifts the limit.
    DiskLimit(Option<Bytes>),
    /// Addresses of the node's choice.
    AddressAuto,
    /// These addresses, in place of all others.
    Addresses(Vec<IpAddr>),
    /// Name that the VE has for itself.
    Hostname(String),
    /// Name servers; none means those of the node.
    Dns(Vec<IpAddr>),
    /// Whether and when it starts with the node.
    Autostart(Autostart),
    /// Whether it refuses to be deleted.
    Protected(bool),
    /// Whether it may run containers of its own.
    Nesting(bool),
}

/// A `KEY=VALUE` that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSetting {
    /// There is no `=`.
    #[error("`{given}` is not KEY=VALUE")]
    NotAnAssignment {
        /// What was given.
        given: String,
    },
    /// No such key.
    #[error("unknown key `{given}`; {advice}")]
    UnknownKey {
        /// What was given.
        given: String,
        /// The nearest key, or all of them.
        advice: String,
    },
    /// The value is not a quantity of the key's kind.
    #[error("{key}")]
    Unit {
        /// The key whose value it is.
        key: Key,
        /// What is wrong with the value.
        source: InvalidUnit,
    },
    /// The value does not fit the key.
    #[error("{key}: `{given}` {rule}")]
    Value {
        /// The key whose value it is.
        key: Key,
        /// What was given.
        given: String,
        /// The rule that it breaks.
        rule: String,
    },
    /// One key has two values.
    #[error("{key} is given twice")]
    Twice {
        /// The key.
        key: Key,
    },
}

/// Least memory that lets an init run at all; below it the kernel kills every start.
const MEMORY_MIN: Bytes = Bytes::from_mebibytes(4);
/// Least space in which a distribution's first boot can write its logs and identity.
const DISK_MIN: Bytes = Bytes::from_mebibytes(16);
/// The kernel's bound on process numbers (`PID_MAX_LIMIT`, proc_sys_kernel(5)).
const PROCESSES_MAX: u32 = 4_194_304;
/// More addresses than this on one VE are a mistake or an attack on the route table.
const ADDRESSES_MAX: usize = 64;
/// glibc reads three name servers and no more (resolv.conf(5), MAXNS).
const DNS_MAX: usize = 3;
/// The kernel's bound on host names (`__NEW_UTS_LEN`, uname(2)).
const HOSTNAME_MAX: usize = 64;

impl Key {
    /// Every key, in the order of tables.
    pub const ALL: [Self; 13] = [
        Self::CpuLimit,
        Self::CpuShare,
        Self::CpuSet,
        Self::MemoryLimit,
        Self::MemorySwap,
        Self::ProcessesLimit,
        Self::DiskLimit,
        Self::Address,
        Self::Hostname,
        Self::Dns,
        Self::Autostart,
        Self::Protected,
        Self::Nesting,
    ];

    /// The word that people and scripts write.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CpuLimit => "cpu.limit",
            Self::CpuShare => "cpu.share",
            Self::CpuSet => "cpu.set",
            Self::MemoryLimit => "memory.limit",
            Self::MemorySwap => "memory.swap",
            Self::ProcessesLimit => "processes.limit",
            Self::DiskLimit => "disk.limit",
            Self::Address => "address",
            Self::Hostname => "hostname",
            Self::Dns => "dns",
            Self::Autostart => "autostart",
            Self::Protected => "protected",
            Self::Nesting => "nesting",
        }
    }

    /// Finds the key that a word names.
    ///
    /// # Errors
    /// An unknown word is refused with the nearest key, or with all of them.
    pub fn from_word(word: &str) -> Result<Self, InvalidSetting> {
        Self::ALL
            .into_iter()
            .find(|key| key.as_str() == word)
            .ok_or_else(|| {
                let distance = |key: &Self| edit_distance(word, key.as_str());
                let nearest = Self::ALL.into_iter().min_by_key(distance);
                let advice = match nearest {
                    Some(key) if distance(&key) <= 3 => format!("did you mean `{key}`?"),
                    _ => format!("the keys are {}", Self::ALL.map(Self::as_str).join(", ")),
                };
                InvalidSetting::UnknownKey {
                    given: word.chars().take(60).collect(),
                    advice,
                }
            })
    }

    /// The value that this key has in `spec`, as `set` would read it back; none where nothing is
    /// set.
    #[must_use]
    pub fn value_in(self, spec: &Spec) -> Option<String> {
        let Limits {
            cpu,
            cpu_share,
            cpu_set,
            memory,
            memory_swap,
            processes,
            disk,
        } = &spec.limits;
        match self {
            Self::CpuLimit => cpu.map(|value| value.to_string()),
            Self::CpuShare => cpu_share.map(|value| value.to_string()),
            Self::CpuSet => cpu_set.as_ref().map(ToString::to_string),
            Self::MemoryLimit => memory.map(|value| value.to_string()),
            Self::MemorySwap => memory_swap.map(|value| value.to_string()),
            Self::ProcessesLimit => processes.map(|value| value.to_string()),
            Self::DiskLimit => disk.map(|value| value.to_string()),
            Self::Address => join(&spec.addresses),
            Self::Hostname => Some(spec.hostname.clone()),
            Self::Dns => join(&spec.dns),
            Self::Autostart => Some(spec.autostart.to_string()),
            Self::Protected => Some(yes_or_no(spec.protected).to_owned()),
            Self::Nesting => Some(yes_or_no(spec.nesting).to_owned()),
        }
    }
}

impl Setting {
    /// Reads `KEY=VALUE`. `none` as a value takes a limit away.
    ///
    /// # Errors
    /// Refuses what has no `=`, an unknown key, and a value that cannot be right for its key.
    pub fn parse(assignment: &str) -> Result<Self, InvalidSetting> {
        let (word, value) =
            assignment
                .split_once('=')
                .ok_or_else(|| InvalidSetting::NotAnAssignment {
                    given: assignment.chars().take(60).collect(),
                })?;
        let key = Key::from_word(word.trim())?;
        let value = value.trim();
        Ok(match key {
            Key::CpuLimit => Self::CpuLimit(unless_none(value, |text| unit(key, text))?),
            Key::CpuShare => {
                Self::CpuShare(unless_none(value, |text| number(key, text, 1, 10_000))?)
            }
            Key::CpuSet => Self::CpuSet(unless_none(value, |text| unit(key, text))?),
            Key::MemoryLimit => {
                Self::MemoryLimit(unless_none(value, |text| size(key, text, MEMORY_MIN))?)
            }
            Key::MemorySwap => {
                Self::MemorySwap(unless_none(value, |text| size(key, text, Bytes::new(0)))?)
            }
            Key::ProcessesLimit => Self::ProcessesLimit(unless_none(value, |text| {
                number(key, text, 1, PROCESSES_MAX)
            })?),
            Key::DiskLimit => {
                Self::DiskLimit(unless_none(value, |text| size(key, text, DISK_MIN))?)
            }
            Key::Address if value == "auto" => Self::AddressAuto,
            Key::Address => Self::Addresses(addresses(key, value, ADDRESSES_MAX)?),
            Key::Hostname => Self::Hostname(hostname(value)?),
            Key::Dns => Self::Dns(addresses(key, value, DNS_MAX)?),
            Key::Autostart => Self::Autostart(autostart(value)?),
            Key::Protected => Self::Protected(truth(key, value)?),
            Key::Nesting => Self::Nesting(truth(key, value)?),
        })
    }

    /// Reads several assignments.
    ///
    /// # Errors
    /// Refuses all of them when one cannot be used, or when a key comes twice.
    pub fn parse_all<T: AsRef<str>>(assignments: &[T]) -> Result<Vec<Self>, InvalidSetting> {
        let mut settings: Vec<Self> = Vec::with_capacity(assignments.len());
        for assignment in assignments {
            let setting = Self::parse(assignment.as_ref())?;
            if settings
                .iter()
                .any(|earlier| earlier.key() == setting.key())
            {
                return Err(InvalidSetting::Twice { key: setting.key() });
            }
            settings.push(setting);
        }
        Ok(settings)
    }

    /// The key that this setting belongs to.
    #[must_use]
    pub fn key(&self) -> Key {
        match self {
            Self::CpuLimit(_) => Key::CpuLimit,
            Self::CpuShare(_) => Key::CpuShare,
            Self::CpuSet(_) => Key::CpuSet,
            Self::MemoryLimit(_) => Key::MemoryLimit,
            Self::MemorySwap(_) => Key::MemorySwap,
            Self::ProcessesLimit(_) => Key::ProcessesLimit,
            Self::DiskLimit(_) => Key::DiskLimit,
            Self::AddressAuto | Self::Addresses(_) => Key::Address,
            Self::Hostname(_) => Key::Hostname,
            Self::Dns(_) => Key::Dns,
            Self::Autostart(_) => Key::Autostart,
            Self::Protected(_) => Key::Protected,
            Self::Nesting(_) => Key::Nesting,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for Autostart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.pad("no"),
            Self::Order(order) => f.pad(&order.to_string()),
        }
    }
}

fn invalid(key: Key, given: &str, rule: impl Into<String>) -> InvalidSetting {
    InvalidSetting::Value {
        key,
        given: given.chars().take(80).collect(),
        rule: rule.into(),
    }
}

fn unless_none<T>(
    value: &str,
    read: impl FnOnce(&str) -> Result<T, InvalidSetting>,
) -> Result<Option<T>, InvalidSetting> {
    if value == "none" {
        Ok(None)
    } else {
        read(value).map(Some)
    }
}

fn unit<T: std::str::FromStr<Err = InvalidUnit>>(
    key: Key,
    text: &str,
) -> Result<T, InvalidSetting> {
    text.parse()
        .map_err(|source| InvalidSetting::Unit { key, source })
}

fn size(key: Key, text: &str, least: Bytes) -> Result<Bytes, InvalidSetting> {
    let bytes: Bytes = unit(key, text)?;
    if bytes < least {
        return Err(invalid(
            key,
            text,
            format!("is too little: it must be at least {least}"),
        ));
    }
    Ok(bytes)
}

fn number(key: Key, text: &str, least: u32, most: u32) -> Result<u32, InvalidSetting> {
    text.parse()
        .ok()
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| {
            invalid(
                key,
                text,
                format!("is not a whole number from {least} to {most}"),
            )
        })
}

fn addresses(key: Key, text: &str, most: usize) -> Result<Vec<IpAddr>, InvalidSetting> {
    if text == "none" {
        return Ok(Vec::new());
    }
    let mut addresses = Vec::new();
    for part in text.split(',') {
        let address: IpAddr = part
            .trim()
            .parse()
            .map_err(|_| invalid(key, part, "is not an IPv4 or IPv6 address"))?;
        if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
            return Err(invalid(key, part, "is not the address of one host"));
        }
        if addresses.contains(&address) {
            return Err(invalid(key, part, "is given twice"));
        }
        addresses.push(address);
    }
    if addresses.len() > most {
        return Err(invalid(
            key,
            text,
            format!("has more than {most} addresses"),
        ));
    }
    Ok(addresses)
}

/// RFC 1123, section 2.1: labels of letters, digits and dashes, joined by dots.
fn hostname(text: &str) -> Result<String, InvalidSetting> {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    if text.len() > HOSTNAME_MAX || !text.split('.').all(label) {
        let rule = "is not a host name: letters, digits, dashes and dots, at most 64 characters";
        return Err(invalid(Key::Hostname, text, rule));
    }
    Ok(text.to_owned())
}

fn autostart(text: &str) -> Result<Autostart, InvalidSetting> {
    match text {
        "no" | "off" | "false" => Ok(Autostart::Off),
        "yes" | "on" | "true" => Ok(Autostart::Order(Autostart::ORDER_DEFAULT)),
        _ => text.parse().map(Autostart::Order).map_err(|_| {
            invalid(
                Key::Autostart,
                text,
                "is not `yes`, `no` or a place in the order, as 10",
            )
        }),
    }
}

fn truth(key: Key, text: &str) -> Result<bool, InvalidSetting> {
    match text {
        "yes" | "on" | "true" => Ok(true),
        "no" | "off" | "false" => Ok(false),
        _ => Err(invalid(key, text, "is not `yes` or `no`")),
    }
}

fn yes_or_no(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

fn join(addresses: &[IpAddr]) -> Option<String> {
    let texts: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    (!texts.is_empty()).then(|| texts.join(","))
}

/// Number of single-letter insertions, deletions and substitutions between two short words
/// (Levenshtein, one row at a time).
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().take(100).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_every_key() {
        for (text, setting) in [
            (
                "cpu.limit=0.5",
                Setting::CpuLimit(Some(Cores::from_thousandths(500))),
            ),
            ("cpu.limit=none", Setting::CpuLimit(None)),
            ("cpu.share=300", Setting::CpuShare(Some(300))),
            (
                "memory.limit=512M",
                Setting::MemoryLimit(Some(Bytes::from_mebibytes(512))),
            ),
            ("processes.limit=200", Setting::ProcessesLimit(Some(200))),
            ("address=auto", Setting::AddressAuto),
            ("address=none", Setting::Addresses(Vec::new())),
            (
                "hostname=www.example.org",
                Setting::Hostname("www.example.org".into()),
            ),
            ("autostart=yes", Setting::Autostart(Autostart::Order(100))),
            ("autostart=7", Setting::Autostart(Autostart::Order(7))),
            ("protected=no", Setting::Protected(false)),
        ] {
            assert_eq!(Setting::parse(text).unwrap(), setting, "{text}");
        }
    }

    #[test]
    fn refusals_name_key_and_rule() {
        for (text, words) in [
            ("memory.limit", "is not KEY=VALUE"),
            ("memory.limt=1G", "did you mean `memory.limit`?"),
            ("colour=red", "the keys are"),
            ("memory.limit=5Mbit", "`5Mbit` is not a size"),
            ("memory.limit=1", "at least 4M"),
            ("memory.limit=-1", "not a size"),
            ("processes.limit=0", "whole number from 1"),
            ("cpu.share=20000", "from 1 to 10000"),
            ("address=10.0.0.300", "not an IPv4 or IPv6 address"),
            ("address=127.0.0.1", "not the address of one host"),
            ("address=10.0.0.1,10.0.0.1", "twice"),
            ("dns=1.1.1.1,1.1.1.2,1.1.1.3,1.1.1.4", "more than 3"),
            ("hostname=-x", "not a host name"),
            ("protected=maybe", "`yes` or `no`"),
        ] {
            let message = Setting::parse(text).unwrap_err().to_string();
            let shown = message.contains(words)
                || std::error::Error::source(&Setting::parse(text).unwrap_err())
                    .is_some_and(|source| source.to_string().contains(words));
            assert!(shown, "{text}: {message}");
        }
    }

    #[test]
    fn a_key_given_twice_is_refused() {
        let error = Setting::parse_all(&["cpu.share=1", "cpu.share=2"]).unwrap_err();
        assert_eq!(error, InvalidSetting::Twice { key: Key::CpuShare });
    }

    proptest! {
        #[test]
        fn no_assignment_panics(text in "\\PC*") {
            let _ = Setting::parse(&text);
            for key in Key::ALL {
                let _ = Setting::parse(&format!("{key}={text}"));
            }
        }
    }
}
