//! The ways that packets take over the node's devices: the rules that lead them there.

use std::fmt::Write as _;

use super::{Hold, sender, table};
use crate::node::NodeNetwork;

/// Addresses that only the node's own links know, and groups, which end at the node.
const LOCAL4: [&str; 2] = ["169.254.0.0/16", "224.0.0.0/4"];
const LOCAL6: [&str; 2] = ["fe80::/10", "ff00::/8"];

/// Leads what comes from outside the node's ranges to the device. A match without an action lets pass.
pub(super) fn received_from_outside(network: &NodeNetwork, link: &str, device: &str) -> String {
    let mut lines = format!("qdisc add dev {link} clsact\n");
    let families = [
        ("ip", "ip", ranges4(network)),
        ("ipv6", "ip6", ranges6(network)),
    ];
    for (preference, (protocol, word, ranges)) in families.iter().enumerate() {
        let mut rule = |preference: usize, rest: &str| {
            let _ = writeln!(
                lines,
                "filter add dev {link} egress pref {preference} protocol {protocol} u32 match {rest}"
            );
        };
        for range in ranges {
            rule(preference + 1, &format!("{word} src {range} classid 1:1"));
        }
        let rest = format!("u32 0 0 action mirred egress redirect dev {device}");
        rule(preference + 11, &rest);
    }
    lines
}

/// Leads what a VE sends to the device, and tells packets' classes, for `nft`. What was before is replaced.
pub(super) fn way_round(network: &NodeNetwork, link: &str, class: &str, hold: &Hold) -> String {
    let (table, device) = (table(network), sender(network));
    let mut text = removal(&table, link);
    if *hold == Hold::default() {
        return text;
    }
    for (name, kind, ranges) in [
        ("inside4", "ipv4_addr", ranges4(network)),
        ("inside6", "ipv6_addr", ranges6(network)),
    ] {
        // The ranges may have been others.
        let _ = writeln!(
            text,
            "add set netdev {table} {name} {{ type {kind}; flags interval; }}\n\
             flush set netdev {table} {name}\n\
             add element netdev {table} {name} {{ {} }}",
            ranges.join(", ")
        );
    }
    let passing = match hold.limit {
        // Everything counts.
        Some(_) => "",
        None => {
            "\t\tmeta protocol != { ip, ip6 } accept\n\
             \t\tip daddr @inside4 accept\n\
             \t\tip6 daddr @inside6 accept\n"
        }
    };
    let _ = write!(
        text,
        "table netdev {table} {{\n\
         \tchain {link} {{\n\
         \t\ttype filter hook ingress device {link} priority 0; policy accept;\n\
         {passing}\
         \t\tmeta priority set {class} fwd to \"{device}\"\n\
         \t}}\n"
    );
    if hold.part.is_some() {
        let _ = write!(
            text,
            "\tchain {link}-to {{\n\
             \t\ttype filter hook egress device {link} priority 0; policy accept;\n\
             \t\tmeta priority set {class}\n\
             \t}}\n"
        );
    }
    text.push_str("}\n");
    text
}

/// Removes a VE's chains, declared first so that one that is gone already is no error.
pub(super) fn removal(table: &str, link: &str) -> String {
    let mut text = format!("add table netdev {table}\n");
    for chain in [link.to_owned(), format!("{link}-to")] {
        for word in ["add", "flush", "delete"] {
            let _ = writeln!(text, "{word} chain netdev {table} {chain}");
        }
    }
    text
}

fn ranges4(network: &NodeNetwork) -> Vec<String> {
    let local = LOCAL4.map(str::to_owned);
    crate::node::ranges4(network)
        .into_iter()
        .chain(local)
        .collect()
}

fn ranges6(network: &NodeNetwork) -> Vec<String> {
    let local = LOCAL6.map(str::to_owned);
    crate::node::ranges6(network)
        .into_iter()
        .chain(local)
        .collect()
}
