//! How many processes a machine has for VEs: what one gets that has no limit, and all together.

/// The kernel's own default of `kernel.pid_max`: a machine's worth.
const PROCESSES_DEFAULT_MAX: u32 = 32_768;
/// A full Debian has about a hundred threads.
const PROCESSES_DEFAULT_MIN: u32 = 512;

/// Most processes and threads of a VE that has no limit of its own: a quarter of what the machine
/// can have, and no more than the kernel's own default for a machine. Process numbers are one
/// supply for all, so "as much as there is" would let one VE keep every other from forking.
#[must_use]
pub fn processes_default() -> u32 {
    (machine_processes() / 4).clamp(PROCESSES_DEFAULT_MIN, PROCESSES_DEFAULT_MAX)
}

/// Most processes of all VEs of a node together: the rest is the node's own.
pub(crate) fn processes_of_all() -> u32 {
    let all = machine_processes();
    all.saturating_sub(all / 16).max(PROCESSES_DEFAULT_MIN)
}

/// How many processes and threads this machine can have.
fn machine_processes() -> u32 {
    let number =
        |path: &str| -> Option<u32> { std::fs::read_to_string(path).ok()?.trim().parse().ok() };
    let files = ["/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"];
    let known = files.into_iter().filter_map(number);
    known.min().unwrap_or(PROCESSES_DEFAULT_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_ve_takes_all_and_all_leave_some() {
        assert!(processes_default() >= PROCESSES_DEFAULT_MIN);
        assert!(processes_default() <= processes_of_all());
        assert!(processes_of_all() < machine_processes());
    }
}
