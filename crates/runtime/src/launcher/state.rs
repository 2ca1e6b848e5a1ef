//! The launcher's state and its loop: one thread, one place of waiting, no blocking call but those
//! of a launch itself.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Instant;

use network::Netlink;
use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with};
use ve::VeId;

use super::poller::{Poller, Source};
use super::restore::Restoring;
use super::root::RootBuilder;
use super::ves::{TaskState, Ve};
use super::view::View;
use crate::protocol::{Answer, Event, Failure, Message};
use kernel::packet;

/// Messages that wait for a daemon which does not read; then it is cut off, and finds everything
/// again when it connects anew.
const OUTGOING_MAX: usize = 4_096;

/// One daemon's connection.
#[derive(Debug)]
pub(super) struct Connection {
    socket: OwnedFd,
    outgoing: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
}

/// Everything that the launcher holds.
#[derive(Debug)]
pub(super) struct State {
    pub(super) poller: Poller,
    pub(super) listener: OwnedFd,
    /// Tells which roots the kernel has freed.
    pub(super) roots_freed: OwnedFd,
    pub(super) roots: RootBuilder,
    pub(super) netlink: Option<Netlink>,
    pub(super) connections: BTreeMap<u64, Connection>,
    pub(super) ves: BTreeMap<VeId, Ve>,
    pub(super) tasks: BTreeMap<u64, TaskState>,
    /// VEs that CRIU is waking.
    pub(super) restores: BTreeMap<VeId, Restoring>,
    /// VE of each console attachment.
    pub(super) attachments: BTreeMap<u64, VeId>,
    /// Consoles that used up their allowance, and until when.
    pub(super) paused: BTreeMap<VeId, Instant>,
    /// What the daemon asked to keep for the next one.
    pub(super) held: Option<OwnedFd>,
    /// The VEs' own `/proc`, once a daemon asked for it.
    pub(super) view: Option<View>,
    /// VEs whose part of it was ever asked for.
    pub(super) viewers: BTreeSet<VeId>,
    /// The node's root folder.
    pub(super) root: PathBuf,
    pub(super) ended: bool,
    pub(super) next: u64,
}

impl State {
    /// A launcher that holds nothing yet, for the node at `root`.
    pub(super) fn new(
        poller: Poller,
        listener: OwnedFd,
        roots_freed: OwnedFd,
        root: &Path,
    ) -> Self {
        Self {
            poller,
            listener,
            roots_freed,
            roots: RootBuilder::new(root.join("run/layers")),
            netlink: None,
            connections: BTreeMap::new(),
            ves: BTreeMap::new(),
            tasks: BTreeMap::new(),
            restores: BTreeMap::new(),
            attachments: BTreeMap::new(),
            paused: BTreeMap::new(),
            held: None,
            view: None,
            viewers: BTreeSet::new(),
            root: root.to_owned(),
            ended: false,
            next: 0,
        }
    }

    /// A number that was not used before.
    pub(super) fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Serves until a daemon ends the launcher.
    ///
    /// # Errors
    /// Only when waiting itself fails, which leaves nothing to do but end.
    pub(super) fn serve(&mut self) -> Result<(), Errno> {
        while !self.ended {
            let now = Instant::now();
            let timeout = self
                .next_deadline()
                .map(|at| at.saturating_duration_since(now));
            for source in self.poller.wait(timeout)? {
                self.handle(source);
            }
            self.handle_deadlines(Instant::now());
        }
        Ok(())
    }

    fn handle(&mut self, source: Source) {
        let ve = |number: u64| u32::try_from(number).ok().and_then(|id| VeId::new(id).ok());
        match source {
            Source::Listener => self.accept(),
            Source::Roots => self.read_freed_roots(),
            Source::Connection(number) => self.serve_connection(number),
            Source::Init(number) => {
                if let Some(id) = ve(number) {
                    self.reap_init(id);
                }
            }
            Source::Channel(number) => {
                if let Some(id) = ve(number) {
                    self.hear_launch(id);
                }
            }
            Source::Notify(number) => {
                if let Some(id) = ve(number) {
                    self.hear_readiness(id);
                }
            }
            Source::Console(number) => {
                if let Some(id) = ve(number) {
                    self.drain_console(id);
                }
            }
            Source::Attachment(number) => self.serve_attachment(number),
            Source::Restorer(number) => {
                if let Some(id) = ve(number) {
                    self.hear_restore(id);
                }
            }
            Source::View => self.reap_view(),
            Source::ViewChannel => self.hear_view(),
            Source::TaskChannel(number) => self.hear_task(number),
            Source::TaskDoor(number) => self.reap_door(number),
            Source::TaskWorker(number) => self.reap_worker(number),
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let ves = self.ves.values();
        let launches = ves
            .clone()
            .filter_map(|ve| ve.launching.as_ref().map(|l| l.deadline));
        let endings = ves.filter_map(|ve| ve.ending.map(|ending| ending.deadline));
        let tasks = self.tasks.values().filter_map(|task| task.deadline);
        let restores = self.restores.values().map(|restoring| restoring.deadline);
        launches
            .chain(endings)
            .chain(tasks)
            .chain(restores)
            .chain(self.paused.values().copied())
            .chain(self.view_deadline())
            .min()
    }

    fn handle_deadlines(&mut self, now: Instant) {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let late: Vec<VeId> = self
            .ves
            .values()
            .filter(|ve| due(ve.launching.as_ref().map(|launching| launching.deadline)))
            .map(|ve| ve.id)
            .collect();
        for id in late {
            self.give_up_launch(id);
        }
        let ended: Vec<VeId> = self
            .ves
            .values()
            .filter(|ve| due(ve.ending.map(|ending| ending.deadline)))
            .map(|ve| ve.id)
            .collect();
        for id in ended {
            self.announce_end(id);
        }
        let waking = self.restores.iter();
        let overdue: Vec<VeId> = waking
            .filter(|(_, restoring)| restoring.deadline <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in overdue {
            self.give_up_restore(id);
        }
        let stuck: Vec<u64> = self
            .tasks
            .iter()
            .filter(|(_, task)| due(task.deadline))
            .map(|(key, _)| *key)
            .collect();
        for key in stuck {
            self.give_up_task(key);
        }
        let resumed: Vec<VeId> = self
            .paused
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in resumed {
            self.resume_console(id);
        }
        self.handle_view_deadline(now);
    }

    fn accept(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        while let Ok((socket, _)) = acceptfrom_with(&self.listener, flags) {
            // The socket's file is root's alone; this also refuses who got it by descriptor.
            let root =
                rustix::net::sockopt::socket_peercred(&socket).is_ok_and(|peer| peer.uid.is_root());
            let number = self.fresh();
            if root && self.poller.add(&socket, Source::Connection(number)).is_ok() {
                let connection = Connection {
                    socket,
                    outgoing: VecDeque::new(),
                };
                self.connections.insert(number, connection);
            }
        }
    }

    fn serve_connection(&mut self, number: u64) {
        if let Err(errno) = self.flush(number)
            && errno != Errno::AGAIN
        {
            self.connections.remove(&number);
        }
        // One message a turn: a busy daemon must not keep consoles and ends waiting.
        let Some(connection) = self.connections.get(&number) else {
            return;
        };
        match packet::receive(&connection.socket) {
            Ok(Some(packet)) => self.answer(number, packet),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Ok(None) | Err(_) => {
                self.connections.remove(&number);
            }
        }
    }

    /// Sends a reply.
    pub(super) fn reply(
        &mut self,
        connection: u64,
        number: u64,
        outcome: Result<Answer, Failure>,
        descriptors: Vec<OwnedFd>,
    ) {
        self.send(connection, &Message::Reply { number, outcome }, descriptors);
    }

    /// Tells every daemon.
    pub(super) fn publish(&mut self, event: &Event) {
        let message = Message::Event(event.clone());
        for connection in self.connections.keys().copied().collect::<Vec<_>>() {
            self.send(connection, &message, Vec::new());
        }
    }

    /// Tells one daemon.
    pub(super) fn send(&mut self, number: u64, message: &Message, descriptors: Vec<OwnedFd>) {
        let Some(connection) = self.connections.get_mut(&number) else {
            return;
        };
        // Every message is made of plain fields; one that cannot be written does not exist.
        let Ok(bytes) = serde_json::to_vec(message) else {
            return;
        };
        connection.outgoing.push_back((bytes, descriptors));
        let behind = connection.outgoing.len() > OUTGOING_MAX;
        if behind || self.flush(number).is_err_and(|errno| errno != Errno::AGAIN) {
            self.connections.remove(&number);
        }
    }

    /// Sends what waits for a daemon, as far as it reads.
    fn flush(&mut self, number: u64) -> Result<(), Errno> {
        let Some(connection) = self.connections.get_mut(&number) else {
            return Ok(());
        };
        while let Some((bytes, descriptors)) = connection.outgoing.front() {
            let borrowed: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
            match packet::send(&connection.socket, bytes, &borrowed) {
                Ok(()) => {
                    connection.outgoing.pop_front();
                }
                Err(errno) => {
                    let source = Source::Connection(number);
                    self.poller.set_writing(&connection.socket, source, true)?;
                    return Err(errno);
                }
            }
        }
        self.poller
            .set_writing(&connection.socket, Source::Connection(number), false)
    }
}
