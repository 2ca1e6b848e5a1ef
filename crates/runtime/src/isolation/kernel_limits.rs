//! What of the kernel a VE may use up, as data with a reason each.
//!
//! Memory, processors, processes and disk are the control groups' and the pool's. What is counted
//! here costs the node something that no control group counts, or is one supply for all VEs.
//!
//! The numbers of namespaces are limits of the VE's own user namespace (namespaces(7),
//! `/proc/sys/user`). They are written by the VE's first process before it gives up
//! `CAP_SYS_RESOURCE`, which alone may change them: neither the VE's root nor a user namespace
//! below can raise them again.

/// A limit in `/proc/sys/user`.
#[derive(Clone, Copy, Debug)]
pub struct UserLimit {
    /// Its name there.
    pub name: &'static str,
    /// How many the VE may have at once, all its users together.
    pub most: u32,
    /// Why.
    pub reason: &'static str,
}

/// A limit of a file system that a VE gets.
#[derive(Clone, Copy, Debug)]
pub struct MountLimit {
    /// Where it is mounted.
    pub path: &'static str,
    /// The mount option.
    pub option: &'static str,
    /// Its value.
    pub most: &'static str,
    /// Why.
    pub reason: &'static str,
}

const fn user(name: &'static str, most: u32, reason: &'static str) -> UserLimit {
    UserLimit { name, most, reason }
}

/// Namespaces. A full Debian has about thirty mount namespaces (one for each service that hides
/// something) and at most a handful of the others; a VE that nests has one of each for each
/// container.
#[rustfmt::skip]
pub const USER_LIMITS: &[UserLimit] = &[
    user("max_net_namespaces", 128, "160 kB of the node's memory each, of which a part is not charged, and slow to end"),
    user("max_mnt_namespaces", 1_024, "each holds up to fs.mount-max mounts"),
    user("max_user_namespaces", 256, "each may hold all the other kinds"),
    user("max_pid_namespaces", 256, "each is one level of process numbers more"),
    user("max_ipc_namespaces", 256, "each has queues and segments of its own"),
    user("max_uts_namespaces", 256, "memory of the node"),
    user("max_cgroup_namespaces", 256, "memory of the node"),
    user("max_time_namespaces", 256, "memory of the node"),
];

/// Size of `/dev`, where names are few.
pub const DEV: MountLimit = MountLimit {
    path: "/dev",
    option: "size",
    most: "1M",
    reason: "only names belong there: keeps a VE from parking data where no quota looks",
};
/// Names in `/dev`.
pub const DEV_NAMES: MountLimit = MountLimit {
    path: "/dev",
    option: "nr_inodes",
    most: "1024",
    reason: "as its size",
};
/// Terminals.
pub const TERMINALS: MountLimit = MountLimit {
    path: "/dev/pts",
    option: "max",
    most: "256",
    reason: "terminals are one supply for the machine (`kernel.pty.max`)",
};
/// Names in `/run`.
pub const RUN_NAMES: MountLimit = MountLimit {
    path: "/run",
    option: "nr_inodes",
    most: "65536",
    reason: "inodes cost memory even where they are empty",
};

/// All that are fixed. The sizes of `/run` and `/dev/shm` are the VE's own
/// ([`crate::LaunchSpec`]).
pub const MOUNT_LIMITS: &[MountLimit] = &[DEV, DEV_NAMES, TERMINALS, RUN_NAMES];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_debian_fits() {
        for limit in USER_LIMITS {
            assert!(limit.most >= 128 && limit.most <= 1_024, "{}", limit.name);
            assert!(limit.reason.len() > 5, "{}", limit.name);
        }
        assert!(MOUNT_LIMITS.iter().all(|limit| limit.reason.len() > 5));
    }
}
