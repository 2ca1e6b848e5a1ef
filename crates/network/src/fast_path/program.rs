//! The programs of the fast path, and how their maps look.
//!
//! Both are one text; they differ in where a packet comes from. In words:
//!
//! 1. Only TCP over IPv4 in whole, plain packets for this host: no fragments, no options, no VLAN tag. From a VE: the
//!    source is in the node's ranges. From outside: the destination is, and the source is not.
//! 2. The *hop* of its flow is looked up. There is none, or it is older than [`HOP_NANOSECONDS`]: the routing table is asked,
//!    under the rules that the packet filter has, too: a source must be routed back to where it comes from, and
//!    nothing goes back the way it came. To leave the node, the opposite flow must have been seen coming in: connections
//!    that a VE begins may have to be translated, and are the slow path's.
//! 3. What is larger than the next link takes, and VEs that are held to a rate, are the slow path's.
//! 4. It is counted for its VEs, loses one hop of its life, and is handed over: to a VE's own end, past
//!    everything between; to the outside by the neighbour table, so that neighbours are kept alive as usual.
//!
//! Whatever is not sure goes on to the kernel's stack as if there were no program (`TCX_NEXT`), which decides. Nothing
//! is dropped here.

use ipnet::Ipv4Net;
use kernel::bpf::{Assembler, Condition, Instruction, Label, Map, Operation, Register, Size};
use std::ops::RangeInclusive;

use super::layout::{
    ADDRESS_FAMILY_IPV4, ETHERNET_BYTES, FRAGMENT_BITS, HOP_NANOSECONDS, NEXT, TRANSPORT_TCP,
    VERSION_PLAIN, context, fib, field, frame, helper, hop, stack,
};
use crate::identity::{HOST_MAC, INDEX_BASE, INSIDE_MAC_PREFIX};

use Condition::{Above, Below, Equal, Unequal};
use Operation::{Add, And, Move, ShiftLeft, ShiftRight, Subtract};
use Register::{Frame, R0, R1, R2, R3, R4, R5, R6, R7, R8, R9};
use Size::{Byte, Double, Half, Word};

/// Where packets come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    Outside,
    Ve,
}

/// What a node's programs are made for.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    pub(super) flows: &'a Map,
    pub(super) traffic: &'a Map,
    /// Where the node's VEs have their addresses.
    pub(super) ranges: &'a [Ipv4Net],
    /// Indices of the node's ends of its VEs' links.
    pub(super) indices: RangeInclusive<u32>,
}

/// Writes the program for packets from VEs, or from outside.
pub(super) fn assemble(parts: &Parts<'_>, from: From) -> Option<Vec<Instruction>> {
    let mut a = Assembler::default();
    let pass = a.label();
    let mut text = Text {
        a,
        parts,
        from,
        pass,
    };
    text.read_packet();
    let go = text.a.label();
    text.look_up_hop(go);
    text.find_hop();
    text.a.place(go);
    text.check_size();
    text.hand_over();
    text.a.place(text.pass);
    text.a.compute(Move, R0, NEXT);
    text.a.exit();
    text.a.finish()
}

/// A program while it is written. `R6` is the context, `R7` the frame, `R8` the length of the IP packet, `R9`
/// the interface that it leaves by.
struct Text<'a> {
    a: Assembler,
    parts: &'a Parts<'a>,
    from: From,
    pass: Label,
}

impl Text<'_> {
    /// Looks at the headers and fills the key of the flow.
    fn read_packet(&mut self) {
        let pass = self.pass;
        let a = &mut self.a;
        a.combine(Move, R6, R1);
        a.load(Word, R7, R6, context::DATA);
        a.load(Word, R2, R6, context::DATA_END);
        a.combine(Move, R1, R7);
        a.compute(Add, R1, frame::END);
        a.jump_if_register(R1, Above, R2, pass);
        for unwanted in [context::PACKET_TYPE, context::VLAN_PRESENT] {
            a.load(Word, R1, R6, unwanted);
            a.jump_if_word(R1, Unequal, 0, pass);
        }
        let wanted = [
            (Half, frame::PROTOCOL, u32::from(0x0800_u16.to_be())),
            (Byte, frame::VERSION, VERSION_PLAIN),
            (Byte, frame::TRANSPORT, TRANSPORT_TCP),
        ];
        for (size, offset, value) in wanted {
            a.load(size, R1, R7, offset);
            a.jump_if_word(R1, Unequal, value, pass);
        }
        a.load(Half, R1, R7, frame::FRAGMENT);
        let bits = u32::from(FRAGMENT_BITS.to_be());
        a.jump_if_word(R1, Condition::AnySet, bits, pass);
        a.load(Byte, R1, R7, frame::LIFE);
        a.jump_if_word(R1, Below, 2, pass);
        a.load(Word, R1, R7, frame::SOURCE);
        a.load(Word, R2, R7, frame::DESTINATION);
        match self.from {
            From::Ve => self.unless_in_ranges(R1, pass),
            From::Outside => {
                self.unless_in_ranges(R2, pass);
                self.if_in_ranges(R1, pass);
            }
        }
        let a = &mut self.a;
        a.load(Word, R3, R6, context::INTERFACE);
        a.load(Word, R4, R7, frame::PORTS);
        for (offset, register) in [
            (stack::KEY, R3),
            (stack::KEY_SOURCE, R1),
            (stack::KEY_DESTINATION, R2),
            (stack::KEY_PORTS, R4),
        ] {
            a.store(Word, Frame, offset, register);
        }
    }

    /// Goes to `label` if an address is in the node's ranges. `R5` is lost.
    fn if_in_ranges(&mut self, address: Register, label: Label) {
        for range in self.parts.ranges {
            self.a.combine(Move, R5, address);
            let mask = u32::from(range.netmask()).to_be();
            self.a.compute_word(And, R5, mask);
            let network = u32::from(range.network()).to_be();
            self.a.jump_if_word(R5, Equal, network, label);
        }
    }

    /// Goes to `label` unless an address is in the node's ranges. `R5` is lost.
    fn unless_in_ranges(&mut self, address: Register, label: Label) {
        let within = self.a.label();
        self.if_in_ranges(address, within);
        self.a.jump(label);
        self.a.place(within);
    }

    /// Goes to `go` with the hop of the flow, if it is known and holds.
    fn look_up_hop(&mut self, go: Label) {
        let a = &mut self.a;
        let unknown = a.label();
        a.map(R1, self.parts.flows);
        address_of(a, R2, stack::KEY);
        a.call(helper::MAP_LOOKUP);
        a.jump_if(R0, Equal, 0, unknown);
        a.combine(Move, R8, R0);
        a.call(helper::COARSE_TIME);
        a.load(Double, R1, R8, hop::UNTIL);
        a.jump_if_register(R0, Above, R1, unknown);
        a.load(Word, R9, R8, hop::INTERFACE);
        a.load(Word, R1, R8, hop::NEXT_HOST);
        a.store(Word, Frame, stack::NEXT_HOST, R1);
        a.load(Word, R1, R8, hop::MTU);
        a.store(Word, Frame, stack::MTU, R1);
        a.jump(go);
        a.place(unknown);
    }

    /// Asks the routing table, with the fields of the flow's key for source and destination; passes if it has no
    /// answer.
    fn ask_routes(&mut self, source: i16, destination: i16) {
        let a = &mut self.a;
        for part in 0..8 {
            a.store_number(Double, Frame, stack::FIB + part * 8, 0);
        }
        a.store_number(Byte, Frame, stack::FIB, ADDRESS_FAMILY_IPV4);
        a.store_number(
            Byte,
            Frame,
            stack::FIB + fib::TRANSPORT,
            TRANSPORT_TCP.cast_signed(),
        );
        for (from, to) in [
            (stack::KEY, fib::INTERFACE),
            (source, fib::SOURCE),
            (destination, fib::DESTINATION),
        ] {
            a.load(Word, R1, Frame, from);
            a.store(Word, Frame, stack::FIB + to, R1);
        }
        a.combine(Move, R1, R6);
        address_of(a, R2, stack::FIB);
        a.compute(Move, R3, fib::BYTES);
        a.compute(Move, R4, fib::NO_NEIGHBOUR);
        a.call(helper::FIB_LOOKUP);
        a.jump_if(R0, Unequal, 0, self.pass);
    }

    /// Finds the hop of a flow that has none, and keeps it.
    fn find_hop(&mut self) {
        let pass = self.pass;
        if self.from == From::Ve {
            self.ask_routes(stack::KEY_DESTINATION, stack::KEY_SOURCE);
            let a = &mut self.a;
            a.load(Word, R1, Frame, stack::FIB + fib::INTERFACE);
            a.load(Word, R2, Frame, stack::KEY);
            a.jump_if_register(R1, Unequal, R2, pass);
        }
        self.ask_routes(stack::KEY_SOURCE, stack::KEY_DESTINATION);
        let a = &mut self.a;
        a.load(Word, R9, Frame, stack::FIB + fib::INTERFACE);
        a.load(Word, R2, Frame, stack::KEY);
        a.jump_if_register(R9, Equal, R2, pass);
        let (outside, found) = (a.label(), a.label());
        self.unless_of_ve(outside);
        if self.from == From::Ve {
            // Only within the node's ranges, where nothing is translated and classes are as the filter's.
            self.a.load(Word, R1, Frame, stack::KEY_DESTINATION);
            self.unless_in_ranges(R1, pass);
        }
        self.a.jump(found);
        self.a.place(outside);
        match self.from {
            From::Outside => self.a.jump(pass),
            From::Ve => self.require_opposite(),
        }
        self.a.place(found);
        self.keep_hop();
    }

    /// Passes unless the opposite flow came in by the interface that this one leaves by.
    fn require_opposite(&mut self) {
        let pass = self.pass;
        self.a.load(Word, R1, Frame, stack::KEY_DESTINATION);
        self.if_in_ranges(R1, pass);
        let a = &mut self.a;
        a.load(Word, R2, Frame, stack::KEY_SOURCE);
        a.store(Word, Frame, stack::OTHER, R9);
        a.store(Word, Frame, stack::OTHER + 4, R1);
        a.store(Word, Frame, stack::OTHER + 8, R2);
        a.load(Half, R1, Frame, stack::KEY_PORTS);
        a.load(Half, R2, Frame, stack::KEY_PORTS + 2);
        a.store(Half, Frame, stack::OTHER + 12, R2);
        a.store(Half, Frame, stack::OTHER + 14, R1);
        a.map(R1, self.parts.flows);
        address_of(a, R2, stack::OTHER);
        a.call(helper::MAP_LOOKUP);
        a.jump_if(R0, Equal, 0, pass);
    }

    fn keep_hop(&mut self) {
        let a = &mut self.a;
        a.call(helper::COARSE_TIME);
        a.compute(Add, R0, HOP_NANOSECONDS);
        a.store(Double, Frame, stack::HOP + hop::UNTIL, R0);
        a.store(Word, Frame, stack::HOP + hop::INTERFACE, R9);
        // Whom to hand it to: the destination, or the gateway, which the kernel puts in its place.
        a.load(Word, R1, Frame, stack::FIB + fib::DESTINATION);
        a.store(Word, Frame, stack::HOP + hop::NEXT_HOST, R1);
        a.store(Word, Frame, stack::NEXT_HOST, R1);
        a.load(Half, R1, Frame, stack::FIB + fib::MTU);
        a.store(Word, Frame, stack::HOP + hop::MTU, R1);
        a.store(Word, Frame, stack::MTU, R1);
        a.store_number(Word, Frame, stack::HOP + hop::MTU + 4, 0);
        a.map(R1, self.parts.flows);
        address_of(a, R2, stack::KEY);
        address_of(a, R3, stack::HOP);
        a.compute(Move, R4, 0);
        // Not kept, it is found again for the next packet.
        a.call(helper::MAP_UPDATE);
    }

    /// Passes if the packet, or each that it will be cut into, is larger than the next link takes. `R8` becomes its
    /// length.
    fn check_size(&mut self) {
        let pass = self.pass;
        let a = &mut self.a;
        let (whole, compare) = (a.label(), a.label());
        a.load(Word, R8, R6, context::LENGTH);
        a.compute(Subtract, R8, ETHERNET_BYTES);
        a.load(Word, R1, R6, context::SEGMENT_BYTES);
        a.jump_if(R1, Equal, 0, whole);
        // What a segment carries, its TCP header (in words of four bytes, in the upper half of a byte), its IP header.
        a.load(Byte, R2, R7, frame::TCP_LENGTH);
        a.compute(ShiftRight, R2, 4);
        a.compute(ShiftLeft, R2, 2);
        a.combine(Add, R1, R2);
        a.compute(Add, R1, 20);
        a.jump(compare);
        a.place(whole);
        a.combine(Move, R1, R8);
        a.place(compare);
        a.load(Word, R2, Frame, stack::MTU);
        a.jump_if_register(R1, Above, R2, pass);
    }

    fn hand_over(&mut self) {
        if self.from == From::Ve {
            self.find_traffic(stack::KEY);
            self.a.store(Double, Frame, stack::SENDER, R0);
        }
        let outside = self.a.label();
        self.unless_of_ve(outside);
        self.a.store(Word, Frame, stack::OTHER, R9);
        self.find_traffic(stack::OTHER);
        let (sent, received) = match self.from {
            From::Ve => (Some(field::TRANSMIT_INSIDE), field::RECEIVE_INSIDE),
            From::Outside => (None, field::RECEIVE_OUTSIDE),
        };
        self.count(received);
        self.count(field::RECEIVE_OF_LINK);
        if let Some(sent) = sent {
            self.a.load(Double, R0, Frame, stack::SENDER);
            self.count(sent);
        }
        self.age();
        self.hand_to_ve();
        self.a.place(outside);
        if self.from == From::Ve {
            self.a.load(Double, R0, Frame, stack::SENDER);
            self.count(field::TRANSMIT_OUTSIDE);
            self.age();
            self.hand_to_neighbour();
        } else {
            self.a.jump(self.pass);
        }
    }

    /// Goes to `label` unless `R9` is the interface of a VE of the node.
    fn unless_of_ve(&mut self, label: Label) {
        let (first, last) = (*self.parts.indices.start(), *self.parts.indices.end());
        self.a.jump_if_word(R9, Below, first, label);
        self.a.jump_if_word(R9, Above, last, label);
    }

    /// `R0` = the traffic of the VE whose index is on the stack; passes if it may not use the fast path.
    fn find_traffic(&mut self, index: i16) {
        let pass = self.pass;
        let a = &mut self.a;
        a.map(R1, self.parts.traffic);
        address_of(a, R2, index);
        a.call(helper::MAP_LOOKUP);
        a.jump_if(R0, Equal, 0, pass);
        a.load(Double, R1, R0, offset(field::ALLOWED));
        a.jump_if(R1, Equal, 0, pass);
    }

    /// Adds one packet of `R8` bytes to a counter of the traffic at `R0`.
    fn count(&mut self, counter: usize) {
        self.a.compute(Move, R1, 1);
        self.a.add_atomic(R0, offset(counter), R1);
        self.a.add_atomic(R0, offset(counter + 1), R8);
    }

    /// Takes one hop of its life, as a router does (RFC 1812, 5.3.1), and corrects the checksum (RFC 1624).
    fn age(&mut self) {
        let a = &mut self.a;
        let stored = a.label();
        a.load(Half, R1, R7, frame::CHECKSUM);
        a.compute(Add, R1, i32::from(0x0100_u16.to_be()));
        a.jump_if_word(R1, Below, 0xffff, stored);
        a.compute(Add, R1, 1);
        a.place(stored);
        a.store(Half, R7, frame::CHECKSUM, R1);
        a.load(Byte, R1, R7, frame::LIFE);
        a.compute(Subtract, R1, 1);
        a.store(Byte, R7, frame::LIFE, R1);
    }

    /// Hands the packet to the VE whose interface is `R9`, under the hardware addresses of its link.
    fn hand_to_ve(&mut self) {
        let a = &mut self.a;
        for (at, byte) in INSIDE_MAC_PREFIX.into_iter().enumerate() {
            a.store_number(Byte, R7, small(at), i32::from(byte));
        }
        // The VE's number, its most significant byte first.
        a.combine(Move, R1, R9);
        a.compute(Subtract, R1, INDEX_BASE.cast_signed());
        for (at, shift) in [(3, 16), (4, 8), (5, 0)] {
            a.combine(Move, R2, R1);
            a.compute(ShiftRight, R2, shift);
            a.store(Byte, R7, at, R2);
        }
        for (at, byte) in HOST_MAC.into_iter().enumerate() {
            a.store_number(Byte, R7, small(at + 6), i32::from(byte));
        }
        a.combine(Move, R1, R9);
        a.compute(Move, R2, 0);
        a.call(helper::REDIRECT_PEER);
        a.exit();
    }

    /// Hands the packet to the next host, by the neighbour table.
    fn hand_to_neighbour(&mut self) {
        let a = &mut self.a;
        a.store_number(Word, Frame, stack::NEIGHBOUR, ADDRESS_FAMILY_IPV4);
        for part in 2..5 {
            a.store_number(Word, Frame, stack::NEIGHBOUR + part * 4, 0);
        }
        a.load(Word, R1, Frame, stack::NEXT_HOST);
        a.store(Word, Frame, stack::NEIGHBOUR + 4, R1);
        a.combine(Move, R1, R9);
        address_of(a, R2, stack::NEIGHBOUR);
        a.compute(Move, R3, 20);
        a.compute(Move, R4, 0);
        a.call(helper::REDIRECT_NEIGHBOUR);
        a.exit();
    }
}

/// `to` = a place on the stack.
fn address_of(a: &mut Assembler, to: Register, place: i16) {
    a.combine(Move, to, Frame);
    a.compute(Add, to, i32::from(place));
}

/// Where a number of eight bytes lies in a value of traffic.
fn offset(field: usize) -> i16 {
    small(field * 8)
}

/// An offset that is known to be small.
fn small(offset: usize) -> i16 {
    i16::try_from(offset).unwrap_or(i16::MAX)
}
