//! How many tasks of a cgroup v1 group run and wait, counted by the kernel itself.
//!
//! The interface is generic netlink, see the kernel's `Documentation/accounting/cgroupstats.rst`.
//! One question costs some microseconds and a pass over the group's tasks within the kernel; the
//! same from `/proc` costs some ten microseconds for each task. cgroup2 groups are refused.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

/// The number of the family that knows the others (`GENL_ID_CTRL`).
const CONTROL_FAMILY: u16 = 0x10;
/// `CTRL_CMD_GETFAMILY`, and the attributes of its question and its answer.
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// `CGROUPSTATS_CMD_GET`, and the attributes of its question and its answer.
const GET_GROUP: u8 = 4;
const GROUP_DESCRIPTOR: u16 = 1;
const GROUP_STATISTICS: u16 = 1;

/// `NLM_F_REQUEST`, `NLMSG_ERROR`.
const REQUEST: u16 = 1;
const ERROR: u16 = 2;
/// Sizes of `struct nlmsghdr` and, with `struct genlmsghdr` behind it, of all headers.
const HEADER: usize = 16;
const HEADERS: usize = 20;
/// An answer has a header and one attribute of 48 bytes; that about a family has some hundred.
const ANSWER_BYTES_MAX: usize = 4_096;

/// Tasks (processes and their threads) of one group by what they do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskCounts {
    /// Waiting for something that may take long: not part of a load.
    pub sleeping: u64,
    /// On a processor, or waiting for one.
    pub running: u64,
    /// Stopped by a signal or a debugger.
    pub stopped: u64,
    /// Waiting for something that is expected soon, such as a disk, and not to be interrupted.
    pub uninterruptible: u64,
    /// Waiting for a disk in a way that a kill interrupts.
    pub io_wait: u64,
}

/// The connection to the kernel's statistics.
#[derive(Debug)]
pub struct TaskStatistics {
    socket: OwnedFd,
    family: u16,
}

impl TaskStatistics {
    /// Connects.
    ///
    /// # Errors
    /// `ENOENT` on a kernel without `CONFIG_TASKSTATS`.
    pub fn open() -> io::Result<Self> {
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(netlink::GENERIC),
        )?;
        let answer = ask(
            &socket,
            CONTROL_FAMILY,
            GET_FAMILY,
            FAMILY_NAME,
            b"TASKSTATS\0",
        )?;
        let family = attribute(&answer, FAMILY_ID).and_then(|value| value.first_chunk());
        let family = family.ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self {
            socket,
            family: u16::from_ne_bytes(*family),
        })
    }

    /// Counts the tasks of the v1 group whose directory is open. Groups below it are not counted.
    ///
    /// # Errors
    /// `EINVAL` for what is no v1 group, or one that was removed.
    pub fn count(&self, group: BorrowedFd<'_>) -> io::Result<TaskCounts> {
        let descriptor = group.as_raw_fd().to_ne_bytes();
        let answer = ask(
            &self.socket,
            self.family,
            GET_GROUP,
            GROUP_DESCRIPTOR,
            &descriptor,
        )?;
        let value = attribute(&answer, GROUP_STATISTICS).ok_or(io::ErrorKind::InvalidData)?;
        let (numbers, _) = value.as_chunks::<8>();
        match *numbers {
            [sleeping, running, stopped, uninterruptible, io_wait, ..] => Ok(TaskCounts {
                sleeping: u64::from_ne_bytes(sleeping),
                running: u64::from_ne_bytes(running),
                stopped: u64::from_ne_bytes(stopped),
                uninterruptible: u64::from_ne_bytes(uninterruptible),
                io_wait: u64::from_ne_bytes(io_wait),
            }),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// Sends one question with one attribute, and returns the attributes of the answer. The kernel
/// answers before the sending returns.
fn ask(
    socket: impl AsFd,
    family: u16,
    command: u8,
    kind: u16,
    value: &[u8],
) -> io::Result<Vec<u8>> {
    let length = |bytes: usize| u16::try_from(bytes).map_err(io::Error::other);
    let padded = value.len().next_multiple_of(4);
    let total = HEADERS + 4 + padded;
    let mut message = Vec::with_capacity(total);
    message.extend(u32::from(length(total)?).to_ne_bytes());
    message.extend(family.to_ne_bytes());
    message.extend(REQUEST.to_ne_bytes());
    // Sequence number and port: there is one question at a time.
    message.extend([0; 8]);
    message.extend([command, 1, 0, 0]);
    message.extend(length(4 + value.len())?.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
    message.resize(total, 0);
    rustix::net::send(&socket, &message, SendFlags::empty())?;
    let mut answer = vec![0; ANSWER_BYTES_MAX];
    let (count, _) = rustix::net::recv(&socket, &mut answer[..], RecvFlags::DONTWAIT)?;
    answer.truncate(count);
    let kind = answer
        .get(4..6)
        .and_then(|bytes| bytes.first_chunk())
        .map(|bytes| u16::from_ne_bytes(*bytes));
    if kind == Some(ERROR) {
        let code = answer.get(HEADER..).and_then(|bytes| bytes.first_chunk());
        let code = code.map_or(0, |bytes| i32::from_ne_bytes(*bytes));
        return Err(match code {
            ..0 => io::Error::from(Errno::from_raw_os_error(-code)),
            // An acknowledgement, which was not asked for.
            0.. => io::ErrorKind::InvalidData.into(),
        });
    }
    if answer.len() < HEADERS {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(answer.split_off(HEADERS))
}

/// The value of the first attribute of a kind.
fn attribute(mut rest: &[u8], kind: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(*rest.first_chunk()?));
        let found = u16::from_ne_bytes(*rest.get(2..)?.first_chunk()?);
        let value = rest.get(4..length)?;
        if found == kind {
            return Some(value);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_attributes_and_survives_nonsense() {
        let two = [5, 0, 7, 0, 1, 0, 0, 0, 6, 0, 1, 0, 2, 3, 0, 0];
        assert_eq!(attribute(&two, 7), Some(&[1][..]));
        assert_eq!(attribute(&two, 1), Some(&[2, 3][..]));
        assert_eq!(attribute(&two, 9), None);
        for end in 0..two.len() {
            let _ = attribute(&two[..end], 9);
        }
        // A length that would make no progress.
        assert_eq!(attribute(&[0; 8], 1), None);
    }

    #[test]
    fn counts_the_tasks_of_a_group() {
        let statistics = match TaskStatistics::open() {
            Ok(statistics) => statistics,
            Err(error) => {
                println!("not asserted: this kernel has no task statistics: {error}");
                return;
            }
        };
        let error = statistics.count(io::stdin().as_fd()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
        let Ok(group) = std::fs::File::open("/sys/fs/cgroup/cpuacct") else {
            println!("not asserted: this machine has no v1 group of all processes");
            return;
        };
        let counts = statistics.count(group.as_fd()).unwrap();
        // This test itself runs.
        assert!(counts.running > 0 && counts.sleeping > 0, "{counts:?}");
        println!("{counts:?}");
    }
}
