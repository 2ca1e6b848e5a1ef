//! Archives of packages that were fetched for a template, kept for whoever needs the same again.
//!
//! ```text
//! DIR/packages/TEMPLATE/SHA256   one archive, by the digest of its bytes
//! DIR/packages/TEMPLATE/.new-ID  one that is being written
//! ```
//!
//! What is kept is only ever given to somebody who names its digest, as apt does from the lists that its mirror signed. So
//! an archive that somebody slipped in has a digest that nobody asks for, and does no harm but for its place.
//! The oldest go when there are too many bytes of them; using one makes it young again.

use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use composefs::digest::{Digest as _, Sha256};
use ve::Name;

use crate::catalogue::Catalogue;
use crate::image::hexadecimal;

/// Bytes of archives of one template: several updates of a server's packages.
const ALL_BYTES_MAX: u64 = 512 << 20;
/// Bytes of one archive.
const ARCHIVE_BYTES_MAX: u64 = 256 << 20;
/// Archives that one answer of apt names.
const WANTED_MAX: usize = 5_000;
/// Characters of an archive's name, which stands in a header of tar.
const NAME_LENGTH_MAX: usize = 99;

/// Folder of all that is kept, in that of the catalogue.
const FOLDER: &str = "packages";
/// What names of unfinished files begin with.
const NEW: &str = ".new-";

/// Archives of one template.
#[derive(Debug)]
pub struct Archives {
    path: PathBuf,
}

/// An archive that apt would fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedArchive {
    /// The file that apt looks for before it fetches it.
    pub name: String,
    /// Its bytes.
    pub size_bytes: u64,
    /// Their digest.
    pub sha256: String,
}

impl WantedArchive {
    /// Reads what `apt-get --print-uris` prints: `'URI' NAME SIZE SHA256:DIGEST` a line. It comes from inside, so whatever is
    /// not of this form is passed over, and names are plain names of files.
    #[must_use]
    pub fn parse_all(answer: &str) -> Vec<Self> {
        let lines = answer.lines().filter(|line| line.starts_with('\''));
        lines.filter_map(Self::parse).take(WANTED_MAX).collect()
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.rsplit(' ');
        let digest = words.next()?.strip_prefix("SHA256:")?;
        let size_bytes = words.next()?.parse().ok()?;
        let name = words.next()?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "+-._~%:".contains(c);
        let named = name.ends_with(".deb") && name.len() <= NAME_LENGTH_MAX;
        let named = named && !name.starts_with('.') && name.chars().all(plain);
        let hexadecimal = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        let digested = digest.len() == 64 && digest.chars().all(hexadecimal);
        (named && digested && size_bytes <= ARCHIVE_BYTES_MAX).then(|| Self {
            name: name.to_owned(),
            size_bytes,
            sha256: digest.to_owned(),
        })
    }
}

impl Catalogue {
    /// The archives that are kept for a template.
    #[must_use]
    pub fn archives(&self, template: &Name) -> Archives {
        let path = self.path().join(FOLDER).join(template.as_str());
        Archives { path }
    }
}

impl Archives {
    /// Opens an archive if it is kept.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn open(&self, wanted: &WantedArchive) -> io::Result<Option<File>> {
        let file = match File::options().read(true).open(self.file(wanted)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if file.metadata()?.len() != wanted.size_bytes {
            return Ok(None);
        }
        file.set_modified(SystemTime::now())?;
        Ok(Some(file))
    }

    /// Keeps an archive, if its bytes are what is wanted.
    ///
    /// # Errors
    /// Those of reading and of the disk; `InvalidData` for other bytes. Nothing is kept then.
    pub fn add(&self, wanted: &WantedArchive, from: impl Read) -> io::Result<()> {
        fs::create_dir_all(&self.path)?;
        let path = self.path.join(format!("{NEW}{}", uuid::Uuid::new_v4()));
        let added = self.write(wanted, from, &path);
        if added.is_err() {
            // The failure itself is what counts; what stays is removed by the next one who makes room.
            let _ = fs::remove_file(&path);
        }
        added?;
        self.make_room()
    }

    fn write(&self, wanted: &WantedArchive, from: impl Read, path: &Path) -> io::Result<()> {
        let mut file = File::create_new(path)?;
        let mut from = from.take(wanted.size_bytes);
        let (mut digest, mut bytes) = (Sha256::new(), 0);
        let mut buffer = vec![0; 128 << 10];
        loop {
            let read = from.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            digest.update(&buffer[..read]);
            file.write_all(&buffer[..read])?;
            bytes += read as u64;
        }
        let found = hexadecimal(&digest.finalize());
        if bytes != wanted.size_bytes || found != wanted.sha256 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{} is not what its mirror's lists say", wanted.name),
            ));
        }
        // A crash may leave its name without its bytes, which is an archive of the wrong size: not opened.
        fs::rename(path, self.file(wanted))
    }

    /// Removes what is too much, the oldest first, and what was never finished.
    fn make_room(&self) -> io::Result<()> {
        let mut kept = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            // Whoever removed it meanwhile made room, too.
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            let unfinished = entry.file_name().to_string_lossy().starts_with(NEW);
            let age = metadata.modified().ok().and_then(|at| at.elapsed().ok());
            if unfinished && age.is_some_and(|age| age.as_secs() > UNFINISHED_SECONDS) {
                fs::remove_file(entry.path())?;
            } else {
                kept.push((metadata.modified()?, metadata.len(), entry.path()));
            }
        }
        kept.sort();
        let mut bytes: u64 = kept.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, size, path) in kept {
            if bytes <= ALL_BYTES_MAX {
                return Ok(());
            }
            bytes -= size;
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes all of them.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn forget(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn file(&self, wanted: &WantedArchive) -> PathBuf {
        self.path.join(&wanted.sha256)
    }
}

/// After this long nobody writes a file any more.
const UNFINISHED_SECONDS: u64 = 3_600;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn wanted(content: &[u8]) -> WantedArchive {
        WantedArchive {
            name: "a_1_all.deb".to_owned(),
            size_bytes: content.len() as u64,
            sha256: crate::image::sha256(content),
        }
    }

    fn archives() -> (tempfile::TempDir, Archives) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("debian");
        (folder, Archives { path })
    }

    #[test]
    fn what_apt_prints_is_understood_and_nothing_else() {
        let digest = "0123456789abcdef".repeat(4);
        let text = format!(
            "Reading package lists...\n\
             'http://m/pool/a/a_1%3a2_amd64.deb' a_1%3a2_amd64.deb 53080 SHA256:{digest}\n\
             'http://m/b.deb' b.deb 5 MD5Sum:5c51ef7e47d1ad04ad0a7a04853bc510\n\
             'http://m/b.deb' b.deb 5 \n\
             'http://m/b.deb' ../b.deb 5 SHA256:{digest}\n\
             'http://m/b.deb' .deb 5 SHA256:{digest}\n\
             'http://m/b.deb' b.deb -5 SHA256:{digest}\n\
             'http://m/b.deb' b.deb 99999999999 SHA256:{digest}\n\
             'http://m/b.deb' b.deb 5 SHA256:../{}\n'\n",
            &digest[3..]
        );
        let expected = WantedArchive {
            name: "a_1%3a2_amd64.deb".to_owned(),
            size_bytes: 53_080,
            sha256: digest,
        };
        assert_eq!(WantedArchive::parse_all(&text), [expected]);
    }

    #[test]
    fn what_is_kept_is_given_back_and_forgotten() {
        let (_folder, archives) = archives();
        let one = wanted(b"one");
        assert!(archives.open(&one).unwrap().is_none());
        archives.add(&one, &b"one"[..]).unwrap();
        let mut content = String::new();
        let mut file = archives.open(&one).unwrap().unwrap();
        file.read_to_string(&mut content).unwrap();
        assert_eq!(content, "one");
        archives.forget().unwrap();
        archives.forget().unwrap();
        assert!(archives.open(&one).unwrap().is_none());
    }

    #[test]
    fn other_bytes_are_not_kept() {
        let (_folder, archives) = archives();
        for bytes in [&b"two"[..], b"on", b"onee"] {
            let one = wanted(b"one");
            let added = archives.add(&one, bytes);
            // What is behind the wanted bytes is not read.
            assert_eq!(added.is_ok(), bytes == b"onee");
            assert_eq!(archives.open(&one).unwrap().is_some(), bytes == b"onee");
        }
        assert_eq!(fs::read_dir(&archives.path).unwrap().count(), 1);
    }

    #[test]
    fn the_oldest_make_room() {
        let (_folder, archives) = archives();
        fs::create_dir_all(&archives.path).unwrap();
        let hour = Duration::from_secs(3_600);
        for (name, hours) in [("old", 3), ("older", 4), (".new-left", 2)] {
            let file = File::create(archives.path.join(name)).unwrap();
            file.set_len(ALL_BYTES_MAX / 2).unwrap();
            file.set_modified(SystemTime::now() - hour * hours).unwrap();
        }
        archives.add(&wanted(b"one"), &b"one"[..]).unwrap();
        let left = |name: &str| archives.path.join(name).exists();
        assert!(left("old") && !left("older") && !left(".new-left"));
    }
}
