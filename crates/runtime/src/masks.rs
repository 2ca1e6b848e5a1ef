//! What is laid into a VE's `/run` at its start, as data with reasons: files that fit an unmodified
//! distribution into a VE. (Paths that are hidden are a wall: [`crate::isolation::paths`].)
//!
//! Files in `/run` are in memory and of this start only, so the VE's own image stays untouched and
//! a newer launcher brings newer ones.

use crate::spec::InitKind;

/// Units that have no work in a VE, or fail there and make it `degraded`.
#[rustfmt::skip]
const UNITS: &[&str] = &[
    // Mounts of kernel file systems that belong to the node.
    "sys-kernel-debug.mount", "sys-kernel-tracing.mount", "sys-kernel-config.mount",
    "sys-fs-fuse-connections.mount", "dev-hugepages.mount", "dev-mqueue.mount",
    "proc-sys-fs-binfmt_misc.automount", "proc-sys-fs-binfmt_misc.mount", "systemd-binfmt.service",
    // Modules, firmware, devices: the node's.
    "systemd-modules-load.service", "kmod-static-nodes.service", "systemd-pstore.service",
    "systemd-tmpfiles-setup-dev.service", "systemd-tmpfiles-setup-dev-early.service",
    "systemd-udevd.service", "systemd-udev-trigger.service", "systemd-hwdb-update.service",
    // Disks and the root file system: the node's.
    "systemd-remount-fs.service", "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer",
    "fstrim.service", "systemd-fsck-root.service", "systemd-growfs-root.service",
    // Randomness, boot measurements, first-boot questions: done by the node.
    "systemd-random-seed.service", "systemd-boot-random-seed.service",
    "systemd-pcrphase.service", "systemd-pcrphase-sysinit.service", "systemd-pcrmachine.service",
    "systemd-firstboot.service", "systemd-machine-id-commit.service",
    // The network is configured before init runs; waiting for it would wait in vain.
    "systemd-networkd-wait-online.service", "NetworkManager-wait-online.service",
    "ifupdown-wait-online.service",
];

/// A file to be laid into `/run`: its path beneath it, and its content.
pub(crate) type RunFile = (&'static str, &'static str);

/// Files for every VE: the network is configured already, whoever would manage it leaves `eth0`.
const FILES: &[RunFile] = &[
    ("host/container-manager", "vessel\n"),
    ("network/ifstate", "lo=lo\neth0=eth0\n"),
    (
        "NetworkManager/conf.d/00-vessel.conf",
        "[keyfile]\nunmanaged-devices=interface-name:eth0;interface-name:lo\n",
    ),
];

/// Files for systemd.
const SYSTEMD_FILES: &[RunFile] = &[
    (
        "systemd/network/00-vessel.network",
        "[Match]\nName=eth0\n\n[Link]\nUnmanaged=yes\n",
    ),
    // journald reserves 8 MiB of memory for its first file otherwise.
    (
        "systemd/journald.conf.d/00-vessel.conf",
        "[Journal]\nRuntimeMaxFileSize=512K\n",
    ),
    // Watches of memory pressure do not survive a checkpoint: process 1 would spin for ever. A
    // memory group for each service costs the node memory squared in the number of VEs.
    (
        "systemd/system.conf.d/00-vessel.conf",
        "[Manager]\nDefaultMemoryPressureWatch=off\nDefaultCPUPressureWatch=off\n\
         DefaultIOPressureWatch=off\nDefaultMemoryAccounting=no\nDefaultIOAccounting=no\n\
         DefaultCPUAccounting=no\n",
    ),
];

/// The filter refuses user namespaces, and for this one setting systemd does not do without.
const SYSTEMD_FILES_UNLESS_NESTING: &[RunFile] = &[(
    "systemd/system/service.d/00-vessel.conf",
    "[Service]\nPrivateUsers=no\n",
)];

/// Makes the SSH host keys at the first start, before a server looks for them.
///
/// The two kinds that every client of the last ten years takes, made in a millisecond each. An RSA
/// key takes a second of a processor, for each of hundreds of VEs that start together; whoever
/// needs one runs `ssh-keygen -A`.
const SSH_KEYS: &[RunFile] = &[
    (
        "systemd/system/vessel-ssh-keys.service",
        "[Unit]\nDescription=Make the SSH host keys of this VE\nDefaultDependencies=no\n\
         After=local-fs.target\nBefore=ssh.service sshd.service ssh.socket sshd.socket\n\
         ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key\n\n\
         [Service]\nType=oneshot\nRemainAfterExit=yes\n\
         ExecStart=-/usr/bin/ssh-keygen -q -t ecdsa -N \"\" -f /etc/ssh/ssh_host_ecdsa_key\n\
         ExecStart=/usr/bin/ssh-keygen -q -t ed25519 -N \"\" -f /etc/ssh/ssh_host_ed25519_key\n",
    ),
    (
        "systemd/system/ssh.service.d/00-vessel-keys.conf",
        SSH_KEYS_WANTED,
    ),
    (
        "systemd/system/sshd.service.d/00-vessel-keys.conf",
        SSH_KEYS_WANTED,
    ),
];

const SSH_KEYS_WANTED: &str =
    "[Unit]\nWants=vessel-ssh-keys.service\nAfter=vessel-ssh-keys.service\n";

/// Units to mask, as names in `/run/systemd/system`.
pub(crate) fn masked_units(kind: InitKind) -> &'static [&'static str] {
    match kind {
        InitKind::Systemd => UNITS,
        InitKind::Other => &[],
    }
}

/// Files to lay into `/run`.
pub(crate) fn run_files(
    kind: InitKind,
    nesting: bool,
    ssh_keys: bool,
) -> impl Iterator<Item = &'static RunFile> {
    let systemd = kind == InitKind::Systemd;
    let chosen = |wanted: bool, files: &'static [RunFile]| if wanted { files } else { &[] };
    FILES
        .iter()
        .chain(chosen(systemd, SYSTEMD_FILES))
        .chain(chosen(systemd && !nesting, SYSTEMD_FILES_UNLESS_NESTING))
        .chain(chosen(systemd && ssh_keys, SSH_KEYS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_stays_where_it_is_meant() {
        for (path, content) in run_files(InitKind::Systemd, false, true) {
            assert!(!path.starts_with('/') && !path.contains(".."), "{path}");
            assert!(content.ends_with('\n'), "{path}");
        }
        assert!(run_files(InitKind::Other, false, true).all(|(path, _)| !path.contains("systemd")));
    }
}
