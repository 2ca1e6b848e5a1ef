//! Messages with descriptors over a `SOCK_SEQPACKET` socket: one packet is one message.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Longest message in bytes. Fits the default socket buffer (212,992) with the kernel's overhead;
/// keys and host files of one VE are far below.
pub const MESSAGE_BYTES_MAX: usize = 128 * 1024;

/// Most descriptors in one message: 12 v1 hierarchies, one v2 group, three streams.
pub const DESCRIPTORS_MAX: usize = 24;

/// One received message.
#[derive(Debug)]
pub struct Packet {
    /// Its content.
    pub bytes: Vec<u8>,
    /// The descriptors that came with it, closed on execution.
    pub descriptors: Vec<OwnedFd>,
}

/// Sends one message.
///
/// # Errors
/// `EMSGSIZE` for a message longer than [`MESSAGE_BYTES_MAX`] or with more than
/// [`DESCRIPTORS_MAX`] descriptors; else what sendmsg(2) says. Never raises `SIGPIPE`.
pub fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    if bytes.len() > MESSAGE_BYTES_MAX || descriptors.len() > DESCRIPTORS_MAX {
        return Err(Errno::MSGSIZE);
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::MSGSIZE);
    }
    rustix::io::retry_on_intr(|| {
        sendmsg(
            &socket,
            &[IoSlice::new(bytes)],
            &mut control,
            SendFlags::NOSIGNAL,
        )
    })?;
    Ok(())
}

/// Receives one message; nothing when the other side is gone.
///
/// # Errors
/// `EMSGSIZE` for a message that was longer than the protocol allows; else what recvmsg(2) says.
pub fn receive(socket: impl AsFd) -> Result<Option<Packet>, Errno> {
    let mut bytes = vec![0; MESSAGE_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let result = rustix::io::retry_on_intr(|| {
        let mut part = [IoSliceMut::new(&mut bytes)];
        recvmsg(&socket, &mut part, &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    let descriptors = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .collect();
    if result
        .flags
        .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
    {
        return Err(Errno::MSGSIZE);
    }
    if result.bytes == 0 {
        return Ok(None);
    }
    bytes.truncate(result.bytes);
    Ok(Some(Packet { bytes, descriptors }))
}
