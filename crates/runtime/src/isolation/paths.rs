//! Which paths of `/proc` and `/sys` are hidden from a VE, as data with a reason each.
//!
//! The user namespace is the wall in front of `/proc` and `/sys`: what belongs to the node there is
//! owned by the node's root, whom a VE does not have. The VE's root may take these covers away;
//! they keep programs from what would only confuse them, and hide what ordinary users may read.
//! `/proc/sys` is left open on purpose: the kernel lets a VE write exactly what its own namespaces
//! hold (`net`, host name, IPC limits), and refuses the rest.

/// A path that is hidden.
#[derive(Clone, Copy, Debug)]
pub struct Masked {
    /// The path.
    pub path: &'static str,
    /// Why.
    pub reason: &'static str,
}

const fn masked(path: &'static str, reason: &'static str) -> Masked {
    Masked { path, reason }
}

/// Hidden paths. Those that a kernel lacks are passed over; a VE that nests has none hidden, since
/// the kernel lets nobody mount a `/proc` who sees only a covered one.
#[rustfmt::skip]
pub const MASKED: &[Masked] = &[
    masked("/proc/acpi", "the node's hardware"),
    masked("/proc/asound", "the node's hardware"),
    masked("/proc/bus", "the node's hardware"),
    masked("/proc/fs", "statistics of the node's file systems"),
    masked("/proc/irq", "the node's hardware"),
    masked("/proc/kcore", "the node's memory"),
    masked("/proc/keys", "keyrings are not for VEs"),
    masked("/proc/key-users", "numbers of keys of every VE's users"),
    masked("/proc/latency_stats", "measures the node"),
    masked("/proc/sched_debug", "processes of the node and other VEs"),
    masked("/proc/scsi", "the node's hardware"),
    masked("/proc/sysrq-trigger", "reboots the node"),
    masked("/proc/timer_list", "processes of the node and other VEs"),
    masked("/sys/firmware", "the node's hardware, and its boot variables"),
    masked("/sys/fs/btrfs", "the node's pool"),
    masked("/sys/fs/ext4", "the node's disks"),
    masked("/sys/devices/virtual/powercap", "power figures reveal what others compute (CVE-2020-8694)"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_is_one_of_the_kernels_own_file_systems() {
        for masked in MASKED {
            assert!(masked.path.starts_with("/proc/") || masked.path.starts_with("/sys/"));
            assert!(!masked.path.contains(".."));
            assert!(masked.reason.len() > 5);
        }
    }
}
