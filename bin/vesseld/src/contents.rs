//! Looking into the files of VEs and templates from outside, and what is kept of that between requests.

mod applications;
mod compaction;
mod difference;
mod inventory;
pub(crate) mod revision;
mod sharing;

pub(crate) use applications::{lower_change, lower_check, lower_settle};
pub(crate) use compaction::{Compacted, compact};
pub(crate) use difference::difference;
pub(crate) use inventory::inventory;
pub(crate) use sharing::saved;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::difference::Merged;
use engine::{FailureKind, Fault};
use registry::VeRecord;
use runtime::Lower;
use rustix::fs::{Mode, OFlags};
use template::ImageTree;
use ve::{Stack, VeId};

use crate::host::Host;

/// Trees of templates that are kept: a Debian server's takes 6 MB.
const TREES_MAX: usize = 8;

/// What is kept between requests.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    trees: Mutex<Vec<(ImageKey, Arc<ImageTree>)>>,
    databases: Mutex<inventory::Databases>,
    areas: Arc<Areas>,
    compactions: Mutex<HashMap<VeId, Compacted>>,
    saved: Mutex<sharing::Measured>,
}

/// An image file for good: a file that replaced it is another one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ImageKey {
    device: u64,
    inode: u64,
    changed: (i64, i64),
}

/// Of what a VE's or template's tree consists, open.
#[derive(Debug)]
pub(crate) struct Layers {
    key: ImageKey,
    tree: Arc<ImageTree>,
    image: File,
    objects: OwnedFd,
    /// `upper` and `work` of a private area; a template has none.
    private: Option<(OwnedFd, OwnedFd)>,
}

impl Layers {
    pub(crate) fn merged(&self) -> Merged<'_> {
        Merged {
            upper: self.private.as_ref().map(|(upper, _)| upper.as_fd()),
            lower: &self.tree,
            objects: self.objects.as_fd(),
        }
    }

    /// Those of a VE.
    pub(crate) fn of_ve(host: &Host, record: &VeRecord) -> Result<Self, Fault> {
        let id = record.spec.id;
        let root = host.root_spec(id, &record.spec.stack())?;
        let area = host
            .pool
            .private_open(id)
            .map_err(|error| crate::mechanisms::pool_fault(&error))?;
        let part = |name: &str| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(&area, name, flags, Mode::empty())
                .map_err(|errno| Fault::new(format!("cannot open its private area: {errno}")))
        };
        let private = Some((part("upper")?, part("work")?));
        Self::open(host, &root.lower, private)
    }

    /// Those of a template alone.
    pub(crate) fn of_template(host: &Host, name: &Stack) -> Result<Self, Fault> {
        Self::open(host, &host.lower(name)?, None)
    }

    fn open(
        host: &Host,
        lower: &Lower,
        private: Option<(OwnedFd, OwnedFd)>,
    ) -> Result<Self, Fault> {
        let Lower::Composefs { image, objects } = lower else {
            return Err(Fault::new("its template is no image"));
        };
        let open = |path: &Path| {
            File::open(path)
                .map_err(|error| Fault::new(format!("cannot open {}: {error}", path.display())))
        };
        let (mut image, objects) = (open(image)?, open(objects)?.into());
        let (key, tree) = host.contents.tree(&mut image)?;
        Ok(Self {
            key,
            tree,
            image,
            objects,
            private,
        })
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Contents {
    /// The tree of an image, read once for all who ask in turn.
    fn tree(&self, image: &mut File) -> Result<(ImageKey, Arc<ImageTree>), Fault> {
        let found = image
            .metadata()
            .map_err(|error| Fault::new(format!("cannot look at a template's image: {error}")))?;
        let key = ImageKey {
            device: found.dev(),
            inode: found.ino(),
            changed: (found.ctime(), found.ctime_nsec()),
        };
        let mut trees = locked(&self.trees);
        let known = trees.iter().position(|(known, _)| *known == key);
        let entry = match known {
            Some(at) => trees.remove(at),
            None => {
                let tree = ImageTree::read(image).map_err(|error| Fault::from_error(&error))?;
                (key.clone(), Arc::new(tree))
            }
        };
        let tree = Arc::clone(&entry.1);
        trees.insert(0, entry);
        trees.truncate(TREES_MAX);
        Ok((key, tree))
    }

    /// Who works on private areas of stopped VEs.
    pub(crate) fn areas(&self) -> &Arc<Areas> {
        &self.areas
    }

    /// What the last compaction of a VE did, told once.
    pub(crate) fn take_compacted(&self, id: VeId) -> Option<Compacted> {
        locked(&self.compactions).remove(&id)
    }
}

/// Private areas of stopped VEs that are worked on: copies of files mount one, and may be several; whoever
/// changes what lies below a mount has to be alone.
#[derive(Debug, Default)]
pub(crate) struct Areas(Mutex<BTreeMap<VeId, Work>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Copies(u32),
    Alone,
}

/// Work on a private area, until it is dropped.
#[derive(Debug)]
pub(crate) struct AreaWork {
    areas: Arc<Areas>,
    id: VeId,
}

impl Areas {
    /// Begins to copy files in or out.
    pub(crate) fn copy(self: &Arc<Self>, id: VeId) -> Result<AreaWork, Fault> {
        self.begin(id, |work| match work {
            None => Some(Work::Copies(1)),
            Some(Work::Copies(count)) => Some(Work::Copies(count + 1)),
            Some(Work::Alone) => None,
        })
    }

    /// Begins to change it from outside.
    pub(crate) fn alone(self: &Arc<Self>, id: VeId) -> Result<AreaWork, Fault> {
        self.begin(id, |work| work.is_none().then_some(Work::Alone))
    }

    fn begin(
        self: &Arc<Self>,
        id: VeId,
        next: impl Fn(Option<Work>) -> Option<Work>,
    ) -> Result<AreaWork, Fault> {
        let mut works = locked(&self.0);
        let Some(work) = next(works.get(&id).copied()) else {
            let fault = Fault::new(format!("the files of VE {id} are being worked on"));
            return Err(fault
                .of_kind(FailureKind::Conflict)
                .with_hint("wait for copies of files and compactions to end, and ask again"));
        };
        works.insert(id, work);
        Ok(AreaWork {
            areas: Arc::clone(self),
            id,
        })
    }
}

impl Drop for AreaWork {
    fn drop(&mut self) {
        let mut works = locked(&self.areas.0);
        match works.get(&self.id).copied() {
            Some(Work::Copies(count)) if count > 1 => {
                works.insert(self.id, Work::Copies(count - 1));
            }
            _ => drop(works.remove(&self.id)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_several_and_changes_alone() {
        let areas = Arc::<Areas>::default();
        let (one, other) = (VeId::new(100).unwrap(), VeId::new(101).unwrap());
        let first = areas.copy(one).unwrap();
        let second = areas.copy(one).unwrap();
        assert!(areas.alone(one).is_err());
        drop(areas.alone(other).unwrap());
        drop(first);
        assert!(areas.alone(one).is_err());
        drop(second);
        let alone = areas.alone(one).unwrap();
        assert!(areas.copy(one).is_err() && areas.alone(one).is_err());
        drop(alone);
        drop(areas.copy(one).unwrap());
        assert!(locked(&areas.0).is_empty());
    }
}
