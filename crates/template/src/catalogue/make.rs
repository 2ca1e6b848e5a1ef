//! Making a template: importing, and the way from a tree in memory to an entry in the catalogue.

use std::io::Write as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use composefs::fsverity::FsVerityHashValue as _;
use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;
use ve::Name;

use super::{Catalogue, CatalogueError, ENTRIES, IMAGE, MANIFEST, Staging, TemplateName, lock};
use crate::error::ImportError;
use crate::image;
use crate::ingest::Ingest;
use crate::inspect;
use crate::manifest::{FORMAT, FORMAT_BARE, ImageReference, Manifest, Sizes, Source};
use crate::scrub;
use crate::session::{Session, Stage};
use crate::source::ImportSource;
use crate::store::{self, Store};

/// What is to be imported, and under which name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportRequest {
    /// Name in the catalogue.
    pub name: Name,
    /// Where the tree comes from.
    pub source: ImportSource,
}

impl Catalogue {
    /// Refuses a name that is taken.
    pub(crate) fn check_free(&self, name: &impl TemplateName) -> Result<(), CatalogueError> {
        if self.contains(name) {
            return Err(CatalogueError::Exists {
                name: name.to_string(),
            });
        }
        Ok(())
    }

    /// Locks out removal of contents, waiting for one that runs.
    pub(crate) fn lock_for_adding(
        &self,
        name: &impl TemplateName,
        session: Session<'_>,
    ) -> Result<lock::Lock, ImportError> {
        lock::shared(self, || !session.cancel.is_cancelled()).map_err(|error| match error {
            CatalogueError::Busy => ImportError::Cancelled {
                name: name.to_string(),
            },
            error => error.into(),
        })
    }

    /// Begins to read a tree. The caller holds the lock of [`Catalogue::lock_for_adding`].
    pub(crate) fn ingest<'a>(
        &self,
        name: &impl TemplateName,
        source: &Path,
        session: Session<'a>,
    ) -> Result<Ingest<'a>, ImportError> {
        let store = Store::open(&self.directory)?;
        Ok(Ingest::new(store, &name.to_string(), source, session))
    }

    /// Imports a tree as a template. Blocks for seconds: call it where that is allowed.
    ///
    /// Everything in the source is taken for hostile: see [`crate::limits`] for what it may be at
    /// most, and the manifest's notes for what was left out. Nothing is ever unpacked to a file system
    /// of the host, except for squashfs images, into the catalogue's own staging folder.
    ///
    /// # Errors
    /// Every error names what is wrong and leaves the catalogue as it was.
    pub fn import(
        &self,
        request: &ImportRequest,
        session: Session<'_>,
    ) -> Result<Manifest, ImportError> {
        self.check_free(&request.name)?;
        let imported = self.try_import(request, session);
        if imported.is_err() {
            self.collect_after_failure();
        }
        imported
    }

    fn try_import(
        &self,
        request: &ImportRequest,
        session: Session<'_>,
    ) -> Result<Manifest, ImportError> {
        let staging = Staging::create(self)?;
        let _lock = self.lock_for_adding(&request.name, session)?;
        let mut ingest = self.ingest(&request.name, request.source.path(), session)?;
        session.stage(Stage::ReadTree);
        let source = request.source.read(&mut ingest, staging.path())?;
        finish(self, &staging, &request.name, ingest, source)
    }

    /// Removes the contents that a failed piece of work brought: the disk may be full of them. If that
    /// cannot be done now, the failure itself is what its caller has to know; the contents go with the
    /// next collection.
    pub(crate) fn collect_after_failure(&self) {
        if let Err(error) = self.collect_garbage() {
            tracing::info!(%error, "contents of a failed import stay until the next collection");
        }
    }
}

/// Makes a tree that was read a template of the catalogue. The caller holds the shared lock.
pub(crate) fn finish(
    catalogue: &Catalogue,
    staging: &Staging,
    name: &impl TemplateName,
    ingest: Ingest<'_>,
    source: Source,
) -> Result<Manifest, ImportError> {
    compose(catalogue, name, ingest, source)?.publish(catalogue, staging, name)
}

/// A template whose contents and image are in the store, and that is not in the catalogue yet.
pub(super) struct Composed {
    pub(super) manifest: Manifest,
    object: String,
    store: Store,
}

/// Makes image and description of a tree that was read. The caller holds the shared lock until it is published, or dropped.
pub(super) fn compose(
    catalogue: &Catalogue,
    name: &impl TemplateName,
    mut ingest: Ingest<'_>,
    source: Source,
) -> Result<Composed, ImportError> {
    let session = ingest.session;
    session.stage(Stage::Inspect);
    let (first_boot, scrubbed) = scrub::identity(&mut ingest.tree);
    let objects = store::open_objects(&catalogue.directory)?;
    let findings = inspect::inspect(&ingest.tree, &objects);
    let mut notes = ingest.notes();
    notes.extend(scrubbed);
    if findings.init.is_none() {
        notes.push("no first program (init) found: a VE of it cannot boot".to_owned());
    }
    ingest.check()?;
    session.stage(Stage::WriteImage);
    let Ingest { tree, store, .. } = ingest;
    let (filesystem, totals) = tree.into_filesystem();
    let image = image::write(filesystem)?;
    let object = store::write_image(&catalogue.directory, &image.bytes)?;
    let manifest = Manifest {
        format: match source {
            Source::Applications { .. } => FORMAT,
            _ => FORMAT_BARE,
        },
        name: name.to_string(),
        version: image.sha256.clone(),
        created_unix_seconds: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs()),
        distribution: findings.distribution,
        architecture: findings.architecture,
        init: findings.init,
        packages: findings.packages,
        sizes: Sizes {
            content_bytes: totals.content_bytes,
            inodes: totals.inodes,
            new_bytes: store.new_bytes(),
            image_bytes: image.bytes.len() as u64,
        },
        source,
        update: None,
        image: ImageReference {
            object: object.to_hex(),
            sha256: image.sha256,
            uuid: image.uuid.to_string(),
        },
        first_boot,
        notes,
    };
    Ok(Composed {
        manifest,
        object: object.to_object_pathname(),
        store,
    })
}

impl Composed {
    /// Puts it into the catalogue.
    pub(super) fn publish(
        self,
        catalogue: &Catalogue,
        staging: &Staging,
        name: &impl TemplateName,
    ) -> Result<Manifest, ImportError> {
        let entry = staging.path().join("entry");
        write_entry(catalogue, &entry, &self.manifest, &self.object)?;
        self.store.sync()?;
        publish(catalogue, &entry, name)?;
        Ok(self.manifest)
    }
}

fn write_entry(
    catalogue: &Catalogue,
    entry: &Path,
    manifest: &Manifest,
    object: &str,
) -> Result<(), CatalogueError> {
    std::fs::create_dir(entry).map_err(CatalogueError::system("create", entry))?;
    let path = entry.join(MANIFEST);
    let mut text = serde_json::to_vec_pretty(manifest)
        .map_err(|e| CatalogueError::system("write", &path)(e.into()))?;
    text.push(b'\n');
    std::fs::File::create(&path)
        .and_then(|mut file| file.write_all(&text))
        .map_err(CatalogueError::system("write", &path))?;
    let objects = catalogue.path.join(store::DIRECTORY).join("objects");
    let image = entry.join(IMAGE);
    std::fs::hard_link(objects.join(object), &image)
        .map_err(CatalogueError::system("create", &image))
}

/// Gives a finished entry its name. The one step that makes a template.
fn publish(
    catalogue: &Catalogue,
    entry: &Path,
    name: &impl TemplateName,
) -> Result<(), CatalogueError> {
    let path = catalogue.entry(name);
    match rustix::fs::renameat_with(CWD, entry, CWD, &path, RenameFlags::NOREPLACE) {
        Ok(()) => {}
        Err(Errno::EXIST) => {
            return Err(CatalogueError::Exists {
                name: name.to_string(),
            });
        }
        Err(errno) => return Err(CatalogueError::system("create", &path)(errno.into())),
    }
    let entries = catalogue.path.join(ENTRIES);
    std::fs::File::open(&entries)
        .and_then(|file| file.sync_all())
        .map_err(CatalogueError::system("sync", &entries))
}
