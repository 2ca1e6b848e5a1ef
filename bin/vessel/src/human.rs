//! Quantities as people read them in tables. JSON never passes through here.

use api::latest::Timestamp;

/// What a VE is made from, as `vessel template list` names it.
pub(crate) fn stack(template: &str, revision: u32, applications: &[String]) -> String {
    let bare = match revision {
        1 => template.to_owned(),
        revision => format!("{template}@{revision}"),
    };
    applications
        .iter()
        .fold(bare, |stack, name| stack + "+" + name)
}

/// A size in three digits or fewer: `0`, `512`, `37M`, `1.4G`.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["K", "M", "G", "T", "P", "E"];
    if bytes < 1_000 {
        return bytes.to_string();
    }
    // Tenths of the unit, rounded; the next unit begins where four digits would.
    let mut unit_bytes: u128 = 1_024;
    for unit in UNITS {
        let tenths = (u128::from(bytes) * 10 + unit_bytes / 2) / unit_bytes;
        match tenths {
            0..100 if !tenths.is_multiple_of(10) => {
                return format!("{}.{}{unit}", tenths / 10, tenths % 10);
            }
            0..9_995 => return format!("{}{unit}", (tenths + 5) / 10),
            _ => unit_bytes *= 1_024,
        }
    }
    bytes.to_string()
}

/// A rate of bits per second: `10Mbit`.
pub(crate) fn bits_per_second(bits: u64) -> String {
    for (unit, factor) in [
        ("Gbit", 1_000_000_000),
        ("Mbit", 1_000_000),
        ("Kbit", 1_000),
    ] {
        if bits >= factor {
            let tenths = (bits % factor) * 10 / factor;
            return match tenths {
                0 => format!("{}{unit}", bits / factor),
                tenths => format!("{}.{tenths}{unit}", bits / factor),
            };
        }
    }
    format!("{bits}bit")
}

/// A number of processors: `0.5`, `2`.
pub(crate) fn cores(cores: f64) -> String {
    // The sum of no numbers is -0.0, which would be shown.
    let text = format!("{:.2}", cores + 0.0);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A span of time in its two largest units: `3d4h`, `12m5s`, `0.4s`.
pub(crate) fn seconds(seconds: f64) -> String {
    if seconds < 10.0 {
        return format!("{:.1}s", seconds.max(0.0));
    }
    // Counters of time are far below 2^53, where f64 holds whole seconds exactly.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at least 10 here; `as` saturates above"
    )]
    let whole = seconds as u64;
    let (days, hours, minutes) = (whole / 86_400, whole / 3_600 % 24, whole / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{whole}s"),
        (0, 0, minutes) => format!("{minutes}m{}s", whole % 60),
        (0, hours, minutes) => format!("{hours}h{minutes}m"),
        (days, hours, _) => format!("{days}d{hours}h"),
    }
}

/// A time in UTC to the second: `2026-11-21 10:33:14`.
pub(crate) fn time(time: Timestamp) -> String {
    time.to_string()
        .chars()
        .take(19)
        .map(|c| if c == 'T' { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_have_three_digits() {
        for (value, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1K"),
            (1_536, "1.5K"),
            (1 << 20, "1M"),
            (512 << 20, "512M"),
            ((1 << 30) - 1, "1G"),
            (1_500_000_000, "1.4G"),
            (10 << 40, "10T"),
            (u64::MAX, "16E"),
        ] {
            assert_eq!(bytes(value), text);
        }
    }

    #[test]
    fn spans_have_two_units() {
        for (value, text) in [
            (0.42, "0.4s"),
            (59.9, "59s"),
            (61.0, "1m1s"),
            (7_260.0, "2h1m"),
            (90_000.0, "1d1h"),
        ] {
            assert_eq!(seconds(value), text);
        }
        assert_eq!(cores(0.5), "0.5");
        assert_eq!(cores(2.0), "2");
        assert_eq!(cores(-0.0), "0");
        assert_eq!(bits_per_second(10_500_000), "10.5Mbit");
    }

    proptest! {
        #[test]
        fn sizes_never_need_more_than_four_columns(value: u64) {
            prop_assert!(bytes(value).len() <= 4, "{}", bytes(value));
        }
    }
}
