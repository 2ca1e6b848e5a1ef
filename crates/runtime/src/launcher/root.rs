//! A VE's root file system, built detached: nothing of it ever shows in the launcher's mounts.
//!
//! ```text
//! overlay (one per VE)
//!   upper, work   PRIVATE/upper, PRIVATE/work   one idmapped clone of the private area
//!   lower         erofs image of the template   idmapped clone of one shared mount per image
//!   data          the object store              idmapped clone
//! ```
//!
//! Every layer is shown through the VE's own user namespace, so files lie unshifted (owner 0) in
//! the pool. The erofs mount of an image is made once and kept while a VE uses it: its inodes and
//! pages are then in memory once for all VEs of a template.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_fd, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
    unmount,
};
use ve::UidBase;

use super::identity::as_ve_root;
use super::image::{self, Image, Images};
use super::step::{Step, failure};
use crate::protocol::{Failure, FailureKind};
use crate::spec::{Lower, RootSpec};

/// How often and how long a root is awaited that another mount still holds: the kernel frees an
/// overlay a moment after its last process is gone.
const BUSY_ATTEMPTS: u32 = 100;
const BUSY_PAUSE: Duration = Duration::from_millis(3);

/// Options that make file handles, inode numbers and renames of the overlay those of one file
/// system; inotify can be checkpointed with them.
const OPTIONS: &[(&str, &str)] = &[
    ("index", "on"),
    ("nfs_export", "on"),
    ("xino", "on"),
    ("redirect_dir", "on"),
];

/// Kernels before 6.16 want `metacopy` for data-only layers, which excludes `nfs_export`.
const OPTIONS_BEFORE_6_16: &[(&str, &str)] = &[
    ("metacopy", "on"),
    ("index", "on"),
    ("xino", "on"),
    ("redirect_dir", "on"),
];

/// A root that was built, and what must live as long as it.
#[derive(Debug)]
pub(super) struct Root {
    /// The detached mount.
    pub(super) mount: OwnedFd,
    /// Keeps the shared image in memory for the next VE.
    pub(super) image: Option<Rc<Image>>,
}

/// Builds roots.
#[derive(Debug)]
pub(super) struct RootBuilder {
    kernel: KernelAge,
    /// Where layers are attached for a moment on kernels that want it.
    folder: PathBuf,
    images: Images,
}

/// What the running kernel's overlayfs can do. What an older one wants works on newer ones too, so
/// a kernel with a wrong number still starts VEs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KernelAge {
    /// Data-only layers without `metacopy`, so with `nfs_export`.
    Current,
    /// Data-only layers with `metacopy`.
    Before616,
    /// And layers must be attached in the caller's mount namespace.
    Before615,
}

impl RootBuilder {
    /// `folder` is one that only the launcher uses.
    pub(super) fn new(folder: PathBuf) -> Self {
        let release = rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned();
        let kernel = KernelAge::of(&release);
        let attach = (kernel == KernelAge::Before615).then(|| folder.clone());
        image::sweep(&folder);
        Self {
            kernel,
            folder,
            images: Images::new(attach),
        }
    }

    /// Builds the root of a VE with the user namespace `users`, which must have its maps.
    ///
    /// # Errors
    /// `Busy` when another mount holds the private area; else names the layer that is in the way.
    pub(super) fn build(
        &mut self,
        spec: &RootSpec,
        users: BorrowedFd<'_>,
        base: UidBase,
    ) -> Result<Root, Failure> {
        let private = layer(&spec.private, users)?;
        let upper = inside(&private, &spec.private, "upper")?;
        let work = inside(&private, &spec.private, "work")?;
        let mut layers = Layers {
            lower: None,
            data: None,
            private,
            upper,
            work,
        };
        let mut kept = None;
        match &spec.lower {
            Lower::Directory(path) => layers.lower = Some(layer(path, users)?),
            Lower::Composefs { image, objects } => {
                let (shown, shared) = self.images.show(image, users)?;
                layers.lower = Some(shown);
                layers.data = Some(layer(objects, users)?);
                kept = Some(shared);
            }
        }
        let mount = self.overlay(&layers, base, &spec.private)?;
        Ok(Root { mount, image: kept })
    }

    fn overlay(
        &mut self,
        layers: &Layers,
        base: UidBase,
        private: &Path,
    ) -> Result<OwnedFd, Failure> {
        let (options, attached) = match self.kernel {
            KernelAge::Current => (OPTIONS, None),
            KernelAge::Before616 => (OPTIONS_BEFORE_6_16, None),
            KernelAge::Before615 => (
                OPTIONS_BEFORE_6_16,
                Some(Attached::new(layers, &self.folder)?),
            ),
        };
        for _ in 0..BUSY_ATTEMPTS {
            match mount_overlay(layers, base, options) {
                Ok(mount) => return Ok(mount),
                Err((Errno::BUSY, _)) => std::thread::sleep(BUSY_PAUSE),
                Err((errno, words)) => {
                    let private = private.display();
                    let message = format!("cannot stack the root over {private}: {errno} {words}");
                    return Err(failure(FailureKind::Node, message));
                }
            }
        }
        drop(attached);
        Err(failure(
            FailureKind::Busy,
            format!(
                "the files at {} are still in use by another mount: end what uses them and try \
                 again",
                private.display()
            ),
        ))
    }
}

impl KernelAge {
    /// From what uname(2) calls the release, as `6.12.38+deb13-cloud-amd64`.
    fn of(release: &str) -> Self {
        let mut numbers = release
            .split(|c: char| !c.is_ascii_digit())
            .map(str::parse::<u32>);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) if (major, minor) < (6, 15) => Self::Before615,
            (Some(Ok(6)), Some(Ok(15))) => Self::Before616,
            _ => Self::Current,
        }
    }
}

#[derive(Debug)]
struct Layers {
    lower: Option<OwnedFd>,
    data: Option<OwnedFd>,
    private: OwnedFd,
    /// Directories of `private`.
    upper: OwnedFd,
    work: OwnedFd,
}

/// Layers that show in the launcher's mounts as long as this lives: while an overlay is made.
#[derive(Debug, Default)]
struct Attached(Vec<PathBuf>);

impl Attached {
    fn new(layers: &Layers, folder: &Path) -> Result<Self, Failure> {
        let mut attached = Self::default();
        let places = [
            ("private", Some(&layers.private)),
            ("lower", layers.lower.as_ref()),
            ("data", layers.data.as_ref()),
        ];
        for (name, mount) in places {
            let Some(mount) = mount else { continue };
            let place = folder.join(name);
            std::fs::create_dir_all(&place).step(format_args!("make {}", place.display()))?;
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
            move_mount(mount, "", CWD, &place, flags)
                .step(format_args!("attach a layer at {}", place.display()))?;
            attached.0.push(place);
        }
        Ok(attached)
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        for place in &self.0 {
            // Only a place that somebody else unmounted fails, which is as good.
            let _ = unmount(place, UnmountFlags::DETACH);
        }
    }
}

/// A directory of the node as a layer: a detached clone, shown through the VE's user namespace.
fn layer(path: &Path, users: BorrowedFd<'_>) -> Result<OwnedFd, Failure> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let clone =
        open_tree(CWD, path, flags).step(format_args!("take {} as a layer", path.display()))?;
    map(&clone, users, path)?;
    Ok(clone)
}

/// Shows the files of a detached mount with the VE's owners.
pub(super) fn map(mount: &OwnedFd, users: BorrowedFd<'_>, path: &Path) -> Result<(), Failure> {
    kernel::mount::map_ids(mount, users).step(format_args!(
        "map the owners of {} for the VE",
        path.display()
    ))
}

/// A mount's detached clone.
pub(super) fn clone_of(mount: &OwnedFd) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(mount, "", flags)
}

fn inside(private: &OwnedFd, path: &Path, name: &str) -> Result<OwnedFd, Failure> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(private, name, flags, Mode::empty())
        .step(format_args!("open {}", path.join(name).display()))
}

/// Mounts the overlay; on failure also what the kernel said about it.
fn mount_overlay(
    layers: &Layers,
    base: UidBase,
    options: &[(&str, &str)],
) -> Result<OwnedFd, (Errno, String)> {
    let context =
        fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(|errno| (errno, String::new()))?;
    let outcome = configure_overlay(&context, layers, base, options);
    outcome.map_err(|errno| {
        let words = kernel_words(context.as_fd());
        // "upperdir is in-use" is EBUSY for a strict `index`.
        (errno, words)
    })
}

fn configure_overlay(
    context: &OwnedFd,
    layers: &Layers,
    base: UidBase,
    options: &[(&str, &str)],
) -> Result<OwnedFd, Errno> {
    fsconfig_set_string(context, "source", "vessel")?;
    for (key, descriptor) in [("lowerdir+", &layers.lower), ("datadir+", &layers.data)] {
        if let Some(descriptor) = descriptor {
            set_layer(context, key, descriptor.as_fd())?;
        }
    }
    set_layer(context, "upperdir", layers.upper.as_fd())?;
    set_layer(context, "workdir", layers.work.as_fd())?;
    for (key, value) in options {
        fsconfig_set_string(context, *key, *value)?;
    }
    as_ve_root(base, || fsconfig_create(context))??;
    // A template may hold device nodes; the device rules of the VE's control group are the wall,
    // this is a hint to tools.
    fsmount(
        context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::MOUNT_ATTR_NODEV,
    )
}

/// Names a layer by descriptor, or before kernel 6.13 by the path that leads to it (those kernels
/// take no descriptor here, and none at all that was opened as a path).
fn set_layer(context: &OwnedFd, key: &str, descriptor: BorrowedFd<'_>) -> Result<(), Errno> {
    match fsconfig_set_fd(context, key, descriptor) {
        Err(Errno::INVAL | Errno::BADF) => {
            let path = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
            fsconfig_set_string(context, key, path.as_str())
        }
        outcome => outcome,
    }
}

/// What the kernel wrote about a mount that it refused (each line begins with its level).
pub(super) fn kernel_words(context: BorrowedFd<'_>) -> String {
    let mut words = Vec::new();
    let mut line = [0; 512];
    // A handful of lines at most: the kernel's buffer holds eight.
    for _ in 0..8 {
        match rustix::io::read(context, &mut line) {
            Ok(length) if length > 0 => {
                words.push(String::from_utf8_lossy(&line[..length]).trim().to_owned());
            }
            _ => break,
        }
    }
    words.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_kernels_apart() {
        for (release, age) in [
            ("6.18.44-x", KernelAge::Current),
            ("6.16.0", KernelAge::Current),
            ("7.0-rc1", KernelAge::Current),
            ("6.15.3+deb", KernelAge::Before616),
            ("6.12.38+deb13-cloud-amd64", KernelAge::Before615),
            ("5.10", KernelAge::Before615),
            ("unknown", KernelAge::Current),
        ] {
            assert_eq!(KernelAge::of(release), age, "{release}");
        }
    }
}
