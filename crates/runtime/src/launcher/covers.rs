//! Binding a VE's view over its own `/proc` and `/sys`, in its first process.
//!
//! Here and not in the launcher, because to find a thing in the tree is to ask its server, and the
//! launcher waits for nobody.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use procview::{PLACES, Place};
use rustix::fs::{CWD, Dir, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount};
use ve::VeId;

use super::step::Step;
use crate::protocol::Failure;

/// Where the tree of all VEs is attached for a moment, in this process's own view only: every host
/// has it, and the VE's root user gets there.
const STAGE: &str = "/proc";

/// The tree of all VEs, for one that takes its own part.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tree<'a> {
    /// A clone of it that is attached nowhere.
    pub(super) mount: BorrowedFd<'a>,
    /// Whether the VE was here before, so that the kernel may know its part.
    pub(super) familiar: bool,
}

/// A part of the tree, and what it covers.
pub(super) type Cover = (Place, OwnedFd);

/// Takes the VE's own parts of the tree, while the launcher makes what the VE waits for. Of a VE
/// that was here before, the kernel knows them and the server is not asked.
///
/// # Errors
/// Names the part that could not be taken.
pub(super) fn find(tree: Tree<'_>, id: VeId) -> Result<Vec<Cover>, Failure> {
    let Tree {
        mount: tree,
        familiar,
    } = tree;
    kernel::mount::make_all_private().step("cut off the VE's mounts from the node's")?;
    // Kernels before 6.15 clone only what is attached, and a part is a clone.
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(tree, "", CWD, STAGE, flags).step("attach the VE's view")?;
    if !familiar {
        list(tree, id);
    }
    let mut covers = Vec::with_capacity(PLACES.len());
    let found = PLACES.iter().try_for_each(|place| {
        covers.extend(find_one(tree, id, place)?.map(|part| (*place, part)));
        Ok(())
    });
    unmount(STAGE, UnmountFlags::DETACH).step("take the view of other VEs away")?;
    found.map(|()| covers)
}

/// Lets the kernel learn of all parts at once: each for itself would be asked for and waited for.
fn list(tree: BorrowedFd<'_>, id: VeId) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    // What does not work here does not work for one who looks for the parts, who tells it.
    if let Ok(folder) = openat(tree, id.to_string(), flags, Mode::empty())
        && let Ok(entries) = Dir::new(folder)
    {
        entries.for_each(drop);
    }
}

fn find_one(tree: BorrowedFd<'_>, id: VeId, place: &Place) -> Result<Option<OwnedFd>, Failure> {
    let part = format!("{id}/{}", place.name);
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    match open_tree(tree, part.as_str(), flags) {
        // A VE without control groups has no numbers of its own; a tree without a connection is lost,
        // which the launcher has told.
        Err(Errno::NOENT | Errno::NOTCONN | Errno::CONNABORTED) => Ok(None),
        outcome => outcome.map(Some).step(what(place)),
    }
}

/// Covers what the VE's kernel has.
///
/// # Errors
/// Names the file that could not be covered.
pub(super) fn bind(covers: &[Cover]) -> Result<(), Failure> {
    for (place, part) in covers {
        let target_flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let target = match openat(CWD, place.target, target_flags, Mode::empty()) {
            // What the machine's kernel does not have.
            Err(Errno::NOENT) => continue,
            outcome => outcome.step(what(place))?,
        };
        let flags =
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(part.as_fd(), "", &target, "", flags).step(what(place))?;
    }
    Ok(())
}

fn what(place: &Place) -> String {
    format!("cover {} with the VE's own", place.target)
}
