//! A stopped VE's whole tree as a tar stream, to be kept as a template.
//!
//! Unlike a copy for people ([`super::files`]) it keeps what a system's files need: hard links, file capabilities,
//! named pipes. Sockets are left out, for nobody listens; device nodes are, for a VE has none of its own there.
//! The tree is hostile: it is walked without recursion, no link is followed, and a name that is too long for
//! a path ends the walk with an error.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs::{self, File, Metadata};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use tar::{Builder, EntryType, Header};

/// The one attribute of a system's files that counts; in tar as GNU tar and bsdtar write it.
const CAPABILITY: &str = "security.capability";
const CAPABILITY_RECORD: &str = "SCHILY.xattr.security.capability";
/// `struct vfs_ns_cap_data` has 24 bytes; what is longer is something else.
const CAPABILITY_BYTES_MAX: usize = 64;

/// Writes everything beneath this process's root.
pub(super) fn pack(stream: File) -> io::Result<()> {
    let mut packer = Packer::new(io::BufWriter::with_capacity(256 * 1024, stream));
    match packer.put_all() {
        Ok(()) => packer.archive.into_inner()?.stream.flush(),
        Err(error) => {
            packer.archive.get_mut().broken = true;
            Err(error)
        }
    }
}

/// A stream that takes nothing more once it is broken: an archive that is dropped half-way would get its end mark
/// otherwise, and look whole.
struct Stream<W> {
    stream: W,
    broken: bool,
}

impl<W: io::Write> io::Write for Stream<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.broken {
            true => Err(io::ErrorKind::BrokenPipe.into()),
            false => self.stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

struct Packer<W: io::Write> {
    archive: Builder<Stream<W>>,
    /// Files with several names that were written already, by inode.
    first_names: HashMap<(u64, u64), PathBuf>,
}

impl<W: io::Write> Packer<W> {
    fn new(stream: W) -> Self {
        let broken = false;
        Self {
            archive: Builder::new(Stream { stream, broken }),
            first_names: HashMap::new(),
        }
    }

    fn put_all(&mut self) -> io::Result<()> {
        let mut folders = vec![PathBuf::from("/")];
        while let Some(folder) = folders.pop() {
            self.put(&folder, &fs::symlink_metadata(&folder)?)?;
            for entry in fs::read_dir(&folder)? {
                let path = entry?.path();
                let metadata = fs::symlink_metadata(&path)?;
                if metadata.is_dir() {
                    folders.push(path);
                } else {
                    self.put(&path, &metadata)?;
                }
            }
        }
        Ok(())
    }

    fn put(&mut self, path: &Path, metadata: &Metadata) -> io::Result<()> {
        let name = match path.strip_prefix("/") {
            Ok(below) if below.as_os_str().is_empty() => Path::new("."),
            Ok(below) => below,
            Err(_) => path,
        };
        let kind = metadata.file_type();
        let mut header = Header::new_gnu();
        header.set_mode(metadata.mode() & 0o7777);
        header.set_uid(metadata.uid().into());
        header.set_gid(metadata.gid().into());
        header.set_mtime(metadata.mtime().max(0).cast_unsigned());
        header.set_size(0);
        if !metadata.is_dir() && metadata.nlink() > 1 {
            let inode = (metadata.dev(), metadata.ino());
            if let Some(first) = self.first_names.get(&inode) {
                header.set_entry_type(EntryType::Link);
                return self.archive.append_link(&mut header, name, first);
            }
            self.first_names.insert(inode, name.to_owned());
        }
        if kind.is_symlink() {
            header.set_entry_type(EntryType::Symlink);
            let target = fs::read_link(path)?;
            return self.archive.append_link(&mut header, name, target);
        }
        if kind.is_dir() {
            header.set_entry_type(EntryType::Directory);
        } else if kind.is_fifo() {
            header.set_entry_type(EntryType::Fifo);
        } else if kind.is_file() {
            return self.put_file(path, name, header);
        } else {
            return Ok(());
        }
        self.archive.append_data(&mut header, name, io::empty())
    }

    fn put_file(&mut self, path: &Path, name: &Path, mut header: Header) -> io::Result<()> {
        let mut file = File::open(path)?;
        if let Some(value) = capability(path)? {
            let record = [(CAPABILITY_RECORD, value.as_slice())];
            self.archive.append_pax_extensions(record)?;
        }
        header.set_entry_type(EntryType::Regular);
        // As long as it is now: nobody else is here to change it.
        header.set_size(file.metadata()?.len());
        self.archive.append_data(&mut header, name, &mut file)
    }
}

fn capability(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let mut value = [0; CAPABILITY_BYTES_MAX];
    match rustix::fs::lgetxattr(name.as_c_str(), CAPABILITY, &mut value[..]) {
        Ok(length) => Ok(Some(value[..length].to_vec())),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hard_links_pipes_and_owners_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, b"content").unwrap();
        fs::hard_link(&file, folder.path().join("second")).unwrap();
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, folder.path().join("pipe"), kind, mode, 0).unwrap();
        let mut packer = Packer::new(Vec::new());
        for name in ["file", "second", "pipe"] {
            let path = folder.path().join(name);
            packer
                .put(&path, &fs::symlink_metadata(&path).unwrap())
                .unwrap();
        }
        let bytes = packer.archive.into_inner().unwrap().stream;
        let mut archive = tar::Archive::new(bytes.as_slice());
        let kinds = archive.entries().unwrap();
        let kinds: Vec<_> = kinds.map(|e| e.unwrap().header().entry_type()).collect();
        assert_eq!(
            kinds,
            [EntryType::Regular, EntryType::Link, EntryType::Fifo]
        );
    }

    #[test]
    fn an_archive_that_broke_off_has_no_end() {
        let mut written = Vec::new();
        let mut packer = Packer::new(&mut written);
        packer
            .put(Path::new("/etc"), &fs::symlink_metadata("/etc").unwrap())
            .unwrap();
        packer.archive.get_mut().broken = true;
        drop(packer);
        assert_eq!(written.len(), 512, "one header, and no end mark");
    }
}
