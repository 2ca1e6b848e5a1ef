//! Numbers of the kernel's interface, and where the programs of the fast path have what.
//!
//! `linux/bpf.h` is the reference.

/// The helpers used ask for a licence that fits the kernel's: the assembled program may be used under the
/// GPL, too.
pub(super) const LICENSE: &std::ffi::CStr = c"Dual MIT/GPL";

/// A flow: interface that it comes in by, source, destination, ports.
pub(super) const FLOW_KEY_BYTES: u32 = 16;
/// A hop: until when it holds, interface, next host, largest packet, nothing.
pub(super) const FLOW_VALUE_BYTES: u32 = 24;
/// Index of a VE's interface.
pub(super) const TRAFFIC_KEY_BYTES: u32 = 4;
/// Counters and a mark, eight bytes each.
pub(super) const TRAFFIC_VALUE_BYTES: u32 = 11 * 8;

/// Numbers of eight bytes in a value of traffic: packets, and behind each their bytes.
pub(super) mod field {
    pub(in crate::fast_path) const RECEIVE_INSIDE: usize = 0;
    pub(in crate::fast_path) const RECEIVE_OUTSIDE: usize = 2;
    pub(in crate::fast_path) const TRANSMIT_INSIDE: usize = 4;
    pub(in crate::fast_path) const TRANSMIT_OUTSIDE: usize = 6;
    /// All that was received since the link was made.
    pub(in crate::fast_path) const RECEIVE_OF_LINK: usize = 8;
    /// Not 0: the fast path may be used.
    pub(in crate::fast_path) const ALLOWED: usize = 10;
}

/// How long a hop holds: so late follow flows that are open a change of routes, as that of a VE's address.
pub(super) const HOP_NANOSECONDS: i32 = 1_000_000_000;

/// `TCX_NEXT`: as if the program were not there.
pub(super) const NEXT: i32 = -1;

/// Numbers of the kernel's helpers (`BPF_FUNC_*`).
pub(super) mod helper {
    pub(in crate::fast_path) const MAP_LOOKUP: i32 = 1;
    pub(in crate::fast_path) const MAP_UPDATE: i32 = 2;
    pub(in crate::fast_path) const REDIRECT_PEER: i32 = 155;
    pub(in crate::fast_path) const FIB_LOOKUP: i32 = 69;
    pub(in crate::fast_path) const REDIRECT_NEIGHBOUR: i32 = 152;
    pub(in crate::fast_path) const COARSE_TIME: i32 = 160;
}

/// Offsets in `struct __sk_buff`.
pub(super) mod context {
    pub(in crate::fast_path) const LENGTH: i16 = 0;
    pub(in crate::fast_path) const PACKET_TYPE: i16 = 4;
    pub(in crate::fast_path) const VLAN_PRESENT: i16 = 20;
    pub(in crate::fast_path) const INTERFACE: i16 = 40;
    pub(in crate::fast_path) const DATA: i16 = 76;
    pub(in crate::fast_path) const DATA_END: i16 = 80;
    pub(in crate::fast_path) const SEGMENT_BYTES: i16 = 176;
}

/// Offsets in a frame with an IPv4 header without options and a TCP header.
pub(super) mod frame {
    pub(in crate::fast_path) const PROTOCOL: i16 = 12;
    pub(in crate::fast_path) const VERSION: i16 = 14;
    pub(in crate::fast_path) const FRAGMENT: i16 = 20;
    pub(in crate::fast_path) const LIFE: i16 = 22;
    pub(in crate::fast_path) const TRANSPORT: i16 = 23;
    pub(in crate::fast_path) const CHECKSUM: i16 = 24;
    pub(in crate::fast_path) const SOURCE: i16 = 26;
    pub(in crate::fast_path) const DESTINATION: i16 = 30;
    pub(in crate::fast_path) const PORTS: i16 = 34;
    pub(in crate::fast_path) const TCP_LENGTH: i16 = 46;
    pub(in crate::fast_path) const END: i32 = 54;
}

/// Offsets in `struct bpf_fib_lookup`, which has 64 bytes.
pub(super) mod fib {
    pub(in crate::fast_path) const BYTES: i32 = 64;
    pub(in crate::fast_path) const TRANSPORT: i16 = 1;
    pub(in crate::fast_path) const MTU: i16 = 6;
    pub(in crate::fast_path) const INTERFACE: i16 = 8;
    pub(in crate::fast_path) const SOURCE: i16 = 16;
    pub(in crate::fast_path) const DESTINATION: i16 = 32;
    /// `BPF_FIB_LOOKUP_SKIP_NEIGH`.
    pub(in crate::fast_path) const NO_NEIGHBOUR: i32 = 4;
}

/// Offsets on the stack.
pub(super) mod stack {
    pub(in crate::fast_path) const KEY: i16 = -16;
    pub(in crate::fast_path) const KEY_SOURCE: i16 = KEY + 4;
    pub(in crate::fast_path) const KEY_DESTINATION: i16 = KEY + 8;
    pub(in crate::fast_path) const KEY_PORTS: i16 = KEY + 12;
    /// A new hop.
    pub(in crate::fast_path) const HOP: i16 = -40;
    pub(in crate::fast_path) const FIB: i16 = -104;
    /// The key of the opposite flow, or one of traffic.
    pub(in crate::fast_path) const OTHER: i16 = -120;
    /// `struct bpf_redir_neigh`, of 20 bytes.
    pub(in crate::fast_path) const NEIGHBOUR: i16 = -144;
    /// The traffic of the VE that sends.
    pub(in crate::fast_path) const SENDER: i16 = -152;
    pub(in crate::fast_path) const NEXT_HOST: i16 = -160;
    pub(in crate::fast_path) const MTU: i16 = -156;
}

/// Offsets in a hop.
pub(super) mod hop {
    pub(in crate::fast_path) const UNTIL: i16 = 0;
    pub(in crate::fast_path) const INTERFACE: i16 = 8;
    pub(in crate::fast_path) const NEXT_HOST: i16 = 12;
    pub(in crate::fast_path) const MTU: i16 = 16;
}

pub(super) const ADDRESS_FAMILY_IPV4: i32 = 2;
pub(super) const TRANSPORT_TCP: u32 = 6;
pub(super) const VERSION_PLAIN: u32 = 0x45;
pub(super) const ETHERNET_BYTES: i32 = 14;
/// More fragments, reserved, and the offset.
pub(super) const FRAGMENT_BITS: u16 = 0xbfff;
