//! The trials, but for the network's.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{FsOpenFlags, fsconfig_create, fsconfig_set_string, fsopen};
use rustix::thread::CapabilitySet;

use super::{Finding, KERNEL_MINIMUM, OverlayProfile, Status, Version};
use crate::device_program::DeviceProgram;
use crate::proc;

pub(super) fn kernel() -> Finding {
    let system = rustix::system::uname();
    let release = system.release().to_string_lossy();
    match release.parse::<Version>() {
        Ok(version) if version >= KERNEL_MINIMUM => Finding::present(release),
        Ok(_) => Finding::missing(format!(
            "this is {release}, and {KERNEL_MINIMUM} is the oldest that works"
        )),
        Err(_) => Finding::limited(format!("`{release}` is no release that is known")),
    }
}

fn effective_capabilities() -> CapabilitySet {
    rustix::thread::capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective)
}

pub(super) fn root() -> Finding {
    let wanted = [
        (CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN"),
        (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
        (CapabilitySet::SETUID, "CAP_SETUID"),
        (CapabilitySet::SETGID, "CAP_SETGID"),
        (CapabilitySet::CHOWN, "CAP_CHOWN"),
        (CapabilitySet::DAC_OVERRIDE, "CAP_DAC_OVERRIDE"),
        (CapabilitySet::MKNOD, "CAP_MKNOD"),
        (CapabilitySet::KILL, "CAP_KILL"),
        (CapabilitySet::SETFCAP, "CAP_SETFCAP"),
    ];
    let have = effective_capabilities();
    let lacking: Vec<_> = wanted
        .iter()
        .filter(|(flag, _)| !have.contains(*flag))
        .map(|(_, name)| *name)
        .collect();
    // In a user namespace root has all capabilities and may yet do little.
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let whole = map.split_whitespace().eq(["0", "0", "4294967295"]);
    match (
        rustix::process::geteuid().is_root(),
        lacking.is_empty(),
        whole,
    ) {
        (false, ..) => Finding::missing("not run as root"),
        (true, false, _) => Finding::missing(format!("without {}", lacking.join(", "))),
        (true, true, false) => Finding::missing("root of a user namespace, not of the host"),
        (true, true, true) => Finding::present("root"),
    }
}

pub(super) fn resource_limits() -> Finding {
    if effective_capabilities().contains(CapabilitySet::SYS_RESOURCE) {
        return Finding::present("in the effective set");
    }
    Finding::limited("not in the effective set")
}

/// The controllers, by the names of v1 and of cgroup2, that limit something.
const CONTROLLERS: [(&str, &str); 5] = [
    ("cpu", "cpu"),
    ("cpuset", "cpuset"),
    ("memory", "memory"),
    ("blkio", "io"),
    ("pids", "pids"),
];

struct Groups {
    v1: Vec<String>,
    v2: Option<PathBuf>,
}

fn groups() -> Groups {
    let mut groups = Groups {
        v1: Vec::new(),
        v2: None,
    };
    for mount in proc::mounts().unwrap_or_default() {
        match mount.file_system.as_str() {
            "cgroup" => groups
                .v1
                .extend(mount.super_options.split(',').map(str::to_owned)),
            "cgroup2" => groups.v2 = groups.v2.or(Some(mount.mount_point)),
            _ => {}
        }
    }
    groups
}

pub(super) fn control_groups() -> Finding {
    let groups = groups();
    match (groups.v1.is_empty(), groups.v2) {
        (true, Some(_)) => Finding::present("v2"),
        (false, Some(_)) => Finding::present("v1 with cgroup2 beside it (hybrid)"),
        (false, None) => Finding::limited("v1 only: the node mounts a cgroup2 of its own"),
        (true, None) => Finding::missing("none are mounted"),
    }
}

pub(super) fn controllers() -> Finding {
    let groups = groups();
    let offered = groups.v2.map(|path| path.join("cgroup.controllers"));
    let offered = offered
        .and_then(|path| fs::read_to_string(path).ok())
        .unwrap_or_default();
    let offered: Vec<_> = offered.split_whitespace().collect();
    let (have, lack): (Vec<_>, Vec<_>) = CONTROLLERS
        .iter()
        .partition(|(v1, v2)| groups.v1.iter().any(|name| name == v1) || offered.contains(v2));
    let names = |list: Vec<&(&str, &str)>| list.iter().map(|n| n.1).collect::<Vec<_>>().join(", ");
    if lack.is_empty() {
        return Finding::present(names(have));
    }
    Finding::limited(format!("without {}", names(lack)))
}

pub(super) fn device_program() -> Finding {
    match DeviceProgram::load(&[]) {
        Ok(_) => Finding::present("the kernel takes one"),
        Err(error) => Finding::limited(because(&error)),
    }
}

pub(super) fn user_namespaces() -> Finding {
    match number("/proc/sys/user/max_user_namespaces") {
        _ if !Path::new("/proc/self/ns/user").exists() => Finding::missing("the kernel has none"),
        Some(0) => Finding::missing("user.max_user_namespaces is 0"),
        Some(most) => Finding::present(format!("at most {most}")),
        None => Finding::limited("user.max_user_namespaces cannot be read"),
    }
}

pub(super) fn seccomp() -> Finding {
    let path = "/proc/sys/kernel/seccomp/actions_avail";
    let actions = fs::read_to_string(path).unwrap_or_default();
    match actions.split_whitespace().any(|action| action == "errno") {
        true => Finding::present("filters with errno"),
        false => Finding::missing("the kernel filters no system calls"),
    }
}

/// Opens a file system without mounting anything, which loads its module.
fn file_system(name: &str) -> Finding {
    match fsopen(name, FsOpenFlags::FSOPEN_CLOEXEC) {
        Ok(_) => Finding::present("the kernel opens it"),
        Err(Errno::NODEV) => Finding::missing("the kernel does not know it"),
        Err(errno) => Finding::missing(format!("the kernel refuses to open it: {errno}")),
    }
}

pub(super) fn btrfs() -> Finding {
    file_system("btrfs")
}

pub(super) fn simple_quotas() -> Finding {
    // Appears with the module, which the trial before this one loaded.
    match Path::new("/sys/fs/btrfs/features/simple_quota").exists() {
        true => Finding::present("the kernel's btrfs has them"),
        false => Finding::missing("the kernel's btrfs has none"),
    }
}

pub(super) fn erofs() -> Finding {
    file_system("erofs")
}

pub(super) fn fuse() -> Finding {
    let device = device("/dev/fuse");
    if device.status == Status::Present {
        file_system("fuse")
    } else {
        device
    }
}

pub(super) fn tun() -> Finding {
    device("/dev/net/tun")
}

pub(super) fn loop_devices() -> Finding {
    device("/dev/loop-control")
}

/// Opening loads the module of a node that systemd made ahead of it.
fn device(path: &str) -> Finding {
    match fs::File::open(path) {
        Ok(_) => Finding::present(path),
        Err(error) => Finding::missing(format!("{path}: {}", plain(&error))),
    }
}

pub(super) fn pidfd_exit_status() -> Finding {
    // PIDFD_INFO_EXIT came with 6.15 (linux/pidfd.h) and shows only once somebody ended.
    let system = rustix::system::uname();
    match system.release().to_string_lossy().parse::<Version>() {
        Ok(version)
            if version
                >= (Version {
                    major: 6,
                    minor: 15,
                }) =>
        {
            Finding::present(format!("in Linux {version}"))
        }
        _ => Finding::missing("came with Linux 6.15"),
    }
}

pub(super) fn pressure() -> Finding {
    // With psi=0 the files are there and reading fails.
    match fs::read_to_string("/proc/pressure/memory") {
        Ok(_) => Finding::present("/proc/pressure"),
        Err(error) => Finding::missing(format!("/proc/pressure: {}", plain(&error))),
    }
}

pub(super) fn same_page_merging() -> Finding {
    match number("/sys/kernel/mm/ksm/run") {
        Some(1) => Finding::present("running"),
        Some(_) => Finding::present("there, not running"),
        None => Finding::missing("the kernel has none"),
    }
}

pub(super) fn checkpoint_restore() -> Finding {
    // Exists with CONFIG_CHECKPOINT_RESTORE only.
    match Path::new("/proc/sys/kernel/ns_last_pid").exists() {
        true => Finding::present("the kernel is built for it"),
        false => Finding::missing("the kernel is not built for it"),
    }
}

/// CRIU: the host's own, or the one that our set-up fetched.
pub(super) fn criu() -> Finding {
    let fetched = std::path::Path::new("/usr/lib/vessel/criu/usr/sbin/criu");
    if fetched.is_file() {
        return Finding::present(fetched.display().to_string());
    }
    program("criu")
}

/// Finds a program as a shell would, and where Debian keeps those of root.
pub(super) fn program(name: &str) -> Finding {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/local/sbin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from);
    let found = std::env::split_paths(&path)
        .chain(usual)
        .map(|folder| folder.join(name))
        .find(|program| {
            let is_file = program.is_file();
            is_file && rustix::fs::access(program, rustix::fs::Access::EXEC_OK).is_ok()
        });
    match found {
        Some(program) => Finding::present(program.display().to_string()),
        None => Finding::missing("not installed"),
    }
}

pub(super) fn overlay_finding() -> Finding {
    overlay().1
}

/// Tries both profiles on empty directories of a file system that is surely there.
pub(super) fn overlay() -> (Option<OverlayProfile>, Finding) {
    let trial = || -> io::Result<(OverlayProfile, &'static str)> {
        let folder = Folder::new()?;
        for name in ["lower", "data", "upper", "work"] {
            fs::create_dir(folder.0.join(name))?;
        }
        let full = [
            ("index", "on"),
            ("nfs_export", "on"),
            ("xino", "on"),
            ("redirect_dir", "on"),
        ];
        if let Err(errno) = mount_overlay(&folder.0, &full) {
            let older = [("metacopy", "on"), ("index", "on"), ("xino", "on"), full[3]];
            // The first refusal says more about a host where neither works.
            return match mount_overlay(&folder.0, &older) {
                Ok(()) => Ok((OverlayProfile::Metacopy, "metacopy, without nfs_export")),
                Err(_) => Err(errno.into()),
            };
        }
        Ok((
            OverlayProfile::NfsExport,
            "data-only layers with nfs_export",
        ))
    };
    match trial() {
        Ok((OverlayProfile::NfsExport, detail)) => {
            (Some(OverlayProfile::NfsExport), Finding::present(detail))
        }
        Ok((OverlayProfile::Metacopy, detail)) => {
            (Some(OverlayProfile::Metacopy), Finding::limited(detail))
        }
        Err(error) => (
            None,
            Finding::missing(format!("a trial was refused: {}", plain(&error))),
        ),
    }
}

/// Makes an overlay's superblock, which nobody sees, and drops it.
fn mount_overlay(folder: &Path, options: &[(&str, &str)]) -> Result<(), Errno> {
    let overlay = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let layers = [
        ("lowerdir+", "lower"),
        ("datadir+", "data"),
        ("upperdir", "upper"),
        ("workdir", "work"),
    ];
    for (key, name) in layers {
        fsconfig_set_string(&overlay, key, folder.join(name))?;
    }
    for (key, value) in options {
        fsconfig_set_string(&overlay, *key, *value)?;
    }
    fsconfig_create(&overlay)
}

/// A folder that goes with its guard.
struct Folder(PathBuf);

impl Folder {
    fn new() -> io::Result<Self> {
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        // A tmpfs first: its trial costs nothing.
        for parent in ["/dev/shm", "/run", "/var/tmp"] {
            for attempt in 0..8 {
                let name = format!("vessel-probe-{}-{attempt}", std::process::id());
                let path = Path::new(parent).join(name);
                match fs::create_dir(&path) {
                    Ok(()) => return Ok(Self(path)),
                    Err(error) => last = error,
                }
            }
        }
        Err(last)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A few empty directories of a temporary file system are no reason to fail.
        fs::remove_dir_all(&self.0).ok();
    }
}

/// Processes and threads of one plain Debian VE with a server or two in it.
const PROCESSES_PER_VE: u64 = 30;
/// Below as many VEs, a setting of the host is worth a word.
const VES_EXPECTED: u64 = 1_000;

pub(super) fn process_numbers() -> Finding {
    per_ve("/proc/sys/kernel/pid_max", PROCESSES_PER_VE)
}

/// Each VE has a limit of its own, as its user namespace is made by a user of its own.
pub(super) fn inotify_instances() -> Finding {
    at_least("/proc/sys/fs/inotify/max_user_instances", 128)
}

pub(super) fn terminals() -> Finding {
    // One for the console, and a session or two.
    per_ve("/proc/sys/kernel/pty/max", 3)
}

pub(super) fn keys() -> Finding {
    at_least("/proc/sys/kernel/keys/maxkeys", 200)
}

pub(super) fn open_files() -> Finding {
    per_ve("/proc/sys/fs/file-max", 1_000)
}

pub(super) fn tracked_connections() -> Finding {
    match number("/proc/sys/net/netfilter/nf_conntrack_max") {
        Some(_) => per_ve("/proc/sys/net/netfilter/nf_conntrack_max", 256),
        None => Finding::present("not tracked yet"),
    }
}

fn per_ve(path: &str, each: u64) -> Finding {
    match number(path) {
        Some(most) if most >= each * VES_EXPECTED => Finding::present(most.to_string()),
        Some(most) => Finding::limited(format!("{most}: enough for some {} VEs", most / each)),
        None => Finding::limited(format!("{path} cannot be read")),
    }
}

fn at_least(path: &str, least: u64) -> Finding {
    match number(path) {
        Some(most) if most >= least => Finding::present(most.to_string()),
        Some(most) => Finding::limited(format!("{most}, and {least} are usual")),
        None => Finding::limited(format!("{path} cannot be read")),
    }
}

fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The kernel's words without the number.
pub(super) fn plain(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => {
            let text = error.to_string();
            text.trim_end_matches(&format!(" (os error {number})"))
                .to_lowercase()
        }
        None => error.to_string(),
    }
}

/// An error with its cause, for one line.
fn because(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
