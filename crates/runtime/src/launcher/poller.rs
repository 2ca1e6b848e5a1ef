//! epoll with names: which kind of source has something to say, and its number.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;

/// A source of events. Numbers are VE ids, or counted by the launcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    /// The listening socket.
    Listener,
    /// Freed roots.
    Roots,
    /// A daemon.
    Connection(u64),
    /// A VE's init ended.
    Init(u64),
    /// A VE's first process has something to tell.
    Channel(u64),
    /// A VE says that it is ready.
    Notify(u64),
    /// A VE wrote to its console.
    Console(u64),
    /// Somebody at a console typed, or can be written to again.
    Attachment(u64),
    /// A task's channel.
    TaskChannel(u64),
    /// A task's entering process ended.
    TaskDoor(u64),
    /// A task's working process ended.
    TaskWorker(u64),
    /// A CRIU that wakes a VE ended.
    Restorer(u64),
    /// The server of the VEs' view ended.
    View,
    /// It has something to tell.
    ViewChannel,
}

/// Numbers fit in the rest of an event's 64 bits beside the kind.
const KIND_SHIFT: u32 = 56;

impl Source {
    fn encode(self) -> u64 {
        let (kind, number) = match self {
            Self::Listener => (0, 0),
            Self::Roots => (1, 0),
            Self::Connection(number) => (2, number),
            Self::Init(number) => (3, number),
            Self::Channel(number) => (4, number),
            Self::Notify(number) => (5, number),
            Self::Console(number) => (6, number),
            Self::Attachment(number) => (7, number),
            Self::TaskChannel(number) => (8, number),
            Self::TaskDoor(number) => (9, number),
            Self::TaskWorker(number) => (10, number),
            Self::Restorer(number) => (11, number),
            Self::View => (12, 0),
            Self::ViewChannel => (13, 0),
        };
        kind << KIND_SHIFT | number
    }

    fn decode(value: u64) -> Self {
        let number = value & ((1 << KIND_SHIFT) - 1);
        match value >> KIND_SHIFT {
            0 => Self::Listener,
            1 => Self::Roots,
            2 => Self::Connection(number),
            3 => Self::Init(number),
            4 => Self::Channel(number),
            5 => Self::Notify(number),
            6 => Self::Console(number),
            7 => Self::Attachment(number),
            8 => Self::TaskChannel(number),
            9 => Self::TaskDoor(number),
            10 => Self::TaskWorker(number),
            11 => Self::Restorer(number),
            12 => Self::View,
            _ => Self::ViewChannel,
        }
    }
}

/// The launcher's one place of waiting.
#[derive(Debug)]
pub(super) struct Poller(OwnedFd);

impl Poller {
    pub(super) fn new() -> Result<Self, Errno> {
        epoll::create(CreateFlags::CLOEXEC).map(Self)
    }

    /// Watches for something to read, and for hang-ups.
    pub(super) fn add(&self, descriptor: impl AsFd, source: Source) -> Result<(), Errno> {
        epoll::add(
            &self.0,
            descriptor,
            EventData::new_u64(source.encode()),
            EventFlags::IN,
        )
    }

    /// Also or no longer watches for room to write.
    pub(super) fn set_writing(
        &self,
        descriptor: impl AsFd,
        source: Source,
        writing: bool,
    ) -> Result<(), Errno> {
        let flags = if writing {
            EventFlags::IN | EventFlags::OUT
        } else {
            EventFlags::IN
        };
        epoll::modify(
            &self.0,
            descriptor,
            EventData::new_u64(source.encode()),
            flags,
        )
    }

    /// Waits for hang-ups only, until [`Poller::resume`].
    pub(super) fn pause(&self, descriptor: impl AsFd, source: Source) -> Result<(), Errno> {
        let data = EventData::new_u64(source.encode());
        epoll::modify(&self.0, descriptor, data, EventFlags::empty())
    }

    pub(super) fn resume(&self, descriptor: impl AsFd, source: Source) -> Result<(), Errno> {
        self.set_writing(descriptor, source, false)
    }

    /// Watches no longer.
    pub(super) fn remove(&self, descriptor: impl AsFd) -> Result<(), Errno> {
        epoll::delete(&self.0, descriptor)
    }

    /// Waits at most `timeout`. An empty answer means that it is over.
    pub(super) fn wait(&self, timeout: Option<Duration>) -> Result<Vec<Source>, Errno> {
        let timeout = timeout.map(|duration| Timespec {
            tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(duration.subsec_nanos()),
        });
        let mut events = Vec::with_capacity(64);
        match epoll::wait(
            &self.0,
            rustix::buffer::spare_capacity(&mut events),
            timeout.as_ref(),
        ) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        Ok(events
            .iter()
            .map(|event| Source::decode(event.data.u64()))
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_survive_their_encoding() {
        let sources = [
            Source::Listener,
            Source::Roots,
            Source::Connection(1),
            Source::Init(65_534),
            Source::Channel(100),
            Source::Notify(100),
            Source::Console(100),
            Source::Attachment(u64::from(u32::MAX)),
            Source::TaskChannel(3),
            Source::TaskDoor(4),
            Source::TaskWorker(5),
            Source::Restorer(6),
            Source::View,
            Source::ViewChannel,
        ];
        for source in sources {
            assert_eq!(Source::decode(source.encode()), source);
        }
    }
}
