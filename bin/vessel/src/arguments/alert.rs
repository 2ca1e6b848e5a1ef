//! The words of `vessel alert`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use ve::units::Seconds;

#[derive(Debug, Subcommand)]
pub(crate) enum AlertVerb {
    /// Show what fires and what is about to
    #[command(
        visible_alias = "ls",
        after_help = "\
Examples:
  vessel alert list
  vessel alert list --all
  vessel alert list --json | jq -r '.[] | select(.state == \"firing\") | .rule'"
    )]
    List {
        /// What was over in the last day, too
        #[arg(long, short)]
        all: bool,
    },
    /// List, make and delete rules
    #[command(subcommand)]
    Rule(RuleVerb),
    /// List, make, test and delete channels, by which alerts are told
    #[command(subcommand)]
    Channel(ChannelVerb),
    /// Silence rules or VEs for a while
    #[command(subcommand)]
    Silence(SilenceVerb),
    /// List the metrics that rules can name
    #[command(after_help = "Example:\n  vessel alert metrics")]
    Metrics,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RuleVerb {
    /// List rules
    #[command(
        visible_alias = "ls",
        after_help = "Example:\n  vessel alert rule list"
    )]
    List,
    /// Make a rule, or change one: what is not given stays as it is
    Set(RuleArguments),
    /// Delete rules: what they fire is over
    #[command(
        visible_alias = "rm",
        after_help = "Example:\n  vessel alert rule delete cpu-throttled io-pressure"
    )]
    Delete {
        /// Names of rules
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Look at rules again
    #[command(after_help = "Example:\n  vessel alert rule enable pool-high")]
    Enable {
        /// Names of rules
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Keep rules and do not look at them: what they fire is over
    #[command(after_help = "Example:\n  vessel alert rule disable pool-high")]
    Disable {
        /// Names of rules
        #[arg(required = true)]
        names: Vec<String>,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vessel alert rule set memory-high --if 'memory_used_ratio > 80%' --for 2m
  vessel alert rule set grows --if 'rate(disk_bytes) > 10M' --for 10m --ve web --severity info
  vessel alert rule set down --if 'running < 1' --for 1m --label tier=front --channel ops
  vessel alert rule set down --message '{ve} is down since {since}'

A condition is METRIC > NUMBER or METRIC < NUMBER, with rate(METRIC) for its change in a second. `vessel alert metrics` \
lists metrics. Numbers: 0.9, 90%, 512M, 10M/s.

Names in --message: again, condition, count, id, metric, node, rule, severity, since, state, subject, summary, text, threshold, \
time, value, ve, ve_id. {ve|json} gives a string of JSON.")]
pub(crate) struct RuleArguments {
    /// Name of the rule
    pub(crate) name: String,
    /// What must hold
    #[arg(long = "if", value_name = "CONDITION")]
    pub(crate) condition: Option<String>,
    /// For how long before it fires
    #[arg(long = "for", value_name = "TIME")]
    pub(crate) for_time: Option<Seconds>,
    /// For how long it must not hold before it is over; a minute by itself
    #[arg(long, value_name = "TIME")]
    pub(crate) resolve: Option<Seconds>,
    /// How often it is told again while it fires; every four hours by itself
    #[arg(long, value_name = "TIME")]
    pub(crate) repeat: Option<Seconds>,
    /// How bad it is: info, warning, critical
    #[arg(long, value_name = "WORD")]
    pub(crate) severity: Option<String>,
    /// About this VE only; may be repeated, and `--ve ''` is about all again
    #[arg(long, value_name = "NAME")]
    pub(crate) ve: Vec<String>,
    /// About VEs with this label only; may be repeated, and `--label ''` is about all again
    #[arg(long, value_name = "KEY[=VALUE]")]
    pub(crate) label: Vec<String>,
    /// Told by this channel only; may be repeated, and `--channel ''` is told by all again
    #[arg(long, value_name = "NAME")]
    pub(crate) channel: Vec<String>,
    /// What is said, with names in braces; `--message ''` says the usual again
    #[arg(long, value_name = "TEXT")]
    pub(crate) message: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ChannelVerb {
    /// List channels and how they fare
    #[command(
        visible_alias = "ls",
        after_help = "Example:\n  vessel alert channel list"
    )]
    List,
    /// Tell alerts in the daemon's log, and as lines of JSON in `log/alerts.log` of the node
    #[command(after_help = "Example:\n  vessel alert channel log log --severity warning")]
    Log(ChannelArguments),
    /// Tell alerts by running a program on the node, as root, with the alert as JSON to read
    #[command(after_help = "\
Examples:
  vessel alert channel command pager /usr/local/bin/page --severity critical
  vessel alert channel command pager /usr/local/bin/page -- --team web

The program finds VESSEL_ALERT_ID, VESSEL_ALERT_SUBJECT and VESSEL_ALERT_TEXT in its environment. It must end with 0 \
within 30 s, or it is run again later. What a rule says of many VEs at once is told by running it once: `count` in the \
JSON tells how many, and `alerts` has each one, also one alone.")]
    Command {
        #[command(flatten)]
        channel: ChannelArguments,
        /// The program's absolute path
        program: String,
        /// Its arguments
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Tell alerts by a POST to a web server
    #[command(after_help = "\
Examples:
  vessel alert channel webhook ops https://hooks.example.org/T0/B1
  vessel alert channel webhook chat https://chat.example.org/hook --body '{{\"text\": {summary|json}}}'
  vessel alert channel webhook ops https://ops.example.org/ --header 'Authorization: Bearer TOKEN'

Without --body it is JSON with all names that `vessel alert rule set --help` lists. An `Idempotency-Key` is sent along.

What a rule says of many VEs at once is one message: `count` tells how many, `ve`, `ve_id` and `value` are lists with \
commas, `summary` has a line each. In JSON `alerts` has each one whole, also of one alone.")]
    Webhook {
        #[command(flatten)]
        channel: ChannelArguments,
        /// Where it is
        url: String,
        /// A header to send along; may be repeated
        #[arg(long, value_name = "NAME: VALUE")]
        header: Vec<String>,
        /// The body, with names in braces
        #[arg(long, value_name = "TEXT")]
        body: Option<String>,
        /// File on the node with certificates (PEM) of authorities to trust besides the system's
        #[arg(long, value_name = "FILE")]
        authorities: Option<String>,
    },
    /// Tell alerts by mail
    #[command(after_help = "\
Examples:
  vessel alert channel mail ops --server localhost --from vessel@node.example.org --to ops@example.org
  vessel alert channel mail ops --server mail.example.org --user vessel --password-file secret \\
      --from vessel@example.org --to ops@example.org --to boss@example.org --severity critical

The connection is secured by STARTTLS, unless the server is on this machine or --security says otherwise.

What a rule says of many VEs at once is one mail, and so is what it says in the half minute after it. In --subject and \
--text `count` tells how many, `ve`, `ve_id` and `value` are lists with commas, `summary` has a line each.")]
    Mail(MailArguments),
    /// Send a message by channels now
    #[command(after_help = "Example:\n  vessel alert channel test ops")]
    Test {
        /// Names of channels
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Delete channels, and what waits for them
    #[command(
        visible_alias = "rm",
        after_help = "Example:\n  vessel alert channel delete pager"
    )]
    Delete {
        /// Names of channels
        #[arg(required = true)]
        names: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ChannelArguments {
    /// Name of the channel
    pub(crate) name: String,
    /// Only what is at least so bad: info, warning, critical
    #[arg(long, value_name = "WORD", default_value = "info")]
    pub(crate) severity: String,
}

#[derive(Debug, Args)]
pub(crate) struct MailArguments {
    #[command(flatten)]
    pub(crate) channel: ChannelArguments,
    /// The mail server
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(crate) server: String,
    /// Who it is from
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) from: String,
    /// Whom it goes to; may be repeated
    #[arg(long, value_name = "ADDRESS", required = true)]
    pub(crate) to: Vec<String>,
    /// How the connection is secured: none, starttls, tls
    #[arg(long, value_name = "WORD")]
    pub(crate) security: Option<String>,
    /// File on the node with certificates (PEM) of authorities to trust besides the system's
    #[arg(long, value_name = "FILE")]
    pub(crate) authorities: Option<String>,
    /// The user's name, where the server wants one
    #[arg(long, requires = "password_file")]
    pub(crate) user: Option<String>,
    /// File with the password
    #[arg(long, value_name = "FILE", requires = "user")]
    pub(crate) password_file: Option<PathBuf>,
    /// The subject, with names in braces
    #[arg(long, value_name = "TEXT")]
    pub(crate) subject: Option<String>,
    /// The text, with names in braces
    #[arg(long, value_name = "TEXT")]
    pub(crate) text: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SilenceVerb {
    /// List silences that still last
    #[command(
        visible_alias = "ls",
        after_help = "Example:\n  vessel alert silence list"
    )]
    List,
    /// Tell nothing of a rule, of a VE, of both together, or of all, for a while
    #[command(after_help = "\
Examples:
  vessel alert silence add --rule memory-high --ve web --for 2h --comment 'bigger machine ordered'
  vessel alert silence add --ve web --for 30m
  vessel alert silence add --for 10m

What fires meanwhile is shown, and told when the silence ends and it still fires.")]
    Add {
        /// Which rule; every one by itself
        #[arg(long, value_name = "NAME")]
        rule: Option<String>,
        /// About which VE; all, and the node, by itself
        #[arg(long, value_name = "NAME")]
        ve: Option<String>,
        /// For how long
        #[arg(long = "for", value_name = "TIME")]
        for_time: Seconds,
        /// Why
        #[arg(long, value_name = "TEXT", default_value = "")]
        comment: String,
    },
    /// End silences
    #[command(
        visible_alias = "rm",
        after_help = "Example:\n  vessel alert silence delete 3"
    )]
    Delete {
        /// Their numbers
        #[arg(required = true)]
        ids: Vec<u64>,
    },
}
