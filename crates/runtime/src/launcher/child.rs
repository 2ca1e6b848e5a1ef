//! The VE's first process, from its birth to the execution of the VE's own init.
//!
//! It begins as a copy of the launcher in the VE's namespaces, without any rights over the node,
//! and cannot be inspected by anybody but the node's root (not dumpable) until it has executed.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::clocks::Beginning;
use super::covers::Tree;
use super::report::{Report, await_go, tell};
use super::step::{Step, failure};
use super::{confine, covers, facts, identity, inside};
use crate::protocol::{Failure, FailureKind};
use crate::seccomp::Profile;
use crate::spec::{InitKind, LaunchSpec};

/// What the kernel itself tries when it is told no init.
const INITS: &[&str] = &["/sbin/init", "/etc/init", "/bin/init", "/bin/sh"];

/// Where systemd says that it is ready; beneath `/run/host`, which the container interface of
/// systemd gives to the manager.
const NOTIFY_PATH: &str = "/run/host/notify";

/// Search path of process 1, as systemd's own default for a split and a merged `/usr`.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a first process finds when it is born.
#[derive(Debug)]
pub(super) struct Cradle<'a> {
    /// Its end of the channel to the launcher.
    pub(super) channel: BorrowedFd<'a>,
    /// Files of the v1 groups that it is to enter.
    pub(super) tasks: &'a [BorrowedFd<'a>],
    /// The tree of all VEs' views; a node without FUSE has none.
    pub(super) view: Option<Tree<'a>>,
    /// When the VE's clocks begin.
    pub(super) beginning: Beginning,
}

/// Runs as the VE's first process; returns only when the launch failed.
pub(super) fn run(spec: &LaunchSpec, cradle: &Cradle<'_>) -> u8 {
    let channel = cradle.channel;
    let Err(failed) = become_init(spec, cradle);
    // If even this fails, the launcher sees the channel close without a word of execution.
    let _ = tell(channel, &Report::Failed(failed), &[]);
    1
}

fn become_init(
    spec: &LaunchSpec,
    cradle: &Cradle<'_>,
) -> Result<std::convert::Infallible, Failure> {
    let channel = cradle.channel;
    let mut kept = vec![channel];
    kept.extend_from_slice(cradle.tasks);
    kept.extend(cradle.view.map(|tree| tree.mount));
    kernel::execute::close_all_but(&kept).step("close the launcher's descriptors")?;
    confine::enter_groups(cradle.tasks)?;
    cradle.beginning.begin()?;
    let covers = match cradle.view {
        Some(tree) => covers::find(tree, spec.id)?,
        None => Vec::new(),
    };
    let given = await_go(channel)?;
    let [root, dev, console] = given.try_into().map_err(|_| {
        failure(
            FailureKind::Node,
            "the launcher handed over the wrong number of mounts",
        )
    })?;
    identity::become_root().step("become the VE's root")?;
    rustix::process::setsid().step("begin a session")?;
    rustix::system::sethostname(spec.hostname.as_bytes()).step("set the VE's host name")?;
    kernel::clone::enter_new_cgroup_namespace().step("make the VE's view of control groups")?;
    let own = inside::make_own(spec)?;
    confine::limit_namespaces(own.proc())?;
    inside::enter_root(root.as_fd())?;
    inside::attach(&own, dev.as_fd(), console.as_fd())?;
    inside::fill_run(spec, &own)?;
    covers::bind(&covers)?;
    configure_network(spec)?;
    facts::write(&spec.facts)?;
    if spec.kind == InitKind::Systemd {
        let socket = bind_notify().step("make the readiness socket")?;
        tell(channel, &Report::Notify, &[socket.as_fd()]).step("hand over the readiness socket")?;
    } else if spec.facts.ssh_host_keys {
        facts::make_ssh_keys();
    }
    drop((own, covers));
    execute(spec, channel)
}

fn configure_network(spec: &LaunchSpec) -> Result<(), Failure> {
    match &spec.network {
        Some(network) => {
            network::inside::configure(&network.addresses).step("configure the VE's network")
        }
        None => network::inside::loopback_only().step("configure the VE's loopback"),
    }
}

/// Binds the socket on which the init says that it is ready. Only root may write to it; who wrote
/// is told by the kernel.
fn bind_notify() -> Result<OwnedFd, rustix::io::Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
    rustix::net::sockopt::set_socket_passcred(&socket, true)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(NOTIFY_PATH)?)?;
    rustix::fs::chmod(NOTIFY_PATH, Mode::from_raw_mode(0o600))?;
    Ok(socket)
}

/// Puts up the walls and becomes the VE's init.
fn execute(
    spec: &LaunchSpec,
    channel: BorrowedFd<'_>,
) -> Result<std::convert::Infallible, Failure> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let console =
        rustix::fs::open("/dev/console", flags, Mode::empty()).step("open the VE's console")?;
    confine::use_streams([console.as_fd(); 3])?;
    confine::limit_open_files(spec.open_files.0, spec.open_files.1)?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let environment = environment(spec)?;
    kernel::signal::reset_all().step("reset signals")?;
    if spec.merge_memory {
        kernel::merging::merge_own_memory().step("let the VE's memory be merged")?;
    }
    confine::drop_privileges(Profile {
        nesting: spec.nesting,
        compat_32bit: spec.compat_32bit,
    })?;
    tell(channel, &Report::Executing, &[]).step("tell the launcher")?;
    Err(try_inits(spec, &environment))
}

fn try_inits(spec: &LaunchSpec, environment: &[CString]) -> Failure {
    if let [program, ..] = spec.init.as_slice() {
        let error = start(program, &spec.init, environment);
        return failure(
            FailureKind::Guest,
            format!("cannot execute the VE's {program}: {error}"),
        );
    }
    for program in INITS {
        let error = start(program, &[(*program).to_owned()], environment);
        if error.kind() != io::ErrorKind::NotFound {
            return failure(
                FailureKind::Guest,
                format!("cannot execute the VE's {program}: {error}"),
            );
        }
    }
    failure(
        FailureKind::Guest,
        format!(
            "the VE's files hold no init: none of {} exists",
            INITS.join(", ")
        ),
    )
}

fn start(program: &str, arguments: &[String], environment: &[CString]) -> io::Error {
    let text = |text: &str| CString::new(text).map_err(|_| io::ErrorKind::InvalidInput);
    let arguments: Result<Vec<CString>, _> = arguments.iter().map(|a| text(a)).collect();
    match (text(program), arguments) {
        (Ok(program), Ok(arguments)) => kernel::execute::execute(&program, &arguments, environment),
        _ => io::ErrorKind::InvalidInput.into(),
    }
}

/// Environment of process 1. `container` and `container_uuid` are systemd's container interface.
fn environment(spec: &LaunchSpec) -> Result<Vec<CString>, Failure> {
    let mut variables: Vec<(&str, &str)> = vec![
        ("PATH", PATH),
        ("TERM", "linux"),
        ("HOME", "/root"),
        ("container", "vessel"),
    ];
    if let Some(machine) = &spec.facts.machine_id {
        variables.push(("container_uuid", machine));
    }
    if spec.kind == InitKind::Systemd {
        variables.extend([
            ("NOTIFY_SOCKET", NOTIFY_PATH),
            // Pressure watches do not survive a checkpoint; see `masks`.
            ("MEMORY_PRESSURE_WATCH", "/dev/null"),
            ("CPU_PRESSURE_WATCH", "/dev/null"),
            ("IO_PRESSURE_WATCH", "/dev/null"),
        ]);
    }
    variables.extend(
        spec.environment
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str())),
    );
    variables
        .into_iter()
        .map(|(key, value)| {
            CString::new(format!("{key}={value}")).step("pass the environment (a zero byte in it)")
        })
        .collect()
}
