//! Makes a tar archive of files of this host.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use tar::{Builder, EntryType, Header};

/// Deepest folder below the top one. Deeper trees are made by attacks, not by people.
const DEPTH_MAX: usize = 512;

/// Writes an archive of `from` and everything below it, under the name `name`. Links below are kept as
/// links; `from` itself is followed. Owners become root unless `keep`.
///
/// # Errors
/// What cannot be read, by name, or why `out` cannot be written.
pub(super) fn pack(out: impl Write, from: &Path, name: &OsStr, keep: bool) -> io::Result<()> {
    let mut builder = Builder::new(BufWriter::new(out));
    let mut waiting = vec![(from.to_owned(), PathBuf::from(name), 0)];
    while let Some((path, inside, depth)) = waiting.pop() {
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("`{}`: {error}", path.display()))
        };
        let metadata = if depth == 0 {
            fs::metadata(&path)
        } else {
            fs::symlink_metadata(&path)
        };
        let metadata = metadata.map_err(named)?;
        if metadata.is_dir() {
            if depth == DEPTH_MAX {
                return Err(named(io::Error::other(format!(
                    "deeper than {DEPTH_MAX} folders"
                ))));
            }
            let mut header = header(&metadata, EntryType::Directory, keep);
            builder.append_data(&mut header, &inside, io::empty())?;
            for entry in fs::read_dir(&path).map_err(named)? {
                let entry = entry.map_err(named)?;
                waiting.push((entry.path(), inside.join(entry.file_name()), depth + 1));
            }
        } else if metadata.is_symlink() {
            let target = fs::read_link(&path).map_err(named)?;
            let mut header = header(&metadata, EntryType::Symlink, keep);
            builder.append_link(&mut header, &inside, target)?;
        } else if metadata.is_file() {
            append_file(&mut builder, &path, &inside, keep).map_err(named)?;
        } else if depth == 0 || !metadata.file_type().is_socket() {
            return Err(named(io::Error::other("it is no file, folder or link")));
        }
    }
    builder.into_inner()?.flush()
}

/// Appends a file with the size that it had when it was opened: one that shrinks meanwhile is filled up, one that
/// grows is cut, so that the archive stays whole.
fn append_file(
    builder: &mut Builder<impl Write>,
    path: &Path,
    inside: &Path,
    keep: bool,
) -> io::Result<()> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let mut header = header(&metadata, EntryType::Regular, keep);
    header.set_size(metadata.len());
    let content = file.chain(io::repeat(0)).take(metadata.len());
    builder.append_data(&mut header, inside, content)
}

fn header(metadata: &Metadata, kind: EntryType, keep: bool) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(0);
    header.set_mode(metadata.mode() & 0o7777);
    header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or(0));
    let (uid, gid) = if keep {
        (metadata.uid(), metadata.gid())
    } else {
        (0, 0)
    };
    header.set_uid(uid.into());
    header.set_gid(gid.into());
    header
}
