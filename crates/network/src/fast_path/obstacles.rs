//! Who else decides about packets of VEs, and would not be asked about those of the fast path.

use std::fmt;
use std::fs;

use crate::nft::{self, NftError};
use crate::node::is_table_of_a_node;
use crate::program;

/// Lists the tables that the old `iptables` program has made.
const LEGACY_TABLES: &str = "/proc/thread-self/net/ip_tables_names";

/// Something that decides about packets of VEs, so that these take no short way past it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Obstacle {
    /// A chain of another program's, with rules or with a policy to drop: `ip filter FORWARD`.
    Chain(String),
    /// The old `iptables`, whose rules `nft` does not show.
    LegacyTables,
    /// IPsec policies.
    Policies,
    /// What there is cannot be read.
    Unknown(String),
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chain(chain) => write!(f, "chain `{chain}` filters, too"),
            Self::LegacyTables => f.write_str("the old `iptables` filters, too"),
            Self::Policies => f.write_str("IPsec policies decide, too"),
            Self::Unknown(why) => write!(f, "it cannot be told who else filters ({why})"),
        }
    }
}

/// Looks for obstacles in the calling thread's network namespace.
pub(super) fn find() -> Vec<Obstacle> {
    let unknown = |error: &dyn std::error::Error| Obstacle::Unknown(error.to_string());
    let mut found = chains().unwrap_or_else(|error| vec![unknown(&error)]);
    if fs::read_to_string(LEGACY_TABLES).is_ok_and(|tables| !tables.trim().is_empty()) {
        found.push(Obstacle::LegacyTables);
    }
    match policies() {
        Ok(false) => {}
        Ok(true) => found.push(Obstacle::Policies),
        Err(error) => found.push(unknown(&error)),
    }
    found
}

/// Chains of others that see forwarded packets and do anything with them.
fn chains() -> Result<Vec<Obstacle>, NftError> {
    let listing = nft::list("list chains", &["chains"])?;
    let mut found = Vec::new();
    for chain in seeing(&listing) {
        let words: Vec<&str> = chain.name.split(' ').collect();
        let idle = !chain.drops && {
            let text = nft::list("list a chain", &[&["chain"], words.as_slice()].concat())?;
            rules(&text) == 0
        };
        if !idle {
            found.push(Obstacle::Chain(chain.name));
        }
    }
    Ok(found)
}

#[derive(Debug, PartialEq, Eq)]
struct Chain {
    /// Family, table, chain.
    name: String,
    drops: bool,
}

/// Base chains of others that forwarded IPv4 packets come by, in what `nft list chains` prints: `table FAMILY
/// NAME {`, then `chain NAME {` and `type T hook H priority P; policy V;`.
fn seeing(listing: &str) -> Vec<Chain> {
    let mut found = Vec::new();
    let (mut family, mut table, mut chain) = ("", "", "");
    for line in listing.lines().map(str::trim) {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words.as_slice() {
            ["table", of, name, ..] => (family, table) = (*of, *name),
            ["chain", name, ..] => chain = name,
            ["type", _, "hook", hook, ..] => {
                let sees = match family {
                    "ip" | "inet" => !["input", "output"].contains(hook),
                    "netdev" => true,
                    _ => false,
                };
                if sees && !is_table_of_a_node(table) {
                    found.push(Chain {
                        name: format!("{family} {table} {chain}"),
                        drops: line.contains("policy drop"),
                    });
                }
            }
            _ => {}
        }
    }
    found
}

/// Rules in what `nft list chain` prints of one chain.
fn rules(listing: &str) -> usize {
    let kept = |line: &&str| {
        let frame = ["table ", "chain ", "type ", "comment ", "}"];
        !line.is_empty() && !frame.iter().any(|begin| line.starts_with(begin))
    };
    listing.lines().map(str::trim).filter(kept).count()
}

/// Whether there are IPsec policies.
fn policies() -> std::io::Result<bool> {
    let Some(ip) = program::find("ip") else {
        return Err(std::io::Error::new(
            std::io::ErrorKind::NotFound,
            "the program `ip` is not installed; install the package `iproute2`",
        ));
    };
    // A kernel without IPsec refuses, and has none.
    let output = program::run(&ip, &["xfrm", "policy"], "")?;
    Ok(output.status.success() && !output.stdout.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "table inet vessel-100 {\n\
        \tchain forward {\n\t\ttype filter hook forward priority filter; policy accept;\n\t}\n}\n\
        table inet traffic-100 {\n\
        \tchain sent {\n\t\ttype filter hook prerouting priority -290; policy accept;\n\t}\n}\n\
        table ip filter {\n\
        \tchain INPUT {\n\t\ttype filter hook input priority filter; policy drop;\n\t}\n\
        \tchain FORWARD {\n\t\ttype filter hook forward priority filter; policy drop;\n\t}\n\
        \tchain DOCKER {\n\t}\n}\n\
        table ip6 filter {\n\
        \tchain FORWARD {\n\t\ttype filter hook forward priority filter; policy drop;\n\t}\n}\n\
        table inet firewalld {\n\
        \tchain mangle {\n\t\ttype filter hook prerouting priority mangle + 10; policy accept;\n\t}\n}\n\
        table netdev guard {\n\
        \tchain in {\n\t\ttype filter hook ingress device \"eth0\" priority 0; policy accept;\n\t}\n}\n";

    #[test]
    fn others_who_see_what_is_forwarded_are_found() {
        let found = seeing(LISTING);
        let names: Vec<(&str, bool)> = found
            .iter()
            .map(|chain| (chain.name.as_str(), chain.drops))
            .collect();
        assert_eq!(
            names,
            [
                ("ip filter FORWARD", true),
                ("inet firewalld mangle", false),
                ("netdev guard in", false)
            ]
        );
    }

    #[test]
    fn a_chain_without_rules_does_nothing() {
        let empty = "table ip filter {\n\tchain FORWARD {\n\
            \t\ttype filter hook forward priority filter; policy accept;\n\t}\n}\n";
        assert_eq!(rules(empty), 0);
        let one = "table ip filter {\n\tchain FORWARD {\n\
            \t\ttype filter hook forward priority filter; policy accept;\n\
            \t\tip daddr 192.0.2.1 drop\n\t}\n}\n";
        assert_eq!(rules(one), 1);
    }
}
