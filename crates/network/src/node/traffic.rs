//! Traffic of VEs by direction and class, counted by the packet filter.
//!
//! What a VE exchanges with addresses of its own node is cheaper than what leaves the node, and is
//! billed apart. The counters of its link tell no class, and die with the link. So the node has a
//! second table, which drops nothing, with one set for each direction and class:
//!
//! ```text
//! from a VE (prerouting)    destination in the node's ranges?  sent_inside / sent_outside
//! to a VE (postrouting)     source in the node's ranges?       received_inside / received_outside
//! ```
//!
//! Elements are indices of VEs' interfaces, each with its own counter, made by the first packet. A packet
//! costs two set lookups whatever the number of VEs.
//!
//! Counters outlive the link, the VE's restarts and the daemon. The table is made anew only when the node's
//! ranges change or somebody removed it; an epoch in its comment then says that counters began at 0.
//!
//! Counted are IP packets as the node's stack sees them: without the link's header, and one that
//! the sender left to be cut up later (segmentation offload) is one.

use std::collections::BTreeMap;
use std::fmt::Write;

use ve::VeId;

use super::ruleset::{address_set, range, ranges4, ranges6};
use super::{NftError, NodeNetwork};
use crate::identity::{interface_indices, ve_of_index};
use crate::nft;
use crate::nft::sets::{Counted, Filter};

/// Not the prefix of the table that filters, so that neither is taken for the other.
pub(super) const TABLE_PREFIX: &str = "traffic-";
/// Changes with the form of the table, so that an older one is replaced.
const FORMAT: u32 = 1;
/// How often a table is read that others replace meanwhile.
const READ_ATTEMPTS: usize = 3;

/// Packets of one direction and class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Their bytes, IP header included.
    pub bytes: u64,
    /// Their number.
    pub packets: u64,
}

/// What a VE exchanged. *Inside* are the other VEs and the addresses that the node has for its VEs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Received from inside.
    pub receive_inside: Flow,
    /// Received from outside.
    pub receive_outside: Flow,
    /// Sent inside.
    pub transmit_inside: Flow,
    /// Sent outside.
    pub transmit_outside: Flow,
}

impl Traffic {
    /// Adds what was counted elsewhere.
    pub fn add(&mut self, other: &Self) {
        for (flow, more) in [
            (&mut self.receive_inside, other.receive_inside),
            (&mut self.receive_outside, other.receive_outside),
            (&mut self.transmit_inside, other.transmit_inside),
            (&mut self.transmit_outside, other.transmit_outside),
        ] {
            flow.bytes = flow.bytes.saturating_add(more.bytes);
            flow.packets = flow.packets.saturating_add(more.packets);
        }
    }
}

/// The counters of all VEs of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrafficTable {
    /// Since when they count: another word means that all began at 0.
    pub epoch: String,
    /// VEs that sent or received anything.
    pub ves: BTreeMap<VeId, Traffic>,
}

/// Begins to count, or goes on where an earlier daemon began.
///
/// # Errors
/// Fails when the packet filter cannot be read or changed.
pub fn prepare(network: &NodeNetwork) -> Result<(), NftError> {
    let form = form(network);
    let comment = Filter::open()?.table_comment(&table_name(network))?;
    if comment.is_some_and(|comment| comment.starts_with(&form)) {
        return Ok(());
    }
    begin(network)
}

/// Begins to count at 0.
///
/// # Errors
/// Fails when the packet filter cannot be changed.
pub fn begin(network: &NodeNetwork) -> Result<(), NftError> {
    nft::apply(
        "install the node's counters of traffic",
        &ruleset(network, &format!("{}{}", form(network), epoch())),
    )
}

/// Reads the counters; nothing where they were not set up or somebody removed them.
///
/// # Errors
/// Fails when the packet filter cannot be read.
pub fn read(network: &NodeNetwork) -> Result<Option<TrafficTable>, NftError> {
    let table = table_name(network);
    let mut filter = Filter::open()?;
    for _ in 0..READ_ATTEMPTS {
        let Some(comment) = filter.table_comment(&table)? else {
            return Ok(None);
        };
        let mut found = TrafficTable {
            epoch: comment.rsplit(' ').next().unwrap_or_default().to_owned(),
            ves: BTreeMap::new(),
        };
        for set in SETS {
            match filter.counters(&table, set) {
                Ok(counted) => found.add(set, &counted),
                // Another table, without the set, or none: seen below.
                Err(NftError::Kernel { source, .. })
                    if source.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        // Not one epoch's word with another's counters.
        if filter.table_comment(&table)?.as_ref() == Some(&comment) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Stops counting. Running it again changes nothing.
///
/// # Errors
/// Fails when the packet filter cannot be changed.
pub fn remove(network: &NodeNetwork) -> Result<(), NftError> {
    nft::apply(
        "remove the node's counters of traffic",
        &removal(&table_name(network)),
    )
}

fn table_name(network: &NodeNetwork) -> String {
    format!("{TABLE_PREFIX}{}", network.ids.start())
}

/// What the comment of a table of this form begins with. The text of the rules is in it by its digest, so
/// that other ranges make another table.
fn form(network: &NodeNetwork) -> String {
    // FNV-1a: told apart are a handful of rulesets of our own making.
    let digest = ruleset(network, "")
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    format!("form {FORMAT} {digest:016x} epoch ")
}

/// A word that no other table had.
fn epoch() -> String {
    let mut bytes = [0; 8];
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
        Ok(count) if count == bytes.len() => {}
        // Only on a kernel that has not enough of it yet; its own clock then tells boots apart.
        _ => {
            let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
            bytes = now.tv_nsec.wrapping_add(now.tv_sec).to_ne_bytes();
        }
    }
    format!("{:016x}", u64::from_ne_bytes(bytes))
}

fn removal(table: &str) -> String {
    format!("table inet {table} {{ }}\ndelete table inet {table}\n")
}

fn ruleset(network: &NodeNetwork, comment: &str) -> String {
    let table = table_name(network);
    let mut text = removal(&table);
    let _ = writeln!(text, "table inet {table} {{\n\tcomment \"{comment}\"");
    text.push_str(&address_set("ranges4", "ipv4_addr", &ranges4(network)));
    text.push_str(&address_set("ranges6", "ipv6_addr", &ranges6(network)));
    for set in SETS {
        let _ = writeln!(
            text,
            "\tset {set} {{\n\t\ttype iface_index\n\t\tsize 65535\n\t\tflags dynamic\n\t}}"
        );
    }
    text.push_str(&CHAINS.replace("VE_INDICES", &range(interface_indices(&network.ids))));
    text.push_str("}\n");
    text
}

const SETS: [&str; 4] = [
    "received_inside",
    "received_outside",
    "sent_inside",
    "sent_outside",
];

/// Sent packets are counted after the filter dropped forged ones (it has priority -300), received ones
/// where nothing can drop them any more. 169.254.0.0/16 and fe80::/10 are the gateway's; what is sent to a group
/// ends at the node, which passes none on.
const CHAINS: &str = "\
\tchain sent {
\t\ttype filter hook prerouting priority -290; policy accept;
\t\tiif != VE_INDICES accept
\t\tip daddr @ranges4 update @sent_inside { iif counter } accept
\t\tip daddr 169.254.0.0/16 update @sent_inside { iif counter } accept
\t\tip6 daddr @ranges6 update @sent_inside { iif counter } accept
\t\tip6 daddr fe80::/10 update @sent_inside { iif counter } accept
\t\tip daddr 224.0.0.0/4 update @sent_inside { iif counter } accept
\t\tip6 daddr ff00::/8 update @sent_inside { iif counter } accept
\t\tupdate @sent_outside { iif counter }
\t}
\tchain received {
\t\ttype filter hook postrouting priority 200; policy accept;
\t\toif != VE_INDICES accept
\t\tip saddr @ranges4 update @received_inside { oif counter } accept
\t\tip saddr 169.254.0.0/16 update @received_inside { oif counter } accept
\t\tip6 saddr @ranges6 update @received_inside { oif counter } accept
\t\tip6 saddr fe80::/10 update @received_inside { oif counter } accept
\t\tupdate @received_outside { oif counter }
\t}
";

impl TrafficTable {
    /// Takes what was counted in a set: an interface's index, of which the VE's number is a part.
    fn add(&mut self, set: &str, counted: &[Counted]) {
        for one in counted {
            let Some(ve) = ve_of_index(one.key) else {
                continue;
            };
            let flow = Flow {
                bytes: one.bytes,
                packets: one.packets,
            };
            let traffic = self.ves.entry(ve).or_default();
            match set {
                "received_inside" => traffic.receive_inside = flow,
                "received_outside" => traffic.receive_outside = flow,
                "sent_inside" => traffic.transmit_inside = flow,
                "sent_outside" => traffic.transmit_outside = flow,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_of_the_ve_with_the_interface() {
        let id = VeId::new(101).unwrap();
        let one = |key, bytes| Counted {
            key,
            packets: 1,
            bytes,
        };
        let mut found = TrafficTable::default();
        let index = crate::identity::interface_index(id);
        // An interface that is no VE's counts for nobody.
        found.add("sent_inside", &[one(index, 420), one(1, 7)]);
        found.add("received_outside", &[one(index, 84)]);
        let flow = |bytes| Flow { bytes, packets: 1 };
        let traffic = Traffic {
            transmit_inside: flow(420),
            receive_outside: flow(84),
            ..Traffic::default()
        };
        assert_eq!(found.ves, BTreeMap::from([(id, traffic)]));
    }

    #[test]
    fn other_ranges_make_another_form() {
        let network = |range: &str| NodeNetwork {
            ids: VeId::new(100).unwrap()..=VeId::new(199).unwrap(),
            ranges: vec![range.parse().unwrap()],
            nat: true,
        };
        assert_eq!(form(&network("10.1.0.0/16")), form(&network("10.1.0.0/16")));
        assert_ne!(form(&network("10.1.0.0/16")), form(&network("10.2.0.0/16")));
    }
}
