//! What this host lacks for VEs' network, found without changing anything.
//!
//! For `doctor`, and for refusing a node by name of what is missing instead of by a failure of the
//! first VE.

use std::fs;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use rustix::io::Errno;

use crate::identity::{INSIDE_NAME, LOOPBACK_INDEX};
use crate::message::{self, End, Target};
use crate::netlink::{Batch, Netlink, NetlinkError, Step, ipv6_available};
use crate::nft::{self, NftError};

/// Lists the tables that the old `iptables` program has filled.
const LEGACY_TABLES: &str = "/proc/thread-self/net/ip_tables_names";

/// What was found.
#[derive(Debug)]
pub struct Probe {
    /// Whether the kernel makes veth pairs.
    pub veth: bool,
    /// Whether the kernel speaks IPv6.
    pub ipv6: bool,
    /// Whether the filter's rules are understood by `nft` and the kernel, with or without
    /// address translation.
    pub filter: Result<(), NftError>,
    /// The same with address translation.
    pub translation: Result<(), NftError>,
    /// Chains of other programs that drop forwarded packets unless told otherwise, VEs' among
    /// them: `ip filter FORWARD`.
    pub dropping_chains: Vec<String>,
    /// Whether the old `iptables` filters here too, whose policy cannot be read by `nft`.
    pub legacy_filter: bool,
}

/// Something that is missing or in the way, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Whether VEs have no network at all because of it.
    pub fatal: bool,
    /// What it is and what follows.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

/// Looks at the calling thread's network namespace.
///
/// # Errors
/// Fails when netlink itself does; everything else is a finding.
pub fn probe(netlink: &mut Netlink) -> Result<Probe, NetlinkError> {
    Ok(Probe {
        veth: veth(netlink)?,
        ipv6: ipv6_available(),
        filter: nft::check(&crate::node::example_ruleset(false)),
        translation: nft::check(&crate::node::example_ruleset(true)),
        dropping_chains: nft::list("list chains", &["chains"])
            .map(|listing| dropping_chains(&listing))
            .unwrap_or_default(),
        legacy_filter: fs::read_to_string(LEGACY_TABLES)
            .is_ok_and(|tables| tables.lines().any(|table| table == "filter")),
    })
}

impl Probe {
    /// What is missing or in the way, the fatal first.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut add = |fatal, what: String, remedy: String| {
            findings.push(Finding {
                fatal,
                what,
                remedy,
            });
        };
        if !self.veth {
            add(
                true,
                "the kernel makes no veth links, so VEs have no network".to_owned(),
                "run a kernel with `CONFIG_VETH` or load the module `veth`".to_owned(),
            );
        }
        match (&self.filter, &self.translation) {
            (Err(NftError::Missing), _) => add(
                true,
                "the program `nft` is not installed, so VEs could forge addresses".to_owned(),
                "install the package `nftables`".to_owned(),
            ),
            (Err(error), _) => add(
                true,
                format!("the kernel does not take the filter's rules ({error})"),
                "run a kernel with `CONFIG_NF_TABLES_INET`, `CONFIG_NF_TABLES_ARP` and \
                 `CONFIG_NFT_FIB_INET`"
                    .to_owned(),
            ),
            (Ok(()), Err(error)) => add(
                false,
                format!("VEs cannot reach other networks under the node's address ({error})"),
                "run a kernel with `CONFIG_NFT_MASQ`, or give VEs routed addresses".to_owned(),
            ),
            (Ok(()), Ok(())) => {}
        }
        for chain in &self.dropping_chains {
            add(
                false,
                format!("chain `{chain}` drops forwarded packets, those of VEs too"),
                format!("accept `iifname \"ve*\"` and `oifname \"ve*\"` in `{chain}`"),
            );
        }
        if self.legacy_filter {
            add(
                false,
                "the old `iptables` filters here too and may drop VEs' packets".to_owned(),
                "see `iptables-legacy -S FORWARD`; accept `-i ve+` and `-o ve+` there".to_owned(),
            );
        }
        if !self.ipv6 {
            add(
                false,
                "the kernel's IPv6 is turned off, so VEs have IPv4 only".to_owned(),
                "remove `ipv6.disable=1` from the kernel's command line".to_owned(),
            );
        }
        findings
    }
}

/// Asks for a link that the driver must refuse because of its hardware address (broadcast). A
/// kernel without the driver refuses the kind before it looks at addresses.
fn veth(netlink: &mut Netlink) -> Result<bool, NetlinkError> {
    const BROADCAST: [u8; 6] = [0xff; 6];
    let end = |name| End {
        name,
        index: 0,
        mac: BROADCAST,
    };
    let mut batch = Batch::default();
    let message = message::new_veth(
        end("ve-probe"),
        End {
            index: LOOPBACK_INDEX,
            ..end(INSIDE_NAME)
        },
        Target::Pid(std::process::id()),
        None,
    );
    batch.push(Step::Link, NLM_F_CREATE | NLM_F_EXCL, message);
    let refusals = netlink.run(batch)?;
    Ok(!refusals
        .iter()
        .any(|refusal| refusal.is(Errno::OPNOTSUPP) || refusal.is(Errno::NOSYS)))
}

/// Finds base chains at the forward hook with the policy to drop in what `nft list chains` prints:
/// `table FAMILY NAME {`, then `chain NAME {` and `type T hook H priority P; policy V;`.
fn dropping_chains(listing: &str) -> Vec<String> {
    let mut found = Vec::new();
    let (mut table, mut chain) = ("", "");
    for line in listing.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("table ") {
            table = name.trim_end_matches(" {");
        } else if let Some(name) = line.strip_prefix("chain ") {
            chain = name.trim_end_matches(" {");
        } else if line.contains(" hook forward ") && line.contains("policy drop") {
            found.push(format!("{table} {chain}"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_chains_that_drop_what_is_forwarded() {
        let listing = "table ip filter {\n\
            \tchain FORWARD {\n\t\ttype filter hook forward priority filter; policy drop;\n\t}\n\
            \tchain INPUT {\n\t\ttype filter hook input priority filter; policy drop;\n\t}\n}\n\
            table inet vessel-100 {\n\
            \tchain forward {\n\t\ttype filter hook forward priority filter; policy accept;\n\t}\n}\n";
        assert_eq!(dropping_chains(listing), ["ip filter FORWARD"]);
    }

    #[test]
    fn says_what_to_do() {
        let probe = Probe {
            veth: false,
            ipv6: false,
            filter: Err(NftError::Missing),
            translation: Err(NftError::Missing),
            dropping_chains: vec!["ip filter FORWARD".to_owned()],
            legacy_filter: true,
        };
        let findings = probe.findings();
        assert_eq!(findings.len(), 5);
        assert!(
            findings.iter().take(2).all(|finding| finding.fatal),
            "{findings:?}"
        );
        assert!(findings.iter().all(|finding| !finding.remedy.is_empty()));
    }
}
