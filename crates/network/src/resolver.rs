//! Which name servers a VE should ask: those of its node, as far as a VE can reach them.
//!
//! A node that runs a resolver of its own (systemd-resolved, dnsmasq) names a loopback address,
//! which inside a VE is the VE. systemd-resolved keeps the servers behind it in a second file.

use std::fs;
use std::io;
use std::net::IpAddr;

/// Where every program looks.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The servers behind systemd-resolved's stub (systemd-resolved.service(8)).
const RESOLVED_CONF: &str = "/run/systemd/resolve/resolv.conf";

/// The C library asks no more than this many servers (`MAXNS` in `resolv.h`).
const SERVERS_MAX: usize = 3;

/// The C library takes no more search domains than this in its older versions
/// (`MAXDNSRCH` in `resolv.h`).
const SEARCH_MAX: usize = 6;

/// Name servers and search domains for a VE.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolver {
    /// Servers in order of preference, three at most.
    pub servers: Vec<IpAddr>,
    /// Domains that short names are tried in.
    pub search: Vec<String>,
}

/// The node has no name server that a VE could use.
#[derive(Debug, thiserror::Error)]
pub enum ResolverError {
    /// The node's configuration cannot be read.
    #[error("cannot read {RESOLV_CONF}; name servers for VEs can be given with `dns=ADDRESS`")]
    Read(#[source] io::Error),
    /// All servers are loopback or link-local addresses.
    #[error(
        "{RESOLV_CONF} names no server that a VE can reach ({found}); \
         give VEs one with `dns=ADDRESS`"
    )]
    Unreachable {
        /// What it names.
        found: String,
    },
}

/// Finds the name servers that VEs of this node should use.
///
/// # Errors
/// Fails when there is none that a VE can reach. There is no silent fallback to a public server:
/// which company sees the names that VEs ask for is the administrator's choice.
pub fn node_dns() -> Result<Resolver, ResolverError> {
    let main = fs::read_to_string(RESOLV_CONF).map_err(ResolverError::Read)?;
    let behind = fs::read_to_string(RESOLVED_CONF).ok();
    choose(&main, behind.as_deref())
}

fn choose(main: &str, behind: Option<&str>) -> Result<Resolver, ResolverError> {
    let found = parse(main);
    if !found.servers.is_empty() {
        return Ok(found);
    }
    if let Some(resolver) = behind
        .map(parse)
        .filter(|resolver| !resolver.servers.is_empty())
    {
        return Ok(resolver);
    }
    let named: Vec<&str> = words_of(main, "nameserver").collect();
    let found = if named.is_empty() {
        "none at all".to_owned()
    } else {
        named.join(", ")
    };
    Err(ResolverError::Unreachable { found })
}

/// Reads what resolv.conf(5) describes, less the servers that a VE cannot reach.
fn parse(text: &str) -> Resolver {
    let mut servers = Vec::new();
    for word in words_of(text, "nameserver") {
        // A server with a zone (`fe80::1%eth0`) is on one of the node's links: it does not parse.
        match word.parse() {
            Ok(server) if reachable(server) && !servers.contains(&server) => servers.push(server),
            _ => {}
        }
    }
    servers.truncate(SERVERS_MAX);
    let mut search: Vec<String> = last_line(text).map(str::to_owned).collect();
    search.truncate(SEARCH_MAX);
    Resolver { servers, search }
}

fn reachable(server: IpAddr) -> bool {
    match server {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_unspecified() && !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unspecified() && !v6.is_unicast_link_local(),
    }
}

/// The words behind each line's keyword; only the first one of a line counts.
fn words_of<'a>(text: &'a str, keyword: &'a str) -> impl Iterator<Item = &'a str> {
    lines(text)
        .filter(move |(first, _)| *first == keyword)
        .filter_map(|(_, mut rest)| rest.next())
}

/// The domains of the last `search` or `domain` line, which is the one that counts.
fn last_line(text: &str) -> impl Iterator<Item = &str> {
    let last = lines(text)
        .filter(|(first, _)| matches!(*first, "search" | "domain"))
        .last();
    last.into_iter()
        .flat_map(|(_, rest)| rest)
        .filter(|domain| *domain != ".")
}

fn lines(text: &str) -> impl Iterator<Item = (&str, std::str::SplitAsciiWhitespace<'_>)> {
    text.lines()
        .filter(|line| !line.starts_with(['#', ';']))
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            words.next().map(|first| (first, words))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_a_ve_can_reach() {
        let resolver = choose(
            "# comment\nnameserver 127.0.0.53\nnameserver 192.0.2.53\nnameserver fe80::1%eth0\n\
             nameserver 2001:db8::53 # trailing\nnameserver 192.0.2.53\nsearch old.example\n\
             search example.org lan\noptions edns0\n",
            None,
        )
        .unwrap();
        let servers: Vec<String> = resolver.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["192.0.2.53", "2001:db8::53"]);
        assert_eq!(resolver.search, ["example.org", "lan"]);
    }

    #[test]
    fn looks_behind_a_stub() {
        let stub = "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch .\n";
        let behind = "nameserver 10.0.0.2\nsearch corp.example\n";
        let resolver = choose(stub, Some(behind)).unwrap();
        assert_eq!(resolver.servers, ["10.0.0.2".parse::<IpAddr>().unwrap()]);
        assert_eq!(resolver.search, ["corp.example"]);
    }

    #[test]
    fn says_so_when_there_is_none() {
        for (main, behind) in [
            ("", None),
            ("nameserver ::1\n", None),
            ("nameserver 127.0.0.1\n", Some("nameserver 127.0.0.1\n")),
            ("nameserver nonsense\n", None),
        ] {
            let error = choose(main, behind).unwrap_err();
            assert!(error.to_string().contains("dns="), "{error}");
        }
    }
}
