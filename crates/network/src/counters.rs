//! Traffic of VEs, as the VEs see it.
//!
//! One dump answers for all VEs at once. What the host's end received, the VE transmitted: the
//! directions are swapped here and nowhere else. Counters start at 0 with the link, so whoever
//! accounts adds differences and expects a fall at each start.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::stats::{StatsAttribute, StatsFilterMask, StatsMessage};
use ve::VeId;

use crate::identity::ve_of_index;
use crate::netlink::{Netlink, NetlinkError};

/// Traffic of one VE since its link was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes that the VE received.
    pub receive_bytes: u64,
    /// Packets that the VE received.
    pub receive_packets: u64,
    /// Packets for the VE that were dropped before it got them.
    pub receive_dropped: u64,
    /// Bytes that the VE sent.
    pub transmit_bytes: u64,
    /// Packets that the VE sent.
    pub transmit_packets: u64,
    /// Packets from the VE that were dropped at the node's interface.
    pub transmit_dropped: u64,
}

/// Reads the counters of all VEs of a range that have a link.
///
/// # Errors
/// Fails when the kernel does not answer.
pub fn counters_all(
    netlink: &mut Netlink,
    ids: RangeInclusive<VeId>,
) -> Result<BTreeMap<VeId, Counters>, NetlinkError> {
    let mut message = StatsMessage::default();
    message.header.filter_mask = StatsFilterMask::Link64;
    let found = netlink.dump(
        "counters",
        &RouteNetlinkMessage::GetStats(message),
        |answer| {
            let RouteNetlinkMessage::NewStats(stats) = answer else {
                return None;
            };
            let id = ve_of_index(stats.header.ifindex).filter(|id| ids.contains(id))?;
            stats
                .attributes
                .iter()
                .find_map(|attribute| match attribute {
                    StatsAttribute::Link64(host) => Some((
                        id,
                        Counters {
                            receive_bytes: host.tx_bytes,
                            receive_packets: host.tx_packets,
                            receive_dropped: host.tx_dropped,
                            transmit_bytes: host.rx_bytes,
                            transmit_packets: host.rx_packets,
                            transmit_dropped: host.rx_dropped,
                        },
                    )),
                    _ => None,
                })
        },
    )?;
    Ok(found.into_iter().collect())
}

/// Reads the counters of one VE; nothing when it has no link.
///
/// For several VEs [`counters_all`] is one exchange instead of many.
///
/// # Errors
/// Fails when the kernel does not answer.
pub fn counters(netlink: &mut Netlink, id: VeId) -> Result<Option<Counters>, NetlinkError> {
    Ok(counters_all(netlink, id..=id)?.remove(&id))
}
