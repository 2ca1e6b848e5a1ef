//! Revisions of templates: making the next one, and what differs between two.

use serde::{Deserialize, Serialize};

/// Makes the next revision of a template: its packages in their newest versions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TemplateUpdateRequest {
    /// Where packages come from instead of where the template itself says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<String>,
}

/// What differs between two templates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateDifference {
    /// The one, with its revision.
    pub from: String,
    /// The other.
    pub to: String,
    /// Packages that are not the same, by name.
    pub packages: Vec<PackageChange>,
}

/// A package that is in another version, was added, or was removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageChange {
    /// Its name.
    pub name: String,
    /// Its version in the one; absent if that has it not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<String>,
    /// Its version in the other; absent if that has it not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<String>,
}
