//! Quantities as people write them: `512M`, `1.5G`, `0.5` cores, `50%`, `10Mbit`, `200iops`, `30s`.
//!
//! Sizes count in powers of 1,024 and bits in powers of 1,000, as the tools that people compare with
//! do. Every type prints in the form it reads, so what is shown can be typed back.

use std::fmt;
use std::str::FromStr;

/// An amount of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(u64);

/// An amount of processor time per time, in thousandths of a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cores(u32);

/// A rate of transfer over a network, in bits per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bits(u64);

/// A rate of disk operations per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Operations(u32);

/// A factor in thousandths, as of overcommitment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Factor(u32);

/// A part of a whole, in hundredths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent(u8);

/// A span of time in whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seconds(u64);

/// A text that is no quantity of the wanted kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not {wanted}: {rule}")]
pub struct InvalidUnit {
    given: String,
    wanted: &'static str,
    rule: &'static str,
}

impl InvalidUnit {
    /// Refuses `given` (shortened, should somebody give a page of text for a number).
    pub(crate) fn new(given: &str, wanted: &'static str, rule: &'static str) -> Self {
        Self {
            given: given.chars().take(40).collect(),
            wanted,
            rule,
        }
    }
}

const SIZE_SUFFIXES: [(&str, u64); 5] = [
    ("K", 1 << 10),
    ("M", 1 << 20),
    ("G", 1 << 30),
    ("T", 1 << 40),
    ("P", 1 << 50),
];

/// Names of rates; the short form without `bit` is not among them, as `10M` may mean bytes.
const RATE_SUFFIXES: [(&str, u64); 5] = [
    ("bit", 1),
    ("Kbit", 1_000),
    ("Mbit", 1_000_000),
    ("Gbit", 1_000_000_000),
    ("Tbit", 1_000_000_000_000),
];

impl Bytes {
    /// An amount from its number.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// An amount of mebibytes.
    #[must_use]
    pub const fn from_mebibytes(mebibytes: u32) -> Self {
        Self((mebibytes as u64) << 20)
    }

    /// The number of bytes.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl FromStr for Bytes {
    type Err = InvalidUnit;

    /// Reads `1048576`, `512K`, `512M`, `1.5G`, `2TiB`; the letter's case and a trailing `B` or
    /// `iB` do not matter.
    fn from_str(text: &str) -> Result<Self, InvalidUnit> {
        let refuse = |rule| InvalidUnit::new(text, "a size", rule);
        let (number, suffix) = split_number(text);
        let suffix = suffix.to_ascii_uppercase();
        let letter = suffix
            .strip_suffix("IB")
            .or(suffix.strip_suffix('B'))
            .unwrap_or(&suffix);
        let factor = match letter {
            "" if suffix != "IB" => 1,
            letter => {
                let known = SIZE_SUFFIXES.iter().find(|(name, _)| *name == letter);
                known
                    .ok_or_else(|| refuse("write it as 1048576, 512K, 512M, 1.5G or 2T"))?
                    .1
            }
        };
        decimal(number, factor)
            .map(Self)
            .ok_or_else(|| refuse("write it as 1048576, 512K, 512M, 1.5G or 2T, below 2^63 bytes"))
    }
}

impl fmt::Display for Bytes {
    /// The largest unit that shows the amount exactly with at most two decimals, else plain bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, factor) in SIZE_SUFFIXES.iter().rev() {
            if self.0 >= *factor && (u128::from(self.0) * 100).is_multiple_of(u128::from(*factor)) {
                let hundredths = u128::from(self.0) * 100 / u128::from(*factor);
                return f.pad(&format!("{}{name}", trim_decimals(hundredths, 2)));
            }
        }
        f.pad(&self.0.to_string())
    }
}

impl Cores {
    /// An amount from thousandths of a processor.
    #[must_use]
    pub const fn from_thousandths(thousandths: u32) -> Self {
        Self(thousandths)
    }

    /// The number of thousandths of a processor.
    #[must_use]
    pub const fn thousandths(self) -> u32 {
        self.0
    }
}

impl FromStr for Cores {
    type Err = InvalidUnit;

    /// Reads a number of processors as `0.5` or `2`, or as a share of one: `50%`, `200%`.
    fn from_str(text: &str) -> Result<Self, InvalidUnit> {
        let refuse = |rule| InvalidUnit::new(text, "an amount of CPU", rule);
        let thousandths = thousandths(text)
            .ok_or_else(|| refuse("write processors as 0.5 or 2, or a share of one as 50%"))?;
        if !(10..=1_024_000).contains(&thousandths) {
            return Err(refuse(
                "it must be at least 0.01 and at most 1024 processors",
            ));
        }
        Ok(Self(thousandths))
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&trim_decimals(u128::from(self.0), 3))
    }
}

impl Bits {
    /// A rate from its number of bits per second.
    #[must_use]
    pub const fn new(per_second: u64) -> Self {
        Self(per_second)
    }

    /// The number of bits per second.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl FromStr for Bits {
    type Err = InvalidUnit;

    /// Reads `64Kbit`, `10Mbit`, `1.5Gbit`, `10Mbit/s`; the letters' case does not matter.
    fn from_str(text: &str) -> Result<Self, InvalidUnit> {
        const RULE: &str = "write it as 500Kbit, 10Mbit or 1.5Gbit";
        let refuse = || InvalidUnit::new(text, "a rate of bits per second", RULE);
        let (number, suffix) = split_number(text);
        let suffix = suffix.strip_suffix("/s").unwrap_or(suffix);
        let known = RATE_SUFFIXES
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(suffix));
        let (_, factor) = known.ok_or_else(refuse)?;
        decimal(number, *factor).map(Self).ok_or_else(refuse)
    }
}

impl fmt::Display for Bits {
    /// The largest unit that shows the rate exactly with at most two decimals.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |factor: u64| {
            self.0 >= factor && (u128::from(self.0) * 100).is_multiple_of(u128::from(factor))
        };
        let known = RATE_SUFFIXES.iter().rev().find(|(_, factor)| fits(*factor));
        let (name, factor) = known.unwrap_or(&RATE_SUFFIXES[0]);
        let hundredths = u128::from(self.0) * 100 / u128::from(*factor);
        f.pad(&format!("{}{name}", trim_decimals(hundredths, 2)))
    }
}

impl Operations {
    /// A rate from its number of operations per second.
    #[must_use]
    pub const fn new(per_second: u32) -> Self {
        Self(per_second)
    }

    /// The number of operations per second.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl FromStr for Operations {
    type Err = InvalidUnit;

    /// Reads `200` and `200iops`.
    fn from_str(text: &str) -> Result<Self, InvalidUnit> {
        let number = text.strip_suffix("iops").unwrap_or(text);
        let digits = number.bytes().all(|byte| byte.is_ascii_digit());
        let parsed = number.parse().ok().filter(|_| digits);
        parsed.map(Self).ok_or_else(|| {
            InvalidUnit::new(
                text,
                "a rate of operations per second",
                "write it as 200iops",
            )
        })
    }
}

impl fmt::Display for Operations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}iops", self.0))
    }
}

impl Factor {
    /// A factor from its thousandths.
    #[must_use]
    pub const fn from_thousandths(thousandths: u32) -> Self {
        Self(thousandths)
    }

    /// The factor in thousandths.
    #[must_use]
    pub const fn thousandths(self) -> u32 {
        self.0
    }
}

impl FromStr for Factor {
    type Err = InvalidUnit;

    /// Reads `1.5` and `150%`, from 1 to 1,000.
    fn from_str(text: &str) -> Result<Self, InvalidUnit> {
        const RULE: &str = "write it as 1.5 or 150%, from 1 to 1000";
        thousandths(text)
            .filter(|value| (1_000..=1_000_000).contains(value))
            .map(Self)
            .ok_or_else(|| InvalidUnit::new(text, "a factor", RULE))
    }
}

impl fmt::Display for Factor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&trim_decimals(u128::from(self.0), 3))
    }
}

impl Percent {
    /// A part from its hundredths.
    #[must_use]
    pub const fn new(hundredths: u8) -> Self {
        Self(hundredths)
    }

    /// The number of hundredths.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }

    /// This part of an amount, rounded down.
    #[must_use]
    pub fn of(self, amount: u64) -> u64 {
        let part = u128::from(amount) * u128::from(self.0) / 100;
        u64::try_from(part).unwrap_or(u64::MAX)
    }
}

impl FromStr for Percent {
    type Err = InvalidUnit;

    /// Reads `80%`, from `1%` to `100%`.
    fn from_str(text: &str) -> Result<Self, InvalidUnit> {
        let digits = text.strip_suffix('%').unwrap_or_default();
        let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
        let parsed = digits.parse().ok().filter(|_| plain);
        parsed
            .filter(|hundredths| (1..=100).contains(hundredths))
            .map(Self)
            .ok_or_else(|| InvalidUnit::new(text, "a part of a whole", "write it as 80%"))
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}%", self.0))
    }
}

impl Seconds {
    /// A span from its number of seconds.
    #[must_use]
    pub const fn new(seconds: u64) -> Self {
        Self(seconds)
    }

    /// The number of seconds.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl FromStr for Seconds {
    type Err = InvalidUnit;

    /// Reads `30`, `30s`, `5m`, `2h`, `1d`.
    fn from_str(text: &str) -> Result<Self, InvalidUnit> {
        let refuse = || InvalidUnit::new(text, "a span of time", "write it as 30s, 5m, 2h or 1d");
        let (number, suffix) = split_number(text);
        let factor: u64 = match suffix {
            "" | "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => return Err(refuse()),
        };
        let number = number.parse::<u64>().map_err(|_| refuse())?;
        number.checked_mul(factor).map(Self).ok_or_else(refuse)
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}s", self.0))
    }
}

/// Splits `1.5GiB` into its number and what follows.
fn split_number(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    text.split_at(end)
}

/// Thousandths of `1.5` or `150%`; nothing for any other text.
fn thousandths(text: &str) -> Option<u32> {
    let (number, suffix) = split_number(text);
    let factor = match suffix {
        "" => 1_000,
        "%" => 10,
        _ => return None,
    };
    u32::try_from(decimal(number, factor)?).ok()
}

/// `number * factor` rounded down, for a plain decimal number; nothing for any other text, for
/// more than nine decimals, and from 2^63 on (beyond what the kernel's signed counters hold).
fn decimal(number: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let factor = u128::from(factor);
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let whole = whole.parse::<u128>().ok()?.checked_mul(factor)?;
    let fraction = fraction.parse::<u128>().ok()? * factor / scale;
    u64::try_from(whole.checked_add(fraction)?)
        .ok()
        .filter(|value| *value < 1 << 63)
}

/// Writes a number of `10^-decimals` without trailing zeros: 1500 with 3 is `1.5`.
fn trim_decimals(value: u128, decimals: u32) -> String {
    let scale = 10_u128.pow(decimals);
    let text = format!(
        "{}.{:0width$}",
        value / scale,
        value % scale,
        width = decimals as usize
    );
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_sizes_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("1048576", 1 << 20),
            ("512M", 512 << 20),
            ("512MiB", 512 << 20),
            ("512mb", 512 << 20),
            ("1.5G", 3 << 29),
            ("2T", 2 << 40),
            ("7B", 7),
        ] {
            assert_eq!(text.parse::<Bytes>().unwrap().get(), bytes, "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_size() {
        for text in [
            "", "M", "-1", "1,5G", "5 G", "1e30", "10X", "1.2.3G", ".", "1iB", "9999999P",
        ] {
            let error = text.parse::<Bytes>().unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("`{text}` is not a size")),
                "{error}"
            );
        }
    }

    #[test]
    fn reads_processors_and_shares_of_one() {
        assert_eq!("0.5".parse::<Cores>().unwrap().thousandths(), 500);
        assert_eq!("50%".parse::<Cores>().unwrap().thousandths(), 500);
        assert_eq!("2".parse::<Cores>().unwrap().to_string(), "2");
        for text in ["0", "0.001", "2000", "half", "5Mbit", ""] {
            assert!(text.parse::<Cores>().is_err(), "{text}");
        }
    }

    #[test]
    fn reads_rates_and_factors() {
        for (text, bits) in [
            ("64Kbit", 64_000),
            ("10mbit", 10_000_000),
            ("1.5Gbit/s", 1_500_000_000),
            ("100bit", 100),
        ] {
            assert_eq!(text.parse::<Bits>().unwrap().get(), bits, "{text}");
        }
        assert_eq!(Bits::new(0).to_string(), "0bit");
        assert_eq!("200iops".parse::<Operations>().unwrap().get(), 200);
        assert_eq!("200".parse::<Operations>().unwrap().to_string(), "200iops");
        assert_eq!("150%".parse::<Factor>().unwrap().to_string(), "1.5");
        for text in ["10M", "10", "-1Mbit", "1e30bit", "bit", "10Mibit", "10MB"] {
            assert!(text.parse::<Bits>().is_err(), "{text}");
        }
        for text in ["", "iops", "-1", "+1", "1.5iops", "99999999999", "5Mbit"] {
            assert!(text.parse::<Operations>().is_err(), "{text}");
        }
        for text in ["0.5", "", "2000", "x"] {
            assert!(text.parse::<Factor>().is_err(), "{text}");
        }
        assert_eq!("80%".parse::<Percent>().unwrap().of(1 << 30), 858_993_459);
        for text in ["80", "0%", "101%", "-1%", "+1%", "%", "", "1.5%", "999%"] {
            assert!(text.parse::<Percent>().is_err(), "{text}");
        }
    }

    #[test]
    fn reads_spans() {
        assert_eq!("30".parse::<Seconds>().unwrap().get(), 30);
        assert_eq!("5m".parse::<Seconds>().unwrap().get(), 300);
        for text in [
            "",
            "5x",
            "-3s",
            "99999999999999999999",
            "1.5h",
            "9999999999999999999d",
        ] {
            assert!(text.parse::<Seconds>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(bytes in 0_u64..(1 << 63), thousandths in 10_u32..1_024_000) {
            prop_assert_eq!(Bytes::new(bytes).to_string().parse::<Bytes>().unwrap().get(), bytes);
            let cores = Cores::from_thousandths(thousandths);
            prop_assert_eq!(cores.to_string().parse::<Cores>().unwrap(), cores);
            prop_assert_eq!(Bits::new(bytes).to_string().parse::<Bits>().unwrap().get(), bytes);
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = text.parse::<Bytes>();
            let _ = text.parse::<Cores>();
            let _ = text.parse::<Bits>();
            let _ = text.parse::<Operations>();
            let _ = text.parse::<Factor>();
            let _ = text.parse::<Percent>();
            let _ = text.parse::<Seconds>();
        }
    }
}
