//! What the daemon asks the launcher to make: plain records that travel as JSON beside descriptors.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use ve::VeId;

/// Everything that the launcher needs to start a VE.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LaunchSpec {
    /// The VE; its user ids follow from the number ([`VeId::uid_base`]).
    #[serde(with = "crate::wire::ve_number")]
    pub id: VeId,
    /// Host name, set in the VE's own UTS namespace at every start.
    pub hostname: String,
    /// Of what its root file system is made.
    pub root: RootSpec,
    /// Program and arguments of process 1, as paths inside the VE. Empty: the first that exists of
    /// `/sbin/init`, `/etc/init`, `/bin/init`, `/bin/sh` (the kernel's own order).
    pub init: Vec<String>,
    /// Environment of process 1 beyond what the launcher sets (`container`, `PATH`, `TERM`, ...).
    pub environment: Vec<(String, String)>,
    /// What kind of init this is: decides readiness and what is laid over `/run`.
    pub kind: InitKind,
    /// What is written into the VE's files before its init runs.
    pub facts: Facts,
    /// The VE's link to the node; without one the VE has only `lo`.
    pub network: Option<NetworkSpec>,
    /// Where the console's output goes.
    pub console: ConsoleLog,
    /// Whether the VE may make namespaces of its own (containers inside). Such a VE cannot be
    /// checkpointed, since CRIU refuses nested user, PID, UTS and time namespaces.
    pub nesting: bool,
    /// Whether equal pages of its processes may be merged by the kernel, with those of other VEs for which
    /// this was chosen. Whoever merges can learn by timing that another has an equal page.
    #[serde(default)]
    pub merge_memory: bool,
    /// Whether 32-bit programs run in it. Off, they are refused: they open a second, little used
    /// set of system calls to a hostile VE.
    pub compat_32bit: bool,
    /// Limit of open files for processes of the VE: soft, hard. The hard limit is lowered to what
    /// the launcher itself may give.
    pub open_files: (u64, u64),
    /// Size limit in bytes of the VE's `/run`; its memory counts as the VE's own anyway.
    pub run_bytes_max: u64,
    /// Size limit in bytes of the VE's `/dev/shm`.
    pub shm_bytes_max: u64,
}

impl LaunchSpec {
    /// A specification with the usual values: init found by itself, readiness by systemd's
    /// notification, 1,024 to 524,288 open files (what systemd itself grants), 64 MiB of `/run`,
    /// 1 GiB of `/dev/shm`.
    #[must_use]
    pub fn new(id: VeId, hostname: &str, root: RootSpec, console: ConsoleLog) -> Self {
        Self {
            id,
            hostname: hostname.to_owned(),
            root,
            init: Vec::new(),
            environment: Vec::new(),
            kind: InitKind::Systemd,
            facts: Facts::default(),
            network: None,
            console,
            nesting: false,
            merge_memory: false,
            compat_32bit: false,
            open_files: OPEN_FILES_DEFAULT,
            run_bytes_max: 64 << 20,
            shm_bytes_max: 1 << 30,
        }
    }
}

/// The layers of a VE's root. Paths are seen in the launcher's mount namespace, which is the
/// daemon's.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RootSpec {
    /// What the VE shares with others.
    pub lower: Lower,
    /// Directory that holds `upper/` and `work/`, on one file system; the VE's private area.
    pub private: PathBuf,
}

/// The read-only part of a root.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Lower {
    /// A composefs image over an object store.
    Composefs {
        /// The erofs image file.
        image: PathBuf,
        /// The directory whose files the image's redirects name (a data-only layer).
        objects: PathBuf,
    },
    /// A plain directory.
    Directory(PathBuf),
}

/// What kind of program process 1 is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InitKind {
    /// systemd: says `READY=1` when it has booted, takes masks and drop-ins from `/run`.
    Systemd,
    /// Anything else: counts as ready as soon as it runs.
    Other,
}

/// What is written into the VE's own files, by a process already confined to them, before init
/// runs. `None` leaves a file as it is, so later starts give only what changed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Facts {
    /// Content of `/etc/hostname`, without the newline.
    pub hostname: Option<String>,
    /// Content of `/etc/hosts`.
    pub hosts: Option<String>,
    /// Content of `/etc/resolv.conf`. A symbolic link there is replaced by a file.
    pub resolv_conf: Option<String>,
    /// Content of `/etc/machine-id`: 32 hexadecimal digits.
    pub machine_id: Option<String>,
    /// Hash of root's password as `/etc/shadow` holds it (`$6$...`); `!` locks it.
    pub root_password_hash: Option<String>,
    /// Lines for `/root/.ssh/authorized_keys`, which they replace.
    pub authorized_keys: Option<Vec<String>>,
    /// Whether the VE's own `ssh-keygen -A` makes host keys if it has an SSH server and none.
    pub ssh_host_keys: bool,
    /// Other files by their paths, for root's eyes only; directories above them are made.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
}

/// The VE's link: a veth pair whose inner end is `eth0`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NetworkSpec {
    /// Addresses of the VE, each with a host route.
    pub addresses: Vec<IpAddr>,
    /// Largest packet in bytes; the kernel's default when absent.
    pub mtu: Option<u32>,
}

/// A bounded log of what the VE wrote to its console.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ConsoleLog {
    /// The file, renamed to `NAME.1` when full. Its directory must exist.
    pub path: PathBuf,
    /// Size of the file, at which it is renamed; two files of it are the most that is kept.
    pub bytes_max: u64,
}

/// The control groups that a process enters before it runs code of the VE.
///
/// On cgroup v1 the process itself writes `0` into `tasks` files that the daemon opened (1 ms for
/// eight hierarchies, against 12 to 15 ms when another process writes its number); on v2 it is
/// born in the group (`CLONE_INTO_CGROUP`).
#[derive(Clone, Debug, Default)]
pub struct CgroupEntry<'a> {
    /// `tasks` files of v1 groups, one a hierarchy, opened for writing by root.
    pub v1_tasks: Vec<BorrowedFd<'a>>,
    /// Directory of the v2 group.
    pub v2: Option<BorrowedFd<'a>>,
}

/// A command to run in a VE.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExecSpec {
    /// Program and arguments; a program without `/` is looked for in `PATH`.
    pub command: Vec<String>,
    /// User by name or number, from the VE's own `/etc/passwd`.
    pub user: String,
    /// Variables beyond `HOME`, `USER`, `LOGNAME`, `SHELL`, `PATH`, `TERM`.
    pub environment: Vec<(String, String)>,
    /// Working directory; the user's home when absent, `/` when that is missing.
    pub directory: Option<String>,
    /// Whether the command is started as a login shell would be (`argv[0]` with a dash).
    pub login: bool,
    /// A terminal of this size; without it the command gets the given streams.
    pub terminal: Option<WindowSize>,
    /// Limit of open files of the command: soft, hard; as [`LaunchSpec::open_files`].
    #[serde(default = "open_files_default")]
    pub open_files: (u64, u64),
}

/// What systemd itself grants: more than 1,024 only to who asks for it, as select(2) knows no more.
const OPEN_FILES_DEFAULT: (u64, u64) = (1_024, 524_288);

fn open_files_default() -> (u64, u64) {
    OPEN_FILES_DEFAULT
}

/// Limits of open files, soft and hard, of a VE whose processes may have this many each; `None` is the
/// usual number.
#[must_use]
pub fn open_files(most: Option<u32>) -> (u64, u64) {
    let (soft, usual) = OPEN_FILES_DEFAULT;
    let hard = most.map_or(usual, u64::from);
    (soft.min(hard), hard)
}

/// Size of a terminal in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// Descriptors for a command without a terminal.
#[derive(Clone, Copy, Debug)]
pub struct ExecStreams<'a> {
    /// Standard input.
    pub input: BorrowedFd<'a>,
    /// Standard output.
    pub output: BorrowedFd<'a>,
    /// Standard error.
    pub error: BorrowedFd<'a>,
}
