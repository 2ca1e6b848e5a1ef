//! What a process that the launcher made tells it before it becomes part of a VE.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use serde::{Deserialize, Serialize};

use super::step::{Step, failure};
use crate::protocol::{Failure, FailureKind};
use kernel::packet::{self, Packet};

/// A message on the channel between the launcher and a process that it made.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// From the launcher: go on. Descriptors as the work needs them.
    Go,
    /// The process that works inside; its pidfd.
    Joined { pid: u32 },
    /// The receiving end of the readiness socket.
    Notify,
    /// The master of the command's terminal.
    Terminal,
    /// The next thing is the VE's own program; the channel closes with it.
    Executing,
    /// A transfer begins.
    Working,
    /// It could not.
    Failed(Failure),
}

/// Both ends of a channel, closed on execution.
pub(super) fn channel() -> Result<(OwnedFd, OwnedFd), Failure> {
    socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .step("make a channel to a new process")
}

/// Sends one report.
///
/// # Errors
/// What sendmsg(2) says: `EPIPE` when the other side is gone.
pub(super) fn tell(
    channel: impl AsFd,
    report: &Report,
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), Errno> {
    let bytes = serde_json::to_vec(report).map_err(|_| Errno::INVAL)?;
    packet::send(channel, &bytes, descriptors)
}

/// Receives one report; nothing at the channel's end.
///
/// # Errors
/// `EAGAIN` when none is there on a channel that does not block; `EPROTO` for what is no report.
pub(super) fn hear(channel: impl AsFd) -> Result<Option<(Report, Vec<OwnedFd>)>, Errno> {
    match packet::receive(channel)? {
        None => Ok(None),
        Some(Packet { bytes, descriptors }) => {
            let report = serde_json::from_slice(&bytes).map_err(|_| Errno::PROTO)?;
            Ok(Some((report, descriptors)))
        }
    }
}

/// Waits for the launcher's word to go on.
pub(super) fn await_go(channel: BorrowedFd<'_>) -> Result<Vec<OwnedFd>, Failure> {
    match hear(channel) {
        Ok(Some((Report::Go, descriptors))) => Ok(descriptors),
        _ => Err(failure(
            FailureKind::Node,
            "the launcher gave the launch up",
        )),
    }
}
