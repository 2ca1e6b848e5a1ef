//! Reading the values of settings.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use super::InvalidSetting;
use crate::spec::Autostart;
use crate::units::{Bytes, InvalidUnit};

/// The kernel's bound on host names (`__NEW_UTS_LEN`, uname(2)).
const HOSTNAME_MAX: usize = 64;

/// A word of people as it is told back to them: short, should somebody give a page of text.
pub(super) fn shortened(text: &str) -> String {
    text.chars().take(60).collect()
}

/// The word and the value of `KEY=VALUE`.
pub(super) fn assigned(assignment: &str) -> Result<(&str, &str), InvalidSetting> {
    let refuse = || InvalidSetting::NotAnAssignment {
        given: shortened(assignment),
    };
    let (word, value) = assignment.split_once('=').ok_or_else(refuse)?;
    Ok((word.trim(), value.trim()))
}

/// Reads several assignments; refuses all of them when one cannot be used, or when a key comes twice.
pub(super) fn each_once<S, T: AsRef<str>>(
    assignments: &[T],
    parse: impl Fn(&str) -> Result<S, InvalidSetting>,
    key: impl Fn(&S) -> &'static str,
) -> Result<Vec<S>, InvalidSetting> {
    let mut settings: Vec<S> = Vec::with_capacity(assignments.len());
    for assignment in assignments {
        let setting = parse(assignment.as_ref())?;
        let key_of_it = key(&setting);
        if settings.iter().any(|earlier| key(earlier) == key_of_it) {
            return Err(InvalidSetting::Twice { key: key_of_it });
        }
        settings.push(setting);
    }
    Ok(settings)
}

pub(super) fn invalid(key: &'static str, given: &str, rule: impl Into<String>) -> InvalidSetting {
    InvalidSetting::Value {
        key,
        given: given.chars().take(80).collect(),
        rule: rule.into(),
    }
}

pub(super) fn unless_none<T>(
    value: &str,
    read: impl FnOnce(&str) -> Result<T, InvalidSetting>,
) -> Result<Option<T>, InvalidSetting> {
    if value == "none" {
        Ok(None)
    } else {
        read(value).map(Some)
    }
}

pub(super) fn unit<T: FromStr<Err = InvalidUnit>>(
    key: &'static str,
    text: &str,
) -> Result<T, InvalidSetting> {
    text.parse()
        .map_err(|source| InvalidSetting::Unit { key, source })
}

/// Bytes per second, as `10M` or `10M/s`.
pub(super) fn rate(key: &'static str, text: &str, least: Bytes) -> Result<Bytes, InvalidSetting> {
    size(key, text.strip_suffix("/s").unwrap_or(text), least)
}

/// A quantity that must not be below the least useful one.
pub(super) fn at_least<T>(key: &'static str, text: &str, least: T) -> Result<T, InvalidSetting>
where
    T: FromStr<Err = InvalidUnit> + PartialOrd + std::fmt::Display,
{
    let value: T = unit(key, text)?;
    if value < least {
        let rule = format!("is too little: it must be at least {least}");
        return Err(invalid(key, text, rule));
    }
    Ok(value)
}

/// A quantity within bounds.
pub(super) fn within<T>(
    key: &'static str,
    text: &str,
    bounds: RangeInclusive<T>,
) -> Result<T, InvalidSetting>
where
    T: FromStr<Err = InvalidUnit> + PartialOrd + std::fmt::Display,
{
    let value: T = unit(key, text)?;
    if !bounds.contains(&value) {
        let rule = format!("is not from {} to {}", bounds.start(), bounds.end());
        return Err(invalid(key, text, rule));
    }
    Ok(value)
}

pub(super) fn size(key: &'static str, text: &str, least: Bytes) -> Result<Bytes, InvalidSetting> {
    at_least(key, text, least)
}

pub(super) fn number(
    key: &'static str,
    text: &str,
    least: u32,
    most: u32,
) -> Result<u32, InvalidSetting> {
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

pub(super) fn addresses(
    key: &'static str,
    text: &str,
    most: usize,
) -> Result<Vec<IpAddr>, InvalidSetting> {
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
pub(super) fn hostname(text: &str) -> Result<String, InvalidSetting> {
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
        return Err(invalid("hostname", text, rule));
    }
    Ok(text.to_owned())
}

pub(super) fn autostart(text: &str) -> Result<Autostart, InvalidSetting> {
    match text {
        "no" | "off" | "false" => Ok(Autostart::Off),
        "yes" | "on" | "true" => Ok(Autostart::Order(Autostart::ORDER_DEFAULT)),
        _ => text.parse().map(Autostart::Order).map_err(|_| {
            invalid(
                "autostart",
                text,
                "is not `yes`, `no` or a place in the order, as 10",
            )
        }),
    }
}

pub(super) fn truth(key: &'static str, text: &str) -> Result<bool, InvalidSetting> {
    match text {
        "yes" | "on" | "true" => Ok(true),
        "no" | "off" | "false" => Ok(false),
        _ => Err(invalid(key, text, "is not `yes` or `no`")),
    }
}

/// One line of text, of at most so many characters.
pub(super) fn words(key: &'static str, text: &str, most: usize) -> Result<String, InvalidSetting> {
    if text.is_empty() || text.chars().count() > most || text.chars().any(char::is_control) {
        let rule = format!("is not one line of text, of at most {most} characters");
        return Err(invalid(key, text, rule));
    }
    Ok(text.to_owned())
}

pub(super) fn yes_or_no(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

pub(super) fn join(addresses: &[IpAddr]) -> Option<String> {
    let texts: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    (!texts.is_empty()).then(|| texts.join(","))
}

/// Advice for a word that is none of `words`: the nearest, or all of them.
pub(super) fn nearest(word: &str, words: &[&str]) -> String {
    let nearest = words.iter().min_by_key(|known| edit_distance(word, known));
    match nearest {
        Some(known) if edit_distance(word, known) <= 3 => format!("did you mean `{known}`?"),
        _ => format!("the keys are {}", words.join(", ")),
    }
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
