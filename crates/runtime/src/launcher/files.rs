//! Copying files into and out of a VE as a tar stream.
//!
//! The whole transfer happens in a process that is confined to the VE: whatever links a hostile
//! tree or a hostile archive holds, there is nothing of the node that they could lead to. A stopped
//! VE gets a process of its own for it, in fresh namespaces on its root.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use kernel::clone::{Options, spawn};
use ve::VeId;

use super::identity::as_ve_root;
use super::launch::{bury, write_maps};
use super::report::{self, Report, await_go, tell};
use super::requests::Groups;
use super::state::State;
use super::step::{Step, failure};
use super::ves::TaskState;
use super::{confine, identity, inside};
use crate::isolation;
use crate::protocol::{Failure, FailureKind, FileWork};
use crate::seccomp::Profile;
use crate::spec::RootSpec;

/// A transfer to be begun.
#[derive(Debug)]
pub(super) struct Transfer<'a> {
    pub(super) id: VeId,
    /// Layers of a stopped VE.
    pub(super) stopped: Option<&'a RootSpec>,
    pub(super) work: &'a FileWork,
    pub(super) stream: &'a OwnedFd,
}

impl State {
    /// Begins a transfer; its reports answer it.
    ///
    /// # Errors
    /// `NotFound` when the VE does not run and no layers were given; `Busy` when it runs and
    /// layers were given.
    pub(super) fn files(
        &mut self,
        connection: u64,
        number: u64,
        transfer: &Transfer<'_>,
        groups: &Groups,
    ) -> Result<(), Failure> {
        let Transfer {
            id,
            stopped,
            work,
            stream,
        } = *transfer;
        let Some(root) = stopped else {
            let stream = stream.as_fd();
            return self.enter(connection, number, id, groups, &[stream], |channel| {
                carry_out(work, channel, stream)
            });
        };
        if self.ves.get(&id).is_some_and(super::ves::Ve::is_alive) {
            return Err(failure(
                FailureKind::Busy,
                format!("VE {id} runs: its files are in use"),
            ));
        }
        self.enter_stopped(connection, number, id, root, groups, work, stream.as_fd())
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "a request's parts, each needed once"
    )]
    fn enter_stopped(
        &mut self,
        connection: u64,
        number: u64,
        id: VeId,
        root: &RootSpec,
        groups: &Groups,
        work: &FileWork,
        stream: BorrowedFd<'_>,
    ) -> Result<(), Failure> {
        let (ours, theirs) = report::channel()?;
        let channel = theirs.as_fd();
        let tasks: Vec<BorrowedFd<'_>> = groups.v1_tasks.iter().map(AsFd::as_fd).collect();
        let options = Options {
            namespaces: isolation::namespaces::at_birth(),
            into_cgroup: groups.v2.as_ref().map(AsFd::as_fd),
            sibling: false,
        };
        let base = id.uid_base();
        let child = as_ve_root(base, || {
            spawn(&options, || {
                let outcome = enter_fresh(channel, &tasks, stream)
                    .and_then(|()| carry_out(work, channel, stream));
                match outcome {
                    Ok(()) => 0,
                    Err(failed) => {
                        let _ = tell(channel, &Report::Failed(failed), &[]);
                        1
                    }
                }
            })
        })
        .step("act as the VE's root")?
        .step("make a process for the VE's files")?;
        drop(theirs);
        let handed = write_maps(child.pid, base)
            .and_then(|()| kernel::pidfd::user_namespace(&child.pidfd).step("find the VE's users"))
            .and_then(|users| self.roots.build(root, users.as_fd(), base))
            .and_then(|root| {
                tell(&ours, &Report::Go, &[root.mount.as_fd()]).step("hand over the VE's files")
            });
        if let Err(failed) = handed {
            bury(&child);
            return Err(failed);
        }
        self.enroll_task(TaskState {
            connection,
            number,
            channel: Some(ours),
            door: None,
            worker: Some((child.pid, child.pidfd)),
            terminal: None,
            ready: false,
            working: false,
            answered: false,
            failure: None,
            code: None,
            deadline: None,
        })
    }
}

/// Makes a stopped VE's root the root of this process.
fn enter_fresh(
    channel: BorrowedFd<'_>,
    tasks: &[BorrowedFd<'_>],
    stream: BorrowedFd<'_>,
) -> Result<(), Failure> {
    let mut kept = vec![channel, stream];
    kept.extend_from_slice(tasks);
    kernel::execute::close_all_but(&kept).step("close the launcher's descriptors")?;
    confine::enter_groups(tasks)?;
    let [root] = await_go(channel)?
        .try_into()
        .map_err(|_| failure(FailureKind::Node, "the launcher handed over no root"))?;
    let root: OwnedFd = root;
    identity::become_root().step("become the VE's root")?;
    inside::enter_root(root.as_fd())
}

/// Does the transfer, inside.
fn carry_out(
    work: &FileWork,
    channel: BorrowedFd<'_>,
    stream: BorrowedFd<'_>,
) -> Result<(), Failure> {
    confine::drop_privileges(Profile::default())?;
    let stream = File::from(stream.try_clone_to_owned().step("use the stream")?);
    match work {
        FileWork::Pack { path } => {
            let metadata =
                std::fs::symlink_metadata(path).guest_step(format_args!("read the VE's {path}"))?;
            tell(channel, &Report::Working, &[]).step("tell the launcher")?;
            pack(Path::new(path), &metadata, stream)
                .guest_step(format_args!("read the VE's {path}"))
        }
        FileWork::Tree => {
            tell(channel, &Report::Working, &[]).step("tell the launcher")?;
            super::tree::pack(stream).guest_step("read the VE's files")
        }
        FileWork::Unpack { path } => {
            std::fs::create_dir_all(path).guest_step(format_args!("make the VE's {path}"))?;
            tell(channel, &Report::Working, &[]).step("tell the launcher")?;
            unpack(Path::new(path), stream).guest_step(format_args!("write the VE's {path}"))
        }
    }
}

fn pack(path: &Path, metadata: &std::fs::Metadata, stream: File) -> io::Result<()> {
    let mut archive = tar::Builder::new(io::BufWriter::with_capacity(256 * 1024, stream));
    archive.follow_symlinks(false);
    let name = path.file_name().map_or(Path::new("."), Path::new);
    if metadata.is_dir() {
        archive.append_dir_all(name, path)?;
    } else {
        archive.append_path_with_name(path, name)?;
    }
    io::Write::flush(&mut archive.into_inner()?)
}

fn unpack(path: &Path, stream: File) -> io::Result<()> {
    let mut archive = tar::Archive::new(io::BufReader::with_capacity(256 * 1024, stream));
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(true);
    archive.set_preserve_mtime(true);
    archive.set_overwrite(true);
    archive.unpack(path)?;
    // The padding after the archive's end: a sender must not find its pipe broken.
    io::copy(&mut archive.into_inner(), &mut io::sink())?;
    Ok(())
}
