//! The verbs of VEs.

use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum};
use ve::units::Seconds;

/// Which VEs a verb is for.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = true)]
pub(crate) struct Targets {
    /// Names or numbers of VEs
    #[arg(value_name = "NAME", conflicts_with_all = ["all", "label"])]
    pub(crate) names: Vec<String>,
    /// Every VE that the verb makes sense for
    #[arg(long, short)]
    pub(crate) all: bool,
    /// VEs with this label; repeated, VEs that have all of them
    #[arg(long, short, value_name = "KEY=VALUE")]
    pub(crate) label: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vessel create web --template debian-12 --start
  vessel create web --template debian-12 --count 10 --set memory.limit=512M --label team=shop
  vessel create shop --template debian-12 --application nginx --application redis \
    --option redis.maxmemory=64mb
  vessel create app --template debian-12 --sample small --count 100
  vessel create db --template debian-12 --address 10.99.0.20 --ssh-key ~/.ssh/id_ed25519.pub
  pwgen 20 1 | tee secret | vessel create mail --template debian-12 --password-stdin

Prints the name of each VE that was made, one per line. `vessel set --help` lists the keys.")]
pub(crate) struct CreateArguments {
    /// Name of the VE, or with --count what the names begin with: `web` gives web-1, web-2, ...
    pub(crate) name: String,
    /// Template to make it from
    #[arg(long, short, required_unless_present = "sample")]
    pub(crate) template: Option<String>,
    /// Sample that says what is not said here: `vessel sample list`
    #[arg(long, value_name = "NAME")]
    pub(crate) sample: Option<String>,
    /// An application on the template, as `vessel template list` shows them; may be repeated
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
    /// An address instead of one of the node's choice; may be repeated
    #[arg(long, value_name = "IP", conflicts_with = "count")]
    pub(crate) address: Vec<String>,
    /// Host name inside, instead of the VE's name
    #[arg(long)]
    pub(crate) hostname: Option<String>,
    /// A name server instead of the node's; may be repeated
    #[arg(long, value_name = "IP")]
    pub(crate) dns: Vec<String>,
    /// Read root's password from the first line of a file
    #[arg(long, value_name = "FILE", conflicts_with = "password_stdin")]
    pub(crate) password_file: Option<PathBuf>,
    /// Read root's password from the first line of standard input
    #[arg(long)]
    pub(crate) password_stdin: bool,
    /// Public keys that may log in as root, one per line; may be repeated
    #[arg(long, value_name = "FILE")]
    pub(crate) ssh_key: Vec<PathBuf>,
    /// Make so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) count: Option<u32>,
    /// Start it and wait until it is ready
    #[arg(long)]
    pub(crate) start: bool,
    #[command(flatten)]
    pub(crate) patience: Patience,
}

/// How long a start is waited for.
#[derive(Clone, Debug, Args)]
pub(crate) struct Patience {
    /// How long to wait until it is ready
    #[arg(long, value_name = "TIME", default_value = "60s")]
    pub(crate) timeout: Seconds,
    /// Come back when the operation was begun
    #[arg(long)]
    pub(crate) no_wait: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vessel start web
  vessel start --label team=shop
  vessel start --all --timeout 5m

Comes back when each VE is `running`: its init said that it is ready. With --no-wait, when its init was \
started. An init that ends at once is a failure.")]
pub(crate) struct StartArguments {
    #[command(flatten)]
    pub(crate) targets: Targets,
    #[command(flatten)]
    pub(crate) patience: Patience,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vessel stop web
  vessel stop --all --timeout 2m
  vessel stop web db --kill
  vessel restart --label team=shop")]
pub(crate) struct StopArguments {
    #[command(flatten)]
    pub(crate) targets: Targets,
    /// End all processes at once, without asking init first
    #[arg(long)]
    pub(crate) kill: bool,
    /// How long init may take before everything is killed
    #[arg(long, value_name = "TIME", conflicts_with = "kill")]
    pub(crate) timeout: Option<Seconds>,
    /// Come back when the operation was begun
    #[arg(long)]
    pub(crate) no_wait: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vessel pause web
  vessel resume web
  vessel resume --all

A paused VE keeps its memory and answers nothing; connections to it wait.")]
pub(crate) struct PauseArguments {
    #[command(flatten)]
    pub(crate) targets: Targets,
    /// Come back when the operation was begun
    #[arg(long)]
    pub(crate) no_wait: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vessel suspend web
  vessel resume web

A suspended VE takes no memory and outlives a restart of the node; its processes, open files and
connections are as before when it is resumed. End commands that run in it from outside first.")]
pub(crate) struct SuspendArguments {
    #[command(flatten)]
    pub(crate) targets: Targets,
    /// Come back when the operation was begun
    #[arg(long)]
    pub(crate) no_wait: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vessel delete web
  vessel delete web --force
  vessel delete --label team=shop --yes

Asks first on a terminal, unless --yes or --force is given. A VE that is `protected` is never deleted.")]
pub(crate) struct DeleteArguments {
    #[command(flatten)]
    pub(crate) targets: Targets,
    /// Kill VEs that run, then delete them; asks nothing
    #[arg(long, short)]
    pub(crate) force: bool,
    /// Ask nothing
    #[arg(long, short)]
    pub(crate) yes: bool,
    /// Come back when the operation was begun
    #[arg(long)]
    pub(crate) no_wait: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vessel exec web -- systemctl status nginx
  vessel exec web --user www-data --env LANG=C -- sh -c 'echo $LANG'
  vessel exec db -- pg_dump shop > shop.sql
  tar -c site | vessel exec web -- tar -x -C /srv

Standard input, output and error pass through. The command has a terminal when standard input and output are \
one. The exit code is the command's own, 128 + N when signal N ended it.")]
pub(crate) struct ExecArguments {
    /// Name or number of the VE
    #[arg(value_name = "NAME")]
    pub(crate) ve: String,
    /// Run as this user of the VE
    #[arg(long, short)]
    pub(crate) user: Option<String>,
    /// Add to the environment; may be repeated
    #[arg(long, short, value_name = "KEY=VALUE")]
    pub(crate) env: Vec<String>,
    /// Start in this folder of the VE
    #[arg(long, short = 'C', value_name = "DIR")]
    pub(crate) chdir: Option<String>,
    /// Give the command no terminal, even on one
    #[arg(long, short = 'T')]
    pub(crate) no_tty: bool,
    /// The command and its arguments; `--` before it keeps its options its own
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        required = true,
        value_name = "COMMAND"
    )]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vessel enter web
  vessel enter web --user www-data")]
pub(crate) struct EnterArguments {
    /// Name or number of the VE
    #[arg(value_name = "NAME")]
    pub(crate) ve: String,
    /// Log in as this user of the VE
    #[arg(long, short)]
    pub(crate) user: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vessel console web

To leave the console as it is, press Ctrl-] or Esc followed by a dot.")]
pub(crate) struct ConsoleArguments {
    /// Name or number of the VE
    #[arg(value_name = "NAME")]
    pub(crate) ve: String,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vessel logs web
  vessel logs web --lines 20 --follow")]
pub(crate) struct LogsArguments {
    /// Name or number of the VE
    #[arg(value_name = "NAME")]
    pub(crate) ve: String,
    /// Go on with what it says from now on
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Show only so many of the last lines
    #[arg(long, short = 'n', value_name = "N")]
    pub(crate) lines: Option<usize>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vessel cp site web:/srv/
  vessel cp web:/var/log/nginx ./logs
  vessel cp web:/etc - | tar -t
  tar -c site | vessel cp - web:/srv

FROM or TO is NAME:/PATH. Into an existing folder a copy keeps its name, elsewhere it gets the name of TO. \
`-` is a tar archive on standard input or output. Folders are copied with everything below them, links as \
links. In a VE, files belong to root; on this host, to you, without set-user-id bits and without devices.")]
pub(crate) struct CopyArguments {
    /// What to copy: PATH, NAME:/PATH or -
    pub(crate) from: String,
    /// Where to: PATH, NAME:/PATH or -
    pub(crate) to: String,
    /// Keep the owners by number
    #[arg(long, short)]
    pub(crate) archive: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vessel set web memory.limit=1G cpu.limit=50%
  vessel set --label team=shop processes.limit=500
  vessel set web memory.limit=
  vessel set web --add-label tier=front

Keys, each to be taken away with `none`:
  cpu.guarantee, cpu.limit    processors: 0.5, 2, 150%
  cpu.burst                   processors beyond the limit for a tenth of a second, saved up before
  cpu.share                   weight for what is not guaranteed: 1 to 10000, normally 100
  io.share                    weight while the pool's disk is busy: 1 to 1000, normally 100
  cpu.set                     processors to run on: 0-3,8
  memory.guarantee, memory.limit, memory.swap
                              512M, 1.5G
  memory.burst                memory beyond the limit while the node has some free
  memory.grow.ceiling         what its memory may grow to by itself: 2G
  memory.grow.step            by how much at a time: 128M; usually an eighth of the way to the ceiling
  memory.grow.threshold       when so much of it is in use: 80%
  memory.grow.cooldown        shortest time between two steps: 10s; usually none
  memory.grow.give-back       a step goes back when it was not needed for so long: 10m; usually never
  processes.limit             processes and threads
  files.limit                 open files of each process, at most
  disk.guarantee              space in the pool that nobody else takes: 10G
  disk.limit                  everything that the VE changed: 10G
  io.read.limit, io.write.limit
                              bytes per second: 10M
  io.read.ops, io.write.ops   operations per second: 200iops
  network.guarantee           to and from other networks, each way, whatever others do: 10Mbit
  network.limit               each way, what it exchanges with neighbours included: 10Mbit
  network.burst               beyond the limit for a second, saved up before
  address                     10.99.0.20,fd00::20, auto or none
  hostname, dns               from the next start
  autostart                   yes, no, or its place in the order
  protected, nesting          yes, no
  memory.merge                yes, no: share equal memory with other VEs that do, from the next start
  owner, description          words for the inventory

Each change is live and saved; one that needs a restart says so. Of several, all are made or none. What would \
break a guarantee is refused. `KEY=` takes a key back to its default.")]
pub(crate) struct SetArguments {
    /// Names or numbers of VEs, and settings
    #[arg(value_name = "NAME | KEY=VALUE", required = true)]
    pub(crate) words: Vec<String>,
    /// Every VE
    #[arg(long, short)]
    pub(crate) all: bool,
    /// VEs with this label; repeated, VEs that have all of them
    #[arg(long, short, value_name = "KEY=VALUE")]
    pub(crate) label: Vec<String>,
    /// Add or change a label; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) add_label: Vec<String>,
    /// Take a label away; may be repeated
    #[arg(long, value_name = "KEY")]
    pub(crate) remove_label: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vessel show web
  vessel show web --json | jq .pid
  vessel show --all --json

JSON: one object for one NAME, an array for several, --all or --label.")]
pub(crate) struct ShowArguments {
    #[command(flatten)]
    pub(crate) targets: Targets,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vessel list
  vessel list --state running --label team=shop
  vessel list --columns name,address,memory.limit --sort name
  vessel list --json | jq -r '.[] | select(.state == \"stopped\") | .name'
  vessel list --quiet

With --quiet it writes names only.")]
pub(crate) struct ListArguments {
    /// Only these VEs, by name or number
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// VEs with this label; repeated, VEs that have all of them
    #[arg(long, short, value_name = "KEY=VALUE")]
    pub(crate) label: Vec<String>,
    /// VEs in this state; repeated, in one of them
    #[arg(long, value_name = "STATE")]
    pub(crate) state: Vec<String>,
    /// Columns: id, name, state, address, template, created, labels, or a key of a limit
    #[arg(long, short = 'o', value_name = "COLUMN", value_delimiter = ',')]
    pub(crate) columns: Vec<String>,
    /// Sort by this column
    #[arg(long, short = 'S', value_name = "COLUMN")]
    pub(crate) sort: Option<String>,
    /// Leave the header away
    #[arg(long, short = 'H')]
    pub(crate) no_header: bool,
}

/// What `top` sorts by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SortKey {
    /// Processor time
    Cpu,
    /// Memory
    Memory,
    /// Processes
    Processes,
    /// Bytes read and written
    Io,
    /// Bytes sent and received
    Network,
    /// Name
    Name,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vessel top
  vessel top --sort memory --interval 5s
  vessel top --json

On a terminal it goes on until `q`; c, m, p, i, n and a sort by CPU, memory, processes, I/O, network and name. \
Elsewhere it writes one table of what happened during the interval. CPU is in percent of one processor.")]
pub(crate) struct TopArguments {
    /// Only these VEs, by name or number
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// VEs with this label; repeated, VEs that have all of them
    #[arg(long, short, value_name = "KEY=VALUE")]
    pub(crate) label: Vec<String>,
    /// Sort by this
    #[arg(long, short = 'S', default_value = "cpu")]
    pub(crate) sort: SortKey,
    /// Time between two looks
    #[arg(long, short, value_name = "TIME", default_value = "1s")]
    pub(crate) interval: Seconds,
    /// Write one table and end, on a terminal too
    #[arg(long, action = ArgAction::SetTrue)]
    pub(crate) once: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vessel stats web
  vessel stats web --json | jq .memory_bytes
  vessel stats --all --json
  vessel stats web --history --since 1d
  vessel stats web --history --since 30d --metric disk_bytes --json
  vessel stats --all --month 2026-11 --json

Counters begin at 0 with each start of a VE; totals of a month do not. History is kept in steps of
10 s for an hour, 1 min for a day, 10 min for a month, 1 h for a year. JSON: base units, with the
unit in the name.")]
pub(crate) struct StatsArguments {
    #[command(flatten)]
    pub(crate) targets: Targets,
    /// Plot the past
    #[arg(long)]
    pub(crate) history: bool,
    /// How far back the history goes
    #[arg(long, value_name = "TIME", requires = "history")]
    pub(crate) since: Option<Seconds>,
    /// A metric of the history; may be repeated
    #[arg(long, value_name = "METRIC", requires = "history")]
    pub(crate) metric: Vec<String>,
    /// Show what was used in a month (in UTC), deleted VEs included; `all` for each month that is kept
    #[arg(long, value_name = "YYYY-MM", conflicts_with = "history")]
    pub(crate) month: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vessel isolation web
  vessel isolation web --wall filter
  vessel isolation --all --differing
  vessel isolation web --json | jq .differing

Each part of each wall: how it was planned, how the kernel has it now, and what it stops. \
Exits with 1 when a part differs from its plan.")]
pub(crate) struct IsolationArguments {
    #[command(flatten)]
    pub(crate) targets: Targets,
    /// Only this wall: namespaces, users, filter, capabilities, paths, devices, limits, ...
    #[arg(long, short, value_name = "WALL")]
    pub(crate) wall: Option<String>,
    /// Only parts that differ from their plan
    #[arg(long, action = ArgAction::SetTrue)]
    pub(crate) differing: bool,
}
