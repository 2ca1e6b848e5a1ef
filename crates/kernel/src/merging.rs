//! Merging of equal memory pages (KSM, Documentation/admin-guide/mm/ksm.rst).
//!
//! A process chooses for itself, and for all that it makes and executes from then on. The kernel's thread
//! `ksmd` looks for equal pages of all such processes while the node's administrator lets it.

use std::io;
use std::path::Path;

/// `PR_SET_MEMORY_MERGE` and `PR_GET_MEMORY_MERGE` of linux/prctl.h, since Linux 6.4.
const SET_MEMORY_MERGE: libc::c_int = 67;
const GET_MEMORY_MERGE: libc::c_int = 68;

/// Where the kernel is told, and tells.
const FOLDER: &str = "/sys/kernel/mm/ksm";

/// Whether this machine merges memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merging {
    /// The kernel cannot.
    Missing,
    /// It could, and nobody told it to.
    Off,
    /// It does.
    On,
}

/// What merging does for a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// Pages that it shares with others, or with itself.
    pub pages: u64,
    /// Bytes that this saves, less what the kernel needs to know of it; negative where it costs more.
    pub profit_bytes: i64,
}

/// What merging costs and saves on the whole machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MergingCosts {
    /// Processor time of `ksmd` since boot, in clock ticks.
    pub cpu_ticks: u64,
    /// Bytes saved, less what the kernel needs for it.
    pub profit_bytes: i64,
}

/// Lets the memory of this process, and of all that it makes and executes, be merged.
///
/// # Errors
/// `EINVAL` where the kernel cannot, `EPERM` where it wants `CAP_SYS_RESOURCE` for it.
pub fn merge_own_memory() -> io::Result<()> {
    // SAFETY: this request takes numbers only, of which all but the first must be zero.
    let result = unsafe { libc::prctl(SET_MEMORY_MERGE, 1_u64, 0_u64, 0_u64, 0_u64) };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether the memory of this process may be merged.
#[must_use]
pub fn merges_own_memory() -> bool {
    // SAFETY: this request takes numbers only, all of which must be zero.
    let result = unsafe { libc::prctl(GET_MEMORY_MERGE, 0_u64, 0_u64, 0_u64, 0_u64) };
    result == 1
}

/// Whether this machine merges memory now.
#[must_use]
pub fn merging() -> Merging {
    // SAFETY: this request takes numbers only, all of which must be zero.
    let known = unsafe { libc::prctl(GET_MEMORY_MERGE, 0_u64, 0_u64, 0_u64, 0_u64) } >= 0;
    match std::fs::read_to_string(Path::new(FOLDER).join("run")) {
        Ok(text) if known && text.trim() == "1" => Merging::On,
        Ok(_) if known => Merging::Off,
        _ => Merging::Missing,
    }
}

/// What merging does for a process.
///
/// # Errors
/// When it has ended, or the kernel does not tell (before 6.1).
pub fn merged(pid: u32) -> io::Result<Merged> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/ksm_stat"))?;
    Ok(parse(&text))
}

/// Lines of `name value`, some with a colon.
fn parse(text: &str) -> Merged {
    let field = |name: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        let value = lines.find(|(key, _)| key.trim_end_matches(':') == name);
        value.and_then(|(_, value)| value.trim().parse::<i64>().ok())
    };
    let pages = |name| {
        field(name)
            .and_then(|pages| u64::try_from(pages).ok())
            .unwrap_or(0)
    };
    Merged {
        pages: pages("ksm_merging_pages") + pages("ksm_zero_pages"),
        profit_bytes: field("ksm_process_profit").unwrap_or(0),
    }
}

/// What merging costs and saves on the whole machine; nothing where there is no `ksmd`.
#[must_use]
pub fn merging_costs() -> Option<MergingCosts> {
    let profit = std::fs::read_to_string(Path::new(FOLDER).join("general_profit")).ok()?;
    Some(MergingCosts {
        cpu_ticks: daemon_ticks()?,
        profit_bytes: profit.trim().parse().ok()?,
    })
}

/// Processor time of `ksmd`: a child of `kthreadd`, made at boot, so with a small number.
fn daemon_ticks() -> Option<u64> {
    let mut pids: Vec<u32> = std::fs::read_dir("/proc")
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    let stats = pids
        .iter()
        .filter_map(|pid| std::fs::read_to_string(format!("/proc/{pid}/stat")).ok());
    let stat = stats.take(2_000).find(|stat| {
        [") S 2 ", ") R 2 ", ") D 2 "]
            .iter()
            .any(|of| stat.contains(&format!(" (ksmd{of}")))
    })?;
    // Fields 14 and 15 of proc_pid_stat(5), counted behind the name.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(ticks(11)? + ticks(12)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_of_a_process_are_read() {
        let text = "ksm_rmap_items 9\nksm_zero_pages 2\nksm_merging_pages 5\nksm_process_profit -288\n\
                    ksm_merge_any: yes\n";
        let expected = Merged {
            pages: 7,
            profit_bytes: -288,
        };
        assert_eq!(parse(text), expected);
        assert_eq!(parse(""), Merged::default());
    }

    #[test]
    fn a_choice_is_told_by_the_kernel() {
        if merging() == Merging::Missing {
            assert!(merge_own_memory().is_err());
            return;
        }
        assert!(!merges_own_memory());
        if merge_own_memory().is_ok() {
            assert!(merges_own_memory());
            assert!(merged(std::process::id()).is_ok());
        }
    }
}
