//! The kernel's scheduler of the pool's disk: BFQ while a VE has a share of its own, as only that goes by
//! shares, and none otherwise, as BFQ halves what a fast disk gives.
//!
//! Only the loop device under a pool on a file is the node's to change. Of any other the administrator
//! chooses the scheduler.

use std::fs;

use engine::{FailureKind, Fault, Support};

use crate::config::PoolConfig;
use crate::host::Host;

/// What goes by shares.
const WEIGHING: &str = "bfq";
/// How it goes by them exactly (`Documentation/block/bfq-iosched.rst`): nothing is favoured because it just began to
/// read, and a queue that is to be served next is waited for. Without, 3 to 1 came out as 1.3 to 1.
const STRICT: [(&str, &str); 2] = [("low_latency", "0"), ("strict_guarantees", "1")];
/// What a loop device has by itself: the disk below it has one of its own.
const PLAIN: &str = "none";

/// The scheduler in use, in what the kernel shows: `none mq-deadline [bfq]`.
fn chosen(shown: &str) -> Option<&str> {
    let word = shown
        .split_whitespace()
        .find(|word| word.starts_with('['))?;
    word.strip_prefix('[')?.strip_suffix(']')
}

impl Host {
    /// Whether VEs can be weighed against each other at the pool's disk.
    pub(crate) fn io_share_support(&self) -> Support {
        if let Some(why) = self.groups.io_weights_missing() {
            return Support::None(why.to_owned());
        }
        let shown = match self.scheduler() {
            Ok(shown) => shown,
            Err(why) => return Support::None(why),
        };
        let there = match self.config.pool {
            PoolConfig::Loop { .. } => shown.contains(WEIGHING),
            _ => chosen(&shown) == Some(WEIGHING),
        };
        if !there {
            return Support::None(format!(
                "the scheduler of the pool's disk is not `{WEIGHING}`: choose it in {}",
                self.scheduler_file()
            ));
        }
        if self.groups.io_weighs_all() {
            Support::Full
        } else {
            Support::Partly(
                "cgroup v1 weighs what is read, written directly or waited for, and not what is written later \
                 from the page cache"
                    .to_owned(),
            )
        }
    }

    /// Has the pool's disk go by shares, or not.
    pub(crate) fn io_schedule(&self, by_shares: bool) -> Result<(), Fault> {
        if !matches!(self.config.pool, PoolConfig::Loop { .. }) {
            return Ok(());
        }
        let wanted = if by_shares { WEIGHING } else { PLAIN };
        let fault =
            |why: String| Fault::new(format!("io.share: {why}")).of_kind(FailureKind::Resources);
        let shown = match self.scheduler() {
            Ok(shown) => shown,
            Err(_) if !by_shares => return Ok(()),
            Err(why) => return Err(fault(why)),
        };
        let now = chosen(&shown);
        // One that somebody chose by hand stays.
        if now == Some(wanted) || (!by_shares && now != Some(WEIGHING)) {
            return Ok(());
        }
        let write = |file: String, text: &str| {
            fs::write(&file, text).map_err(|error| fault(format!("cannot write {file}: {error}")))
        };
        write(self.scheduler_file(), wanted)?;
        if by_shares {
            for (name, value) in STRICT {
                write(self.queue_file(&format!("iosched/{name}")), value)?;
            }
        }
        Ok(())
    }

    fn scheduler_file(&self) -> String {
        self.queue_file("scheduler")
    }

    fn queue_file(&self, name: &str) -> String {
        let device = self.groups.io_device().unwrap_or_default();
        format!("/sys/dev/block/{device}/queue/{name}")
    }

    fn scheduler(&self) -> Result<String, String> {
        let file = self.scheduler_file();
        fs::read_to_string(&file).map_err(|error| format!("cannot read {file}: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_in_brackets_is_chosen() {
        assert_eq!(chosen("[none] mq-deadline kyber bfq \n"), Some("none"));
        assert_eq!(chosen("none mq-deadline kyber [bfq] \n"), Some("bfq"));
        assert_eq!(chosen("none\n"), None);
    }
}
