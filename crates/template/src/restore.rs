//! Taking single files out of an image into a tree.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use composefs::generic_tree::{Inode, LeafContent, Stat};
use composefs::tree::{FileSystem, RegularFile};

use crate::path::MemberPath;
use crate::store::ObjectId;
use crate::tree::{Body, Content, Metadata, Tree, TreeError};

/// Puts what an image has at a path into a tree, or removes the path if it has nothing there. Directories stay as
/// they are in the tree. No link above the last name is followed in the image.
pub(crate) fn restore(
    filesystem: &FileSystem<ObjectId>,
    tree: &mut Tree,
    name: &str,
) -> Result<(), TreeError> {
    // The names are this crate's own.
    let path = MemberPath::parse(name.as_bytes()).unwrap_or_default();
    match find(filesystem, &path) {
        Some((metadata, body)) => tree.insert(&path, metadata, body),
        None => {
            tree.remove(&path);
            Ok(())
        }
    }
}

fn find(filesystem: &FileSystem<ObjectId>, path: &MemberPath) -> Option<(Metadata, Body)> {
    let (above, last) = path.split()?;
    let mut directory = &filesystem.root;
    for name in above {
        directory = directory.entries().find_map(|(found, inode)| match inode {
            Inode::Directory(below) if found.as_bytes() == &**name => Some(&**below),
            _ => None,
        })?;
    }
    let last = OsStr::from_bytes(last);
    directory.entries().find_map(|(found, inode)| match inode {
        Inode::Leaf(leaf, _) if found == last => {
            let leaf = filesystem.leaf(*leaf);
            Some((metadata(&leaf.stat), body(&leaf.content)?))
        }
        _ => None,
    })
}

fn body(content: &LeafContent<RegularFile<ObjectId>>) -> Option<Body> {
    Some(match content {
        LeafContent::Regular(RegularFile::Inline(bytes)) => {
            Body::File(Content::Inline(bytes.clone()))
        }
        LeafContent::Regular(RegularFile::External(id, size)) => {
            Body::File(Content::Object(id.clone(), *size))
        }
        LeafContent::Symlink(target) => Body::Symlink(Box::from(target.as_bytes())),
        _ => return None,
    })
}

fn metadata(stat: &Stat) -> Metadata {
    Metadata {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: stat.st_mtim_sec,
        attributes: stat
            .xattrs
            .iter()
            .map(|(name, value)| (Box::from(name.as_bytes()), value.clone()))
            .collect(),
    }
}
