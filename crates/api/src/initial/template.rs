//! Templates as lists and details show them, and the ways to make one.

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;
use crate::words::words;

words! {
    /// Where a template comes from.
    pub enum TemplateKind {
        /// Built from the packages of a distribution.
        Built = "built",
        /// Imported from a file, a folder or a registry.
        Imported = "imported",
        /// An application, or several, on another template.
        Application = "application",
    }
}

/// The revision of whatever does not say: messages from before there were revisions, and all that has the first.
pub(super) fn first_revision() -> u32 {
    1
}

pub(super) fn is_first_revision(revision: &u32) -> bool {
    *revision == first_revision()
}

/// A template in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    /// Its name.
    pub name: String,
    /// Which revision of its template it is, or is on.
    #[serde(default = "first_revision", skip_serializing_if = "is_first_revision")]
    pub revision: u32,
    /// Where it comes from.
    pub kind: TemplateKind,
    /// `debian`, as its os-release names itself.
    pub distribution: String,
    /// `12`, as its os-release says.
    pub version: String,
    /// `amd64`, as Debian and OCI name it.
    pub architecture: String,
    /// Size of its files.
    pub size_bytes: u64,
    /// Size in the pool of what no other template has.
    pub unique_bytes: u64,
    /// VEs made from it.
    pub ves: u32,
    /// When it was made.
    pub created: Timestamp,
    /// The template that it is on, if it is of applications.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<String>,
    /// The applications on that template, the first at the bottom.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub applications: Vec<String>,
}

/// A setting that an application offers to whoever creates a VE with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplicationSetting {
    /// Its key: `APPLICATION.SETTING`.
    pub key: String,
    /// What it is.
    pub description: String,
    /// Its value when nobody chooses one.
    pub default: String,
    /// What its values look like: `text`, `word`, `number`, `port`, `size` or `yes-no`.
    pub kind: String,
    /// The only values that it takes, if it takes few.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<String>,
}

/// Everything about one template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateDetails {
    /// Its name.
    pub name: String,
    /// Which revision of its template it is, or is on.
    #[serde(default = "first_revision", skip_serializing_if = "is_first_revision")]
    pub revision: u32,
    /// Where it comes from.
    pub kind: TemplateKind,
    /// `debian`, as its os-release names itself.
    pub distribution: String,
    /// `12`, as its os-release says.
    pub version: String,
    /// `amd64`, as Debian and OCI name it.
    pub architecture: String,
    /// Size of its files.
    pub size_bytes: u64,
    /// Size in the pool of what no other template has.
    pub unique_bytes: u64,
    /// VEs made from it.
    pub ves: u32,
    /// When it was made.
    pub created: Timestamp,
    /// `Debian GNU/Linux 12 (bookworm)`, as its os-release says.
    pub description: String,
    /// What it was made from: a suite, a file, an image reference.
    pub source: String,
    /// The revision that an update made this one of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_from: Option<String>,
    /// Number of files, folders and links.
    pub files: u64,
    /// Digest of its image of metadata, which names the content of every file: `sha256:...`.
    pub digest: String,
    /// Number of packages; absent when it has no package database that we read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packages_count: Option<u32>,
    /// The template that it is on, if it is of applications.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<String>,
    /// The applications on that template, the first at the bottom.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub applications: Vec<String>,
    /// What its applications offer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<ApplicationSetting>,
    /// The packages, when they were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<Package>,
}

/// A package of a template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its architecture; empty where the distribution has none.
    #[serde(default)]
    pub architecture: String,
}

/// Builds a template from a distribution's packages, or an application on one that is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildRequest {
    /// What to build: `debian-12`, or `debian-` and a suite; or with `on` the name of an application, whose recipe the
    /// node has.
    pub recipe: String,
    /// The template that an application is built on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<String>,
    /// The application's recipe (TOML), instead of the one that the node has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe_text: Option<String>,
    /// Its name; absent is the recipe's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Packages to add.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<String>,
    /// Mirror to fetch from; absent is the node's or the distribution's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<String>,
}

/// Imports a template.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportRequest {
    /// An absolute path of a file or folder as the caller sees it, or `oci:REF`.
    pub source: String,
    /// Its name.
    pub name: String,
}
