//! The verbs about what is in VEs and templates.

use clap::Args;

use super::Targets;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vessel inventory
  vessel inventory --package openssl --older-than 3.0.11
  vessel inventory web db --package 'lib*'
  vessel inventory --templates
  vessel inventory --csv > servers.csv

Packages are looked for by their own name and by that of their source; `*` stands for anything. Versions compare as \
the distribution of each VE compares them. Of a VE whose packages cannot be read it says so, and ends with 9: it \
may have what was asked for. In --csv a cell that a spreadsheet would compute begins with an apostrophe.")]
pub(crate) struct InventoryArguments {
    /// Only these VEs, by name or number
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// VEs with this label; repeated, VEs that have all of them
    #[arg(long, short, value_name = "KEY=VALUE")]
    pub(crate) label: Vec<String>,
    /// This template, in place of VEs; may be repeated
    #[arg(long, value_name = "NAME", conflicts_with_all = ["names", "label", "templates"])]
    pub(crate) template: Vec<String>,
    /// All templates, in place of VEs
    #[arg(long, conflicts_with_all = ["names", "label"])]
    pub(crate) templates: bool,
    /// Only who has this package; may be repeated
    #[arg(long, short, value_name = "PACKAGE")]
    pub(crate) package: Vec<String>,
    /// Only who has a version of it before this one
    #[arg(long, value_name = "VERSION", requires = "package")]
    pub(crate) older_than: Option<String>,
    /// Write CSV: a line for each package
    #[arg(long, conflicts_with = "json")]
    pub(crate) csv: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vessel diff web
  vessel diff web --json | jq -r '.changes[] | select(.change == \"changed\") | .path'
  vessel diff --all --summary

Signs: + added, - deleted, * changed, ! of another type, m metadata only, = as the template's, which `vessel \
compact` gives back. Time of a directory does not count.")]
pub(crate) struct DifferenceArguments {
    #[command(flatten)]
    pub(crate) targets: Targets,
    /// List copies that are as the template's, too
    #[arg(long)]
    pub(crate) equal: bool,
    /// Only how many of each kind
    #[arg(long)]
    pub(crate) summary: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vessel compact web
  vessel compact --all

Of a stopped VE, files that have become equal to its template's (the content, owner, mode, time and attributes) are \
the template's again, on disk and in memory. Of a running one only their blocks on disk are: its kernel holds the \
files open, and taking them away would lose what is written to them. What the VE sees does not change.")]
pub(crate) struct CompactArguments {
    #[command(flatten)]
    pub(crate) targets: Targets,
}
