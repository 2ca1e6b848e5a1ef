//! Text as the kernel writes it, from a VE's numbers. Pure: no file, no clock.
//!
//! Formats are those of the kernel's own `fs/proc` and `drivers/base/cpu.c`, since programs parse
//! them by position as often as by name.

mod cpuinfo;
mod diskstats;
mod loadavg;
mod meminfo;
mod stat;
mod swaps;
mod vmstat;

pub use cpuinfo::cpuinfo;
pub use diskstats::diskstats;
pub use loadavg::loadavg;
pub use meminfo::meminfo;
pub use stat::stat;
pub use swaps::swaps;
pub use vmstat::vmstat;

use std::time::Duration;

/// `/proc/uptime`: how long the VE has run, and how long all its processors together had nothing to
/// do (`proc_uptime(5)`).
#[must_use]
pub fn uptime(uptime: Duration, idle: Duration) -> String {
    let hundredths = |time: Duration| time.subsec_millis() / 10;
    format!(
        "{}.{:02} {}.{:02}\n",
        uptime.as_secs(),
        hundredths(uptime),
        idle.as_secs(),
        hundredths(idle)
    )
}

/// A list of processors as `/sys/devices/system/cpu/online` has it: `0-3,8`. Wants them ascending.
#[must_use]
pub fn processor_list(processors: &[u32]) -> String {
    let mut parts = Vec::new();
    let mut rest = processors;
    while let Some(first) = rest.first() {
        let run = rest
            .windows(2)
            .take_while(|two| two[0] + 1 == two[1])
            .count();
        match run {
            0 => parts.push(first.to_string()),
            _ => parts.push(format!("{first}-{}", rest[run])),
        }
        rest = &rest[run + 1..];
    }
    parts.join(",") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uptime_has_two_decimals() {
        let text = uptime(Duration::from_millis(61_009), Duration::from_millis(1_999));
        assert_eq!(text, "61.00 1.99\n");
    }

    #[test]
    fn lists_have_ranges() {
        for (processors, text) in [
            (&[][..], "\n"),
            (&[0], "0\n"),
            (&[0, 1], "0-1\n"),
            (&[0, 1, 2, 3, 8], "0-3,8\n"),
            (&[1, 3, 5, 6], "1,3,5-6\n"),
        ] {
            assert_eq!(processor_list(processors), text);
        }
    }
}
