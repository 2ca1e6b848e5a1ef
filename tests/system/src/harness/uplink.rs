//! A way from a test node's network namespace to the machine's own network, for packages.
//!
//! Only what the node translates to the uplink's own address gets through, so traffic between VEs
//! never leaves by it.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::harness::command;
use crate::harness::machine::{self, Place};

/// The switch of IPv4 forwarding, in the network namespace of whoever writes it.
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

/// The machine's side of an uplink. The link and its rules go with the place.
#[derive(Debug)]
pub(crate) struct Uplink {
    /// What the machine's forwarding was before.
    forwarding_before: String,
}

impl Uplink {
    /// Connects the namespace of a place.
    pub(crate) fn connect(place: Place) -> Result<Self> {
        let Place::Test(number) = place else {
            bail!("the machine's own network needs no way to itself");
        };
        let name = place.name();
        let outer = format!("vt{number}");
        let (gateway, own) = (format!("172.29.{number}.1"), format!("172.29.{number}.2"));
        let ip = |words: &[&str]| machine::ip(words)?.success();
        let inside = |words: &[&str]| place.run_inside(words)?.success();
        let peer = ["type", "veth", "peer", "name", "up0", "netns", &name];
        ip(&[&["link", "add", &outer][..], &peer].concat())?;
        ip(&["address", "add", &format!("{gateway}/30"), "dev", &outer])?;
        ip(&["link", "set", &outer, "up"])?;
        inside(&["ip", "address", "add", &format!("{own}/30"), "dev", "up0"])?;
        // An address of its own choice would come and go while a test compares what is there.
        let quiet = "echo 1 > /proc/sys/net/ipv6/conf/up0/disable_ipv6";
        inside(&["sh", "-c", quiet])?;
        inside(&["ip", "link", "set", "up0", "up"])?;
        inside(&["ip", "route", "add", "default", "via", &gateway])?;
        let rules = format!(
            "add table ip {name}
             add chain ip {name} out {{ type nat hook postrouting priority srcnat; }}
             add rule ip {name} out ip saddr {own} masquerade
             add chain ip {name} through {{ type filter hook forward priority filter; }}
             add rule ip {name} through iifname {outer} ip saddr != {own} drop"
        );
        let mut nft = Command::new("nft");
        command::run_with_input(nft.args(["-f", "-"]), rules.as_bytes())?.success()?;
        let before = fs::read_to_string(FORWARDING).context("cannot read forwarding")?;
        fs::write(FORWARDING, "1").with_context(|| format!("cannot write {FORWARDING}"))?;
        Ok(Self {
            forwarding_before: before,
        })
    }
}

impl Drop for Uplink {
    fn drop(&mut self) {
        let _ = fs::write(FORWARDING, &self.forwarding_before);
    }
}
