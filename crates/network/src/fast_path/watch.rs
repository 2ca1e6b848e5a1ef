//! Waiting until the packet filter or the node's own links change.

use std::io;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{Socket, SocketAddr};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::RecvFlags;

use crate::identity::INDICES;

/// `NFNLGRP_NFTABLES`, the group of all changes of the packet filter.
const GROUP_FILTER: u32 = 7;
/// `RTMGRP_LINK | RTMGRP_IPV4_IFADDR`.
const GROUPS_LINKS: u32 = 0x1 | 0x10;

/// Bytes of a netlink header, and where behind it links and addresses have the index of their interface
/// (`struct ifinfomsg`, `struct ifaddrmsg`).
const HEADER_BYTES: usize = 16;
const INDEX_OFFSET: usize = HEADER_BYTES + 4;

const BUFFER_BYTES: usize = 32 << 10;

/// Hears of changes in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Watch {
    filter: Socket,
    links: Socket,
}

impl Watch {
    /// Begins to listen.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open() -> io::Result<Self> {
        let mut filter = Socket::new(NETLINK_NETFILTER)?;
        filter.bind_auto()?;
        filter.add_membership(GROUP_FILTER)?;
        let mut links = Socket::new(NETLINK_ROUTE)?;
        links.bind(&SocketAddr::new(0, GROUPS_LINKS))?;
        Ok(Self { filter, links })
    }

    /// Waits for a change of the filter, or of an interface that is no VE's; false if none came in time. Several
    /// may be one.
    ///
    /// # Errors
    /// The kernel's.
    pub fn wait(&self, timeout: Duration) -> io::Result<bool> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?;
            let mut sockets = [
                PollFd::new(&self.filter, PollFlags::IN),
                PollFd::new(&self.links, PollFlags::IN),
            ];
            match poll(&mut sockets, Some(&timeout)) {
                Ok(0) => return Ok(false),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            let filter = drain(&self.filter, |_| true)?;
            let links = drain(&self.links, |message| !is_of_ve(message))?;
            if filter || links {
                return Ok(true);
            }
        }
    }
}

/// Reads all that has come; whether anything of it matters.
fn drain(socket: &Socket, matters: impl Fn(&[u8]) -> bool) -> io::Result<bool> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut found = false;
    loop {
        let received =
            rustix::net::recv(socket.as_fd(), buffer.as_mut_slice(), RecvFlags::DONTWAIT);
        match received {
            Ok((length, _)) => found |= matters(buffer.get(..length).unwrap_or_default()),
            Err(rustix::io::Errno::AGAIN) => return Ok(found),
            Err(rustix::io::Errno::INTR) => {}
            // More came than was waited for, and nobody knows what.
            Err(rustix::io::Errno::NOBUFS) => found = true,
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Whether the first message of a datagram is of a VE's link. The kernel sends one a datagram.
fn is_of_ve(message: &[u8]) -> bool {
    message
        .get(INDEX_OFFSET..INDEX_OFFSET + 4)
        .and_then(|bytes| bytes.try_into().ok())
        .is_some_and(|bytes| INDICES.contains(&u32::from_ne_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_of_ves_are_told_from_others() {
        let message = |index: u32| {
            let mut bytes = vec![0; 32];
            bytes[INDEX_OFFSET..INDEX_OFFSET + 4].copy_from_slice(&index.to_ne_bytes());
            bytes
        };
        assert!(is_of_ve(&message(*INDICES.start())));
        assert!(!is_of_ve(&message(2)));
        assert!(!is_of_ve(&[0; 8]));
    }
}
