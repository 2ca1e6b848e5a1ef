//! What must hold: `memory_used_ratio > 90%`, `rate(disk_bytes) > 10M`.

use std::fmt;

/// How a value is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// It is more.
    Above,
    /// It is less.
    Below,
}

/// A condition on one metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// Name of the metric.
    pub metric: String,
    /// Whether its change in a second is compared, between two readings, and not itself.
    pub rate: bool,
    /// How.
    pub comparison: Comparison,
    /// With what, in the metric's base unit.
    pub threshold: f64,
}

/// A text that is no condition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCondition {
    /// It does not have the form.
    #[error(
        "`{0}` is no condition: write it as `memory_used_ratio > 90%` or `rate(disk_bytes) > 10M`"
    )]
    Form(String),
    /// It compares with no number.
    #[error("`{0}` is no number to compare with: write it as 0.9, 90%, 512M or 1.5G")]
    Number(String),
    /// There is no such metric.
    #[error("there is no metric `{metric}`; did you mean `{nearest}`?")]
    Metric {
        /// What was written.
        metric: String,
        /// What is most like it.
        nearest: String,
    },
}

impl Condition {
    /// Reads a condition on one of the `known` metrics.
    ///
    /// # Errors
    /// Refuses what has not the form `METRIC > NUMBER`, and a metric that is not known.
    pub fn parse(text: &str, known: &[&str]) -> Result<Self, InvalidCondition> {
        let short = || text.chars().take(80).collect::<String>();
        let form = || InvalidCondition::Form(short());
        let (left, comparison, right) = if let Some((left, right)) = text.split_once('>') {
            (left, Comparison::Above, right)
        } else if let Some((left, right)) = text.split_once('<') {
            (left, Comparison::Below, right)
        } else {
            return Err(form());
        };
        let left = left.trim();
        let within = left
            .strip_prefix("rate(")
            .map(|rest| rest.strip_suffix(')').ok_or_else(form))
            .transpose()?;
        let metric = within.unwrap_or(left).trim();
        if metric.is_empty() {
            return Err(form());
        }
        if !known.contains(&metric) {
            let nearest = known.iter().min_by_key(|name| distance(metric, name));
            return Err(InvalidCondition::Metric {
                metric: metric.chars().take(80).collect(),
                nearest: nearest.copied().unwrap_or_default().to_owned(),
            });
        }
        Ok(Self {
            metric: metric.to_owned(),
            rate: within.is_some(),
            comparison,
            threshold: number(right.trim())?,
        })
    }

    /// Whether a value meets it.
    #[must_use]
    pub fn holds(&self, value: f64) -> bool {
        match self.comparison {
            Comparison::Above => value > self.threshold,
            Comparison::Below => value < self.threshold,
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.comparison {
            Comparison::Above => '>',
            Comparison::Below => '<',
        };
        match self.rate {
            true => write!(f, "rate({}) {sign} {}", self.metric, self.threshold),
            false => write!(f, "{} {sign} {}", self.metric, self.threshold),
        }
    }
}

/// Reads `0.9`, `90%`, `512M`, and any of them with `/s` behind.
fn number(text: &str) -> Result<f64, InvalidCondition> {
    let refused = || InvalidCondition::Number(text.chars().take(40).collect());
    let plain = text.strip_suffix("/s").unwrap_or(text);
    let (plain, factor) = match plain.strip_suffix('%') {
        Some(percent) => (percent, 0.01),
        None => match plain.char_indices().last() {
            Some((at, letter)) if letter.is_ascii_alphabetic() => {
                let power = "KMGTP"
                    .find(letter.to_ascii_uppercase())
                    .ok_or_else(refused)?;
                let exponent = i32::try_from(power + 1).map_err(|_| refused())?;
                (&plain[..at], 1_024_f64.powi(exponent))
            }
            _ => (plain, 1.0),
        },
    };
    let digits = plain
        .chars()
        .all(|c| c.is_ascii_digit() || c == '.' || c == '-');
    let number: f64 = plain
        .parse()
        .ok()
        .filter(|number: &f64| digits && number.is_finite())
        .ok_or_else(refused)?;
    Ok(number * factor)
}

/// How many letters are to be put in, out or changed to make one word of another.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, letter) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (column, wanted) in other.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *wanted);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 3] = ["memory_used_ratio", "disk_bytes", "processes"];

    fn parse(text: &str) -> Result<Condition, InvalidCondition> {
        Condition::parse(text, &KNOWN)
    }

    #[test]
    fn numbers_have_the_units_that_people_write() {
        let threshold = |text: &str| parse(text).unwrap().threshold;
        assert!((threshold("memory_used_ratio > 90%") - 0.9).abs() < 1e-9);
        assert!((threshold("disk_bytes<1.5G") - 1.5 * 1024.0 * 1024.0 * 1024.0).abs() < 1.0);
        assert!((threshold("rate(disk_bytes) > 10M/s") - 10_485_760.0).abs() < 1e-9);
        assert!((threshold("rate( disk_bytes ) < -5") + 5.0).abs() < 1e-9);
        assert!(parse("rate(disk_bytes) > 1").unwrap().rate);
        assert_eq!(parse("processes > 7").unwrap().to_string(), "processes > 7");
    }

    #[test]
    fn what_is_no_condition_is_refused_by_name() {
        for text in [
            "",
            "processes",
            "> 5",
            "rate(processes > 5",
            "processes = 5",
        ] {
            assert!(
                matches!(parse(text), Err(InvalidCondition::Form(_))),
                "{text}"
            );
        }
        for text in [
            "processes > many",
            "processes > NaN",
            "processes > 1e400",
            "processes > 5X",
            "processes >",
        ] {
            assert!(
                matches!(parse(text), Err(InvalidCondition::Number(_))),
                "{text}"
            );
        }
        let error = parse("memory_use_ratio > 1").unwrap_err().to_string();
        assert!(
            error.contains("did you mean `memory_used_ratio`"),
            "{error}"
        );
    }
}
