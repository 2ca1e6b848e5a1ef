//! What a VE sends and receives: at most, and at least while others want everything.
//!
//! ```text
//! to a VE      node ---> ve101 --egress--> [vr100: HTB] ---> [ve101: TBF] ---> VE
//! from a VE    VE ---> ve101 --ingress--> [vs100: HTB] ---> ve101 ---> node
//! ```
//!
//! A link's own queue holds only what leaves by it, and knows no other link. So packets take a way round over
//! two `ifb` devices, one for each direction, of each node: there every VE has a class, and they go on from
//! where they came. All of it lies in the node's network namespace, where a VE's root sees and changes
//! nothing.
//!
//! A **limit** is a bucket at the VE's link for what it receives, and the ceiling of its class for what it
//! sends. Everything counts, what it exchanges with its neighbours, too.
//!
//! A **guarantee** is about what goes to and comes from other networks, as only the way there is short:
//! packets with an address of the node's ranges at the other end pass by. Once a VE is guaranteed a part of
//! it, the node is *divided*: all VEs together get what the node has for them, and each has a class in it
//! that gets its guarantee first, and an equal part of what is left. What comes in cannot be held before it
//! is there: of a TCP connection the sender slows down, of a flood of UDP the way itself is full.
//!
//! While the node is divided, all of what a VE *with a limit* sends is in its one class, so that what it
//! sends to neighbours counts against the node's way, too.
//!
//! Packets beyond a rate wait, up to a tenth of a second when they are received; then they are dropped, which
//! TCP understands as "slower". VEs without a limit on a node that is not divided pay nothing.
//!
//! Set by the programs `tc` and `nft`: some ten milliseconds for any number of VEs.

mod control;
mod way;

use std::fmt::Write as _;
use std::io;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use rustix::io::Errno;
use ve::VeId;

use crate::link::{self, LinkError};
use crate::message;
use crate::netlink::{Batch, Netlink, NetlinkError, Step};
use crate::nft::{self, NftError};
use crate::node::NodeNetwork;

use way::{received_from_outside, removal, way_round};

/// A rate with what may be saved up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Bits per second.
    pub limit_bits: u64,
    /// Bits that may go at once after a time of rest, beyond a few packets.
    pub burst_bits: u64,
}

/// What a VE's link is held to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hold {
    /// At most, each direction.
    pub limit: Option<Rate>,
    /// Its part of a node that is divided.
    pub part: Option<Part>,
}

/// A part of a node's way to other networks, each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Bits per second that the VE gets whatever others do; 0 is nothing.
    pub guarantee_bits: u64,
    /// Bits per second that all VEs get together, as [`divide`] was told.
    pub all_bits: u64,
}

/// A rate could not be set or taken away.
#[derive(Debug, thiserror::Error)]
pub enum ShapeError {
    /// Netlink itself failed.
    #[error("cannot make the device that holds what VEs send and receive")]
    Netlink(#[from] NetlinkError),
    /// The links could not be listed.
    #[error("cannot see which VEs have links")]
    Links(#[from] LinkError),
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

/// Of its table in the family `netdev`.
pub(crate) const TABLE_PREFIX: &str = "shape-";
/// The part of a second that goes at once at any rate: timers are no finer.
const BUCKET_PARTS: u64 = 100;
/// A segment of the largest size that a link hands over at once, twice.
const BUCKET_MIN_BYTES: u64 = 128 << 10;
/// Minor numbers of classes have 16 bits, and the greatest is the node's own.
const CLASSES_MAX: u32 = 0xfffe;
/// The class that all others are in.
const NODE_CLASS: &str = "1:ffff";
/// Rate of the node's class while it is not divided: no machine moves so much.
const BOUNDLESS_BITS: u64 = 1_000_000_000_000;
/// The kernel wants some rate for a VE that is guaranteed nothing: a thousand of them are a hundredth of a
/// gigabit. Its bucket holds one packet.
const NOTHING_BITS: u64 = 8_000;
const NOTHING_BUCKET_BYTES: u64 = 2_000;
/// Bytes of a VE's turn when what is left is divided; the same for all, so it is divided equally.
const TURN_BYTES: u64 = 60_000;

/// Holds VEs that run to what is said of each. Those without a link are left out. Running it again changes
/// nothing.
///
/// # Errors
/// What was set before a failure stays; set what was before again.
pub fn set(
    netlink: &mut Netlink,
    network: &NodeNetwork,
    holds: &[(VeId, Hold)],
) -> Result<(), ShapeError> {
    let links = link::list(netlink, network.ids.clone())?;
    let holds: Vec<_> = holds.iter().filter(|(id, _)| links.contains(id)).collect();
    let (mut gone, mut wanted, mut ways) = (String::new(), String::new(), String::new());
    for (id, hold) in holds {
        let class = class(network, *id)?;
        gone.push_str(&withdrawn(network, *id, &class, hold));
        wanted.push_str(&control_lines(network, *id, &class, hold));
        ways.push_str(&way_round(network, &id.interface_name(), &class, hold));
    }
    if wanted.is_empty() {
        // The way first: what it leads to goes then.
        nft::apply("let VEs send as they like", &ways)?;
        return control::change_leniently(&gone);
    }
    prepare(netlink, &sender(network))?;
    control::change_leniently(&gone)?;
    control::change(&wanted)?;
    Ok(nft::apply("shape what VEs send", &ways)?)
}

/// Forgets a VE that was held to something and has no link any more.
///
/// # Errors
/// When the packet filter cannot be changed.
pub fn forget(network: &NodeNetwork, id: VeId) -> Result<(), ShapeError> {
    let text = removal(&table(network), &id.interface_name());
    nft::apply("let a VE send as it likes", &text)?;
    let class = class(network, id)?;
    let devices = [sender(network), receiver(network)];
    control::change_leniently(
        &devices
            .map(|device| class_removal(&device, &class))
            .concat(),
    )
}

/// Divides the node: what VEs exchange with other networks is at most this many bits per second, each
/// direction, once [`set`] gave each its part. Running it again changes only the number.
///
/// # Errors
/// When the kernel or the program refuses.
pub fn divide(
    netlink: &mut Netlink,
    network: &NodeNetwork,
    all_bits: u64,
) -> Result<(), ShapeError> {
    for device in [sender(network), receiver(network)] {
        prepare(netlink, &device)?;
        control::change(&node_class(&device, all_bits))?;
    }
    Ok(())
}

/// Ends the division, once no VE has a part any more. Running it again changes nothing.
///
/// # Errors
/// When the kernel or the program refuses.
pub fn undivide(netlink: &mut Netlink, network: &NodeNetwork) -> Result<(), ShapeError> {
    remove_device(netlink, &receiver(network))?;
    control::change_leniently(&node_class(&sender(network), BOUNDLESS_BITS))
}

/// Whether the node is divided, or was begun to be.
///
/// # Errors
/// When the program cannot be run.
pub fn is_divided(network: &NodeNetwork) -> Result<bool, ShapeError> {
    let device = receiver(network);
    match control::show(&["qdisc", "show", "dev", &device]) {
        Ok(_) => Ok(true),
        Err(ShapeError::Refused { .. } | ShapeError::Run(_)) => Ok(false),
        Err(other) => Err(other),
    }
}

/// Takes away what shaping needs, with all rates. Running it again changes nothing.
pub(crate) fn remove(netlink: &mut Netlink, network: &NodeNetwork) -> Result<(), ShapeError> {
    let table = table(network);
    let text = format!("add table netdev {table}\ndelete table netdev {table}\n");
    nft::apply("remove the node's shaping", &text)?;
    remove_device(netlink, &receiver(network))?;
    remove_device(netlink, &sender(network))
}

/// Why this host cannot shape, if the programs for it are missing.
#[must_use]
pub fn missing() -> Option<&'static str> {
    control::missing()
}

/// Tries in the calling thread's network namespace, which has nothing but `lo`, whether the kernel can do
/// what the division of a node needs.
///
/// # Errors
/// The first part that it refuses.
pub fn try_division(netlink: &mut Netlink, network: &NodeNetwork) -> Result<(), ShapeError> {
    let (id, link) = (*network.ids.start(), "lo");
    divide(netlink, network, 1_000_000)?;
    let (class, device) = (class(network, id)?, receiver(network));
    let rates = [NOTHING_BITS, 1_000_000];
    let buckets = [NOTHING_BUCKET_BYTES, BUCKET_MIN_BYTES];
    control::change(&class_line(&device, NODE_CLASS, &class, rates, buckets))?;
    control::change(&received_from_outside(network, link, &device))?;
    let hold = Hold {
        limit: None,
        part: Some(Part {
            guarantee_bits: 0,
            all_bits: 1_000_000,
        }),
    };
    let way = way_round(network, link, &class, &hold);
    Ok(nft::apply("shape what VEs exchange", &way)?)
}

/// Makes a device, with its root queue and the node's class.
fn prepare(netlink: &mut Netlink, device: &str) -> Result<(), ShapeError> {
    let mut batch = Batch::default();
    batch.push(
        Step::Link,
        NLM_F_CREATE | NLM_F_EXCL,
        message::new_ifb(device),
    );
    let refused = netlink.run(batch)?;
    if let Some(refusal) = refused
        .into_iter()
        .find(|refusal| !refusal.is(Errno::EXIST))
    {
        return Err(ShapeError::Device(refusal.source));
    }
    if control::show(&["class", "show", "dev", device])?.contains("htb 1:ffff root") {
        return Ok(());
    }
    // What has no class of its own passes unhindered (the default 0, tc-htb(8)).
    let root = format!("qdisc replace dev {device} root handle 1: htb default 0\n");
    control::change(&(root + &node_class(device, BOUNDLESS_BITS)))
}

fn remove_device(netlink: &mut Netlink, device: &str) -> Result<(), ShapeError> {
    let mut batch = Batch::default();
    batch.push(Step::Link, 0, message::delete_link(device));
    let gone = [Errno::NODEV, Errno::NOENT];
    let refused = netlink.run(batch)?.into_iter();
    let mut others = refused.filter(|refusal| !gone.iter().any(|errno| refusal.is(*errno)));
    others
        .next()
        .map_or(Ok(()), |refusal| Err(ShapeError::Device(refusal.source)))
}

fn node_class(device: &str, bits: u64) -> String {
    let bucket = bucket_bytes(bits, 0);
    class_line(device, "1:", NODE_CLASS, [bits, bits], [bucket, bucket])
}

/// A class with its rate and its ceiling, and the bucket of each.
fn class_line(
    device: &str,
    parent: &str,
    class: &str,
    [rate, ceiling]: [u64; 2],
    [bucket, ceiling_bucket]: [u64; 2],
) -> String {
    format!(
        "class replace dev {device} parent {parent} classid {class} htb rate {rate}bit ceil \
         {ceiling}bit burst {bucket} cburst {ceiling_bucket} quantum {TURN_BYTES}\n"
    )
}

fn class_removal(device: &str, class: &str) -> String {
    format!("class del dev {device} classid {class}\n")
}

/// What of a VE's is to go before anything is set anew.
fn withdrawn(network: &NodeNetwork, id: VeId, class: &str, hold: &Hold) -> String {
    let link = id.interface_name();
    // With all its filters: these cannot be replaced one by one.
    let mut lines = format!("qdisc del dev {link} clsact\n");
    if hold.limit.is_none() {
        let _ = writeln!(lines, "qdisc del dev {link} root");
    }
    if hold.part.is_none() {
        lines.push_str(&class_removal(&receiver(network), class));
        if hold.limit.is_none() {
            lines.push_str(&class_removal(&sender(network), class));
        }
    }
    lines
}

/// What holds a VE, for the program `tc`.
fn control_lines(network: &NodeNetwork, id: VeId, class: &str, hold: &Hold) -> String {
    let link = id.interface_name();
    let mut lines = String::new();
    if let Some(rate) = hold.limit {
        let bucket = bucket_bytes(rate.limit_bits, rate.burst_bits);
        let limit = rate.limit_bits;
        let _ = writeln!(
            lines,
            "qdisc replace dev {link} root handle 1: tbf rate {limit}bit burst {bucket} latency 100ms"
        );
    }
    if let Some((rates, buckets)) = rates(hold) {
        let sent = class_line(&sender(network), NODE_CLASS, class, rates, buckets);
        lines.push_str(&sent);
        if hold.part.is_some() {
            let device = receiver(network);
            lines.push_str(&class_line(&device, NODE_CLASS, class, rates, buckets));
            lines.push_str(&received_from_outside(network, &link, &device));
        }
    }
    lines
}

/// Rate and ceiling of a VE's class, and their buckets.
fn rates(hold: &Hold) -> Option<([u64; 2], [u64; 2])> {
    let own = |rate: Rate| bucket_bytes(rate.limit_bits, rate.burst_bits);
    match (hold.part, hold.limit) {
        (None, None) => None,
        (None, Some(rate)) => Some(([rate.limit_bits; 2], [own(rate); 2])),
        (Some(part), limit) => {
            let ceiling = limit.map_or(part.all_bits, |rate| rate.limit_bits.min(part.all_bits));
            let bucket = limit.map_or_else(|| bucket_bytes(ceiling, 0), own);
            let guaranteed = match part.guarantee_bits {
                0 => (NOTHING_BITS, NOTHING_BUCKET_BYTES),
                bits => (bits, bucket_bytes(bits, 0)),
            };
            Some(([guaranteed.0, ceiling], [guaranteed.1, bucket]))
        }
    }
}

fn bucket_bytes(limit_bits: u64, burst_bits: u64) -> u64 {
    let own = (limit_bits / 8 / BUCKET_PARTS).max(BUCKET_MIN_BYTES);
    // tc keeps it in 32 bits.
    own.saturating_add(burst_bits / 8)
        .min(u64::from(u32::MAX / 2))
}

fn table(network: &NodeNetwork) -> String {
    format!("{TABLE_PREFIX}{}", network.ids.start())
}

/// The device that what VEs send takes its way over.
fn sender(network: &NodeNetwork) -> String {
    format!("vs{}", network.ids.start())
}

/// The device that what VEs receive takes its way over.
fn receiver(network: &NodeNetwork) -> String {
    format!("vr{}", network.ids.start())
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

#[cfg(test)]
mod tests;
