//! One netlink socket, and batches of requests through it.
//!
//! The kernel works through all messages of one `send` before it returns, and goes on after one
//! that failed. A batch therefore asks for an acknowledgement of its last message only; failures
//! of the others come back by themselves. Making a whole link is one `send` and one `recv`.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, NlaBuffer, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType};

/// Large enough for any part of a dump: the kernel fills at most 32 KiB of a larger buffer
/// (`netlink_dump` in `net/netlink/af_netlink.c`).
const RECEIVE_BYTES: usize = 64 * 1024;

/// A batch is sent in parts of at most this size, well below the default send buffer (208 KiB).
const SEND_BYTES_MAX: usize = 32 * 1024;

/// How often a dump is repeated that the kernel calls inconsistent, because links came and went
/// meanwhile. After that its content is used as it is: callers sweep again anyway.
const DUMP_ATTEMPTS: usize = 5;

/// Attribute of an extended acknowledgement that holds the kernel's own words
/// (`NLMSGERR_ATTR_MSG` in `linux/netlink.h`).
const ATTRIBUTE_MESSAGE: u16 = 1;

/// Bytes of the request's header that an acknowledgement repeats before its attributes.
const REQUEST_HEADER_BYTES: usize = 16;

/// A socket to the kernel's network configuration, bound for ever to the network namespace of the
/// thread that opened it.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

/// Talking to the kernel failed as such (not: the kernel refused something).
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The socket could not be opened.
    #[error("cannot open a netlink socket")]
    Open(#[source] io::Error),
    /// Sending or receiving failed.
    #[error("cannot exchange messages with the kernel over netlink")]
    Exchange(#[source] io::Error),
    /// The kernel said something that the library does not understand.
    #[error("the kernel's netlink answer makes no sense: {0}")]
    Malformed(String),
    /// The kernel refused a request for information.
    #[error("the kernel refuses to list {what}")]
    Dump {
        /// What was asked for.
        what: &'static str,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
}

/// What one message of a batch is about, for the error that names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Making or removing a link.
    Link,
    /// Setting a link's parameters.
    Parameters,
    /// Bringing a link up.
    Up,
    /// An address of an interface.
    Address(IpAddr),
    /// A route to an address.
    Route(IpAddr),
    /// A neighbour entry for an address.
    Neighbour(IpAddr),
}

/// A step of a batch that the kernel refused.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// Which step.
    pub(crate) step: Step,
    /// The kernel's error, with its own words where it gave any.
    pub(crate) source: io::Error,
}

/// Requests that go to the kernel together.
#[derive(Debug, Default)]
pub(crate) struct Batch(Vec<(Step, u16, RouteNetlinkMessage)>);

impl Batch {
    /// Adds one request; `flags` are `NLM_F_*` beyond those that every request has.
    pub(crate) fn push(&mut self, step: Step, flags: u16, message: RouteNetlinkMessage) {
        self.0.push((step, flags, message));
    }
}

impl Netlink {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// Fails when no descriptor is left or netlink is not there.
    pub fn open() -> Result<Self, NetlinkError> {
        let socket = Socket::new(NETLINK_ROUTE).map_err(NetlinkError::Open)?;
        // Without it refusals carry a number only, so failing to set it loses words, nothing else.
        let _ = socket.set_ext_ack(true);
        let _ = socket.set_cap_ack(true);
        Ok(Self {
            socket,
            sequence: 0,
            buffer: vec![0; RECEIVE_BYTES],
        })
    }

    /// Sends a batch and returns what the kernel refused of it, in order.
    pub(crate) fn run(&mut self, batch: Batch) -> Result<Vec<Refusal>, NetlinkError> {
        let mut refusals = Vec::new();
        let mut part = Vec::new();
        let mut steps = Vec::new();
        let count = batch.0.len();
        for (position, (step, flags, message)) in batch.0.into_iter().enumerate() {
            self.sequence = self.sequence.wrapping_add(1);
            steps.push((self.sequence, step));
            let mut message = request(self.sequence, flags, message);
            let length = part.len() + message.buffer_len();
            let last = position + 1 == count || length > SEND_BYTES_MAX;
            if last {
                message.header.flags |= NLM_F_ACK;
            }
            let start = part.len();
            part.resize(length, 0);
            message.serialize(&mut part[start..]);
            if last {
                self.send(&part)?;
                self.acknowledgements(&steps, &mut refusals)?;
                part.clear();
                steps.clear();
            }
        }
        Ok(refusals)
    }

    /// Asks for a list, and gives each of its entries to `each`.
    pub(crate) fn dump<T>(
        &mut self,
        what: &'static str,
        message: &RouteNetlinkMessage,
        each: impl Fn(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Vec<T>, NetlinkError> {
        let mut found = Vec::new();
        for _ in 0..DUMP_ATTEMPTS {
            found.clear();
            self.sequence = self.sequence.wrapping_add(1);
            let message = request(self.sequence, NLM_F_DUMP, message.clone());
            let mut bytes = vec![0; message.buffer_len()];
            message.serialize(&mut bytes);
            self.send(&bytes)?;
            if self.dump_answer(what, &mut found, &each)? {
                break;
            }
        }
        Ok(found)
    }

    /// Reads one dump to its end; false when the kernel calls it inconsistent.
    fn dump_answer<T>(
        &mut self,
        what: &'static str,
        found: &mut Vec<T>,
        each: &impl Fn(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<bool, NetlinkError> {
        let mut consistent = true;
        loop {
            for message in self.receive()? {
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                consistent &= message.header.flags & NLM_F_DUMP_INTR == 0;
                match message.payload {
                    NetlinkPayload::Done(_) => return Ok(consistent),
                    NetlinkPayload::Error(error) => {
                        return Err(NetlinkError::Dump {
                            what,
                            source: error.to_io(),
                        });
                    }
                    NetlinkPayload::InnerMessage(inner) => found.extend(each(inner)),
                    _ => {}
                }
            }
        }
    }

    /// Reads answers until the one for the last of `steps`.
    fn acknowledgements(
        &mut self,
        steps: &[(u32, Step)],
        refusals: &mut Vec<Refusal>,
    ) -> Result<(), NetlinkError> {
        let Some(&(last, _)) = steps.last() else {
            return Ok(());
        };
        loop {
            for message in self.receive()? {
                let sequence = message.header.sequence_number;
                let NetlinkPayload::Error(error) = message.payload else {
                    continue;
                };
                let Some(&(_, step)) = steps.iter().find(|(of, _)| *of == sequence) else {
                    continue;
                };
                if error.code.is_some() {
                    let with_words = message.header.flags & NLM_F_ACK_TLVS != 0;
                    let words = with_words.then(|| kernel_words(&error.header)).flatten();
                    refusals.push(Refusal {
                        step,
                        source: explained(error.to_io(), words),
                    });
                }
                if sequence == last {
                    return Ok(());
                }
            }
        }
    }

    fn send(&self, bytes: &[u8]) -> Result<(), NetlinkError> {
        rustix::io::retry_on_intr(|| {
            rustix::net::send(self.socket.as_fd(), bytes, SendFlags::empty())
        })
        .map(|_| ())
        .map_err(|errno| NetlinkError::Exchange(errno.into()))
    }

    /// Receives one datagram and takes it apart.
    fn receive(&mut self) -> Result<Vec<NetlinkMessage<RouteNetlinkMessage>>, NetlinkError> {
        let socket = self.socket.as_fd();
        let (length, _) = rustix::io::retry_on_intr(|| {
            rustix::net::recv(socket, self.buffer.as_mut_slice(), RecvFlags::empty())
        })
        .map_err(|errno| NetlinkError::Exchange(errno.into()))?;
        let mut rest = self.buffer.get(..length).unwrap_or_default();
        let mut messages = Vec::new();
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                .map_err(|error| NetlinkError::Malformed(error.to_string()))?;
            let stated = usize::try_from(message.header.length).unwrap_or(usize::MAX);
            // Messages are aligned to four bytes (`NLMSG_ALIGN`); the last one may lack its padding.
            let step = stated.saturating_add(3) & !3;
            rest = rest
                .get(step.max(REQUEST_HEADER_BYTES)..)
                .unwrap_or_default();
            messages.push(message);
        }
        Ok(messages)
    }
}

/// Whether this kernel speaks IPv6 at all (`ipv6.disable=1` takes it away altogether).
///
/// Asked by making a socket. Looking for `/proc/sys/net/ipv6` costs half a millisecond with 1,000
/// network namespaces, whose entries of that name are all in one chain of the name cache.
#[must_use]
pub(crate) fn ipv6_available() -> bool {
    rustix::net::socket(AddressFamily::INET6, SocketType::DGRAM, None).is_ok()
}

impl fmt::Debug for Netlink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Netlink")
            .field("sequence", &self.sequence)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link => f.write_str("the link"),
            Self::Parameters => f.write_str("the link's parameters"),
            Self::Up => f.write_str("bringing the link up"),
            Self::Address(address) => write!(f, "address {address}"),
            Self::Route(address) => write!(f, "the route to {address}"),
            Self::Neighbour(address) => write!(f, "the neighbour entry of {address}"),
        }
    }
}

impl Refusal {
    /// Whether the kernel's reason is this one.
    pub(crate) fn is(&self, errno: rustix::io::Errno) -> bool {
        self.source.raw_os_error() == Some(errno.raw_os_error())
            || self
                .source
                .get_ref()
                .and_then(|inner| inner.downcast_ref::<Explained>())
                .is_some_and(|explained| explained.errno == errno.raw_os_error())
    }
}

/// An error number together with the kernel's own words for it.
#[derive(Debug)]
struct Explained {
    errno: i32,
    words: String,
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}",
            io::Error::from_raw_os_error(self.errno),
            self.words
        )
    }
}

impl std::error::Error for Explained {}

fn explained(error: io::Error, words: Option<String>) -> io::Error {
    match (error.raw_os_error(), words) {
        (Some(errno), Some(words)) => io::Error::new(error.kind(), Explained { errno, words }),
        _ => error,
    }
}

/// The kernel's words in the attributes behind the repeated header of the refused request.
fn kernel_words(answer: &[u8]) -> Option<String> {
    let attributes = answer.get(REQUEST_HEADER_BYTES..)?;
    let found = NlasIterator::new(attributes)
        .filter_map(Result::ok)
        .find(|attribute: &NlaBuffer<&[u8]>| attribute.kind() == ATTRIBUTE_MESSAGE)?;
    let words = String::from_utf8_lossy(found.value())
        .trim_end_matches('\0')
        .to_owned();
    (!words.is_empty()).then_some(words)
}

fn request(
    sequence: u32,
    flags: u16,
    message: RouteNetlinkMessage,
) -> NetlinkMessage<RouteNetlinkMessage> {
    let mut header = NetlinkHeader::default();
    header.sequence_number = sequence;
    header.flags = NLM_F_REQUEST | flags;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
    message.finalize();
    message
}
