//! Installed packages: what the databases of dpkg, apk, pacman and rpm say, which version is the older, and what differs
//! between two lists.
//!
//! Everything read here comes from inside a VE or an imported tree and is hostile. It is read as bytes in
//! memory that the caller has bounded, by plain Rust: nothing is executed, no program and no library of
//! the distribution is involved, and time and memory grow with the bytes given and no faster.
//!
//! This crate opens no file. It does not read rpm's older databases (Berkeley DB until 2020, and NDB of
//! SUSE); their names are in [`RPM_UNREAD`], so that a caller can say so.
#![forbid(unsafe_code)]

mod change;
mod rpm;
mod sqlite;
mod text;
mod version;

pub use change::{Change, changes};
pub use rpm::rpm;
pub use sqlite::InvalidDatabase;
pub use text::{apk, dpkg, pacman, word};
pub use version::compare;

/// Packages taken from one database; Debian's desktop has about 1,500.
pub const PACKAGES_MAX: usize = 20_000;

/// Bytes of a database that are worth reading: Debian's desktop has 3 MB, Fedora's 60.
pub const DATABASE_BYTES_MAX: u64 = 128 << 20;

/// Longest word taken from a database, in bytes.
pub const WORD_BYTES_MAX: usize = 200;

/// Names of rpm's databases that are not read, beneath the folder that holds them.
pub const RPM_UNREAD: [&str; 2] = ["Packages", "Packages.db"];

/// Whose database it is, and so how its versions compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Manager {
    /// Debian's.
    Dpkg,
    /// Alpine's.
    Apk,
    /// Arch Linux's.
    Pacman,
    /// Fedora's and SUSE's.
    Rpm,
}

/// An installed package.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version, as its manager writes it.
    pub version: String,
    /// The processor that it is for, in the manager's word; empty where the database does not tell.
    pub architecture: String,
    /// The source that it was built from, where that has another name: `openssl` of `libssl3`.
    pub source: Option<String>,
}

impl Manager {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dpkg => "dpkg",
            Self::Apk => "apk",
            Self::Pacman => "pacman",
            Self::Rpm => "rpm",
        }
    }
}
