//! The server: one thread that answers the kernel, counts tasks now and then, and hears the
//! launcher.
//!
//! It ends when it is killed, when it handed everything over, or when the file system is gone. That
//! the launcher is gone is no reason: it goes on until another comes.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cgroup::{Layout, NodeReader};
use kernel::packet;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use ve::VeId;

use crate::control::{ALIVE_INTERVAL, Notice, Order, socket_path};
use crate::history::LOAD_INTERVAL;
use crate::node::Node;
use crate::queue::Queue;
use crate::view::Views;
use crate::wire::{Answer, Attributes, Entries, Entry, Operation, REQUEST_BYTES_MAX, Request};

/// Requests that are read, and answered, before something else is looked at.
const TURN: usize = 64;

/// Launchers that may be connected besides the one that started this: there is one at a time.
const VISITORS_MAX: usize = 4;

/// How long the kernel need not ask again about what never changes: a VE that is started a second
/// time finds its view without the server.
const LIFETIME_SECONDS: u64 = 86_400;

/// How much of what is known is told to the launcher: the histories of a thousand VEs.
const HISTORY_BYTES_MAX: usize = 100 * 1024;

/// Why a server cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Nobody says what to serve.
    #[error("no launcher on the standard input: vesseld and vessel-launcher start this program")]
    NoLauncher,
    /// The launcher speaks another language.
    #[error(
        "the launcher said something else than what to serve: do the programs belong together?"
    )]
    Order,
    /// The control groups cannot be read.
    #[error("cannot find the control groups of this host")]
    Groups(#[from] cgroup::DetectError),
    /// The control groups cannot be read.
    #[error("cannot read the control groups of this host")]
    Group(#[from] cgroup::FileError),
    /// Something that it needs was refused.
    #[error("cannot {step}")]
    Prepare {
        /// What.
        step: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Serves the node at `root`, whose launcher is at the other end of `channel`. The whole of the program.
///
/// # Errors
/// What cannot be prepared. Later there are none: what goes wrong for one reader is told to that one.
pub fn serve(root: &Path, channel: OwnedFd) -> Result<(), ServeError> {
    let prepare = |step| move |source| ServeError::Prepare { step, source };
    leave_the_pool(root).map_err(prepare("leave the node's mounts"))?;
    let packet = packet::receive(&channel)
        .ok()
        .flatten()
        .ok_or(ServeError::NoLauncher)?;
    let (first_id, history) = match serde_json::from_slice(&packet.bytes) {
        Ok(Order::Serve { first_id, history }) => (first_id, history),
        _ => return Err(ServeError::Order),
    };
    let [device, mount]: [OwnedFd; 2] = packet
        .descriptors
        .try_into()
        .map_err(|_| ServeError::Order)?;
    let first = VeId::new(first_id).map_err(|_| ServeError::Order)?;
    let reader = NodeReader::open(&Layout::detect()?, first)?;
    let path = socket_path(root);
    let listener = listen(&path).map_err(prepare("listen for another launcher"))?;
    rustix::io::ioctl_fionbio(&channel, true)
        .map_err(|errno| prepare("use the launcher's channel")(errno.into()))?;
    let now = Instant::now();
    let mut server = Server {
        views: Views::new(reader),
        device,
        mount,
        first_id,
        channel: Some(channel),
        listener,
        visitors: Vec::new(),
        queue: Queue::new(),
        due: Vec::new(),
        next_sample: now + LOAD_INTERVAL,
        next_alive: now,
        told: None,
        // No other server of this connection ever gave one out.
        next_handle: now_nanoseconds(),
        begun: now_nanoseconds() / 1_000_000_000,
        ended: false,
    };
    server.views.remember(&history);
    server.say(&Answer::resend().finish());
    while !server.ended {
        server.turn();
    }
    Ok(())
}

struct Server {
    views: Views,
    device: OwnedFd,
    mount: OwnedFd,
    first_id: u32,
    channel: Option<OwnedFd>,
    listener: OwnedFd,
    visitors: Vec<OwnedFd>,
    queue: Queue<Request>,
    /// VEs whose tasks are to be counted.
    due: Vec<VeId>,
    next_sample: Instant,
    next_alive: Instant,
    /// When the launcher was told what is known.
    told: Option<Instant>,
    next_handle: u64,
    /// When this server began, in seconds since 1970: the time of all files.
    begun: u64,
    ended: bool,
}

impl Server {
    /// Waits for something and does what there is to do, a little of each.
    fn turn(&mut self) {
        self.wait();
        let now = Instant::now();
        self.read_requests(now);
        for _ in 0..TURN {
            let Some(request) = self.queue.pop(Instant::now()) else {
                break;
            };
            self.answer(&request);
        }
        self.hear_launcher();
        self.hear_visitors();
        if now >= self.next_sample {
            self.next_sample = now + LOAD_INTERVAL;
            self.due = self.views.ves.keys().copied().collect();
            self.queue.forget_idle(now);
        }
        // One in each turn: readers must not wait for all.
        if let Some(ve) = self.due.pop() {
            self.views.sample(ve, now);
        }
        if now >= self.next_alive {
            self.next_alive = now + ALIVE_INTERVAL;
            self.tell_alive(now);
        }
    }

    fn wait(&self) {
        let now = Instant::now();
        let next = self.next_sample.min(self.next_alive);
        let mut timeout = next.saturating_duration_since(now);
        if !self.due.is_empty() {
            timeout = Duration::ZERO;
        }
        if let Some(pause) = self.queue.pause(now) {
            timeout = timeout.min(pause);
        }
        let timeout = Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(1),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        let all: Vec<BorrowedFd<'_>> = [self.device.as_fd(), self.listener.as_fd()]
            .into_iter()
            .chain(self.channel.iter().chain(&self.visitors).map(AsFd::as_fd))
            .collect();
        let mut all: Vec<PollFd<'_>> = all
            .iter()
            .map(|descriptor| PollFd::new(descriptor, PollFlags::IN))
            .collect();
        // A failed wait (a signal) is one that ended early: everything is looked at anyway.
        let _ = poll(&mut all, Some(&timeout));
    }

    /// Takes what the kernel asks, as much as a turn holds.
    fn read_requests(&mut self, now: Instant) {
        let mut buffer = [0_u8; REQUEST_BYTES_MAX];
        for _ in 0..TURN {
            let length = match rustix::io::read(&self.device, &mut buffer) {
                Ok(length) => length,
                // Somebody gave up before it was read.
                Err(Errno::INTR | Errno::NOENT) => continue,
                Err(Errno::AGAIN) => return,
                // The last mount is gone.
                Err(_) => {
                    self.ended = true;
                    return;
                }
            };
            let Some(request) = buffer.get(..length).and_then(Request::parse) else {
                continue;
            };
            match &request.operation {
                Operation::Forget => {}
                Operation::Destroy => self.say(&Answer::empty(request.unique).finish()),
                Operation::Init { .. } | Operation::Interrupt | Operation::Release { .. } => {
                    self.answer(&request);
                }
                _ => {
                    let asker = Node::from_number(request.node).and_then(Node::ve);
                    self.queue.push(asker, request, now);
                }
            }
        }
    }

    fn answer(&mut self, request: &Request) {
        let unique = request.unique;
        let answer = self.work(request);
        let answer = answer.unwrap_or_else(|errno| Answer::refusal(unique, errno));
        self.say(&answer.finish());
    }

    fn work(&mut self, request: &Request) -> Result<Answer, Errno> {
        let unique = request.unique;
        let node = || Node::from_number(request.node).ok_or(Errno::STALE);
        let now = Instant::now();
        Ok(match &request.operation {
            Operation::Init { major } if *major < 7 => return Err(Errno::PROTO),
            Operation::Init { .. } => Answer::init(unique),
            Operation::Lookup { name } => {
                let found = self.views.find(node()?, name).ok_or(Errno::NOENT)?;
                Answer::entry(unique, &self.attributes(found))
            }
            Operation::Attributes { handle: None } => {
                Answer::of_attributes(unique, &self.attributes(node()?))
            }
            Operation::Attributes {
                handle: Some(handle),
            } => {
                let text = self.views.open_text(node()?, *handle, 1, now)?;
                let mut attributes = self.attributes(node()?);
                attributes.size = u64::try_from(text.len()).unwrap_or(u64::MAX);
                Answer::of_attributes(unique, &attributes)
            }
            Operation::Open { flags } if flags & 3 != 0 => return Err(Errno::ACCESS),
            Operation::Open { .. } => {
                self.next_handle += 1;
                Answer::opened(unique, self.next_handle)
            }
            Operation::OpenFolder => Answer::opened_folder(unique),
            Operation::Read {
                handle,
                offset,
                size,
            } => {
                let text = self.views.open_text(node()?, *handle, *offset, now)?;
                Answer::data(unique, part(text.as_bytes(), *offset, *size))
            }
            Operation::List { offset, size } => {
                let entries = self.list(node()?, *offset, *size, Entries::add);
                Answer::data(unique, entries.bytes())
            }
            Operation::ListPlus { offset, size } => {
                let entries = self.list(node()?, *offset, *size, Entries::add_plus);
                Answer::data(unique, entries.bytes())
            }
            Operation::Release { handle } => {
                self.views.close(node()?, *handle);
                Answer::empty(unique)
            }
            Operation::ReleaseFolder | Operation::Forget | Operation::Destroy => {
                Answer::empty(unique)
            }
            Operation::FileSystem => Answer::file_system(unique),
            Operation::Seek => return Err(Errno::INVAL),
            // Refused once, interruptions are not told any more: whoever waits has the answer at
            // once, or when it is its turn.
            Operation::Interrupt | Operation::Other => return Err(Errno::NOSYS),
        })
    }

    fn attributes(&mut self, node: Node) -> Attributes {
        let folder = Views::is_folder(node);
        let lifetime = |lasts: bool| if lasts { LIFETIME_SECONDS } else { 0 };
        Attributes {
            number: node.number(),
            folder,
            size: self.views.length(node),
            time: self.begun,
            name_lifetime: lifetime(Views::is_lasting(node)),
            // A file's length is asked for again: who reads through the page cache shortens it.
            lifetime: lifetime(folder),
        }
    }

    /// Lists a folder from a place on; `add` says in which form.
    fn list(
        &mut self,
        folder: Node,
        offset: u64,
        size: u32,
        add: fn(&mut Entries, &Entry<'_>) -> bool,
    ) -> Entries {
        let mut entries = Entries::new(size);
        let below = self.views.list(folder).into_iter();
        let below = below.map(|entry| (entry.node, entry.name));
        let dots = [".", ".."].map(|name| (folder, name.to_owned()));
        for (next, (node, name)) in (1_u64..).zip(dots.into_iter().chain(below)) {
            let entry = Entry {
                attributes: self.attributes(node),
                next,
                name: &name,
            };
            if next > offset && !add(&mut entries, &entry) {
                break;
            }
        }
        entries
    }

    /// Answers the kernel. It refuses an answer to a request that is over by now, and nothing else.
    fn say(&self, bytes: &[u8]) {
        let _ = rustix::io::retry_on_intr(|| rustix::io::write(&self.device, bytes));
    }

    fn hear_launcher(&mut self) {
        while let Some(channel) = &self.channel {
            let order = match packet::receive(channel) {
                Err(Errno::AGAIN) => return,
                Ok(Some(packet)) => serde_json::from_slice(&packet.bytes).ok(),
                Ok(None) | Err(_) => {
                    self.channel = None;
                    return;
                }
            };
            match order {
                Some(Order::Ve(init)) => self.views.begin(init),
                Some(Order::Gone { id }) => {
                    if let Ok(ve) = VeId::new(id) {
                        self.views.ves.remove(&ve);
                    }
                }
                Some(Order::Serve { .. } | Order::HandOver) | None => {}
            }
        }
    }

    /// Hears launchers that come after the one that started this.
    fn hear_visitors(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        while let Ok((socket, _)) = rustix::net::acceptfrom_with(&self.listener, flags) {
            let root =
                rustix::net::sockopt::socket_peercred(&socket).is_ok_and(|peer| peer.uid.is_root());
            if root && self.visitors.len() < VISITORS_MAX {
                self.visitors.push(socket);
            }
        }
        let mut wanted = None;
        self.visitors
            .retain(|visitor| match packet::receive(visitor) {
                Err(Errno::AGAIN) => true,
                Ok(Some(packet)) => {
                    if matches!(serde_json::from_slice(&packet.bytes), Ok(Order::HandOver)) {
                        wanted = visitor.try_clone().ok();
                    }
                    false
                }
                Ok(None) | Err(_) => false,
            });
        if let Some(visitor) = wanted {
            self.hand_over(&visitor);
        }
    }

    fn hand_over(&mut self, visitor: &OwnedFd) {
        let notice = Notice::Handed {
            first_id: self.first_id,
            history: self.views.history(HISTORY_BYTES_MAX),
        };
        let given = [self.device.as_fd(), self.mount.as_fd()];
        // A visitor that is gone by now has taken nothing.
        self.ended = serde_json::to_vec(&notice)
            .is_ok_and(|bytes| packet::send(visitor, &bytes, &given).is_ok());
    }

    fn tell_alive(&mut self, now: Instant) {
        let due = self
            .told
            .is_none_or(|at| now.saturating_duration_since(at) >= LOAD_INTERVAL);
        let notice = Notice::Alive {
            history: due.then(|| self.views.history(HISTORY_BYTES_MAX)),
        };
        if due {
            self.told = Some(now);
        }
        if let (Some(channel), Ok(bytes)) = (&self.channel, serde_json::to_vec(&notice)) {
            // A launcher that does not read hears of it the next time.
            let _ = packet::send(channel, &bytes, &[]);
        }
    }
}

/// What of a text a read of a size at an offset gets.
fn part(text: &[u8], offset: u64, size: u32) -> &[u8] {
    let from = usize::try_from(offset)
        .unwrap_or(usize::MAX)
        .min(text.len());
    let to = from.saturating_add(usize::try_from(size).unwrap_or(usize::MAX));
    text.get(from..to.min(text.len())).unwrap_or_default()
}

/// Takes mounts of its own, without those of the node: they would be held for as long as this lives.
fn leave_the_pool(root: &Path) -> io::Result<()> {
    kernel::namespace::leave_mount_namespace()?;
    let below = |mount: &&PathBuf| mount.starts_with(root) && *mount != root;
    let mounts = kernel::proc::mounts().map_err(io::Error::other)?;
    let points: Vec<PathBuf> = mounts.into_iter().map(|mount| mount.mount_point).collect();
    // The innermost first.
    for mount in points.iter().rev().filter(below) {
        let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
        rustix::mount::unmount(mount, flags)?;
    }
    Ok(())
}

fn listen(path: &Path) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let listener =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    // Left by a server that was killed; the launcher sees to it that there is no other.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    rustix::net::bind(&listener, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&listener, 1)?;
    Ok(listener)
}

fn now_nanoseconds() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX >> 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_beyond_the_end_get_nothing() {
        assert_eq!(part(b"hello", 0, 100), b"hello");
        assert_eq!(part(b"hello", 1, 3), b"ell");
        assert_eq!(part(b"hello", 5, 3), b"");
        assert_eq!(part(b"hello", u64::MAX, u32::MAX), b"");
        assert_eq!(part(b"hello", 2, 0), b"");
    }
}
