//! A private tree over a shared one: an overlay of idmapped layers, detached.
//!
//! The same layers and options as a VE's root has, from plain folders.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_fd,
    fsconfig_set_string, fsmount, fsopen, open_tree,
};

use crate::users;

const OPTIONS: [(&str, &str); 4] = [
    ("index", "on"),
    ("nfs_export", "on"),
    ("xino", "on"),
    ("redirect_dir", "on"),
];

/// Makes the folders of a private tree.
///
/// # Errors
/// When it exists already, or the file system refuses.
pub fn prepare(private: &Path) -> Result<()> {
    for folder in [private, &private.join("upper"), &private.join("work")] {
        fs::create_dir(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    Ok(())
}

/// Stacks `private` over `lower`, both shown through the user namespace `users`, which maps its
/// root to `base`.
///
/// # Errors
/// When the kernel refuses a layer or the overlay: it takes layers as descriptors from 6.13 on.
pub fn mount(lower: &Path, private: &Path, users: impl AsFd, base: u32) -> Result<OwnedFd> {
    let lower = layer(lower, &users)?;
    let private = layer(private, &users)?;
    let upper = inside(&private, "upper")?;
    let work = inside(&private, "work")?;
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", "bench")?;
    for (key, descriptor) in [
        ("lowerdir+", &lower),
        ("upperdir", &upper),
        ("workdir", &work),
    ] {
        fsconfig_set_fd(&context, key, descriptor).with_context(|| format!("no {key}"))?;
    }
    for (key, value) in OPTIONS {
        fsconfig_set_string(&context, key, value)?;
    }
    users::as_root_of(base, || fsconfig_create(&context))?.context("the overlay is refused")?;
    Ok(fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )?)
}

fn layer(path: &Path, users: impl AsFd) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let clone = open_tree(CWD, path, flags)
        .with_context(|| format!("cannot take {} as a layer", path.display()))?;
    kernel::mount::map_ids(&clone, users)
        .with_context(|| format!("cannot map the owners of {}", path.display()))?;
    Ok(clone)
}

fn inside(private: &OwnedFd, name: &str) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(private, name, flags, Mode::empty())?)
}
