//! `vessel sample`: named sets of what VEs are created with.

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum SampleVerb {
    /// Make a sample
    Create(SampleCreateArguments),
    /// List samples
    #[command(
        visible_alias = "ls",
        after_help = "Example:\n  vessel sample list --json"
    )]
    List,
    /// Show a sample
    #[command(after_help = "Example:\n  vessel sample show small")]
    Show {
        /// Its name
        name: String,
    },
    /// Delete samples; VEs made by them stay as they are
    #[command(
        visible_alias = "rm",
        after_help = "Example:\n  vessel sample delete old"
    )]
    Delete {
        /// Names of samples
        #[arg(required = true)]
        names: Vec<String>,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vessel sample create shop --template debian-12 --application nginx --set memory.limit=1G --label team=shop
  vessel create web --sample shop --count 100

What `vessel create` itself is told wins over its sample. A node has small, medium and large from its start.")]
pub(crate) struct SampleCreateArguments {
    /// Name of the sample
    pub(crate) name: String,
    /// What it is for
    #[arg(long)]
    pub(crate) description: Option<String>,
    /// Template
    #[arg(long, short)]
    pub(crate) template: Option<String>,
    /// An application on the template; may be repeated
    #[arg(long, value_name = "NAME")]
    pub(crate) application: Vec<String>,
    /// A setting that an application offers; may be repeated
    #[arg(long, value_name = "APPLICATION.SETTING=VALUE")]
    pub(crate) option: Vec<String>,
    /// A setting; may be repeated
    #[arg(long, short, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// A label; may be repeated
    #[arg(long, short, value_name = "KEY=VALUE")]
    pub(crate) label: Vec<String>,
}
