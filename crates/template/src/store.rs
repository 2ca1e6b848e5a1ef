//! The object store: a composefs repository whose objects are named by their content alone.
//!
//! ```text
//! store/meta.json          what the repository is (crate `composefs`)
//! store/objects/ab/cdef... one file per content, named by its fs-verity digest (SHA-256)
//! store/images/DIGEST      link to the object that is an image
//! ```
//!
//! Contents are hashed while they are written, into a file that has no name yet, and get their name
//! last: an object is there whole or not at all. A machine that loses power can still leave an
//! object without its bytes, so whoever makes an image durable calls [`Store::sync`] before it gives
//! the image a name, and an import that died is followed by a garbage collection, which removes
//! everything that no template refers to.
//!
//! The crate's own writer of objects is not used because it hashes or writes every content a second
//! time and does not say whether a content was new; its image writer, reader and garbage collector
//! are. fs-verity itself is not required of the file system: [`Catalogue::verify`](crate::Catalogue::verify) hashes instead.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use composefs::erofs::format::{FormatConfig, FormatVersion};
use composefs::fsverity::{FsVerityHashValue, FsVerityHasher, Sha256HashValue};
use composefs::repository::{Repository, RepositoryConfig};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

/// Name of an object: the fs-verity digest (SHA-256, 4 KiB blocks) of its content.
pub(crate) type ObjectId = Sha256HashValue;

/// Contents up to this size are hashed before anything is written, so that what the store has
/// already costs no write.
const BUFFER_BYTES: usize = 256 << 10;

/// Runs of zeros are left out of an object's file in multiples of this.
const HOLE_BYTES: usize = 4096;

/// Name of the repository in the catalogue's directory.
pub(crate) const DIRECTORY: &str = "store";

/// The object store cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No space, or the quota is used up.
    #[error("no space left for the contents of the template; free some space in the pool")]
    Full,
    /// A system call failed.
    #[error("cannot {action} in the object store")]
    System {
        /// What was being done.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The composefs library refused.
    #[error("cannot {action} the composefs repository")]
    Repository {
        /// What was being done.
        action: &'static str,
        /// The library's words.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl StoreError {
    pub(crate) fn system(action: &'static str, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::System { action, source },
        }
    }

    fn repository(
        action: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        let source = source.into();
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(source.as_ref());
        while let Some(error) = cause {
            let errno = error.downcast_ref::<Errno>().copied().or_else(|| {
                error
                    .downcast_ref::<io::Error>()
                    .and_then(Errno::from_io_error)
            });
            if matches!(errno, Some(Errno::NOSPC | Errno::DQUOT)) {
                return Self::Full;
            }
            cause = error.source();
        }
        Self::Repository { action, source }
    }
}

/// A content could not be put into the store.
#[derive(Debug)]
pub(crate) enum PutError {
    /// The source could not be read, or is shorter than it said.
    Read(io::Error),
    /// The store could not be written.
    Store(StoreError),
}

/// The store, open for adding contents. Whoever adds holds the catalogue's shared lock.
#[derive(Debug)]
pub(crate) struct Store {
    objects: OwnedFd,
    buffer: Vec<u8>,
    new_bytes: u64,
}

/// An object that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Put {
    pub id: ObjectId,
    pub size: u64,
}

/// State of one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    Sound,
    Missing,
    Size(u64),
    Content,
}

/// Makes the repository if there is none.
pub(crate) fn prepare(catalogue: impl AsFd) -> Result<(), StoreError> {
    let mut config = RepositoryConfig::default().set_insecure();
    // The default format keeps 256 whiteouts in the root directory for overlays that know no
    // data-only layers. Ours do, each listing of a VE's root would have to look at them all, and a root
    // should hold nothing that is not in its template. This format keeps times in whole seconds.
    config.erofs_formats = FormatConfig::single(FormatVersion::V2);
    let (repository, _) = Repository::<ObjectId>::init_path(catalogue, DIRECTORY, config)
        .map_err(|source| StoreError::repository("prepare", source))?;
    repository
        .objects_dir()
        .map_err(|errno| StoreError::system("open the directory of objects", errno))?;
    Ok(())
}

/// Opens the directory of objects: the data-only layer below every image.
pub(crate) fn open_objects(catalogue: impl AsFd) -> Result<OwnedFd, StoreError> {
    rustix::fs::openat(
        catalogue,
        format!("{DIRECTORY}/objects"),
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW,
        Mode::empty(),
    )
    .map_err(|errno| StoreError::system("open the directory of objects", errno))
}

/// Removes every object and image that none of `images` (digests) needs. The caller holds the
/// catalogue's exclusive lock.
pub(crate) fn collect_garbage(
    catalogue: impl AsFd,
    images: &[&str],
) -> Result<(u64, u64), StoreError> {
    let repository = Repository::<ObjectId>::open_path(catalogue, DIRECTORY)
        .map_err(|source| StoreError::repository("open", source))?;
    let result = repository
        .gc(images)
        .map_err(|source| StoreError::repository("collect garbage in", source))?;
    Ok((result.objects_removed, result.objects_bytes))
}

/// Writes an image into the store and gives its digest.
pub(crate) fn write_image(catalogue: impl AsFd, image: &[u8]) -> Result<ObjectId, StoreError> {
    let repository = Repository::<ObjectId>::open_path(catalogue, DIRECTORY)
        .map_err(|source| StoreError::repository("open", source))?;
    repository
        .write_image(None, image)
        .map_err(|source| StoreError::repository("write an image to", source))
}

impl Store {
    /// Opens the store of a catalogue.
    pub(crate) fn open(catalogue: impl AsFd) -> Result<Self, StoreError> {
        Ok(Self {
            objects: open_objects(catalogue)?,
            buffer: Vec::new(),
            new_bytes: 0,
        })
    }

    /// Bytes of contents that the store did not have before they were put.
    pub(crate) fn new_bytes(&self) -> u64 {
        self.new_bytes
    }

    /// Waits until everything written so far survives a loss of power.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        rustix::fs::syncfs(&self.objects)
            .map_err(|errno| StoreError::system("sync the contents", errno))
    }

    /// Puts exactly `size` bytes of a source into the store.
    pub(crate) fn put(&mut self, source: &mut dyn Read, size: u64) -> Result<Put, PutError> {
        if size > BUFFER_BYTES as u64 {
            return self.put_large(source, size);
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        source
            .take(size)
            .read_to_end(&mut buffer)
            .map_err(PutError::Read)?;
        if buffer.len() as u64 != size {
            return Err(PutError::Read(io::ErrorKind::UnexpectedEof.into()));
        }
        let id = FsVerityHasher::<ObjectId>::hash(&buffer);
        if !self.has(&id, size) {
            let mut file = self.unnamed().map_err(PutError::Store)?;
            file.write_all(&buffer)
                .map_err(|e| PutError::Store(StoreError::system("write a content", e)))?;
            self.name(&file, &id, size).map_err(PutError::Store)?;
        }
        self.buffer = buffer;
        Ok(Put { id, size })
    }

    fn put_large(&mut self, source: &mut dyn Read, size: u64) -> Result<Put, PutError> {
        let write_error = |e: io::Error| PutError::Store(StoreError::system("write a content", e));
        let mut file = self.unnamed().map_err(PutError::Store)?;
        let mut hasher = FsVerityHasher::<ObjectId>::new();
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(BUFFER_BYTES, 0);
        let mut left = size;
        while left > 0 {
            let wanted = buffer
                .len()
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            let chunk = &mut buffer[..wanted];
            source.read_exact(chunk).map_err(PutError::Read)?;
            hasher.write_all(chunk).map_err(write_error)?;
            write_sparse(&mut file, chunk).map_err(write_error)?;
            left -= wanted as u64;
        }
        self.buffer = buffer;
        file.set_len(size).map_err(write_error)?;
        let id = hasher.digest();
        self.name(&file, &id, size).map_err(PutError::Store)?;
        Ok(Put { id, size })
    }

    /// Puts a whole file into the store, sharing its blocks where the file system can (reflink).
    /// What is stored is what was cloned: the source may change meanwhile.
    pub(crate) fn put_file(&mut self, source: &mut File, size: u64) -> Result<Put, PutError> {
        if size > BUFFER_BYTES as u64 {
            let mut clone = self.unnamed().map_err(PutError::Store)?;
            if rustix::fs::ioctl_ficlone(&clone, &source).is_ok() {
                let (id, size) = hash(&mut clone).map_err(PutError::Read)?;
                self.name(&clone, &id, size).map_err(PutError::Store)?;
                return Ok(Put { id, size });
            }
        }
        self.put(source, size)
    }

    fn has(&self, id: &ObjectId, size: u64) -> bool {
        rustix::fs::statat(
            &self.objects,
            id.to_object_pathname(),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .is_ok_and(|stat| u64::try_from(stat.st_size) == Ok(size))
    }

    fn unnamed(&self) -> Result<File, StoreError> {
        rustix::fs::openat(
            &self.objects,
            ".",
            OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC,
            Mode::from_raw_mode(0o644),
        )
        .map(File::from)
        .map_err(|errno| StoreError::system("create a file", errno))
    }

    fn name(&mut self, file: &File, id: &ObjectId, size: u64) -> Result<(), StoreError> {
        if self.has(id, size) {
            return Ok(());
        }
        match rustix::fs::mkdirat(
            &self.objects,
            id.to_object_dir(),
            Mode::from_raw_mode(0o755),
        ) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(StoreError::system("create a directory", errno)),
        }
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file));
        let object = id.to_object_pathname();
        let link =
            || rustix::fs::linkat(CWD, &path, &self.objects, &object, AtFlags::SYMLINK_FOLLOW);
        let linked = match link() {
            // Something else has the name with another length: a file that lost its bytes.
            Err(Errno::EXIST) if !self.has(id, size) => {
                rustix::fs::unlinkat(&self.objects, &object, AtFlags::empty())
                    .map_err(|errno| StoreError::system("replace a damaged object", errno))?;
                link()
            }
            result => result,
        };
        match linked {
            Ok(()) => self.new_bytes += size,
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(StoreError::system("name a content", errno)),
        }
        Ok(())
    }
}

/// Where an object lies beneath the directory of objects.
pub(crate) fn object_path(id: &ObjectId) -> String {
    id.to_object_pathname()
}

/// Opens an object for reading.
pub(crate) fn open_object(objects: impl AsFd, id: &ObjectId) -> io::Result<File> {
    Ok(File::from(rustix::fs::openat(
        objects,
        id.to_object_pathname(),
        OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW,
        Mode::empty(),
    )?))
}

/// Hashes an object and compares with its name.
pub(crate) fn verify(objects: impl AsFd, id: &ObjectId, size: u64) -> io::Result<Health> {
    let mut file = match open_object(objects, id) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Health::Missing),
        Err(e) => return Err(e),
    };
    let found = file.metadata()?.len();
    if found != size {
        return Ok(Health::Size(found));
    }
    match hash(&mut file) {
        Ok((digest, _)) if digest == *id => Ok(Health::Sound),
        Ok(_) => Ok(Health::Content),
        // The disk itself, or the checksums of the file system, refuse to give the bytes.
        Err(e) if Errno::from_io_error(&e) == Some(Errno::IO) => Ok(Health::Content),
        Err(e) => Err(e),
    }
}

/// Name and length of a content.
pub(crate) fn hash(source: &mut impl Read) -> io::Result<(ObjectId, u64)> {
    let mut hasher = FsVerityHasher::<ObjectId>::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut size = 0;
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return Ok((hasher.digest(), size)),
            Ok(count) => {
                hasher.write_all(&buffer[..count])?;
                size += count as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// Writes a chunk, leaving holes for whole pages of zeros.
fn write_sparse(file: &mut File, chunk: &[u8]) -> io::Result<()> {
    use std::io::{Seek, SeekFrom};
    if chunk.iter().all(|byte| *byte == 0) && chunk.len().is_multiple_of(HOLE_BYTES) {
        let skipped = i64::try_from(chunk.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        file.seek(SeekFrom::Current(skipped))?;
        return Ok(());
    }
    file.write_all(chunk)
}
