//! The process that becomes CRIU to wake a VE.
//!
//! It has mounts and a network of its own: there it attaches the VE's root, `/dev` and console at
//! places that CRIU is told, and there the VE's end of the link waits, which CRIU moves into the
//! VE. Nothing of it stays when CRIU has ended.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use network::identity::INSIDE_NAME;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount,
};

use super::report::{Report, await_go, hear, tell};
use super::step::{Step, failure};
use super::{child, confine};
use crate::gate::GATE_VARIABLE;
use crate::protocol::{Failure, FailureKind};
use crate::restore::{
    CONSOLE_NAME, DEV_NAME, PLUGIN_VARIABLE, RESTORE_LOG, RestoreSpec, view_name,
};

/// Where CRIU writes the number of the woken init, in its folder for that.
pub(super) const PID_FILE: &str = "init.pid";

/// Where the VE's mounts are attached, in this process's own view only: at the first that hides
/// nothing of the node's. The VE's root user must be able to get there, which is not so beneath a
/// node's root directory.
const STAGINGS: [&str; 4] = ["/mnt", "/media", "/srv", "/opt"];

/// Where what CRIU itself says goes, beside its log.
const OUTPUT: &str = "restore.out";

/// Runs as the restorer; returns only when it could not become CRIU.
pub(super) fn run(spec: &RestoreSpec, channel: BorrowedFd<'_>) -> u8 {
    let Err(failed) = become_criu(spec, channel);
    let _ = tell(channel, &Report::Failed(failed), &[]);
    1
}

/// Waits in the launcher until the restorer has become CRIU: the channel closes with it.
///
/// # Errors
/// What the restorer could not do.
pub(super) fn await_execution(channel: &OwnedFd) -> Result<(), Failure> {
    match hear(channel) {
        Ok(None) => Ok(()),
        Ok(Some((Report::Failed(failed), _))) => Err(failed),
        _ => Err(failure(
            FailureKind::Node,
            "the process for CRIU died underway",
        )),
    }
}

fn become_criu(
    spec: &RestoreSpec,
    channel: BorrowedFd<'_>,
) -> Result<std::convert::Infallible, Failure> {
    kernel::execute::close_all_but(&[channel]).step("close the launcher's descriptors")?;
    let given = await_go(channel)?;
    let mut given = given.into_iter();
    let (Some(root), Some(dev), Some(console), Some(terminal)) =
        (given.next(), given.next(), given.next(), given.next())
    else {
        let message = "the launcher handed over the wrong number of mounts";
        return Err(failure(FailureKind::Node, message));
    };
    let view = given.next();
    if view.is_none() && !spec.views.is_empty() {
        let message =
            "the VE had a view of its own and this node has none: `vessel doctor` tells why";
        return Err(failure(FailureKind::Node, message));
    }
    // CRIU tries out what the kernel can do with a connection to itself.
    network::inside::loopback_only().step("bring CRIU's loopback up")?;
    let used = [&spec.images, &spec.work, &spec.criu.script, &spec.gate];
    let staging = STAGINGS
        .into_iter()
        .map(Path::new)
        .find(|staging| staging.is_dir() && !used.iter().any(|path| path.starts_with(staging)));
    let staging = staging.ok_or_else(|| {
        let tried = STAGINGS.join(", ");
        let message = format!("no directory for the VE's mounts: {tried} are missing, or used");
        failure(FailureKind::Node, message)
    })?;
    let places = Places::attach(staging, [&root, &dev, &console], view.as_ref())?;
    let null = open("/dev/null", OFlags::RDWR)?;
    let output = open(
        spec.work.join(OUTPUT),
        OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC,
    )?;
    confine::use_streams([null.as_fd(), output.as_fd(), output.as_fd()])?;
    // Not closed on execution: it is what CRIU takes for the console.
    let terminal = rustix::io::dup(&terminal).step("pass the console on")?;
    rustix::process::umask(Mode::from_raw_mode(0o077));
    kernel::signal::reset_all().step("reset signals")?;
    if spec.launch.merge_memory {
        // Inherited by what CRIU makes.
        kernel::merging::merge_own_memory().step("let the VE's memory be merged")?;
    }
    let arguments = arguments(spec, &places, &terminal);
    let program = arguments.first().cloned().unwrap_or_default();
    let text = |text: String| CString::new(text).step("pass CRIU's arguments (a zero byte)");
    let arguments: Result<Vec<CString>, Failure> = arguments.into_iter().map(text).collect();
    let environment = [
        text(format!("PATH={}", child::PATH))?,
        text(format!("{GATE_VARIABLE}={}", spec.gate.display()))?,
        text(format!(
            "{PLUGIN_VARIABLE}={}",
            spec.launch.id.uid_base().get()
        ))?,
    ];
    let error = kernel::execute::execute(&text(program.clone())?, &arguments?, &environment);
    Err(error).step(format_args!("execute {program}"))
}

/// Where the VE's mounts lie for CRIU.
struct Places {
    root: String,
    dev: String,
    console: String,
    /// The tree of all VEs' views.
    view: String,
}

impl Places {
    /// Attaches the mounts at a file system of this process's own.
    fn attach(
        staging: &Path,
        [root, dev, console]: [&OwnedFd; 3],
        view: Option<&OwnedFd>,
    ) -> Result<Self, Failure> {
        kernel::mount::make_all_private().step("cut off CRIU's mounts from the node's")?;
        let stage = stage().step("make a place for the VE's mounts")?;
        attach(&stage, staging)?;
        let place = |name: &str| staging.join(name);
        for name in ["root", "dev", "view"] {
            rustix::fs::mkdir(place(name), Mode::from_raw_mode(0o755))
                .step("make a place for the VE's mounts")?;
        }
        drop(open(place("console"), OFlags::WRONLY | OFlags::CREATE)?);
        attach(root, &place("root"))?;
        attach(dev, &place("dev"))?;
        attach(console, &place("console"))?;
        if let Some(view) = view {
            attach(view, &place("view"))?;
        }
        let text = |name: &str| place(name).to_string_lossy().into_owned();
        Ok(Self {
            root: text("root"),
            dev: text("dev"),
            console: text("console"),
            view: text("view"),
        })
    }
}

fn stage() -> Result<OwnedFd, rustix::io::Errno> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", "vessel-restore")?;
    fsconfig_set_string(&context, "mode", "755")?;
    fsconfig_create(&context)?;
    fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )
}

fn attach(mount: impl AsFd, place: &Path) -> Result<(), Failure> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(mount, "", CWD, place, flags).step(format_args!("attach {}", place.display()))
}

fn open(path: impl AsRef<Path>, flags: OFlags) -> Result<OwnedFd, Failure> {
    let path = path.as_ref();
    let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY;
    rustix::fs::open(path, flags, Mode::from_raw_mode(0o600))
        .step(format_args!("open {}", path.display()))
}

fn arguments(spec: &RestoreSpec, places: &Places, terminal: &OwnedFd) -> Vec<String> {
    let mut arguments = spec.criu.command.clone();
    let mut add = |parts: &[&str]| arguments.extend(parts.iter().map(|part| (*part).to_owned()));
    add(&["restore", "--restore-detached", "--pidfile", PID_FILE]);
    add(&["--images-dir", &spec.images.to_string_lossy()]);
    add(&["--work-dir", &spec.work.to_string_lossy()]);
    add(&["--log-file", RESTORE_LOG, "-v1"]);
    add(&["--root", &places.root]);
    add(&["--external", &format!("mnt[{DEV_NAME}]:{}", places.dev)]);
    add(&[
        "--external",
        &format!("mnt[{CONSOLE_NAME}]:{}", places.console),
    ]);
    let id = spec.launch.id;
    for name in &spec.views {
        let (inside, outside) = (view_name(name), format!("{}/{id}/{name}", places.view));
        add(&["--external", &format!("mnt[{inside}]:{outside}")]);
    }
    let terminal = terminal.as_raw_fd();
    add(&["--inherit-fd", &format!("fd[{terminal}]:{}", spec.console)]);
    if spec.launch.network.is_some() {
        // Both ends of the move have the same name; CRIU takes it out of its own network.
        add(&[
            "--external",
            &format!("netdev[{INSIDE_NAME}]:{INSIDE_NAME}"),
        ]);
    }
    add(crate::restore::COMMON_OPTIONS);
    add(&["--action-script", &spec.criu.script.to_string_lossy()]);
    if let Some(plugins) = &spec.criu.plugins {
        add(&["--libdir", &plugins.to_string_lossy()]);
    }
    arguments
}
