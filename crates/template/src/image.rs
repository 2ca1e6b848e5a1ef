//! Writing and reading the metadata image of a tree.

use composefs::digest::{Digest, Sha256};
use composefs::erofs::format::FormatVersion;
use composefs::erofs::reader::erofs_to_filesystem;
use composefs::erofs::writer::{ValidatedFileSystem, mkfs_erofs_versioned};
use composefs::generic_tree::{Inode, LeafContent};
use composefs::tree::{Directory, FileSystem, RegularFile};

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;

use crate::path::MemberPath;
use crate::store::{ObjectId, StoreError};

/// Where the superblock of erofs begins (`EROFS_SUPER_OFFSET` of the kernel's `erofs_fs.h`).
const SUPERBLOCK: usize = 1024;
/// Where its UUID begins, after magic, checksum, features, sizes, times and addresses.
const UUID: usize = SUPERBLOCK + 48;
/// Its compatible features; bit 0 says that the superblock has a checksum.
const FEATURES: usize = SUPERBLOCK + 8;
const FEATURE_CHECKSUM: u8 = 1;
/// How much has to be read of an image to know its UUID.
pub(crate) const HEAD_BYTES: usize = UUID + 16;

/// A finished image.
#[derive(Debug)]
pub(crate) struct Image {
    pub bytes: Box<[u8]>,
    /// In the image's superblock.
    pub uuid: uuid::Uuid,
    /// SHA-256 of `bytes`, in hexadecimal.
    pub sha256: String,
}

/// Writes the image of a tree, with a UUID of its own.
///
/// The library leaves the UUID empty. overlayfs takes one lower layer without a UUID at most when
/// it has to tell layers apart (`index`, `nfs_export`), so each image gets one. It is made from the
/// image's own digest: the same tree is the same image, and has the same UUID, on every node.
pub(crate) fn write(filesystem: FileSystem<ObjectId>) -> Result<Image, StoreError> {
    let valid = ValidatedFileSystem::new(filesystem).map_err(|source| StoreError::Repository {
        action: "write an image for",
        source: source.into(),
    })?;
    let mut bytes = mkfs_erofs_versioned(&valid, FormatVersion::V2);
    debug_assert_eq!(bytes[FEATURES] & FEATURE_CHECKSUM, 0);
    let digest = Sha256::digest(&bytes);
    let mut random = [0; 16];
    random.copy_from_slice(&digest[..16]);
    // Version 8 of RFC 9562: the bits are whatever the maker says.
    let uuid = uuid::Builder::from_custom_bytes(random).into_uuid();
    bytes[UUID..UUID + 16].copy_from_slice(uuid.as_bytes());
    let sha256 = sha256(&bytes);
    Ok(Image {
        bytes,
        uuid,
        sha256,
    })
}

/// SHA-256 in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

/// Lower-case hexadecimal.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// UUID of an image whose first [`HEAD_BYTES`] these are; `None` if they are no erofs image.
pub(crate) fn uuid_of(head: &[u8; HEAD_BYTES]) -> Option<uuid::Uuid> {
    const MAGIC: [u8; 4] = 0xE0F5_E1E2_u32.to_le_bytes();
    if head[SUPERBLOCK..SUPERBLOCK + 4] != MAGIC {
        return None;
    }
    uuid::Uuid::from_slice(&head[UUID..]).ok()
}

/// The objects of an image, each with its size and one path that it has in the tree.
pub(crate) fn objects(bytes: &[u8]) -> Result<BTreeMap<String, Referenced>, String> {
    let filesystem =
        erofs_to_filesystem::<ObjectId>(bytes).map_err(|error| format!("{error:#}"))?;
    let mut found = BTreeMap::new();
    walk(
        &filesystem.root,
        &filesystem,
        &MemberPath::default(),
        &mut found,
    );
    Ok(found)
}

/// An object that an image needs.
#[derive(Debug, Clone)]
pub(crate) struct Referenced {
    pub id: ObjectId,
    pub size: u64,
    pub path: String,
}

fn walk(
    directory: &Directory<ObjectId>,
    filesystem: &FileSystem<ObjectId>,
    path: &MemberPath,
    found: &mut BTreeMap<String, Referenced>,
) {
    use composefs::fsverity::FsVerityHashValue;
    for (name, inode) in directory.entries() {
        let path = path.join(name.as_bytes());
        match inode {
            Inode::Directory(below) => walk(below, filesystem, &path, found),
            Inode::Leaf(leaf, _) => {
                if let LeafContent::Regular(RegularFile::External(id, size)) =
                    &filesystem.leaf(*leaf).content
                {
                    found.entry(id.to_hex()).or_insert_with(|| Referenced {
                        id: id.clone(),
                        size: *size,
                        path: path.to_string(),
                    });
                }
            }
        }
    }
}
