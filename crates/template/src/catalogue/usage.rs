//! How much disk the templates take, and how much sharing saves.

use std::fs::read_dir;
use std::os::unix::fs::MetadataExt as _;

use super::{Catalogue, CatalogueError};
use crate::store;

/// Bytes of disk under the catalogue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Templates.
    pub templates: u64,
    /// Objects in the store, images included.
    pub objects: u64,
    /// Bytes in them.
    pub stored_bytes: u64,
    /// Bytes of disk allocated for them. Compression and shared blocks are not counted off.
    pub allocated_bytes: u64,
    /// Bytes of all files of all templates, as if nothing were shared.
    pub content_bytes: u64,
    /// What sharing saves between templates and inside each: `content_bytes` and images less
    /// `stored_bytes`.
    pub saved_bytes: u64,
}

impl Catalogue {
    /// Adds up what the templates take.
    ///
    /// # Errors
    /// Fails if the store cannot be listed. Templates that cannot be read count as nothing.
    pub fn disk_usage(&self) -> Result<DiskUsage, CatalogueError> {
        let mut usage = DiskUsage::default();
        let mut needed_bytes = 0;
        for manifest in self.list()?.templates {
            usage.templates += 1;
            usage.content_bytes += manifest.sizes.content_bytes;
            needed_bytes += manifest.sizes.content_bytes + manifest.sizes.image_bytes;
        }
        let objects = self.path.join(store::DIRECTORY).join("objects");
        let error = |e| CatalogueError::system("list", &objects)(e);
        for folder in read_dir(&objects).map_err(error)? {
            for object in read_dir(folder.map_err(error)?.path()).map_err(error)? {
                // Removed meanwhile: then it takes nothing.
                let Ok(metadata) = object.map_err(error)?.metadata() else {
                    continue;
                };
                usage.objects += 1;
                usage.stored_bytes += metadata.len();
                usage.allocated_bytes += metadata.blocks() * 512;
            }
        }
        usage.saved_bytes = needed_bytes.saturating_sub(usage.stored_bytes);
        Ok(usage)
    }
}
