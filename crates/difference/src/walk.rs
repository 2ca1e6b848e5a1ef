//! Going through everything that a VE changed.
//!
//! Each name of the upper directory is held against what the template has at that place. A file is
//! compared by its content only where its length is the same; then it is read and hashed once.
//!
//! A hostile tree costs time and no more: levels, names and entries are bounded, and one file
//! descriptor is open for each level.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use rustix::fs::FileType;
use template::{Node, NodeKind};

use crate::merged::Merged;
use crate::upper::{self, Entry, Redirect, Upper};

/// Levels of directories looked into. Each is a frame on the stack and an open directory.
pub const DEPTH_MAX: usize = 200;

/// Names looked at in all; a desktop has 300,000.
pub const ENTRIES_MAX: u64 = 4_000_000;

/// What a VE did to a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    /// The template has nothing there.
    Added,
    /// The template has something there, and the VE no more.
    Deleted,
    /// A file or link with another content.
    Content,
    /// Something of another kind: a file that became a link.
    Kind,
    /// Only its mode, owner, time or attributes differ.
    Metadata,
    /// It is as in the template: a copy that is of no use.
    Equal,
}

/// What is at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A file.
    File,
    /// A symbolic link.
    Symlink,
    /// A device, a pipe or a socket.
    Special,
}

/// A place that a VE changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Its path, without a leading slash. Names are any bytes.
    pub path: Vec<u8>,
    /// What became of it.
    pub change: Change,
    /// What it is now; of something deleted, what it was.
    pub kind: Kind,
    /// Length of the file now, zero for all else.
    pub size_bytes: u64,
    /// Length of what the template has there; of a deleted directory, of everything in it.
    pub template_bytes: u64,
    /// Space that the VE's own copy takes in the pool, if it shares it with nothing.
    pub disk_bytes: u64,
    /// Where a directory of the template was before the VE renamed it to this.
    pub moved_from: Option<Vec<u8>>,
    /// What of the metadata differs, in words.
    pub differs: Vec<&'static str>,
}

/// What a walk could not look at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unseen {
    /// Directories that lie too deep ([`DEPTH_MAX`]).
    pub too_deep: u64,
    /// Whether there are more than [`ENTRIES_MAX`] names.
    pub too_many: bool,
}

/// A place as the walk found it, for whoever acts on it.
pub(crate) struct Found<'a, 'b> {
    pub(crate) changed: &'b Changed,
    /// The VE's own copy; nothing of what was deleted.
    pub(crate) upper: Option<&'b Upper>,
    /// What the template has there, and at which path of its own.
    pub(crate) lower: Option<Node<'a>>,
    pub(crate) lower_path: &'b [u8],
    /// Whether the template's would show if the VE's copy were gone.
    pub(crate) shows: bool,
}

/// What a directory is compared with.
#[derive(Clone)]
struct Base<'a> {
    node: Option<Node<'a>>,
    /// Its path in the template.
    path: Vec<u8>,
    /// Whether it shows through.
    shows: bool,
}

type Visit<'v, 'a> = &'v mut dyn FnMut(&Found<'a, '_>) -> io::Result<()>;

struct Walk<'v, 'a> {
    merged: Merged<'a>,
    visit: Visit<'v, 'a>,
    path: Vec<u8>,
    depth: usize,
    entries: u64,
    unseen: Unseen,
}

/// Tells everything that differs, directories before what is in them, by name.
///
/// # Errors
/// Those of reading the private area and the template, and what `visit` comes back with, which ends it.
pub fn walk(
    merged: &Merged<'_>,
    visit: &mut dyn FnMut(&Changed) -> io::Result<()>,
) -> io::Result<Unseen> {
    walk_found(merged, &mut |found| visit(found.changed))
}

pub(crate) fn walk_found<'a>(merged: &Merged<'a>, visit: Visit<'_, 'a>) -> io::Result<Unseen> {
    let Some(upper) = merged.upper else {
        return Ok(Unseen::default());
    };
    let mut walk = Walk {
        merged: *merged,
        visit,
        path: Vec::new(),
        depth: 0,
        entries: 0,
        unseen: Unseen::default(),
    };
    let base = Base {
        node: Some(merged.lower.root()),
        path: Vec::new(),
        shows: true,
    };
    walk.directory(&Upper::root(upper)?, &base)?;
    Ok(walk.unseen)
}

impl<'a> Walk<'_, 'a> {
    fn directory(&mut self, upper: &Upper, base: &Base<'a>) -> io::Result<()> {
        let room = ENTRIES_MAX.saturating_sub(self.entries);
        let (names, more) = upper.names(usize::try_from(room).unwrap_or(usize::MAX))?;
        self.entries += names.len() as u64;
        self.unseen.too_many |= more;
        let handle = upper.open()?;
        for name in &names {
            let length = enter(&mut self.path, name.as_bytes());
            match upper::entry(handle.as_fd(), name)? {
                Entry::Absent => {}
                Entry::Whiteout => {
                    self.deleted(base.node.and_then(|b| b.child(name.as_bytes())))?
                }
                Entry::There(entry) => self.there(&entry, base, name.as_bytes())?,
            }
            self.path.truncate(length);
        }
        if !base.shows {
            self.hidden(&names, base)?;
        }
        Ok(())
    }

    /// Whatever an opaque directory hides of the template's, and has not replaced.
    fn hidden(&mut self, names: &[OsString], base: &Base<'a>) -> io::Result<()> {
        let there: BTreeSet<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
        let below = base.node.into_iter().flat_map(Node::children);
        for (name, node) in below.filter(|(name, _)| !there.contains(name)) {
            let length = enter(&mut self.path, name);
            self.deleted(Some(node))?;
            self.path.truncate(length);
        }
        Ok(())
    }

    fn deleted(&mut self, lower: Option<Node<'a>>) -> io::Result<()> {
        // A whiteout over nothing: something that the VE itself had made, under a name that was the template's.
        let Some(lower) = lower else { return Ok(()) };
        let changed = Changed {
            path: self.path.clone(),
            change: Change::Deleted,
            kind: kind_of(lower),
            size_bytes: 0,
            template_bytes: bytes_below(lower),
            disk_bytes: 0,
            moved_from: None,
            differs: Vec::new(),
        };
        (self.visit)(&Found {
            changed: &changed,
            upper: None,
            lower: Some(lower),
            lower_path: &self.path,
            shows: false,
        })
    }

    fn there(&mut self, upper: &Upper, base: &Base<'a>, name: &[u8]) -> io::Result<()> {
        let at_name = base.node.and_then(|base| base.child(name));
        if !upper.is_directory() {
            return self.file(upper, base, at_name, name);
        }
        let redirect = upper.redirect()?;
        let under = self
            .merged
            .lower_of(upper, base.node.filter(|_| base.shows), name)?;
        let moved_from = match &redirect {
            Redirect::Path(path) => Some(path[1..].to_vec()),
            Redirect::Sibling(sibling) => Some(self.beside(name, sibling)),
            Redirect::None | Redirect::Opaque => None,
        };
        // What lies there in the template, seen or not: that is what was changed.
        let compared = under.or(at_name);
        let path = match &redirect {
            Redirect::Path(path) => path[1..].to_vec(),
            Redirect::Sibling(sibling) => join(&base.path, sibling),
            Redirect::None | Redirect::Opaque => join(&base.path, name),
        };
        let change = match (compared.map(kind_of), &moved_from) {
            (None, _) | (Some(_), Some(_)) => Change::Added,
            (Some(Kind::Directory), None) => Change::Equal,
            (Some(_), None) => Change::Kind,
        };
        self.tell(upper, (compared, &path), change, moved_from, base.shows)?;
        if self.depth == DEPTH_MAX {
            self.unseen.too_deep += 1;
            return Ok(());
        }
        let below = Base {
            node: compared.filter(|node| kind_of(*node) == Kind::Directory),
            path,
            shows: under.is_some_and(|node| kind_of(node) == Kind::Directory),
        };
        self.depth += 1;
        let outcome = self.directory(upper, &below);
        self.depth -= 1;
        outcome
    }

    /// The path of another name beside this one.
    fn beside(&self, name: &[u8], other: &[u8]) -> Vec<u8> {
        [&self.path[..self.path.len() - name.len()], other].concat()
    }

    fn file(
        &mut self,
        upper: &Upper,
        base: &Base<'a>,
        at_name: Option<Node<'a>>,
        name: &[u8],
    ) -> io::Result<()> {
        let metacopy = upper.is_metacopy()?;
        let compared = match metacopy {
            true => self.merged.lower_of(upper, base.node, name)?.or(at_name),
            false => at_name,
        };
        let change = match compared {
            None => Change::Added,
            Some(node) if kind_of(node) != kind(upper) => Change::Kind,
            Some(_) if metacopy => Change::Equal,
            Some(node) if same_content(upper, node)? => Change::Equal,
            Some(_) => Change::Content,
        };
        let path = join(&base.path, name);
        self.tell(upper, (compared, &path), change, None, base.shows)
    }

    /// Tells of something that is there, whose metadata may differ, too.
    fn tell(
        &mut self,
        upper: &Upper,
        (lower, lower_path): (Option<Node<'a>>, &[u8]),
        change: Change,
        moved_from: Option<Vec<u8>>,
        shows: bool,
    ) -> io::Result<()> {
        let differs = match lower {
            Some(lower) if change != Change::Added => differing(upper, lower)?,
            _ => Vec::new(),
        };
        let change = match change {
            Change::Equal if !differs.is_empty() => Change::Metadata,
            change => change,
        };
        let kind = kind(upper);
        // That a directory was copied up to hold something changed is nothing that anybody did.
        if change == Change::Equal && kind == Kind::Directory {
            return Ok(());
        }
        let changed = Changed {
            path: self.path.clone(),
            change,
            kind,
            size_bytes: match kind {
                Kind::File => u64::try_from(upper.stat.st_size).unwrap_or(0),
                _ => 0,
            },
            template_bytes: lower.map_or(0, own_bytes),
            disk_bytes: u64::try_from(upper.stat.st_blocks).unwrap_or(0) * 512,
            moved_from,
            differs,
        };
        (self.visit)(&Found {
            changed: &changed,
            upper: Some(upper),
            lower,
            lower_path,
            shows,
        })
    }
}

/// A name in a folder that is given by its path.
/// Appends a name to a path; gives the path's length before.
pub(crate) fn enter(path: &mut Vec<u8>, name: &[u8]) -> usize {
    let length = path.len();
    if length > 0 {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    length
}

pub(crate) fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    match folder {
        [] => name.to_vec(),
        folder => [folder, b"/", name].concat(),
    }
}

fn kind(upper: &Upper) -> Kind {
    match upper.file_type() {
        FileType::Directory => Kind::Directory,
        FileType::RegularFile => Kind::File,
        FileType::Symlink => Kind::Symlink,
        _ => Kind::Special,
    }
}

fn kind_of(node: Node<'_>) -> Kind {
    match node.kind() {
        NodeKind::Directory => Kind::Directory,
        NodeKind::File { .. } => Kind::File,
        NodeKind::Symlink { .. } => Kind::Symlink,
        NodeKind::Special => Kind::Special,
    }
}

fn own_bytes(node: Node<'_>) -> u64 {
    match node.kind() {
        NodeKind::File { size } => size,
        _ => 0,
    }
}

/// Bytes of all files of a tree. A template's depth is bounded when it is made.
fn bytes_below(node: Node<'_>) -> u64 {
    own_bytes(node)
        + node
            .children()
            .map(|(_, child)| bytes_below(child))
            .sum::<u64>()
}

/// Whether two of one kind hold the same.
fn same_content(upper: &Upper, lower: Node<'_>) -> io::Result<bool> {
    match lower.kind() {
        NodeKind::File { size } => {
            Ok(u64::try_from(upper.stat.st_size) == Ok(size) && lower.holds(&mut upper.open()?)?)
        }
        NodeKind::Symlink { target } => Ok(upper.target()? == target),
        // What a device is for is in the template's image only in a form that is not compared.
        NodeKind::Special => Ok(false),
        NodeKind::Directory => Ok(true),
    }
}

/// What of the metadata differs. A directory's time changes with everything in it, and a link has no mode.
fn differing(upper: &Upper, lower: Node<'_>) -> io::Result<Vec<&'static str>> {
    let (stat, kind) = (&upper.stat, kind(upper));
    let mut differs = Vec::new();
    if kind != Kind::Symlink && stat.st_mode & 0o7777 != lower.mode() {
        differs.push("mode");
    }
    if (stat.st_uid, stat.st_gid) != lower.owner() {
        differs.push("owner");
    }
    if kind != Kind::Directory && (stat.st_mtime, stat.st_mtime_nsec) != (lower.modified(), 0) {
        differs.push("time");
    }
    let mut below: Vec<(Vec<u8>, Vec<u8>)> = lower
        .attributes()
        .filter(|(name, _)| !name.starts_with(upper::MARKS))
        .map(|(name, value)| (name.to_vec(), value.to_vec()))
        .collect();
    below.sort();
    if upper.attributes()? != below {
        differs.push("attributes");
    }
    Ok(differs)
}

/// A path as text: bytes that are no UTF-8 and characters that would steer a terminal are escaped.
#[must_use]
pub fn shown(path: &[u8]) -> String {
    let text = OsString::from_vec(path.to_vec());
    let text = text.to_string_lossy();
    text.chars()
        .flat_map(|c| match c.is_control() {
            true => c.escape_default().collect::<Vec<_>>(),
            false => vec![c],
        })
        .collect()
}
