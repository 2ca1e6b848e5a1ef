//! Unpacks a tar archive that a VE made. Its root is hostile; this host must not care.
//!
//! Nothing is ever reached by a path: each folder is opened by its parent's descriptor without following
//! links, so neither `..`, nor absolute names, nor a link that the archive made a moment before leads out
//! of the target. What an archive must not bring along is left out: devices, pipes, set-user-id bits.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, fchmod, fchown, futimens,
    linkat, mkdirat, openat, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use tar::{Archive, Entry, EntryType, Header};

/// Folders whose mode and time are set at the end are remembered up to this number.
const FOLDERS_MAX: usize = 1_000_000;

/// Where an archive goes.
#[derive(Debug)]
pub(super) struct Target {
    root: OwnedFd,
    /// Components of each entry that are taken away before `name` is put in their place.
    strip: usize,
    name: OsString,
    keep: bool,
}

/// A folder that waits for its final mode: a read-only one could not be filled.
struct Waiting {
    path: PathBuf,
    header: Header,
}

impl Target {
    /// Opens the folder that the copy is put in, under `name`. With `keep`, owners are kept by number.
    ///
    /// # Errors
    /// The folder cannot be opened.
    pub(super) fn open(
        folder: &Path,
        strip: usize,
        name: OsString,
        keep: bool,
    ) -> io::Result<Self> {
        let root = openat(CWD, folder, FOLDER, Mode::empty())?;
        Ok(Self {
            root,
            strip,
            name,
            keep,
        })
    }

    /// Where an entry goes: plain components below the target's folder.
    fn place(&self, path: &Path) -> io::Result<PathBuf> {
        let mut place = PathBuf::from(&self.name);
        let mut strip = self.strip;
        for component in path.components() {
            match component {
                Component::CurDir => {}
                Component::Normal(_) if strip > 0 => strip -= 1,
                Component::Normal(name) => place.push(name),
                Component::RootDir | Component::ParentDir | Component::Prefix(_) => {
                    return Err(refused(path, "it leads out of the copy"));
                }
            }
        }
        Ok(place)
    }

    /// Opens the folder of a place, making those that are missing, and gives the last component.
    fn parent<'a>(&self, place: &'a Path) -> io::Result<(OwnedFd, &'a OsStr)> {
        let mut folder = openat(&self.root, c".", FOLDER, Mode::empty())?;
        let mut components = place.iter().peekable();
        while let Some(name) = components.next() {
            if components.peek().is_none() {
                return Ok((folder, name));
            }
            folder = match openat(&folder, name, FOLDER | OFlags::NOFOLLOW, Mode::empty()) {
                Err(Errno::NOENT) => {
                    mkdirat(&folder, name, Mode::RWXU)?;
                    openat(&folder, name, FOLDER | OFlags::NOFOLLOW, Mode::empty())?
                }
                opened => opened?,
            };
        }
        Err(refused(place, "it has no name"))
    }
}

const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Unpacks an archive into its target. Gives what was left out.
///
/// # Errors
/// An entry that leads out of the target, what the kernel refuses, and an archive that is none, each by name.
pub(super) fn unpack(archive: impl Read, target: Target) -> io::Result<Vec<String>> {
    let mut archive = Archive::new(BufReader::new(archive));
    let (mut folders, mut skipped) = (Vec::new(), Vec::new());
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = PathBuf::from(OsStr::from_bytes(&entry.path_bytes()));
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("`{}`: {error}", path.display()))
        };
        let place = target.place(&path)?;
        let made = make(&target, &mut entry, &place).map_err(named)?;
        match made {
            Made::Done => {}
            Made::Skipped => skipped.push(path.display().to_string()),
            Made::Folder if folders.len() == FOLDERS_MAX => {
                return Err(refused(
                    &path,
                    "the archive has more than a million folders",
                ));
            }
            Made::Folder => folders.push(Waiting {
                path: place,
                header: entry.header().clone(),
            }),
        }
    }
    // Inner folders first: an outer one may become unreadable.
    for folder in folders.iter().rev() {
        finish_folder(&target, folder)
            .map_err(|error| refused(&folder.path, &error.to_string()))?;
    }
    // What follows the end of the archive is read too, so that its sender is not cut off.
    io::copy(&mut archive.into_inner(), &mut io::sink())?;
    Ok(skipped)
}

enum Made {
    Done,
    Folder,
    Skipped,
}

fn make(target: &Target, entry: &mut Entry<'_, impl Read>, place: &Path) -> io::Result<Made> {
    let kind = entry.header().entry_type();
    match kind {
        EntryType::Directory => {
            let (folder, name) = target.parent(place)?;
            match mkdirat(&folder, name, Mode::RWXU) {
                Err(Errno::EXIST) => {
                    openat(&folder, name, FOLDER | OFlags::NOFOLLOW, Mode::empty())?;
                }
                made => made?,
            }
            Ok(Made::Folder)
        }
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            let (folder, name) = target.parent(place)?;
            make_room(&folder, name)?;
            let flags =
                OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut file = File::from(openat(&folder, name, flags, Mode::RUSR | Mode::WUSR)?);
            io::copy(entry, &mut file)?;
            finish(&file, entry.header(), target.keep)?;
            Ok(Made::Done)
        }
        EntryType::Symlink => {
            let link = entry.link_name_bytes().unwrap_or_default().into_owned();
            let (folder, name) = target.parent(place)?;
            make_room(&folder, name)?;
            symlinkat(OsStr::from_bytes(&link), &folder, name)?;
            Ok(Made::Done)
        }
        EntryType::Link => {
            let link = entry.link_name_bytes().unwrap_or_default().into_owned();
            make_link(target, Path::new(OsStr::from_bytes(&link)), place)?;
            Ok(Made::Done)
        }
        EntryType::Char | EntryType::Block | EntryType::Fifo => Ok(Made::Skipped),
        // Headers about other entries, which the reader of archives has used already.
        _ => Ok(Made::Done),
    }
}

/// Makes a second name of a file that the archive brought along.
fn make_link(target: &Target, link: &Path, place: &Path) -> io::Result<()> {
    let other = target.place(link)?;
    let (other_folder, other_name) = target.parent(&other)?;
    let found = statat(&other_folder, other_name, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
        return Err(refused(link, "only a file can have a second name"));
    }
    let (folder, name) = target.parent(place)?;
    if other == *place {
        return Ok(());
    }
    make_room(&folder, name)?;
    linkat(&other_folder, other_name, &folder, name, AtFlags::empty())?;
    Ok(())
}

/// Takes away what has the name already, unless it is a folder.
fn make_room(folder: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn finish_folder(target: &Target, waiting: &Waiting) -> io::Result<()> {
    let (folder, name) = target.parent(&waiting.path)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = openat(&folder, name, flags, Mode::empty())?;
    finish(&opened, &waiting.header, target.keep)
}

/// Gives a file or folder its owner, then its mode without the bits that would lend rights, then its time.
fn finish(file: impl AsFd, header: &Header, keep: bool) -> io::Result<()> {
    if keep {
        let number = |value: io::Result<u64>| u32::try_from(value?).map_err(io::Error::other);
        let uid = Uid::from_raw(number(header.uid())?);
        let gid = Gid::from_raw(number(header.gid())?);
        fchown(&file, Some(uid), Some(gid))?;
    }
    fchmod(&file, Mode::from_raw_mode(header.mode()? & 0o777))?;
    let seconds = i64::try_from(header.mtime()?).unwrap_or(0);
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    futimens(
        &file,
        &Timestamps {
            last_access: time,
            last_modification: time,
        },
    )?;
    Ok(())
}

fn refused(path: &Path, why: &str) -> io::Error {
    io::Error::other(format!("`{}`: {why}", path.display()))
}

#[cfg(test)]
mod tests;
