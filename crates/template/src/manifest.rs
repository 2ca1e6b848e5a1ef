//! What a template says about itself: `manifest.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Version of the manifest's fields that this program writes. Programs refuse a newer one and read
/// every older one; fields are only ever added, with a default.
pub const FORMAT: u32 = 2;

/// Version of what is not an application: those are all that the second version brought.
pub(crate) const FORMAT_BARE: u32 = 1;

/// A template's description. Written once, with the template; never changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of these fields ([`FORMAT`]).
    pub format: u32,
    /// Name in the catalogue.
    pub name: String,
    /// Identifies the content: SHA-256 of the image, which names every file by its digest. Equal
    /// trees have equal versions on every node.
    pub version: String,
    /// When it was made, in seconds since 1970.
    pub created_unix_seconds: u64,
    /// What the tree's `os-release` says.
    pub distribution: Distribution,
    /// Debian's word for the processor's kind (`amd64`, `arm64`), or `unknown`.
    pub architecture: String,
    /// The tree's first program, if one was found.
    pub init: Option<Init>,
    /// Installed packages.
    pub packages: Packages,
    /// How large it is.
    pub sizes: Sizes,
    /// How it, or the first revision of it, was made.
    pub source: Source,
    /// What an update made it of; nothing in a first revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<Update>,
    /// The metadata image.
    pub image: ImageReference,
    /// What the tree must not share with others and so has not: to be made for each VE before its
    /// first start.
    pub first_boot: Vec<FirstBoot>,
    /// What was left out or changed while it was taken in, for people.
    pub notes: Vec<String>,
}

/// Fields of `os-release(5)`, as far as they are there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distribution {
    /// `ID`: `debian`, `ubuntu`, `alpine`.
    pub id: Option<String>,
    /// `VERSION_ID`: `12`. Rolling distributions have none.
    pub version: Option<String>,
    /// `VERSION_CODENAME`: `bookworm`.
    pub codename: Option<String>,
    /// `PRETTY_NAME`: for people.
    pub pretty_name: Option<String>,
}

/// The first program of a tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Init {
    /// What it is.
    #[serde(flatten)]
    pub kind: InitKind,
    /// The path to execute, as in the tree.
    pub path: String,
}

/// Kinds of first programs that a launcher treats apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum InitKind {
    /// systemd; its major version when it can be told.
    Systemd {
        /// 252 for Debian 12.
        version: Option<u32>,
    },
    /// busybox alone, with its inittab.
    Busybox,
    /// OpenRC, started by busybox or by its own init.
    OpenRc,
    /// System V init.
    Sysvinit,
    /// Something else.
    Other,
}

/// Installed packages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packages {
    /// Whose database was read.
    pub manager: PackageManager,
    /// Sorted by name; empty if the database cannot be read here.
    pub list: Vec<Package>,
}

/// Databases of packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PackageManager {
    /// Debian's; its list is read.
    Dpkg,
    /// Alpine's; its list is read.
    Apk,
    /// Arch Linux's; its list is read.
    Pacman,
    /// Fedora's and SUSE's; its list is read where it is in SQLite (rpm 4.16 and newer).
    Rpm,
    /// None found.
    Unknown,
}

/// An installed package.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version, as its manager writes it.
    pub version: String,
}

impl Packages {
    /// What differs in these from older ones.
    #[must_use]
    pub fn changes_from(&self, old: &Self) -> Vec<PackageChange> {
        let plain = |list: &[Package]| -> Vec<_> {
            let packages = list.iter().map(|package| packages::Package {
                name: package.name.clone(),
                version: package.version.clone(),
                ..packages::Package::default()
            });
            packages.collect()
        };
        let changes = packages::changes(&plain(&old.list), &plain(&self.list)).into_iter();
        let changes = changes.map(|change| PackageChange {
            name: change.name,
            old: change.old,
            new: change.new,
        });
        changes.collect()
    }
}

/// Sizes of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    /// Bytes of all files, hard links counted once.
    pub content_bytes: u64,
    /// Inodes, hard links counted once.
    pub inodes: u64,
    /// Bytes of contents that no other template had when this one was made.
    pub new_bytes: u64,
    /// Bytes of the metadata image.
    pub image_bytes: u64,
}

/// How a template was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "snake_case")]
pub enum Source {
    /// Built from a distribution's packages.
    Packages {
        /// What was asked for (`debian-12`).
        suite: String,
        /// The distribution's own word for it (`bookworm`).
        codename: String,
        /// Packages asked for besides the usual set.
        packages: Vec<String>,
        /// The mirror used instead of the distribution's own.
        mirror: Option<String>,
    },
    /// Applications, one installed on the other, on a template.
    Applications {
        /// The template, with its revision.
        template: String,
        /// Its version then.
        template_version: String,
        /// The applications, the first at the bottom.
        applications: Vec<ApplicationSource>,
    },
    /// Imported from a tar archive.
    Tar {
        /// Where it was.
        path: String,
    },
    /// Imported from a folder.
    Directory {
        /// Where it was.
        path: String,
    },
    /// Imported from an OCI layout.
    Oci {
        /// Where it was.
        path: String,
        /// Its tag.
        reference: Option<String>,
        /// Digest of its manifest.
        manifest_digest: String,
        /// The program that the image says to run, with arguments.
        entrypoint: Vec<String>,
    },
    /// Imported from an image of LXC or Incus.
    Lxc {
        /// Where it was.
        path: String,
        /// Scalars of its `metadata.yaml`.
        properties: BTreeMap<String, String>,
    },
}

/// How a revision came of the one before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// That revision, by its name in the catalogue.
    pub from: String,
    /// Its version.
    pub from_version: String,
    /// What became of packages.
    pub packages: Vec<PackageChange>,
}

/// A package that is in another version, was added, or was removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageChange {
    /// Its name.
    pub name: String,
    /// Its version before.
    pub old: Option<String>,
    /// Its version now.
    pub new: Option<String>,
}

/// An application of a stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplicationSource {
    /// Its name.
    pub name: String,
    /// The recipe that it was installed by.
    pub recipe: crate::Recipe,
}

/// The metadata image of a template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageReference {
    /// Name in the object store (fs-verity digest).
    pub object: String,
    /// SHA-256 of the file.
    pub sha256: String,
    /// UUID in its superblock.
    pub uuid: String,
}

/// Something each VE needs of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FirstBoot {
    /// `/etc/machine-id` is empty; systemd fills it in.
    MachineId,
    /// sshd is installed and has no host keys: run `ssh-keygen -A` (or make them from outside).
    SshHostKeys,
}
