//! Links, routes, neighbours, filters and counters of VEs.
//!
//! A VE hangs on its node by one veth pair that is *routed*, never bridged:
//!
//! ```text
//!   node's network namespace                       | VE's network namespace
//!                                                  |
//!   lo   169.254.1.1/32 (answers on every link)    |
//!   ve101  fe80::1/128  02:56:45:ff:ff:fe  --------+--  eth0  02:56:45:00:00:65
//!     route 10.99.0.5/32, fd00:../128 dev ve101    |      10.99.0.5/32, fd00:../128
//!     permanent neighbours: the VE's addresses     |      default via 169.254.1.1, fe80::1
//!                                                  |      permanent neighbours: both gateways
//! ```
//!
//! There is no limit of ports, nothing that a VE says in ARP or ND reaches another one, and an
//! address moves by moving a route. Everything is O(1) in the number of VEs: the filter ([`node`])
//! knows them by a range of interface indices ([`identity`]) and asks the routing table who may
//! use which source address.
//!
//! The daemon calls [`node`] once and [`address`] and [`resolver`] for each new VE; the launcher
//! calls [`link`] in the node's namespace and [`inside`] in the VE's. All of it is synchronous and
//! starts no thread, because the launcher has one thread only. Each function works in the network
//! namespace that the [`Netlink`] socket was opened in, or in the calling thread's.
//!
//! Not here: which address belongs to whom (`registry`, `engine`).
#![forbid(unsafe_code)]

pub mod address;
pub mod counters;
pub mod fast_path;
pub mod identity;
pub mod inside;
pub mod link;
mod message;
mod netlink;
mod nft;
pub mod node;
pub mod probe;
mod program;
pub mod resolver;
pub mod shape;
pub mod uplink;

pub use counters::{Counters, counters, counters_all};
pub use netlink::{Netlink, NetlinkError, Step};
pub use nft::NftError;
