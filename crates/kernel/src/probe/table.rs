//! The rows: each feature with its purpose, its loss and its remedy.

use super::trials;
use super::{FeatureName, Finding, Need, network};

/// What is known of a feature before it is tried.
#[derive(Debug)]
pub struct Description {
    /// Which one.
    pub feature: FeatureName,
    /// What people call it.
    pub name: &'static str,
    /// Whether a node can do without.
    pub need: Need,
    /// What is lost without it.
    pub loss: &'static str,
    /// How to get it: a Debian package, an option of the kernel, a setting.
    pub remedy: &'static str,
    /// How it is tried.
    pub(super) trial: fn() -> Finding,
}

const fn needed(
    feature: FeatureName,
    name: &'static str,
    loss: &'static str,
    remedy: &'static str,
    trial: fn() -> Finding,
) -> Description {
    Description {
        feature,
        name,
        need: Need::Needed,
        loss,
        remedy,
        trial,
    }
}

const fn optional(
    feature: FeatureName,
    name: &'static str,
    loss: &'static str,
    remedy: &'static str,
    trial: fn() -> Finding,
) -> Description {
    Description {
        feature,
        name,
        need: Need::Optional,
        loss,
        remedy,
        trial,
    }
}

/// Every feature, most fundamental first.
pub static TABLE: [Description; 35] = [
    needed(
        FeatureName::Kernel,
        "kernel",
        "templates and private areas cannot be mounted",
        "boot Linux 6.12 or newer: Debian 13, Ubuntu 26.04, or linux-image-amd64 of backports",
        trials::kernel,
    ),
    needed(
        FeatureName::Root,
        "privileges",
        "nothing works",
        "run as root of the host, with all capabilities",
        trials::root,
    ),
    optional(
        FeatureName::ResourceLimits,
        "CAP_SYS_RESOURCE",
        "hard limits cannot be raised nor out-of-memory scores lowered, for the node and its VEs",
        "start the node where the capability is in the bounding set",
        trials::resource_limits,
    ),
    needed(
        FeatureName::ControlGroups,
        "control groups",
        "no VE can be held together, frozen or ended",
        "mount -t cgroup2 cgroup2 /sys/fs/cgroup, or boot with systemd",
        trials::control_groups,
    ),
    optional(
        FeatureName::Controllers,
        "cgroup controllers",
        "what a missing controller would limit is not limited",
        "remove cgroup_disable= from the kernel's command line",
        trials::controllers,
    ),
    optional(
        FeatureName::DeviceProgram,
        "device programs",
        "on cgroup2, devices are fenced by the user namespace alone",
        "kernel option CONFIG_CGROUP_BPF",
        trials::device_program,
    ),
    needed(
        FeatureName::UserNamespaces,
        "user namespaces",
        "VEs have no range of users of their own",
        "sysctl user.max_user_namespaces=65536; kernel option CONFIG_USER_NS",
        trials::user_namespaces,
    ),
    needed(
        FeatureName::Seccomp,
        "seccomp",
        "VEs could make system calls that they must not",
        "kernel option CONFIG_SECCOMP_FILTER",
        trials::seccomp,
    ),
    needed(
        FeatureName::Btrfs,
        "btrfs",
        "there can be no pool",
        "kernel option CONFIG_BTRFS_FS",
        trials::btrfs,
    ),
    needed(
        FeatureName::SimpleQuotas,
        "btrfs simple quotas",
        "limits of disk space cannot be held",
        "boot Linux 6.7 or newer",
        trials::simple_quotas,
    ),
    optional(
        FeatureName::LoopDevices,
        "loop devices",
        "the pool needs a device or a btrfs of its own: vessel init --device or --pool",
        "kernel option CONFIG_BLK_DEV_LOOP, or modprobe loop",
        trials::loop_devices,
    ),
    needed(
        FeatureName::Erofs,
        "erofs",
        "templates cannot be mounted",
        "kernel options CONFIG_EROFS_FS and CONFIG_EROFS_FS_BACKED_BY_FILE",
        trials::erofs,
    ),
    needed(
        FeatureName::Overlay,
        "overlay",
        "VEs have no root file system; where nfs_export is missing, only checkpoints take longer",
        "kernel option CONFIG_OVERLAY_FS; for nfs_export Linux 6.16",
        trials::overlay_finding,
    ),
    needed(
        FeatureName::Veth,
        "veth links",
        "VEs have no network",
        "kernel option CONFIG_VETH",
        network::veth,
    ),
    needed(
        FeatureName::Nftables,
        "nftables",
        "VEs could forge addresses, and have no way out",
        "apt install nftables; kernel options CONFIG_NF_TABLES, CONFIG_NFT_FIB_INET, CONFIG_NFT_MASQ",
        network::nftables,
    ),
    optional(
        FeatureName::Ipv6,
        "IPv6",
        "VEs have IPv4 only",
        "remove ipv6.disable=1 from the kernel's command line",
        network::ipv6,
    ),
    optional(
        FeatureName::Tun,
        "tun device",
        "VEs cannot make tunnels (OpenVPN, WireGuard in user space)",
        "kernel option CONFIG_TUN, or modprobe tun",
        trials::tun,
    ),
    optional(
        FeatureName::Fuse,
        "FUSE",
        "VEs cannot mount file systems of their own; /proc shows the host's numbers",
        "kernel option CONFIG_FUSE_FS, or modprobe fuse",
        trials::fuse,
    ),
    optional(
        FeatureName::PidfdExitStatus,
        "exit status by pidfd",
        "only the launcher itself learns how a VE ended",
        "boot Linux 6.15 or newer",
        trials::pidfd_exit_status,
    ),
    optional(
        FeatureName::Pressure,
        "pressure (PSI)",
        "alerts and automatic growth see use, not want",
        "boot with psi=1; kernel option CONFIG_PSI",
        trials::pressure,
    ),
    optional(
        FeatureName::SamePageMerging,
        "same-page merging (KSM)",
        "equal memory of different VEs is not shared (equal files are, always)",
        "kernel option CONFIG_KSM",
        trials::same_page_merging,
    ),
    optional(
        FeatureName::CheckpointRestore,
        "checkpoint and restore",
        "VEs can be neither suspended nor moved live",
        "kernel option CONFIG_CHECKPOINT_RESTORE",
        trials::checkpoint_restore,
    ),
    optional(
        FeatureName::MakeBtrfs,
        "mkfs.btrfs",
        "a pool cannot be made; an existing btrfs can be used",
        "apt install btrfs-progs",
        || trials::program("mkfs.btrfs"),
    ),
    needed(
        FeatureName::Nft,
        "nft",
        "VEs could forge addresses, and have no way out",
        "apt install nftables",
        || trials::program("nft"),
    ),
    optional(
        FeatureName::Mmdebstrap,
        "mmdebstrap",
        "templates cannot be built from packages; they can be imported",
        "apt install mmdebstrap",
        || trials::program("mmdebstrap"),
    ),
    optional(
        FeatureName::Xz,
        "xz",
        "templates cannot be imported from .tar.xz",
        "apt install xz-utils",
        || trials::program("xz"),
    ),
    optional(
        FeatureName::Zstd,
        "zstd",
        "packages and archives compressed by zstd unpack only by our own means",
        "apt install zstd",
        || trials::program("zstd"),
    ),
    optional(
        FeatureName::Unsquashfs,
        "unsquashfs",
        "templates cannot be imported from squashfs images",
        "apt install squashfs-tools",
        || trials::program("unsquashfs"),
    ),
    optional(
        FeatureName::Criu,
        "criu",
        "VEs can be neither suspended nor moved live",
        "`cargo xtask dependencies` fetches it; or apt install criu (4.2 or newer for Linux 6.16 and newer)",
        trials::criu,
    ),
    optional(
        FeatureName::ProcessNumbers,
        "kernel.pid_max",
        "hundreds of VEs run out of process numbers",
        "sysctl kernel.pid_max=4194304",
        trials::process_numbers,
    ),
    optional(
        FeatureName::InotifyInstances,
        "inotify instances",
        "services in a VE that watch files fail to start",
        "sysctl fs.inotify.max_user_instances=128 (each VE has as many of its own)",
        trials::inotify_instances,
    ),
    optional(
        FeatureName::Terminals,
        "pseudo terminals",
        "consoles of VEs and sessions in them run out",
        "sysctl kernel.pty.max=65536",
        trials::terminals,
    ),
    optional(
        FeatureName::Keys,
        "kernel keys",
        "systemd in a VE cannot make its key rings",
        "sysctl kernel.keys.maxkeys=200 (each VE has as many of its own)",
        trials::keys,
    ),
    optional(
        FeatureName::OpenFiles,
        "open files",
        "hundreds of VEs run out of open files",
        "sysctl fs.file-max=2000000",
        trials::open_files,
    ),
    optional(
        FeatureName::TrackedConnections,
        "tracked connections",
        "many connections of all VEs together are dropped",
        "sysctl net.netfilter.nf_conntrack_max=1048576",
        trials::tracked_connections,
    ),
];
