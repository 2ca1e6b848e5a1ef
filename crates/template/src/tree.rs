//! The tree in memory while it is read from a source.
//!
//! Nothing is unpacked to a file system: names go into this tree, contents into the object store.
//! So a hostile archive has no way out: there is no path of the host that a name could reach, and a
//! symbolic link is followed inside the tree only, with the tree's root as its `/`.
//!
//! Nodes lie in one vector and name each other by index. Removing a name only unlinks its node;
//! [`Tree::into_filesystem`] takes what the root still reaches. Each node remembers the layer that
//! wrote it, for the whiteouts of OCI images, which hide what lower layers brought but nothing of
//! their own.

use std::collections::BTreeMap;

use crate::limits::{DEPTH_MAX, INODES_MAX, METADATA_BYTES_MAX, NAME_BYTES_MAX, SYMLINK_HOPS_MAX};
use crate::path::MemberPath;
use crate::store::ObjectId;

mod finish;

/// Index of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct NodeId(usize);

/// Owner, mode, time and attributes of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Metadata {
    /// Permission bits with setuid, setgid and sticky (`07777`).
    pub mode: u32,
    /// Owner, below 65,536.
    pub uid: u32,
    /// Group, below 65,536.
    pub gid: u32,
    /// Time of the last change of the content, in seconds since 1970: the image has no finer ones.
    pub mtime: i64,
    /// Attributes that may stay: see [`crate::ingest`].
    pub attributes: BTreeMap<Box<[u8]>, Box<[u8]>>,
}

/// Content of a regular file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Small: kept in the image.
    Inline(Box<[u8]>),
    /// In the object store, with its length in bytes.
    Object(ObjectId, u64),
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// A directory and its names.
    Directory(BTreeMap<Box<[u8]>, NodeId>),
    /// A regular file.
    File(Content),
    /// A symbolic link and its target, as written.
    Symlink(Box<[u8]>),
    /// A named pipe.
    Fifo,
}

#[derive(Debug)]
struct Node {
    metadata: Metadata,
    body: Body,
    depth: usize,
    layer: u32,
}

/// A tree while it grows.
#[derive(Debug)]
pub(crate) struct Tree {
    nodes: Vec<Node>,
    metadata_bytes: u64,
    layer: u32,
}

/// Why a name cannot be put into the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// Something above it is a file.
    #[error("a part of its path is not a directory")]
    NotDirectory,
    /// The root can only be a directory.
    #[error("it would replace the root directory")]
    Root,
    /// Links above it lead round in a circle.
    #[error("more than {SYMLINK_HOPS_MAX} symbolic links lie on its path")]
    Loop,
    /// A hard link to nothing, to a later member or to a directory.
    #[error("it is a hard link to something that is no file before it in the archive")]
    LinkTarget,
    /// Symbolic links piled directories deeper than [`DEPTH_MAX`].
    #[error("it lies more than {DEPTH_MAX} directories deep")]
    Depth,
    /// More than [`INODES_MAX`] nodes.
    #[error("the tree has more than {INODES_MAX} inodes")]
    Inodes,
    /// More than [`METADATA_BYTES_MAX`] bytes.
    #[error("names, links and attributes of the tree take more than {METADATA_BYTES_MAX} bytes")]
    MetadataBytes,
}

impl Tree {
    const ROOT: NodeId = NodeId(0);

    /// An empty root directory, owned by root, 0755, of 1970: what a source without an entry for
    /// its root gets.
    pub(crate) fn new() -> Self {
        Self {
            nodes: vec![Node {
                metadata: Metadata {
                    mode: 0o755,
                    ..Metadata::default()
                },
                body: Body::Directory(BTreeMap::new()),
                depth: 0,
                layer: 0,
            }],
            metadata_bytes: 0,
            layer: 0,
        }
    }

    /// Nodes made so far, those replaced included.
    pub(crate) fn inodes(&self) -> u64 {
        self.nodes.len() as u64
    }

    /// What follows belongs to the next layer.
    pub(crate) fn begin_layer(&mut self) {
        self.layer += 1;
    }

    /// Body of a node.
    pub(crate) fn body(&self, node: NodeId) -> &Body {
        &self.nodes[node.0].body
    }

    /// Replaces the content of a file, for instance of one that must be empty.
    pub(crate) fn set_body(&mut self, node: NodeId, body: Body) {
        self.nodes[node.0].body = body;
    }

    fn names(&self, node: NodeId) -> Option<&BTreeMap<Box<[u8]>, NodeId>> {
        match &self.nodes[node.0].body {
            Body::Directory(names) => Some(names),
            _ => None,
        }
    }

    fn names_mut(&mut self, node: NodeId) -> Option<&mut BTreeMap<Box<[u8]>, NodeId>> {
        match &mut self.nodes[node.0].body {
            Body::Directory(names) => Some(names),
            _ => None,
        }
    }

    fn add_node(
        &mut self,
        parent: NodeId,
        metadata: Metadata,
        body: Body,
    ) -> Result<NodeId, TreeError> {
        if self.inodes() >= INODES_MAX {
            return Err(TreeError::Inodes);
        }
        let depth = self.nodes[parent.0].depth + 1;
        if depth > DEPTH_MAX {
            return Err(TreeError::Depth);
        }
        let attributes: usize = metadata
            .attributes
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        let inline = match &body {
            Body::Symlink(target) => target.len(),
            Body::File(Content::Inline(bytes)) => bytes.len(),
            _ => 0,
        };
        self.account(attributes + inline)?;
        self.nodes.push(Node {
            metadata,
            body,
            depth,
            layer: self.layer,
        });
        Ok(NodeId(self.nodes.len() - 1))
    }

    fn account(&mut self, bytes: usize) -> Result<(), TreeError> {
        self.metadata_bytes += bytes as u64;
        if self.metadata_bytes > METADATA_BYTES_MAX {
            return Err(TreeError::MetadataBytes);
        }
        Ok(())
    }

    /// Puts a node under a path. Directories missing above it are made (root's, 0755). A directory
    /// over a directory only brings new metadata; anything else replaces what was there.
    ///
    /// # Errors
    /// Refuses a file in the place of the root or of a directory above, and what breaks a limit.
    pub(crate) fn insert(
        &mut self,
        path: &MemberPath,
        metadata: Metadata,
        body: Body,
    ) -> Result<(), TreeError> {
        let Some((above, name)) = path.split() else {
            if !matches!(body, Body::Directory(_)) {
                return Err(TreeError::Root);
            }
            self.nodes[Self::ROOT.0].metadata = metadata;
            return Ok(());
        };
        let parent = self.make_directories(above)?;
        if let Body::Directory(_) = body
            && let Some(old) = self.names(parent).and_then(|names| names.get(name))
            && let Body::Directory(_) = self.nodes[old.0].body
        {
            let (old, layer) = (*old, self.layer);
            self.nodes[old.0].metadata = metadata;
            self.nodes[old.0].layer = layer;
            return Ok(());
        }
        let node = self.add_node(parent, metadata, body)?;
        self.link(parent, name, node)
    }

    /// Gives a second name to a file that is there already.
    ///
    /// # Errors
    /// Refuses a target that is missing or a directory.
    pub(crate) fn hard_link(
        &mut self,
        path: &MemberPath,
        target: &MemberPath,
    ) -> Result<(), TreeError> {
        let (above, name) = path.split().ok_or(TreeError::Root)?;
        let node = self.lookup_no_follow(target).ok_or(TreeError::LinkTarget)?;
        if matches!(self.nodes[node.0].body, Body::Directory(_)) {
            return Err(TreeError::LinkTarget);
        }
        let parent = self.make_directories(above)?;
        self.nodes[node.0].layer = self.layer;
        self.link(parent, name, node)
    }

    fn link(&mut self, parent: NodeId, name: &[u8], node: NodeId) -> Result<(), TreeError> {
        self.account(name.len())?;
        let names = self.names_mut(parent).ok_or(TreeError::NotDirectory)?;
        names.insert(Box::from(name), node);
        Ok(())
    }

    /// Finds the directory of these names, making what is missing and following links.
    fn make_directories(&mut self, names: &[Box<[u8]>]) -> Result<NodeId, TreeError> {
        let mut trail = vec![Self::ROOT];
        let mut todo: Vec<Box<[u8]>> = names.iter().rev().cloned().collect();
        let mut hops = 0;
        while let Some(name) = todo.pop() {
            let here = *trail.last().unwrap_or(&Self::ROOT);
            // What lies on the path of a new entry belongs to its layer (see `hide_below`).
            self.nodes[here.0].layer = self.layer;
            if *name == *b".." {
                if trail.len() > 1 {
                    trail.pop();
                }
                continue;
            }
            let found = self
                .names(here)
                .ok_or(TreeError::NotDirectory)?
                .get(&name)
                .copied();
            let next = match found {
                None => {
                    let metadata = Metadata {
                        mode: 0o755,
                        ..Metadata::default()
                    };
                    let node = self.add_node(here, metadata, Body::Directory(BTreeMap::new()))?;
                    self.link(here, &name, node)?;
                    node
                }
                Some(node) => node,
            };
            match &self.nodes[next.0].body {
                Body::Directory(_) => trail.push(next),
                Body::Symlink(target) => {
                    hops += 1;
                    if hops > SYMLINK_HOPS_MAX {
                        return Err(TreeError::Loop);
                    }
                    follow(target, &mut trail, &mut todo);
                    if todo.iter().any(|name| name.len() > NAME_BYTES_MAX) {
                        return Err(TreeError::NotDirectory);
                    }
                }
                _ => return Err(TreeError::NotDirectory),
            }
        }
        let here = *trail.last().unwrap_or(&Self::ROOT);
        self.nodes[here.0].layer = self.layer;
        Ok(here)
    }

    /// Finds what a path means inside the tree, following every link.
    pub(crate) fn lookup(&self, path: &MemberPath) -> Option<NodeId> {
        self.walk(path.components(), true)
    }

    /// Finds what a path names, following links above the last name only.
    pub(crate) fn lookup_no_follow(&self, path: &MemberPath) -> Option<NodeId> {
        self.walk(path.components(), false)
    }

    fn walk(&self, names: &[Box<[u8]>], follow_last: bool) -> Option<NodeId> {
        let mut trail = vec![Self::ROOT];
        let mut todo: Vec<Box<[u8]>> = names.iter().rev().cloned().collect();
        let mut hops = 0;
        while let Some(name) = todo.pop() {
            if *name == *b".." {
                if trail.len() > 1 {
                    trail.pop();
                }
                continue;
            }
            let here = *trail.last()?;
            let next = *self.names(here)?.get(&name)?;
            match &self.nodes[next.0].body {
                Body::Symlink(target) if follow_last || !todo.is_empty() => {
                    hops += 1;
                    if hops > SYMLINK_HOPS_MAX {
                        return None;
                    }
                    follow(target, &mut trail, &mut todo);
                }
                _ => trail.push(next),
            }
        }
        trail.last().copied()
    }

    /// Names in a directory, in order; nothing if it is none.
    pub(crate) fn list(&self, path: &MemberPath) -> Vec<Box<[u8]>> {
        self.lookup(path)
            .and_then(|node| self.names(node))
            .map(|names| names.keys().cloned().collect())
            .unwrap_or_default()
    }

    /// Removes a name and all below it. Whether it was there.
    pub(crate) fn remove(&mut self, path: &MemberPath) -> bool {
        let Some((above, name)) = path.split() else {
            return false;
        };
        let Some(parent) = self.walk(above, true) else {
            return false;
        };
        self.names_mut(parent)
            .is_some_and(|names| names.remove(name).is_some())
    }

    /// Whiteout of an OCI layer: hides what lower layers have under this path.
    pub(crate) fn hide(&mut self, path: &MemberPath) {
        let Some(node) = self.lookup_no_follow(path) else {
            return;
        };
        if self.nodes[node.0].layer == self.layer {
            self.hide_below(node);
        } else {
            self.remove(path);
        }
    }

    /// Opaque whiteout: hides everything lower layers have in this directory.
    pub(crate) fn hide_all_in(&mut self, path: &MemberPath) {
        if let Some(node) = self.lookup(path) {
            self.hide_below(node);
        }
    }

    /// Keeps below a directory only what the current layer wrote. The order of an archive's members
    /// is free, so the whiteout may come after the names that it must not hide.
    fn hide_below(&mut self, node: NodeId) {
        let Some(names) = self.names(node) else {
            return;
        };
        let (kept, hidden): (Vec<_>, Vec<_>) = names
            .iter()
            .map(|(name, child)| (name.clone(), *child))
            .partition(|(_, child)| self.nodes[child.0].layer == self.layer);
        if let Some(names) = self.names_mut(node) {
            for (name, _) in &hidden {
                names.remove(name);
            }
        }
        for (_, child) in kept {
            self.hide_below(child);
        }
    }
}

/// Replaces a link by its target's names on the stack of names still to resolve.
fn follow(target: &[u8], trail: &mut Vec<NodeId>, todo: &mut Vec<Box<[u8]>>) {
    if target.starts_with(b"/") {
        trail.truncate(1);
    }
    let names = target.split(|byte| *byte == b'/').rev();
    todo.extend(
        names
            .filter(|name| !name.is_empty() && *name != b".")
            .map(Box::from),
    );
}
