//! Images of templates: each mounted once, however many VEs use it.
//!
//! The mount is detached and no other program sees it. Kernels before 6.15 clone attached mounts
//! only; there each image in use shows once in the launcher's mounts.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};

use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
};

use super::root::{clone_of, kernel_words, map};
use super::step::{Step, failure};
use crate::protocol::{Failure, FailureKind};

/// A mounted image; unmounted with its last user.
#[derive(Debug)]
pub(super) struct Image {
    mount: OwnedFd,
    /// Where it is attached, on kernels that want it.
    place: Option<PathBuf>,
}

/// The images in use.
#[derive(Debug)]
pub(super) struct Images {
    /// Where images are attached, on kernels that want it.
    folder: Option<PathBuf>,
    mounted: HashMap<ImageKey, Weak<Image>>,
    next: u64,
}

/// An image file for good: a file that replaced it is another one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ImageKey {
    device: u64,
    inode: u64,
    changed: (i64, i64),
}

impl Images {
    /// No images yet. `folder` is given on kernels that clone attached mounts only.
    pub(super) fn new(folder: Option<PathBuf>) -> Self {
        Self {
            folder,
            mounted: HashMap::new(),
            next: 0,
        }
    }

    /// Shows an image through a user namespace; mounts it if no VE uses it yet.
    ///
    /// # Errors
    /// Names the image that is missing, damaged or refused.
    pub(super) fn show(
        &mut self,
        path: &Path,
        users: BorrowedFd<'_>,
    ) -> Result<(OwnedFd, Rc<Image>), Failure> {
        let metadata = std::fs::metadata(path)
            .step(format_args!("find the template's image {}", path.display()))?;
        let key = ImageKey {
            device: metadata.dev(),
            inode: metadata.ino(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        };
        self.mounted.retain(|_, image| image.strong_count() > 0);
        let image = match self.mounted.get(&key).and_then(Weak::upgrade) {
            Some(image) => image,
            None => Rc::new(self.mount(path)?),
        };
        let shown = clone_of(&image.mount)
            .step(format_args!("take the image {} as a layer", path.display()))?;
        map(&shown, users, path)?;
        self.mounted.insert(key, Rc::downgrade(&image));
        Ok((shown, image))
    }

    fn mount(&mut self, path: &Path) -> Result<Image, Failure> {
        let mount = mount_image(path)?;
        let Some(folder) = &self.folder else {
            return Ok(Image { mount, place: None });
        };
        self.next += 1;
        let place = folder.join(format!("image-{}", self.next));
        std::fs::create_dir_all(&place).step(format_args!("make {}", place.display()))?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(&mount, "", CWD, &place, flags)
            .step(format_args!("attach the image at {}", place.display()))?;
        Ok(Image {
            mount,
            place: Some(place),
        })
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        if let Some(place) = &self.place {
            // Left behind it would only cost a line in the launcher's mounts.
            let _ = unmount(place, UnmountFlags::DETACH);
            let _ = std::fs::remove_dir(place);
        }
    }
}

/// Takes away what a launcher that was killed left attached in `folder`. VEs keep their layers.
pub(super) fn sweep(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        while unmount(entry.path(), UnmountFlags::DETACH).is_ok() {}
        let _ = std::fs::remove_dir(entry.path());
    }
}

fn mount_image(path: &Path) -> Result<OwnedFd, Failure> {
    let context = fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC).step("use erofs")?;
    let made = fsconfig_set_string(&context, "source", path)
        .and_then(|()| fsconfig_set_flag(&context, "ro"))
        .and_then(|()| fsconfig_create(&context))
        .and_then(|()| {
            let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV;
            fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        });
    made.map_err(|errno| {
        let words = kernel_words(context.as_fd());
        let path = path.display();
        failure(
            FailureKind::Node,
            format!("cannot mount the image {path}: {errno} {words}"),
        )
    })
}
