//! The verbs of the node and of what belongs to it.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::ve::Targets;
use ve::units::Seconds;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vessel init
  vessel init --pool-size 40G
  vessel init --device /dev/nvme1n1
  vessel init --pool /srv/btrfs/vessel --network 10.50.0.0/16

Running it again changes nothing.")]
pub(crate) struct InitArguments {
    /// Keep the pool in a sparse file of this size
    #[arg(long, value_name = "SIZE", group = "place")]
    pub(crate) pool_size: Option<String>,
    /// Make the pool on this device, which must be empty
    #[arg(long, value_name = "DEV", group = "place")]
    pub(crate) device: Option<PathBuf>,
    /// Keep the pool in a folder of an existing btrfs
    #[arg(long, value_name = "DIR", group = "place")]
    pub(crate) pool: Option<PathBuf>,
    /// IPv4 network that VEs get their addresses from
    #[arg(long, value_name = "CIDR")]
    pub(crate) network: Option<String>,
    /// First number of this node's VEs
    #[arg(long, value_name = "N")]
    pub(crate) first_id: Option<u32>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TemplateVerb {
    /// Build a template from the packages of a distribution, or an application on one that is there
    #[command(after_help = "\
Examples:
  vessel template build debian-12
  vessel template build nginx --on debian-12
  vessel template build editor --on debian-12 --package vim --package git
  vessel template build shop --on debian-12 --recipe shop.toml
  vessel template build debian-12 --name web --package nginx --package openssh-server
  vessel template build debian-13 --mirror http://mirror.example.org/debian

With --on, an application is installed on a template, in a sandbox that has the walls of a VE, and kept as
TEMPLATE+NAME: `vessel create web --template debian-12 --application nginx`. What is installed is said by the
recipe of that name (apache, developer, lamp, nginx, openssh, postgresql and redis come with Vessel; \
ROOT/recipes/NAME.toml adds to them), by --recipe, or by --package alone.")]
    Build {
        /// What to build: debian-12, debian-13, debian-SUITE; with --on, an application
        recipe: String,
        /// Name of the template or application, instead of the recipe's
        #[arg(long)]
        name: Option<String>,
        /// The template to build an application on
        #[arg(long, value_name = "TEMPLATE")]
        on: Option<String>,
        /// The application's recipe
        #[arg(long = "recipe", value_name = "FILE", requires = "on")]
        file: Option<PathBuf>,
        /// A package to add; may be repeated
        #[arg(long, short)]
        package: Vec<String>,
        /// Mirror to fetch packages from
        #[arg(long, value_name = "URL")]
        mirror: Option<String>,
        /// Come back when the operation was begun
        #[arg(long)]
        no_wait: bool,
    },
    /// Import a template from an archive, a folder or an OCI image
    #[command(after_help = "\
Examples:
  vessel template import rootfs.tar.xz --name alpine
  vessel template import /srv/tree --name mine
  vessel template import oci:docker.io/library/alpine:3.20 --name alpine")]
    Import {
        /// A file, a folder, or oci:REF
        source: String,
        /// Name of the template
        #[arg(long)]
        name: String,
        /// Come back when the operation was begun
        #[arg(long)]
        no_wait: bool,
    },
    /// List templates
    #[command(
        visible_alias = "ls",
        after_help = "Example:\n  vessel template list --json"
    )]
    List,
    /// Show everything about a template
    #[command(after_help = "\
Examples:
  vessel template show debian-12
  vessel template show debian-12@1 --packages

A name without @REVISION is the newest one.")]
    Show {
        /// Name of the template
        name: String,
        /// List its packages too
        #[arg(long)]
        packages: bool,
    },
    /// Make the next revision of a template: its packages in their newest versions
    #[command(after_help = "\
Examples:
  vessel template update debian-12
  vessel template update debian-12 --mirror http://mirror.example.org/debian

The template's own package manager upgrades it in a sandbox, from where the template itself says. What comes out is the next
revision, as debian-12@2: new VEs get it, and those that there are keep theirs. If no package is newer, there is none. \
A revision that is not the newest goes with the last VE that is made from it. Applications are installed on the new revision \
when a VE wants one.")]
    Update {
        /// Name of the template
        name: String,
        /// Mirror to fetch packages from, instead of those that the template names
        #[arg(long, value_name = "URL")]
        mirror: Option<String>,
        /// Come back when the operation was begun
        #[arg(long)]
        no_wait: bool,
    },
    /// Show which packages differ between two templates
    #[command(after_help = "\
Examples:
  vessel template diff debian-12@1 debian-12@2
  vessel template diff debian-12 debian-12+nginx --json

A name without @REVISION is the newest one.")]
    Diff {
        /// The older one
        from: String,
        /// The newer one
        to: String,
    },
    /// Remove templates that no VE is made from
    #[command(
        visible_alias = "rm",
        after_help = "\
Examples:
  vessel template remove old older
  vessel template remove debian-12@1

Without @REVISION all revisions of the template go, or none."
    )]
    Remove {
        /// Names of templates
        #[arg(required = true)]
        names: Vec<String>,
        /// Come back when the operation was begun
        #[arg(long)]
        no_wait: bool,
    },
    /// Read every file of templates and compare it with its digest
    #[command(after_help = "Example:\n  vessel template verify debian-12")]
    Verify {
        /// Names of templates
        #[arg(required = true)]
        names: Vec<String>,
        /// Come back when the operation was begun
        #[arg(long)]
        no_wait: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ApplicationVerb {
    /// Add an application to stopped VEs
    #[command(after_help = "\
Examples:
  vessel application add redis web
  vessel application add redis --label team=shop --option redis.maxmemory=64mb

What a VE changed stays; what it did not comes from a stack with the application, which is made once for all. That \
needs a stopped VE, for what runs holds the files of its template open, and one that changed nothing of what the \
application brings: a VE that ran its package manager is refused, and told what to install inside instead.")]
    Add {
        /// The application, as `vessel template list` shows it on the template of the VEs
        application: String,
        #[command(flatten)]
        targets: Targets,
        /// A setting that it offers; may be repeated
        #[arg(long, value_name = "APPLICATION.SETTING=VALUE")]
        option: Vec<String>,
        /// Come back when the operation was begun
        #[arg(long)]
        no_wait: bool,
    },
    /// Take an application away from stopped VEs
    #[command(
        visible_alias = "rm",
        after_help = "Example:\n  vessel application remove redis web\n\nWhat the VE itself wrote stays, as the \
                      application's data."
    )]
    Remove {
        /// The application
        application: String,
        #[command(flatten)]
        targets: Targets,
        /// Come back when the operation was begun
        #[arg(long)]
        no_wait: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum OperationVerb {
    /// List operations that go on, newest first
    #[command(
        visible_alias = "ls",
        after_help = "\
Examples:
  vessel operation list
  vessel operation list --all --ve web"
    )]
    List {
        /// Ended ones too
        #[arg(long, short)]
        all: bool,
        /// Only those about this VE
        #[arg(long, value_name = "NAME")]
        ve: Option<String>,
    },
    /// Show an operation
    #[command(after_help = "Example:\n  vessel operation show 42")]
    Show {
        /// Its number
        id: u64,
    },
    /// Ask an operation to stop and to undo what it did
    #[command(after_help = "Example:\n  vessel operation cancel 42")]
    Cancel {
        /// Its number
        id: u64,
        /// Come back when it was asked
        #[arg(long)]
        no_wait: bool,
    },
    /// Wait until an operation ended; fails as it failed
    #[command(after_help = "Example:\n  vessel operation wait 42")]
    Wait {
        /// Its number
        id: u64,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vessel events
  vessel events --follow
  vessel events --follow --json | jq -r 'select(.kind == \"ve-stopped\") | .subject.name'

JSON: one object per line.")]
pub(crate) struct EventsArguments {
    /// Go on with what happens from now on
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Only events after the one with this number
    #[arg(long, value_name = "ID")]
    pub(crate) after: Option<u64>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PoolVerb {
    /// Show size, use and health of the pool, and what sharing saves
    #[command(after_help = "Example:\n  vessel pool show --json | jq .saved_disk_bytes")]
    Show,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeVerb {
    /// Show the node: where it answers, what it has, what is promised
    #[command(after_help = "Example:\n  vessel node show")]
    Show,
    /// Change what the node keeps for itself, and how much it sells
    #[command(after_help = "\
Examples:
  vessel node set cpu.reserve=0.5 memory.reserve=2G
  vessel node set network.capacity=1Gbit
  vessel node set memory.overcommit=1.5 disk.overcommit=200%
  vessel node set memory.overcommit=

Keys: cpu.reserve and memory.reserve (kept for the node itself: never guaranteed to VEs; by itself a \
twentieth), network.capacity (how fast the way to other networks is, each direction: without it \
network.guarantee is refused), network.reserve (of it; all VEs together use no more than the rest while one \
is guaranteed a part), disk.reserve (of the pool, likewise), cpu.overcommit, memory.overcommit and disk.overcommit (how \
much the limits of VEs may sum up to, as a multiple of what there is for VEs; normally without bound).

What would break a guarantee of a running VE is refused, whole. `KEY=` takes a key back to its default.")]
    Set {
        /// Settings
        #[arg(value_name = "KEY=VALUE", required = true)]
        settings: Vec<String>,
    },
    /// Stop every VE, then end the node's programs
    #[command(after_help = "Example:\n  vessel node shutdown --timeout 2m")]
    Shutdown {
        /// How long each init may take before its VE is killed
        #[arg(long, value_name = "TIME")]
        timeout: Option<Seconds>,
    },
    /// Delete every VE, every template and the pool, and leave no trace
    #[command(after_help = "\
Examples:
  vessel node destroy
  vessel node destroy --force --yes")]
    Destroy {
        /// Even if there are VEs: kill and delete them
        #[arg(long, short)]
        force: bool,
        /// Ask nothing
        #[arg(long, short)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vessel doctor
  vessel doctor --json

Fails when something is missing without which VEs cannot run.")]
pub(crate) struct DoctorArguments {}
