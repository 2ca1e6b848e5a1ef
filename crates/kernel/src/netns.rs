//! Network namespaces of threads, and sockets that carry whole Ethernet frames.
//!
//! For tests and probes. A VE's own namespace is made by the clone that makes the VE
//! ([`crate::clone`]).

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// Puts the calling thread, and no other, into a new network namespace with only `lo`, down.
///
/// The namespace ends with the thread, unless something else refers to it. There is no way back
/// other than a descriptor of the old one.
///
/// # Errors
/// Fails without `CAP_SYS_ADMIN`, or when the kernel allows no more namespaces.
pub fn unshare() -> io::Result<()> {
    // SAFETY: `unshare` takes a number and touches no memory of ours. `CLONE_NEWNET` changes the
    // calling thread's network namespace only: descriptors, memory and other threads stay.
    let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Opens a socket that sends and receives whole Ethernet frames on one interface of the calling
/// thread's network namespace.
///
/// # Errors
/// Fails without `CAP_NET_RAW`, or when there is no such interface.
pub fn frame_socket(interface_index: u32) -> io::Result<OwnedFd> {
    let protocol = u16::try_from(libc::ETH_P_ALL)
        .map_err(io::Error::other)?
        .to_be();
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: `socket` takes numbers only.
    let descriptor = unsafe { libc::socket(libc::AF_PACKET, kind, protocol.into()) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `descriptor` was just returned by `socket`, is open, and nobody else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(descriptor) };
    let address = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?,
        sll_protocol: protocol,
        sll_ifindex: i32::try_from(interface_index).map_err(io::Error::other)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = libc::socklen_t::try_from(size_of_val(&address)).map_err(io::Error::other)?;
    // SAFETY: `address` is a `sockaddr_ll` that lives until the call returns, `length` is its size,
    // and `socket` is an open `AF_PACKET` socket, for which the kernel expects just that type.
    let result = unsafe {
        libc::bind(
            socket.as_fd().as_raw_fd(),
            (&raw const address).cast::<libc::sockaddr>(),
            length,
        )
    };
    if result == 0 {
        Ok(socket)
    } else {
        Err(io::Error::last_os_error())
    }
}
