//! Months of the calendar in UTC, which bills are made for.

use std::fmt;
use std::str::FromStr;

/// Seconds of a day; UTC as clocks tell it has no others.
const DAY_SECONDS: u64 = 86_400;

/// A month in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month {
    year: u16,
    /// 1 to 12.
    month: u8,
}

/// A text that is no month.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a month: write it as 2026-11")]
pub struct InvalidMonth(String);

impl Month {
    /// The month of a time in seconds since 1970. Times after the year 9999 are in its last month.
    #[must_use]
    pub fn of(seconds: u64) -> Self {
        // Days are counted in eras of 400 years that begin in March of the year 0, as in Howard Hinnant's
        // "chrono-compatible low-level date algorithms".
        let days = seconds / DAY_SECONDS + 719_468;
        let (era, day) = (days / 146_097, days % 146_097);
        let year_of_era = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day_of_year = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * day_of_year + 2) / 153;
        let month = if from_march < 10 {
            from_march + 3
        } else {
            from_march - 9
        };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        match (u16::try_from(year), u8::try_from(month)) {
            (Ok(year), Ok(month)) if year <= 9_999 => Self { year, month },
            _ => Self {
                year: 9_999,
                month: 12,
            },
        }
    }

    /// When it begins, in seconds since 1970; months before that begin then.
    #[must_use]
    pub fn start(self) -> u64 {
        let month = u64::from(self.month);
        let year = u64::from(self.year) - u64::from(month <= 2);
        let (era, year_of_era) = (year / 400, year % 400);
        let from_march = (month + 9) % 12;
        let day_of_era =
            year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + (153 * from_march + 2) / 5;
        (era * 146_097 + day_of_era).saturating_sub(719_468) * DAY_SECONDS
    }

    /// The month after it.
    #[must_use]
    pub fn next(self) -> Self {
        match self.month {
            12 => Self {
                year: self.year.saturating_add(1),
                month: 1,
            },
            month => Self {
                year: self.year,
                month: month + 1,
            },
        }
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:04}-{:02}", self.year, self.month))
    }
}

impl FromStr for Month {
    type Err = InvalidMonth;

    fn from_str(text: &str) -> Result<Self, InvalidMonth> {
        let refused = || InvalidMonth(text.chars().take(40).collect());
        let (year, month) = text.split_once('-').ok_or_else(refused)?;
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if year.len() != 4 || month.len() != 2 || !digits(year) || !digits(month) {
            return Err(refused());
        }
        let (year, month) = (
            year.parse().map_err(|_| refused())?,
            month.parse().map_err(|_| refused())?,
        );
        if !(1970..=9_999).contains(&year) || !(1..=12).contains(&month) {
            return Err(refused());
        }
        Ok(Self { year, month })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_days_fall_into_their_months() {
        assert_eq!(Month::of(0).to_string(), "1970-01");
        // 2024-02-29T23:59:59Z and a second later; 2026-11-21T15:20:02Z.
        assert_eq!(Month::of(1_709_251_199).to_string(), "2024-02");
        assert_eq!(Month::of(1_709_251_200).to_string(), "2024-03");
        assert_eq!(Month::of(1_795_274_402).to_string(), "2026-11");
        for text in ["2026-13", "2026-1", "1969-12", "+026-11", "november"] {
            assert!(text.parse::<Month>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_month_holds_the_times_from_its_start_to_the_next(seconds in 0_u64..250_000_000_000) {
            let month = Month::of(seconds);
            prop_assert!(month.start() <= seconds && seconds < month.next().start());
            prop_assert_eq!(month.to_string().parse::<Month>(), Ok(month));
        }
    }
}
