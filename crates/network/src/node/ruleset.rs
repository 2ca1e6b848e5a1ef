//! The node's packet filter, as text for `nft`.
//!
//! One table for each node. It knows VEs by the range of their interfaces' indices and asks the
//! routing table which source belongs to which interface, so it does not change when VEs come and
//! go and its cost does not grow with their number.
//!
//! What it does to packets **from** a VE:
//!
//! | packet | fate |
//! |---|---|
//! | source is not routed back to that VE | dropped: nobody speaks for another |
//! | broadcast and multicast | dropped, except neighbour discovery: DHCP, mDNS, MLD, IGMP have nobody to talk to on a routed link |
//! | router advertisements, redirects | dropped: a VE is nobody's router |
//! | neighbour discovery | to the node only, and ten a second from each VE: each new sender is an entry in a table that all share |
//! | link-local source otherwise | dropped: would fill that same table |
//! | to `127.0.0.0/8`, or forwarded to `169.254.0.0/16` | dropped: a cloud's metadata service answers there, to the node, not to VEs |
//! | a new connection beyond [`CONNECTIONS_MAX`] of that VE | dropped where sources are translated: the table of connections is one for all VEs |
//! | anything else | passes: to other VEs, to the node's services as from any other host, and out |
//!
//! ARP has a table of its own, of the same name: a VE may ask, ten times a second, and never
//! answers, because nobody asks it. What it claims is meaningless anyway: the node's neighbour
//! entries are permanent. Strict reverse path filtering ([`crate::link`]) ignores forged askers
//! too, but systemd turns that off again where `sysctl.d` says so for all interfaces.
//!
//! It cannot overrule other tables: a packet must be accepted by every chain that it meets, so one
//! that another program drops is dropped (Docker sets the policy of its `FORWARD` chain to drop).
//! [`crate::probe`] finds such chains.

use std::fmt::Write;
use std::ops::RangeInclusive;

use ipnet::{IpNet, Ipv6Net};

use super::NodeNetwork;
use super::forwarding::Previous;
use crate::identity::{INDICES, interface_indices};

pub(super) const TABLE_PREFIX: &str = "vessel-";

/// Connections that a VE may have begun and that are open, over all that it reaches; what others
/// begin with it is theirs. By default the kernel's table has 262,144 places (`nf_conntrack_max`).
/// Closed connections stay in it for up to two minutes and do not count here: of these, and of those
/// that nobody answers, the kernel throws some out itself when the table is nearly full.
pub(super) const CONNECTIONS_MAX: u32 = 16_384;

/// Name of a node's table, in the family `inet`.
pub(super) fn table_name(network: &NodeNetwork) -> String {
    format!("{TABLE_PREFIX}{}", network.ids.start())
}

/// Finds the tables of nodes in what `nft list tables` prints (`table inet NAME` a line).
pub(super) fn node_tables(listing: &str) -> Vec<String> {
    listing
        .lines()
        .filter_map(|line| line.trim().strip_prefix("table inet "))
        .filter(|name| name.starts_with(TABLE_PREFIX))
        .map(str::to_owned)
        .collect()
}

/// Finds the comment of a table in what `nft list table` prints.
pub(super) fn comment(listing: &str) -> Option<&str> {
    let line = listing.lines().nth(1)?.trim();
    line.strip_prefix("comment \"")?.strip_suffix('"')
}

/// The whole ruleset, as one transaction that replaces the node's table.
pub(super) fn ruleset(network: &NodeNetwork, previous: &Previous) -> String {
    let table = table_name(network);
    let ve = range(interface_indices(&network.ids));
    let mut text = removal(network);
    let _ = writeln!(text, "table inet {table} {{\n\tcomment \"{previous}\"");
    for name in [
        "forged_source",
        "forged_outside",
        "group",
        "router_claim",
        "link_local",
        "discovery",
        "metadata",
        "connections",
    ] {
        let _ = writeln!(text, "\tcounter {name} {{ }}");
    }
    text.push_str(&address_set("ranges4", "ipv4_addr", &ranges4(network)));
    text.push_str(&address_set("ranges6", "ipv6_addr", &ranges6(network)));
    text.push_str(&FROM_OUTSIDE_AND_VE.replace("VE_INDICES", &ve));
    if network.nat {
        let connections = CONNECTIONS.replace("VE_INDICES", &ve);
        text.push_str(&connections.replace("CONNECTIONS_MAX", &CONNECTIONS_MAX.to_string()));
        text.push_str(&address_set("hidden6", "ipv6_addr", &private6(network)));
        text.push_str(&TRANSLATION.replace("ANY_INDICES", &range(INDICES)));
    }
    text.push_str("}\n");
    text.push_str(&ARP.replace("TABLE", &table).replace("VE_INDICES", &ve));
    text
}

/// The transaction that takes the node's tables away.
pub(super) fn removal(network: &NodeNetwork) -> String {
    let table = table_name(network);
    // Declared first, so that one that is gone already is no error.
    ["inet", "arp"]
        .map(|family| format!("table {family} {table} {{ }}\ndelete table {family} {table}\n"))
        .concat()
}

/// Sources are checked before connection tracking sees a packet (priority `raw`), so that forged
/// ones cost no entry there.
///
/// Packets that come from outside under a VE's address are dropped too: only the routing table's
/// answer for addresses within the node's ranges is asked, so other traffic pays one set lookup.
const FROM_OUTSIDE_AND_VE: &str = "\
\tset discoverers {
\t\ttype iface_index
\t\tsize 65535
\t\tflags dynamic,timeout
\t\ttimeout 30s
\t}
\tchain prerouting {
\t\ttype filter hook prerouting priority raw; policy accept;
\t\tiif VE_INDICES goto from_ve
\t\tip saddr @ranges4 fib saddr oif VE_INDICES counter name forged_outside drop
\t\tip6 saddr @ranges6 fib saddr oif VE_INDICES counter name forged_outside drop
\t}
\tchain from_ve {
\t\tmeta nfproto ipv4 goto from_ve4
\t\ticmpv6 type { nd-router-advert, nd-router-solicit, nd-redirect } counter name router_claim drop
\t\ticmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } goto discovery
\t\tip6 daddr ff00::/8 counter name group drop
\t\tfib saddr . iif oif missing counter name forged_source drop
\t\tip6 saddr fe80::/10 counter name link_local drop
\t}
\tchain from_ve4 {
\t\tmeta pkttype { broadcast, multicast } counter name group drop
\t\tip daddr { 224.0.0.0/4, 255.255.255.255 } counter name group drop
\t\tip saddr 0.0.0.0/8 counter name forged_source drop
\t\tfib saddr . iif oif missing counter name forged_source drop
\t\ticmp type { redirect, router-advertisement } counter name router_claim drop
\t\tip daddr 127.0.0.0/8 counter name metadata drop
\t}
\tchain discovery {
\t\tip6 saddr != { ::, fe80::/10 } fib saddr . iif oif missing counter name forged_source drop
\t\tupdate @discoverers { iif limit rate over 10/second burst 20 packets } counter name discovery drop
\t}
\tchain forward {
\t\ttype filter hook forward priority filter; policy accept;
\t\tiif != VE_INDICES accept
\t\tip daddr 169.254.0.0/16 counter name metadata drop
\t}
";

/// Only beside translation, which is what makes the kernel follow connections: asking for their
/// state makes it do so too, for every packet.
const CONNECTIONS: &str = "\
\tset connected {
\t\ttype iface_index
\t\tsize 65535
\t\tflags dynamic
\t}
\tchain connections {
\t\tct state new add @connected { iif ct count over CONNECTIONS_MAX } counter name connections drop
\t}
\tchain connections_forward {
\t\ttype filter hook forward priority filter + 1; policy accept;
\t\tiif VE_INDICES goto connections
\t}
\tchain connections_input {
\t\ttype filter hook input priority filter + 1; policy accept;
\t\tiif VE_INDICES goto connections
\t}
";

/// Only what leaves by an interface that is no VE's (of any node in this network namespace), for
/// an address outside the node's ranges.
///
/// And of TCP only what begins a connection. One that is in the middle and new to the kernel began by the fast
/// path ([`crate::fast_path`]), from outside and untranslated, and must stay so.
const TRANSLATION: &str = "\
\tchain postrouting {
\t\ttype nat hook postrouting priority srcnat; policy accept;
\t\toif ANY_INDICES accept
\t\tmeta l4proto tcp tcp flags & (fin | syn | rst | ack) != syn accept
\t\tip saddr @ranges4 ip daddr != @ranges4 masquerade
\t\tip6 saddr @hidden6 ip6 daddr != @ranges6 masquerade
\t}
";

const ARP: &str = "\
table arp TABLE {
\tcounter discovery { }
\tset askers {
\t\ttype iface_index
\t\tsize 65535
\t\tflags dynamic,timeout
\t\ttimeout 30s
\t}
\tchain input {
\t\ttype filter hook input priority filter; policy accept;
\t\tiif != VE_INDICES accept
\t\tarp operation != request counter name discovery drop
\t\tupdate @askers { iif limit rate over 10/second burst 20 packets } counter name discovery drop
\t}
}
";

pub(super) fn range(indices: RangeInclusive<u32>) -> String {
    format!("{}-{}", indices.start(), indices.end())
}

pub(super) fn address_set(name: &str, kind: &str, elements: &[String]) -> String {
    let mut text = format!("\tset {name} {{\n\t\ttype {kind}\n\t\tflags interval\n");
    if !elements.is_empty() {
        let _ = writeln!(text, "\t\telements = {{ {} }}", elements.join(", "));
    }
    text.push_str("\t}\n");
    text
}

/// Ranges without those that lie in others: `nft` takes no overlapping elements.
pub(crate) fn ranges4(network: &NodeNetwork) -> Vec<String> {
    let ranges = network.ranges4();
    ranges.iter().map(ToString::to_string).collect()
}

pub(crate) fn ranges6(network: &NodeNetwork) -> Vec<String> {
    aggregated6(network, |_| true)
}

fn private6(network: &NodeNetwork) -> Vec<String> {
    aggregated6(network, |range| range.addr().is_unique_local())
}

fn aggregated6(network: &NodeNetwork, wanted: impl Fn(&Ipv6Net) -> bool) -> Vec<String> {
    let v6 = network.ranges.iter().filter_map(|range| match range {
        IpNet::V6(v6) if wanted(v6) => Some(*v6),
        _ => None,
    });
    Ipv6Net::aggregate(&v6.collect())
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[cfg(test)]
mod tests {
    use ve::VeId;

    use super::*;

    fn network(ranges: &[&str], nat: bool) -> NodeNetwork {
        NodeNetwork {
            ids: VeId::new(100).unwrap()..=VeId::new(1_999).unwrap(),
            ranges: ranges.iter().map(|range| range.parse().unwrap()).collect(),
            nat,
        }
    }

    fn previous() -> Previous {
        Previous::parse("forwarding before: ipv4=0 ipv6=1").unwrap()
    }

    #[test]
    fn knows_ves_by_one_range_of_indices() {
        let text = ruleset(
            &network(&["10.99.0.0/16", "fd00:1::/64"], true),
            &previous(),
        );
        assert!(text.contains("iif 1048676-1050575 goto from_ve"), "{text}");
        assert!(!text.contains("INDICES"), "{text}");
        assert!(text.contains("masquerade"), "{text}");
        assert!(!ruleset(&network(&["10.99.0.0/16"], false), &previous()).contains("masquerade"));
    }

    #[test]
    fn ranges_within_ranges_are_merged() {
        let text = ruleset(
            &network(&["10.99.0.0/16", "10.99.7.0/24"], true),
            &previous(),
        );
        assert!(text.contains("elements = { 10.99.0.0/16 }"), "{text}");
    }

    #[test]
    fn public_ipv6_is_not_hidden() {
        let network = network(&["2001:db8::/64", "fd00:1::/64"], true);
        assert_eq!(private6(&network), ["fd00:1::/64"]);
        assert_eq!(ranges6(&network), ["2001:db8::/64", "fd00:1::/64"]);
    }

    #[test]
    fn finds_its_tables_and_what_they_remember() {
        let tables = "table ip filter\ntable inet vessel-100\ntable inet other\n";
        assert_eq!(node_tables(tables), ["vessel-100"]);
        let listing = "table inet vessel-100 {\n\tcomment \"forwarding before: ipv4=0 ipv6=1\"\n";
        assert_eq!(comment(listing).and_then(Previous::parse), Some(previous()));
        assert_eq!(comment("table inet vessel-100 {\n\tcounter x {\n"), None);
    }
}
