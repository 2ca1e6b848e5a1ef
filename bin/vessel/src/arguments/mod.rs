//! The words of the command line.
//!
//! Everything here is text for people: what is written beside a field is its help, and each verb ends with
//! examples. Rules about values live in the daemon, which knows them all; only what the command line itself decides
//! is checked here.

mod alert;
mod contents;
mod node;
mod quick;
mod sample;
mod update;
mod ve;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub(crate) use alert::{
    AlertVerb, ChannelArguments, ChannelVerb, MailArguments, RuleArguments, RuleVerb, SilenceVerb,
};
pub(crate) use contents::{CompactArguments, DifferenceArguments, InventoryArguments};
pub(crate) use node::{
    ApplicationVerb, DoctorArguments, EventsArguments, InitArguments, NodeVerb, OperationVerb,
    PoolVerb, TemplateVerb,
};
pub(crate) use quick::read as read_quickly;
pub(crate) use sample::SampleVerb;
pub(crate) use update::{UpdateArguments, UpdateTargets};
pub(crate) use ve::{
    ConsoleArguments, CopyArguments, CreateArguments, DeleteArguments, EnterArguments,
    ExecArguments, IsolationArguments, ListArguments, LogsArguments, PauseArguments, SetArguments,
    ShowArguments, SortKey, StartArguments, StatsArguments, StopArguments, SuspendArguments,
    Targets, TopArguments,
};

const EXIT_CODES: &str = "\
Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 conflict or locked, 5 wrong state, 6 no resources, \
7 permission, 8 daemon unreachable, 9 part of a bulk failed. `exec`, `enter`: the command's own code; \
125 when it could not be run, 126 when it cannot be executed, 127 when it is not there.

First steps:
  vessel init
  vessel template build debian-12
  vessel create web --template debian-12 --start
  vessel enter web";

/// Runs virtual environments: whole servers that cost little more than their processes
#[derive(Debug, Parser)]
#[command(name = "vessel", version, after_help = EXIT_CODES, subcommand_required = true, max_term_width = 100,
    arg_required_else_help = true, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What every verb takes.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Root folder of the node to speak to
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        env = "VESSEL_ROOT",
        value_name = "DIR",
        default_value = "/var/lib/vessel"
    )]
    pub(crate) root: PathBuf,
    /// Write JSON to standard output: one object for one thing, an array for several
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) json: bool,
    /// Say nothing but errors; lists give names only
    #[arg(long, short, global = true, help_heading = "Global options")]
    pub(crate) quiet: bool,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Prepare this machine as a node: its pool, network and registry
    Init(InitArguments),
    /// Build, import and look after templates
    #[command(subcommand)]
    Template(TemplateVerb),
    /// Keep named sets of what VEs are created with
    #[command(subcommand)]
    Sample(SampleVerb),
    /// Add applications to VEs, and take them away
    #[command(subcommand, visible_alias = "app")]
    Application(ApplicationVerb),
    /// Make a VE, or several
    Create(CreateArguments),
    /// Start VEs and wait until they are ready
    Start(StartArguments),
    /// Stop VEs: ask their init, then kill
    Stop(StopArguments),
    /// Stop and start VEs
    Restart(StopArguments),
    /// Freeze all processes of VEs
    Pause(PauseArguments),
    /// Put running VEs on disk with all that their processes hold
    Suspend(SuspendArguments),
    /// Let the processes of paused VEs go on, and wake suspended ones
    Resume(PauseArguments),
    /// Delete VEs and their files
    #[command(visible_alias = "rm")]
    Delete(DeleteArguments),
    /// Run a command inside a VE
    Exec(ExecArguments),
    /// Open a login shell inside a VE
    Enter(EnterArguments),
    /// Attach to the console of a VE
    Console(ConsoleArguments),
    /// Show what the console of a VE said
    Logs(LogsArguments),
    /// Copy files into a VE or out of it
    Cp(CopyArguments),
    /// Change settings of VEs, live and saved
    Set(SetArguments),
    /// Show everything about VEs
    Show(ShowArguments),
    /// List VEs
    #[command(visible_alias = "ls")]
    List(ListArguments),
    /// Watch what VEs use
    Top(TopArguments),
    /// Show the counters of VEs
    Stats(StatsArguments),
    /// List packages and versions of VEs and templates
    Inventory(InventoryArguments),
    /// Show what VEs changed against their template
    Diff(DifferenceArguments),
    /// Give back files that have become equal to the template's
    Compact(CompactArguments),
    /// Bring VEs to another revision of their templates
    Update(UpdateArguments),
    /// Show what stands between a VE and the rest
    Isolation(IsolationArguments),
    /// Show what fires; rules, channels and silences
    #[command(subcommand)]
    Alert(AlertVerb),
    /// List, show, cancel and wait for operations
    #[command(subcommand, visible_alias = "op")]
    Operation(OperationVerb),
    /// Show what happened on the node
    Events(EventsArguments),
    /// Look at the pool
    #[command(subcommand)]
    Pool(PoolVerb),
    /// Look at the node, shut it down, take it away
    #[command(subcommand)]
    Node(NodeVerb),
    /// Say what this host lacks and how to get it
    Doctor(DoctorArguments),
    /// Write a completion script for a shell
    #[command(after_help = "\
Examples:
  vessel completion bash > /etc/bash_completion.d/vessel
  vessel completion zsh > /usr/share/zsh/site-functions/_vessel
  vessel completion fish > ~/.config/fish/completions/vessel.fish")]
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write manual pages into a folder
    #[command(
        hide = true,
        after_help = "Example:\n  vessel man /usr/local/share/man/man1"
    )]
    Man {
        /// The folder; it must exist
        folder: PathBuf,
    },
}
