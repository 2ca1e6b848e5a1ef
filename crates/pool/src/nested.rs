//! Destroying a subvolume with everything that hangs in it.
//!
//! Whoever can write in a private area through a plain mount can make subvolumes in it, and make
//! them read-only, and the kernel destroys neither a subvolume that others hang in nor one that hangs in a
//! read-only one.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use kernel::btrfs::{self, Access, Child, SUBVOLUME_ROOT_INODE, SubvolumeId};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Most subvolumes that are taken out with one area; more is no accident, and is reported.
const NESTED_MAX: usize = 100_000;

/// A subvolume below the one that is destroyed.
struct Nested {
    parent: SubvolumeId,
    child: Child,
}

/// The subvolumes below `top`, each after the one that it hangs in.
fn below(file_system: BorrowedFd<'_>, top: SubvolumeId) -> io::Result<Vec<Nested>> {
    let mut found: Vec<Nested> = Vec::new();
    let mut parent = top;
    let mut next = 0;
    loop {
        let children = btrfs::subvolume_children(file_system, parent)?;
        found.extend(children.into_iter().map(|child| Nested { parent, child }));
        if found.len() > NESTED_MAX {
            return Err(io::Error::other(format!(
                "more than {NESTED_MAX} nested subvolumes"
            )));
        }
        let Some(nested) = found.get(next) else {
            return Ok(found);
        };
        parent = nested.child.id;
        next += 1;
    }
}

/// The numbers of `top` and of all subvolumes below it.
pub(crate) fn family(
    file_system: BorrowedFd<'_>,
    top: SubvolumeId,
) -> io::Result<Vec<SubvolumeId>> {
    let nested = below(file_system, top)?;
    Ok(std::iter::once(top)
        .chain(nested.into_iter().map(|nested| nested.child.id))
        .collect())
}

/// Destroys the subvolume `name` in `parent` with all below it. What a crash leaves is a smaller tree.
pub(crate) fn destroy(parent: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    let top = crate::layout::open_directory(parent, name)?;
    let nested = below(top.as_fd(), btrfs::subvolume_id(top.as_fd())?)?;
    for one in nested.iter().rev() {
        match btrfs::subvolume_destroy_by_id(top.as_fd(), one.child.id) {
            Err(error) if is_read_only(&error) => {
                make_writable(top.as_fd(), one.parent, &nested)?;
                btrfs::subvolume_destroy_by_id(top.as_fd(), one.child.id)?;
            }
            other => other?,
        }
    }
    drop(top);
    btrfs::subvolume_destroy(parent, name.as_ref())
}

fn is_read_only(error: &io::Error) -> bool {
    let errnos = [Errno::ROFS, Errno::PERM, Errno::ACCESS];
    errnos
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Makes a subvolume writable, so that what hangs in it can be taken out.
fn make_writable(top: BorrowedFd<'_>, which: SubvolumeId, nested: &[Nested]) -> io::Result<()> {
    let mut chain = Vec::new();
    let mut at = which;
    while let Some(one) = nested.iter().find(|one| one.child.id == at) {
        chain.push(one);
        at = one.parent;
    }
    // Steps from the top, each within one subvolume, so no path grows beyond what the kernel takes.
    let mut directory = top.try_clone_to_owned()?;
    for one in chain.iter().rev() {
        if one.child.directory != SUBVOLUME_ROOT_INODE {
            let path = btrfs::directory_path(top, one.parent, one.child.directory)?;
            directory = step(directory.as_fd(), &path)?;
        }
        directory = step(directory.as_fd(), Path::new(&one.child.name))?;
    }
    btrfs::subvolume_access_set(directory.as_fd(), Access::ReadWrite)
}

fn step(directory: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    Ok(rustix::fs::openat2(
        directory,
        path,
        flags,
        Mode::empty(),
        beneath,
    )?)
}
