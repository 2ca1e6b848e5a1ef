//! From the tree in memory to what the image writer takes.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use composefs::generic_tree::{Inode, LeafContent, LeafId, Stat};
use composefs::tree::{Directory, FileSystem, RegularFile};

use super::{Body, Content, Metadata, NodeId, Tree};
use crate::store::ObjectId;

/// What a finished tree holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Inodes, hard links counted once.
    pub inodes: u64,
    /// Bytes of all files, hard links counted once.
    pub content_bytes: u64,
}

impl Tree {
    /// What the image writer takes, with totals of what is reachable.
    pub(crate) fn into_filesystem(self) -> (FileSystem<ObjectId>, Totals) {
        let mut totals = Totals {
            inodes: 1,
            ..Totals::default()
        };
        let mut filesystem = FileSystem::new(stat(&self.nodes[Self::ROOT.0].metadata));
        let mut leaves = HashMap::new();
        let mut root = Directory::new(stat(&self.nodes[Self::ROOT.0].metadata));
        self.fill(
            Self::ROOT,
            &mut root,
            &mut filesystem,
            &mut leaves,
            &mut totals,
        );
        filesystem.root = root;
        (filesystem, totals)
    }

    fn fill(
        &self,
        from: NodeId,
        to: &mut Directory<ObjectId>,
        filesystem: &mut FileSystem<ObjectId>,
        leaves: &mut HashMap<NodeId, LeafId>,
        totals: &mut Totals,
    ) {
        for (name, id) in self.names(from).into_iter().flatten() {
            let node = &self.nodes[id.0];
            let content = match &node.body {
                Body::Directory(_) => {
                    let mut directory = Directory::new(stat(&node.metadata));
                    totals.inodes += 1;
                    self.fill(*id, &mut directory, filesystem, leaves, totals);
                    let inode = Inode::Directory(Box::new(directory));
                    to.insert(OsStr::from_bytes(name), inode);
                    continue;
                }
                Body::File(Content::Inline(bytes)) => {
                    LeafContent::Regular(RegularFile::Inline(bytes.clone()))
                }
                Body::File(Content::Object(object, size)) => {
                    LeafContent::Regular(RegularFile::External(object.clone(), *size))
                }
                Body::Symlink(target) => LeafContent::Symlink(Box::from(OsStr::from_bytes(target))),
                Body::Fifo => LeafContent::Fifo,
            };
            let leaf = leaves.get(id).copied().unwrap_or_else(|| {
                totals.inodes += 1;
                if let LeafContent::Regular(file) = &content {
                    totals.content_bytes += file.file_size();
                }
                let leaf = filesystem.push_leaf(stat(&node.metadata), content);
                leaves.insert(*id, leaf);
                leaf
            });
            to.insert(OsStr::from_bytes(name), Inode::leaf(leaf));
        }
    }
}

fn stat(metadata: &Metadata) -> Stat {
    Stat {
        st_mode: metadata.mode,
        st_uid: metadata.uid,
        st_gid: metadata.gid,
        st_mtim_sec: metadata.mtime,
        st_mtim_nsec: 0,
        xattrs: metadata
            .attributes
            .iter()
            .map(|(name, value)| (Box::from(OsStr::from_bytes(name)), value.clone()))
            .collect(),
    }
}
