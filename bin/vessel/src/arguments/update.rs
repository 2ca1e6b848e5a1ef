//! The words of `vessel update`.

use std::fmt;
use std::str::FromStr;

use clap::Args;
use ve::units::Seconds;

/// Which VEs are updated.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = true)]
pub(crate) struct UpdateTargets {
    /// Names or numbers of VEs
    #[arg(value_name = "NAME", conflicts_with_all = ["all", "label"])]
    pub(crate) names: Vec<String>,
    /// VEs of this template
    #[arg(long, short, value_name = "NAME")]
    pub(crate) template: Option<String>,
    /// Every VE
    #[arg(long, short)]
    pub(crate) all: bool,
    /// VEs with this label; repeated, VEs that have all of them
    #[arg(long, short, value_name = "KEY=VALUE")]
    pub(crate) label: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vessel update --template debian-12 --dry-run
  vessel update --template debian-12 --canary 2 --check 'systemctl is-system-running'
  vessel update web db --check 'curl -fsS localhost' --stop-at 1
  vessel update --all --stop-at 10% --parallel 4
  vessel update web --to 1

Each VE comes to the newest revision of its template, which `vessel template update` makes, or to that of --to. What it \
did not change comes from that revision, what it changed stays its own; one with packages of its own is brought there \
by its own package manager, inside. A running VE is stopped and started once, and has to be ready and pass the check; \
else it is brought back to what it was. What it wrote since it was started on the new revision is lost then.
Canaries come first, and all of them have to succeed. After the first failure, or those of --stop-at, no other VE is \
begun. Ctrl-C does the same, and waits for those under way; a second one does not wait, and they go on.")]
pub(crate) struct UpdateArguments {
    #[command(flatten)]
    pub(crate) targets: UpdateTargets,
    /// Revision of the template, instead of its newest
    #[arg(long, value_name = "REVISION", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) to: Option<u32>,
    /// Update so many first; all of them have to succeed
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) canary: usize,
    /// Command that has to succeed inside
    #[arg(long, value_name = "COMMAND")]
    pub(crate) check: Option<String>,
    /// How long the check is tried again
    #[arg(long, value_name = "TIME", default_value = "30s", requires = "check")]
    pub(crate) check_timeout: Seconds,
    /// Begin no other after so many failures, or so large a share of all
    #[arg(long, value_name = "FAILURES", default_value = "1")]
    pub(crate) stop_at: StopAt,
    /// Update so many at once, instead of as many as the node has processors
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) parallel: Option<u32>,
    /// How long init may take before everything is killed
    #[arg(long, value_name = "TIME")]
    pub(crate) timeout: Option<Seconds>,
    /// Only say what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// How many failures are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StopAt {
    /// So many VEs.
    Count(usize),
    /// So many of a hundred.
    Percent(usize),
}

impl StopAt {
    /// How many failures of so many VEs are too many: at least one.
    pub(crate) fn of(self, ves: usize) -> usize {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => (ves * percent).div_ceil(100),
        }
        .max(1)
    }
}

impl FromStr for StopAt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is neither a number of failures, as `3`, nor a share, as `10%`");
        let (digits, share) = match text.strip_suffix('%') {
            Some(digits) => (digits, true),
            None => (text, false),
        };
        let number: usize = digits.parse().map_err(|_| wrong())?;
        match (number, share) {
            (0, _) => Err(wrong()),
            (1..=100, true) => Ok(Self::Percent(number)),
            (_, true) => Err(wrong()),
            (count, false) => Ok(Self::Count(count)),
        }
    }
}

impl fmt::Display for StopAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_is_a_number_or_a_share() {
        let at = |text: &str, ves| text.parse::<StopAt>().unwrap().of(ves);
        assert_eq!((at("1", 100), at("3", 2)), (1, 3));
        assert_eq!((at("10%", 100), at("10%", 15), at("1%", 3)), (10, 2, 1));
        for wrong in ["", "0", "0%", "101%", "-1", "x", "1.5%"] {
            assert!(wrong.parse::<StopAt>().is_err(), "{wrong}");
        }
    }
}
