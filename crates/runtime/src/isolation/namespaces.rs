//! Which namespaces a VE has, as data with what each stops.

use kernel::clone::namespaces;

/// When a VE gets a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Its first process is born in it; the kernel's flag.
    Birth(u64),
    /// Its first process makes it once it is in the VE's control groups, which become the root of
    /// its view.
    Entry,
    /// Never: the VE shares the node's.
    Shared,
}

/// A kind of namespace.
#[derive(Clone, Copy, Debug)]
pub struct Namespace {
    /// Its name in `/proc/PID/ns`.
    pub name: &'static str,
    /// When a VE gets its own.
    pub from: Origin,
    /// What it stops, or why there is none.
    pub reason: &'static str,
}

const fn own(name: &'static str, from: Origin, reason: &'static str) -> Namespace {
    Namespace { name, from, reason }
}

/// All kinds that Linux has (namespaces(7)).
#[rustfmt::skip]
pub const NAMESPACES: &[Namespace] = &[
    own("user", Origin::Birth(namespaces::USER), "root of the VE is nobody on the node: its rights end at the VE's own objects"),
    own("mnt", Origin::Birth(namespaces::MOUNT), "no file of the node or of another VE has a path"),
    own("pid", Origin::Birth(namespaces::PID), "no process outside can be named, signalled or traced"),
    own("net", Origin::Birth(namespaces::NETWORK), "own links, routes, sockets and filters; no port of the node"),
    own("uts", Origin::Birth(namespaces::UTS), "own host name"),
    own("ipc", Origin::Birth(namespaces::IPC), "no shared memory, semaphore or message queue outside"),
    own("cgroup", Origin::Entry, "its limits lie above what it sees and cannot be written"),
    own("time", Origin::Entry, "its uptime and its processes' ages are its own, and go on when it wakes elsewhere; the date is the node's"),
];

/// The flags of the namespaces that a VE's first process is born in.
#[must_use]
pub fn at_birth() -> u64 {
    NAMESPACES
        .iter()
        .fold(0, |flags, namespace| match namespace.from {
            Origin::Birth(flag) => flags | flag,
            Origin::Entry | Origin::Shared => flags,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_a_ves_own() {
        assert!(NAMESPACES.iter().all(|n| n.from != Origin::Shared));
        assert_eq!(at_birth().count_ones(), 6);
    }
}
