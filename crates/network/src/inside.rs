//! The VE's own side of its network.
//!
//! Called by the launcher's child once it is in the VE's network namespace (with `CAP_NET_ADMIN`
//! in the user namespace that owns it) and [`crate::link::create`] has put `eth0` there. One
//! socket, one batch, nothing asked back: all indices are known beforehand.
//!
//! A VE's root may change all of this later. That harms only the VE: the node routes nothing else
//! to it and believes nothing that it says.

use std::io;
use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressScope;
use rustix::io::Errno;

use crate::identity::{
    GATEWAY_V4, GATEWAY_V6, HOST_MAC, INSIDE_INDEX, INSIDE_NAME, LOOPBACK_INDEX,
};
use crate::message;
use crate::netlink::{Batch, Netlink, NetlinkError, Refusal, Step};
use crate::nft::{self, NftError};

/// The network inside a VE could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum InsideError {
    /// Netlink itself failed.
    #[error("cannot configure the network inside the VE")]
    Netlink(#[from] NetlinkError),
    /// There is no `eth0` with the expected index.
    #[error("the VE's network namespace has no {INSIDE_NAME}; its link must be made first")]
    NoLink,
    /// The kernel refused a step.
    #[error("the kernel refuses {step} inside the VE")]
    Refused {
        /// Which step.
        step: Step,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
}

/// Sets up everything in the calling thread's network namespace: `lo` and `eth0` up, addresses,
/// gateways as permanent neighbours, default routes for the families that have an address.
///
/// # Errors
/// Fails when `eth0` is not there or the kernel refuses an address.
pub fn configure(addresses: &[IpAddr]) -> Result<(), InsideError> {
    let mut batch = Batch::default();
    batch.push(Step::Up, 0, message::up(LOOPBACK_INDEX));
    batch.push(Step::Up, 0, message::up(INSIDE_INDEX));
    push_addresses(&mut batch, addresses);
    push_gateways(&mut batch, addresses);
    succeed(Netlink::open()?.run(batch)?)
}

/// Brings only `lo` up: for a VE without a link.
///
/// # Errors
/// Fails when netlink does.
pub fn loopback_only() -> Result<(), InsideError> {
    let mut batch = Batch::default();
    batch.push(Step::Up, 0, message::up(LOOPBACK_INDEX));
    succeed(Netlink::open()?.run(batch)?)
}

/// Changes the addresses of a running VE, in whose network namespace the calling thread is.
/// Addresses in both lists keep their connections; addresses that the VE's root added stay.
///
/// # Errors
/// Fails when `eth0` is not there or the kernel refuses an address.
pub fn set_addresses(old: &[IpAddr], new: &[IpAddr]) -> Result<(), InsideError> {
    let mut batch = Batch::default();
    let added: Vec<IpAddr> = new
        .iter()
        .copied()
        .filter(|one| !old.contains(one))
        .collect();
    // First the new ones: an interface whose last address goes loses its routes and neighbours.
    push_addresses(&mut batch, &added);
    push_gateways(&mut batch, new);
    for &removed in old.iter().filter(|one| !new.contains(one)) {
        let message = message::address(INSIDE_INDEX, removed, AddressScope::Universe);
        batch.push(
            Step::Address(removed),
            0,
            RouteNetlinkMessage::DelAddress(message),
        );
    }
    // The VE's root may have removed the old address himself.
    let gone = |refusal: &Refusal| refusal.is(Errno::ADDRNOTAVAIL);
    let refusals = Netlink::open()?.run(batch)?;
    succeed(
        refusals
            .into_iter()
            .filter(|refusal| !gone(refusal))
            .collect(),
    )
}

/// Removes what a checkpoint program left that was killed while it kept packets away: the tables of
/// nft that are called `CRIU-...`, in the calling thread's network namespace.
///
/// # Errors
/// What `nft` says.
pub fn remove_locks() -> Result<(), NftError> {
    let tables = nft::list("list the tables inside the VE", &["tables"])?;
    let locks: Vec<String> = locks(&tables)
        .map(|lock| format!("delete {lock}"))
        .collect();
    if locks.is_empty() {
        return Ok(());
    }
    nft::apply("let packets through to the VE", &locks.join("\n"))
}

/// Those of CRIU among `nft`'s list of tables: `table inet NAME`, one a line.
fn locks(tables: &str) -> impl Iterator<Item = &str> {
    tables.lines().map(str::trim).filter(|line| {
        let name = line.strip_prefix("table inet CRIU-");
        name.is_some_and(|name| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'))
    })
}

fn push_addresses(batch: &mut Batch, addresses: &[IpAddr]) {
    for &address in addresses {
        let message = message::address(INSIDE_INDEX, address, AddressScope::Universe);
        batch.push(
            Step::Address(address),
            NLM_F_CREATE | NLM_F_REPLACE,
            RouteNetlinkMessage::NewAddress(message),
        );
    }
}

fn push_gateways(batch: &mut Batch, addresses: &[IpAddr]) {
    let gateways = [
        (
            IpAddr::from(GATEWAY_V4),
            addresses.iter().any(IpAddr::is_ipv4),
        ),
        (
            IpAddr::from(GATEWAY_V6),
            addresses.iter().any(IpAddr::is_ipv6),
        ),
    ];
    for (gateway, _) in gateways.into_iter().filter(|(_, wanted)| *wanted) {
        let neighbour = message::neighbour(INSIDE_INDEX, gateway, HOST_MAC);
        batch.push(
            Step::Neighbour(gateway),
            NLM_F_CREATE | NLM_F_REPLACE,
            RouteNetlinkMessage::NewNeighbour(neighbour),
        );
        let route = message::default_route(INSIDE_INDEX, gateway);
        batch.push(
            Step::Route(gateway),
            NLM_F_CREATE | NLM_F_REPLACE,
            RouteNetlinkMessage::NewRoute(route),
        );
    }
}

fn succeed(refusals: Vec<Refusal>) -> Result<(), InsideError> {
    match refusals.into_iter().next() {
        None => Ok(()),
        Some(first) if first.is(Errno::NODEV) => Err(InsideError::NoLink),
        Some(first) => Err(InsideError::Refused {
            step: first.step,
            source: first.source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_locks_of_criu_are_removed() {
        let tables = "table inet filter\ntable inet CRIU-8b0af90c-7d23-4efb-84\ntable ip CRIU-1\n\
                      table inet CRIU-1; flush ruleset\ntable inet criu-1\n";
        let found: Vec<_> = locks(tables).collect();
        assert_eq!(found, ["table inet CRIU-8b0af90c-7d23-4efb-84"]);
        assert_eq!(locks("").count(), 0);
    }
}
