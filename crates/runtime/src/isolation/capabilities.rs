//! Which capabilities a VE never has, as data with a reason each.
//!
//! All capabilities of a VE are those of its own user namespace: over its own files, processes,
//! host name and network, never over the node. The ones dropped here mean nothing in a user
//! namespace; without them programs do not try, and a future kernel that lends one of them to user
//! namespaces lends it to no VE. `CAP_SYS_RESOURCE` is the exception: in a user namespace it is the
//! right to raise that namespace's own limits ([`super::kernel_limits`]), and what else servers know
//! it for (raising hard limits, reserved disk blocks) it never gave in one.

use rustix::thread::{CapabilitySet, CapabilitySets};

/// A capability that is dropped, also from the bounding set.
#[derive(Clone, Copy, Debug)]
pub struct Dropped {
    /// The capability.
    pub capability: CapabilitySet,
    /// Its name in capabilities(7).
    pub name: &'static str,
    /// Why.
    pub reason: &'static str,
}

const fn dropped(capability: CapabilitySet, name: &'static str, reason: &'static str) -> Dropped {
    Dropped {
        capability,
        name,
        reason,
    }
}

/// The list.
#[rustfmt::skip]
pub const DROPPED: &[Dropped] = &[
    dropped(CapabilitySet::SYS_MODULE, "CAP_SYS_MODULE", "loads code into the node's kernel"),
    dropped(CapabilitySet::SYS_RAWIO, "CAP_SYS_RAWIO", "hardware"),
    dropped(CapabilitySet::SYS_RESOURCE, "CAP_SYS_RESOURCE", "raises the limits of the VE's own user namespace (user.max_net_namespaces and the like)"),
    dropped(CapabilitySet::SYS_TIME, "CAP_SYS_TIME", "the node's clock; time services see that they need not run"),
    dropped(CapabilitySet::SYSLOG, "CAP_SYSLOG", "the node's kernel log"),
    dropped(CapabilitySet::MAC_ADMIN, "CAP_MAC_ADMIN", "the node's security policy"),
    dropped(CapabilitySet::MAC_OVERRIDE, "CAP_MAC_OVERRIDE", "the node's security policy"),
    dropped(CapabilitySet::WAKE_ALARM, "CAP_WAKE_ALARM", "wakes the node from sleep"),
    dropped(CapabilitySet::BLOCK_SUSPEND, "CAP_BLOCK_SUSPEND", "keeps the node from sleep"),
    dropped(CapabilitySet::PERFMON, "CAP_PERFMON", "measures the node and other VEs"),
    dropped(CapabilitySet::BPF, "CAP_BPF", "programs in the node's kernel"),
    dropped(CapabilitySet::CHECKPOINT_RESTORE, "CAP_CHECKPOINT_RESTORE", "checkpoints are the node's work"),
    dropped(CapabilitySet::AUDIT_READ, "CAP_AUDIT_READ", "the node's audit log"),
];

/// What a VE's root has.
#[must_use]
pub fn kept() -> CapabilitySet {
    DROPPED.iter().fold(CapabilitySet::all(), |kept, dropped| {
        kept - dropped.capability
    })
}

/// Drops the list from every set of this process, for good.
///
/// # Errors
/// `EPERM` without `CAP_SETPCAP` in this process's user namespace.
pub(crate) fn drop_for_ve() -> rustix::io::Result<()> {
    for dropped in DROPPED {
        rustix::thread::remove_capability_from_bounding_set(dropped.capability)?;
    }
    let kept = kept();
    let have = rustix::thread::capabilities(None)?;
    rustix::thread::clear_ambient_capability_set()?;
    rustix::thread::set_capabilities(
        None,
        CapabilitySets {
            effective: have.effective & kept,
            permitted: have.permitted & kept,
            inheritable: CapabilitySet::empty(),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_keeps_what_it_works_with() {
        for needed in [
            CapabilitySet::SYS_ADMIN,
            CapabilitySet::NET_ADMIN,
            CapabilitySet::NET_BIND_SERVICE,
            CapabilitySet::SYS_CHROOT,
            CapabilitySet::SYS_BOOT,
            CapabilitySet::SETUID,
            CapabilitySet::AUDIT_WRITE,
        ] {
            assert!(kept().contains(needed));
        }
        for dropped in DROPPED {
            assert!(!kept().contains(dropped.capability), "{}", dropped.name);
            assert!(dropped.reason.len() > 5, "{}", dropped.name);
        }
    }
}
