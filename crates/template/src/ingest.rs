//! Taking members of any source into a tree and the object store: what is kept and what is not.
//!
//! - Owners, modes (with setuid: it works inside the VE only) and times stay as they are.
//! - Of extended attributes only `security.capability` and `user.*` stay. `trusted.*` would be
//!   obeyed by overlayfs (`trusted.overlay.redirect` could name any object of the store), and labels
//!   of `security.*` mean something on the machine they come from only.
//! - Device nodes are left out: a VE's `/dev` is made at its start, and a node of a real device in an
//!   imported tree would be a door. Sockets are left out: nobody listens.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::error::{ImportError, MemberError};
use crate::limits::{
    ATTRIBUTE_BYTES_MAX, ATTRIBUTES_MAX, CONTENT_BYTES_MAX, FILE_BYTES_MAX, ID_END,
    INLINE_BYTES_MAX, SYMLINK_BYTES_MAX,
};
use crate::path::MemberPath;
use crate::session::{Progress, Session};
use crate::store::{Put, PutError, Store};
use crate::tree::{Body, Content, Metadata, Tree};

/// A sign of life every so many inodes.
const PROGRESS_INODES: u64 = 256;

/// Kinds of left-out attributes that are named one by one in the notes.
const NOTE_KINDS_MAX: usize = 50;

/// Owner, mode and time as the source says them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Attributes {
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub mtime: i64,
}

/// A tree being read from one source.
#[derive(Debug)]
pub(crate) struct Ingest<'a> {
    pub tree: Tree,
    pub store: Store,
    /// For messages: where the members come from.
    pub source: PathBuf,
    pub session: Session<'a>,
    name: String,
    notes: BTreeMap<String, u64>,
    content_bytes: u64,
}

impl<'a> Ingest<'a> {
    /// Begins with an empty tree. `name` is the template's, `source` what is read, for messages.
    pub(crate) fn new(store: Store, name: &str, source: &Path, session: Session<'a>) -> Self {
        Self {
            tree: Tree::new(),
            store,
            source: source.to_owned(),
            session,
            name: name.to_owned(),
            notes: BTreeMap::new(),
            content_bytes: 0,
        }
    }

    /// Remembers that something was changed or left out.
    pub(crate) fn note(&mut self, what: impl Into<String>) {
        let what = what.into();
        if self.notes.len() < NOTE_KINDS_MAX || self.notes.contains_key(&what) {
            *self.notes.entry(what).or_default() += 1;
        }
    }

    /// What was changed or left out, with how often.
    pub(crate) fn notes(&self) -> Vec<String> {
        self.notes
            .iter()
            .map(|(what, count)| match count {
                1 => what.clone(),
                _ => format!("{what} ({count} times)"),
            })
            .collect()
    }

    /// Ends the work if it was cancelled.
    pub(crate) fn check(&self) -> Result<(), ImportError> {
        if self.session.cancel.is_cancelled() {
            return Err(ImportError::Cancelled {
                name: self.name.clone(),
            });
        }
        Ok(())
    }

    /// An error in reading the source; a cancellation shows as one.
    pub(crate) fn read_error(&self, source: std::io::Error) -> ImportError {
        use std::io::ErrorKind;
        if let Err(cancelled) = self.check() {
            return cancelled;
        }
        match source.kind() {
            ErrorKind::UnexpectedEof => self.damaged("it ends in the middle"),
            // What decoders say of streams that contradict themselves.
            ErrorKind::InvalidData | ErrorKind::InvalidInput | ErrorKind::Other => {
                self.damaged(source.to_string())
            }
            _ => ImportError::Read {
                path: self.source.clone(),
                source,
            },
        }
    }

    pub(crate) fn damaged(&self, what: impl Into<String>) -> ImportError {
        ImportError::Damaged {
            path: self.source.clone(),
            what: what.into(),
        }
    }

    pub(crate) fn refuse(&self, member: &[u8], source: impl Into<MemberError>) -> ImportError {
        let mut member = member.escape_ascii().to_string();
        member.truncate(300);
        ImportError::Member {
            path: self.source.clone(),
            member,
            source: source.into(),
        }
    }

    /// Reads a member's name.
    pub(crate) fn path(&self, name: &[u8]) -> Result<MemberPath, ImportError> {
        MemberPath::parse(name).map_err(|e| self.refuse(name, e))
    }

    /// Checks owner and attributes of a member and takes what may stay.
    pub(crate) fn metadata(
        &mut self,
        attributes: Attributes,
        extended: Vec<(Vec<u8>, Vec<u8>)>,
    ) -> Result<Metadata, MemberError> {
        let (uid, gid) = (attributes.uid, attributes.gid);
        let id = |id: u64| {
            u32::try_from(id)
                .ok()
                .filter(|_| id < ID_END)
                .ok_or(MemberError::Owner { uid, gid })
        };
        let mut kept = BTreeMap::new();
        let mut bytes = 0;
        for (name, value) in extended {
            match keep(&name, &value) {
                Some(value) => {
                    bytes += name.len() + value.len();
                    kept.insert(name.into_boxed_slice(), value);
                }
                None => {
                    let name = String::from_utf8_lossy(&name[..name.len().min(60)]).into_owned();
                    self.note(format!("extended attribute `{name}` left out"));
                }
            }
        }
        if kept.len() > ATTRIBUTES_MAX || bytes > ATTRIBUTE_BYTES_MAX {
            return Err(MemberError::Attributes);
        }
        Ok(Metadata {
            mode: attributes.mode & 0o7777,
            uid: id(uid)?,
            gid: id(gid)?,
            mtime: attributes.mtime.max(0),
            attributes: kept,
        })
    }

    /// Checks a symbolic link's target.
    pub(crate) fn symlink(target: &[u8]) -> Result<Body, MemberError> {
        if target.is_empty() || target.contains(&0) || target.len() > SYMLINK_BYTES_MAX {
            return Err(MemberError::LinkTarget);
        }
        Ok(Body::Symlink(Box::from(target)))
    }

    /// Checks a file's size against the limits and counts it.
    pub(crate) fn account(&mut self, size: u64) -> Result<(), MemberError> {
        if size > FILE_BYTES_MAX {
            return Err(MemberError::FileSize { size });
        }
        self.content_bytes += size;
        if self.content_bytes > CONTENT_BYTES_MAX {
            return Err(MemberError::ContentSize);
        }
        Ok(())
    }

    /// Takes the content of a file from a stream. The caller accounted for its size.
    pub(crate) fn content(&mut self, input: &mut dyn Read, size: u64) -> Result<Body, ImportError> {
        if size <= INLINE_BYTES_MAX as u64 {
            return self.inline(input, size);
        }
        let put = self.store.put(input, size);
        self.object(put)
    }

    /// Takes the content of a file of the host, sharing blocks where possible.
    pub(crate) fn file(&mut self, file: &mut File, size: u64) -> Result<Body, ImportError> {
        if size <= INLINE_BYTES_MAX as u64 {
            return self.inline(file, size);
        }
        let put = self.store.put_file(file, size);
        self.object(put)
    }

    fn inline(&mut self, input: &mut dyn Read, size: u64) -> Result<Body, ImportError> {
        let mut bytes = Vec::with_capacity(INLINE_BYTES_MAX);
        input
            .take(size)
            .read_to_end(&mut bytes)
            .map_err(|e| self.read_error(e))?;
        if bytes.len() as u64 != size {
            return Err(self.read_error(std::io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(Body::File(Content::Inline(bytes.into_boxed_slice())))
    }

    fn object(&self, put: Result<Put, PutError>) -> Result<Body, ImportError> {
        match put {
            Ok(Put { id, size }) => Ok(Body::File(Content::Object(id, size))),
            Err(PutError::Read(e)) => Err(self.read_error(e)),
            Err(PutError::Store(e)) => Err(e.into()),
        }
    }

    /// Puts a member into the tree and gives a sign of life now and then.
    pub(crate) fn insert(
        &mut self,
        path: &MemberPath,
        metadata: Metadata,
        body: Body,
    ) -> Result<(), MemberError> {
        self.tree.insert(path, metadata, body)?;
        if self.tree.inodes().is_multiple_of(PROGRESS_INODES) {
            (self.session.progress)(Progress::Read {
                inodes: self.tree.inodes(),
                content_bytes: self.content_bytes,
            });
        }
        Ok(())
    }
}

/// The value with which an attribute stays, or `None` if it does not.
///
/// Capabilities of revision 3 name the user namespace that they were set in by its root's id on that
/// machine. Inside the VE they count for the VE, which is what revision 2 says there
/// (`include/uapi/linux/capability.h`).
fn keep(name: &[u8], value: &[u8]) -> Option<Box<[u8]>> {
    const REVISION_2_BYTES: usize = 20;
    const REVISION_3_BYTES: usize = 24;
    let overlay = name.starts_with(b"user.overlay.") || name == b"user.";
    if name.starts_with(b"user.") {
        return (!overlay && name.len() <= 255).then(|| Box::from(value));
    }
    if name != b"security.capability" {
        return None;
    }
    match (value.len(), value.get(3)) {
        (REVISION_2_BYTES, Some(2)) => Some(Box::from(value)),
        (REVISION_3_BYTES, Some(3)) => {
            let mut value = value[..REVISION_2_BYTES].to_vec();
            value[3] = 2;
            Some(value.into_boxed_slice())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_only_harmless_attributes() {
        for name in [
            "trusted.overlay.redirect",
            "trusted.x",
            "security.selinux",
            "security.ima",
            "user.overlay.redirect",
            "system.posix_acl_access",
            "nonsense",
        ] {
            assert_eq!(keep(name.as_bytes(), b"x"), None, "{name}");
        }
        assert!(keep(b"user.note", b"x").is_some());
    }

    #[test]
    fn capabilities_belong_to_the_ve() {
        let second = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let mut third = second.to_vec();
        third[3] = 3;
        third.extend(1_000_000_u32.to_le_bytes());
        let keep = |value: &[u8]| keep(b"security.capability", value);
        assert_eq!(keep(&second).as_deref(), Some(&second[..]));
        assert_eq!(keep(&third).as_deref(), Some(&second[..]));
        assert_eq!(keep(b"short"), None);
    }
}
