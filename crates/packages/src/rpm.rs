//! rpm's database: a table of headers, one for each package.
//!
//! A header is a number of entries, a number of data bytes, the entries, the data: rpm's `lib/header.c`,
//! and "RPM v4 file format" of its manual. Everything is big-endian.

use crate::sqlite::{Database, InvalidDatabase, Value};
use crate::text::{sorted, word};
use crate::{PACKAGES_MAX, Package, WORD_BYTES_MAX};

/// The table, and its columns: a number, and the header.
const TABLE: &str = "Packages";

/// Tags of `rpmtag.h`.
const NAME: u32 = 1000;
const VERSION: u32 = 1001;
const RELEASE: u32 = 1002;
const EPOCH: u32 = 1003;
const ARCHITECTURE: u32 = 1022;
const SOURCE: u32 = 1044;

/// Types of entries: a 32-bit number, a text that ends with a zero.
const TYPE_INT32: u32 = 4;
const TYPE_STRING: u32 = 6;

/// Entries of a header that are looked at; the kernel's package has about 100.
const ENTRIES_MAX: usize = 1_000;

/// What rpm keeps keys of signers as: they are no software.
const KEY: &str = "gpg-pubkey";

/// Lists the packages of an `rpmdb.sqlite`. A header that cannot be read is left out.
///
/// # Errors
/// When the bytes are no database, a damaged one, or one without packages.
pub fn rpm(database: &[u8]) -> Result<Vec<Package>, InvalidDatabase> {
    let mut found = Vec::new();
    Database::new(database)?.rows(TABLE, |columns| {
        if let Some(Value::Bytes(header)) = columns.get(1) {
            found.extend(package(header).filter(|package| package.name != KEY));
        }
        found.len() < PACKAGES_MAX
    })?;
    Ok(sorted(found))
}

fn package(header: &[u8]) -> Option<Package> {
    let entries = usize::try_from(u32_at(header, 0)?).ok()?;
    let data_begin = entries.checked_mul(16)?.checked_add(8)?;
    let data = header.get(data_begin..)?;
    let (mut package, mut version, mut release, mut epoch) = (Package::default(), None, None, None);
    for entry in header[8..data_begin].chunks_exact(16).take(ENTRIES_MAX) {
        let [tag, kind, offset] = [0, 4, 8].map(|at| u32_at(entry, at));
        let offset = usize::try_from(offset?).ok()?;
        let text = || (kind == Some(TYPE_STRING)).then(|| text_at(data, offset))?;
        match tag? {
            NAME => package.name = text()?,
            VERSION => version = text(),
            RELEASE => release = text(),
            EPOCH if kind == Some(TYPE_INT32) => epoch = u32_at(data, offset),
            ARCHITECTURE => package.architecture = text().unwrap_or_default(),
            SOURCE => package.source = text().and_then(|file| source(&file)),
            _ => {}
        }
    }
    let epoch = epoch.map(|epoch| format!("{epoch}:")).unwrap_or_default();
    package.version = format!("{epoch}{}-{}", version?, release?);
    package.source = package.source.take().filter(|s| *s != package.name);
    (!package.name.is_empty()).then_some(package)
}

/// The name in `NAME-VERSION-RELEASE.src.rpm`.
fn source(file: &str) -> Option<String> {
    let (rest, _release) = file.rsplit_once('-')?;
    let (name, _version) = rest.rsplit_once('-')?;
    Some(name.to_owned())
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(four.try_into().ok()?))
}

fn text_at(data: &[u8], at: usize) -> Option<String> {
    let rest = data.get(at..)?;
    let length = rest.iter().take(WORD_BYTES_MAX + 1).position(|b| *b == 0)?;
    word(&String::from_utf8_lossy(&rest[..length]))
}

#[cfg(test)]
mod tests;
