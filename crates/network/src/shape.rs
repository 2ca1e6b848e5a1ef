//! What a VE sends and receives at most, each direction for itself.
//!
//! ```text
//! to a VE      node ---[ve101: TBF]---> VE            the bucket hangs on the node's end of the link
//! from a VE    VE ---> ve101 --fwd--> [vs100: HTB] ---> ve101 ---> node
//! ```
//!
//! A link's own queue holds only what leaves by it, so what a VE sends takes a way round: a rule at the
//! ingress of its link hands packets to an `ifb` device, one for each node, which has a class for each such
//! VE and gives them back where they came from. All of it lies in the node's network namespace, where a VE's
//! root sees and changes nothing. VEs without a limit pay nothing.
//!
//! Everything that a VE exchanges counts, with its neighbours, too. Packets beyond a rate wait, up to a tenth
//! of a second when they are received; then they are dropped, which TCP understands as "slower".
//!
//! Set by the programs `tc` and `nft`: some ten milliseconds, and only for VEs that are limited.

use std::io;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use rustix::io::Errno;
use ve::VeId;

use crate::message;
use crate::netlink::{Batch, Netlink, NetlinkError, Step};
use crate::nft::{self, NftError};
use crate::node::NodeNetwork;
use crate::program;

/// A rate with what may be saved up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Bits per second.
    pub limit_bits: u64,
    /// Bits that may go at once after a time of rest, beyond a few packets.
    pub burst_bits: u64,
}

/// A rate could not be set or taken away.
#[derive(Debug, thiserror::Error)]
pub enum ShapeError {
    /// Netlink itself failed.
    #[error("cannot make the device that holds what VEs send")]
    Netlink(#[from] NetlinkError),
    /// The kernel has no such device.
    #[error("the kernel refuses a device of kind `ifb` (`CONFIG_IFB`), which holds what VEs send")]
    Device(#[source] io::Error),
    /// The program could not be run.
    #[error("cannot run `tc`; install the package `iproute2`")]
    Run(#[source] io::Error),
    /// It refused.
    #[error("tc refuses `{command}`: {words}")]
    Refused {
        /// What was asked of it.
        command: String,
        /// What it said.
        words: String,
    },
    /// The packet filter.
    #[error("cannot lead what the VE sends through the node's device")]
    Filter(#[from] NftError),
    /// The node has more VEs than the device can tell apart.
    #[error("VE {id} is too far from the node's first to have a class of its own")]
    TooMany {
        /// Whose.
        id: VeId,
    },
}

/// The part of a second that goes at once at any rate: timers are no finer.
const BUCKET_PARTS: u64 = 100;
/// A segment of the largest size that a link hands over at once, twice.
const BUCKET_MIN_BYTES: u64 = 128 << 10;
/// Minor numbers of classes have 16 bits, and the greatest is taken.
const CLASSES_MAX: u32 = 0xfffe;

/// Holds a VE that runs to a rate, or to none. Running it again changes nothing.
///
/// # Errors
/// What was set before a failure stays; set the former rate again.
pub fn set(
    netlink: &mut Netlink,
    network: &NodeNetwork,
    id: VeId,
    rate: Option<Rate>,
) -> Result<(), ShapeError> {
    let Some(rate) = rate else {
        tc_leniently(&["qdisc", "del", "dev", &id.interface_name(), "root"])?;
        return forget(network, id);
    };
    let class = class(network, id)?;
    prepare(netlink, network)?;
    let (device, link) = (device(network), id.interface_name());
    let limit = format!("{}bit", rate.limit_bits);
    let bucket = bucket_bytes(rate).to_string();
    tc(&[
        "class", "replace", "dev", &device, "parent", "1:", "classid", &class, "htb", "rate",
        &limit, "ceil", &limit, "burst", &bucket, "cburst", &bucket,
    ])?;
    tc(&[
        "qdisc", "replace", "dev", &link, "root", "handle", "1:", "tbf", "rate", &limit, "burst",
        &bucket, "latency", "100ms",
    ])?;
    nft::apply("shape what a VE sends", &way_round(network, &link, &class))?;
    Ok(())
}

/// Forgets a VE that was held to a rate and has no link any more.
///
/// # Errors
/// When the packet filter cannot be changed.
pub fn forget(network: &NodeNetwork, id: VeId) -> Result<(), ShapeError> {
    let (table, link) = (table(network), id.interface_name());
    nft::apply("let a VE send as it likes", &removal(&table, &link))?;
    let class = class(network, id)?;
    tc_leniently(&["class", "del", "dev", &device(network), "classid", &class])
}

/// Takes away what shaping needs, with all rates. Running it again changes nothing.
pub(crate) fn remove(netlink: &mut Netlink, network: &NodeNetwork) -> Result<(), ShapeError> {
    let table = table(network);
    let text = format!("add table netdev {table}\ndelete table netdev {table}\n");
    nft::apply("remove the node's shaping", &text)?;
    let mut batch = Batch::default();
    batch.push(Step::Link, 0, message::delete_link(&device(network)));
    let gone = [Errno::NODEV, Errno::NOENT];
    let refused = netlink.run(batch)?.into_iter();
    let mut others = refused.filter(|refusal| !gone.iter().any(|errno| refusal.is(*errno)));
    others
        .next()
        .map_or(Ok(()), |refusal| Err(ShapeError::Device(refusal.source)))
}

/// Why this host cannot shape, if the programs for it are missing.
#[must_use]
pub fn missing() -> Option<&'static str> {
    let found = program::find("tc").is_some();
    (!found).then_some("the program `tc` is not installed; install the package `iproute2`")
}

/// Makes the device, with its root queue.
fn prepare(netlink: &mut Netlink, network: &NodeNetwork) -> Result<(), ShapeError> {
    let device = device(network);
    let mut batch = Batch::default();
    batch.push(
        Step::Link,
        NLM_F_CREATE | NLM_F_EXCL,
        message::new_ifb(&device),
    );
    let refused = netlink.run(batch)?;
    if let Some(refusal) = refused
        .into_iter()
        .find(|refusal| !refusal.is(Errno::EXIST))
    {
        return Err(ShapeError::Device(refusal.source));
    }
    let shown = output(&["qdisc", "show", "dev", &device])?;
    if shown.contains("htb 1: root") {
        return Ok(());
    }
    // What has no class of its own passes unhindered (the default 0, tc-htb(8)).
    tc(&[
        "qdisc", "replace", "dev", &device, "root", "handle", "1:", "htb", "default", "0",
    ])
}

fn way_round(network: &NodeNetwork, link: &str, class: &str) -> String {
    let (table, device) = (table(network), device(network));
    format!(
        "{}\
         table netdev {table} {{\n\
         \tchain {link} {{\n\
         \t\ttype filter hook ingress device {link} priority 0; policy accept;\n\
         \t\tmeta priority set {class} fwd to \"{device}\"\n\
         \t}}\n\
         }}\n",
        removal(&table, link)
    )
}

/// Removes a VE's chain, declared first so that one that is gone already is no error.
fn removal(table: &str, link: &str) -> String {
    format!(
        "add table netdev {table}\n\
         add chain netdev {table} {link}\n\
         flush chain netdev {table} {link}\n\
         delete chain netdev {table} {link}\n"
    )
}

fn bucket_bytes(rate: Rate) -> u64 {
    let own = (rate.limit_bits / 8 / BUCKET_PARTS).max(BUCKET_MIN_BYTES);
    // tc keeps it in 32 bits.
    own.saturating_add(rate.burst_bits / 8)
        .min(u64::from(u32::MAX / 2))
}

fn table(network: &NodeNetwork) -> String {
    format!("shape-{}", network.ids.start())
}

fn device(network: &NodeNetwork) -> String {
    format!("vs{}", network.ids.start())
}

fn class(network: &NodeNetwork, id: VeId) -> Result<String, ShapeError> {
    let minor = id
        .get()
        .wrapping_sub(network.ids.start().get())
        .wrapping_add(1);
    if (1..=CLASSES_MAX).contains(&minor) {
        Ok(format!("1:{minor:x}"))
    } else {
        Err(ShapeError::TooMany { id })
    }
}

fn tc(arguments: &[&str]) -> Result<(), ShapeError> {
    output(arguments).map(drop)
}

/// For taking away what may be gone already.
fn tc_leniently(arguments: &[&str]) -> Result<(), ShapeError> {
    match tc(arguments) {
        // Without the program nothing was ever set.
        Err(ShapeError::Refused { .. } | ShapeError::Run(_)) => Ok(()),
        other => other,
    }
}

fn output(arguments: &[&str]) -> Result<String, ShapeError> {
    let program = program::find("tc");
    let program = program.ok_or_else(|| ShapeError::Run(io::ErrorKind::NotFound.into()))?;
    let output = program::run(&program, arguments, "").map_err(ShapeError::Run)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(ShapeError::Refused {
        command: arguments.join(" "),
        words: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> NodeNetwork {
        NodeNetwork {
            ids: VeId::new(200).unwrap()..=VeId::new(1_999).unwrap(),
            ranges: Vec::new(),
            nat: false,
        }
    }

    #[test]
    fn every_ve_has_a_class_of_its_own() {
        let class = |number| class(&network(), VeId::new(number).unwrap()).ok();
        assert_eq!(class(200).as_deref(), Some("1:1"));
        assert_eq!(class(455).as_deref(), Some("1:100"));
        assert_eq!(class(199), None);
    }

    #[test]
    fn a_bucket_holds_a_large_segment_and_the_burst() {
        let bucket = |limit_bits, burst_bits| {
            bucket_bytes(Rate {
                limit_bits,
                burst_bits,
            })
        };
        assert_eq!(bucket(64_000, 0), BUCKET_MIN_BYTES);
        assert_eq!(bucket(10_000_000_000, 0), 12_500_000);
        assert_eq!(bucket(1_000_000, 8_000_000), BUCKET_MIN_BYTES + 1_000_000);
    }
}
