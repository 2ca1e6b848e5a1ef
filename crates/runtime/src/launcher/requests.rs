//! What the launcher does for each request of the daemon.

use std::os::fd::{AsFd, OwnedFd};

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use ve::VeId;

use super::files::Transfer;
use super::poller::Source;
use super::state::State;
use super::step::{Step, failure};
use super::ves::Ve;
use crate::protocol::{
    Answer, Call, CgroupShape, Event, Failure, FailureKind, Launched, Message, Request, VERSION,
    VeState,
};
use crate::spec::{InitKind, WindowSize};
use kernel::packet::Packet;

/// Descriptors of a cgroup entry, out of a message.
#[derive(Debug)]
pub(super) struct Groups {
    pub(super) v1_tasks: Vec<OwnedFd>,
    pub(super) v2: Option<OwnedFd>,
}

impl Groups {
    /// Takes an entry's descriptors off the front of a message's.
    ///
    /// # Errors
    /// `Invalid` when the message has fewer.
    pub(super) fn take(
        shape: CgroupShape,
        descriptors: &mut Vec<OwnedFd>,
    ) -> Result<Self, Failure> {
        let wanted = shape.v1 + usize::from(shape.v2);
        if descriptors.len() < wanted {
            return Err(failure(
                FailureKind::Invalid,
                "the request lacks descriptors",
            ));
        }
        let mut taken: Vec<OwnedFd> = descriptors.drain(..wanted).collect();
        let v2 = if shape.v2 { taken.pop() } else { None };
        Ok(Self {
            v1_tasks: taken,
            v2,
        })
    }
}

impl State {
    /// Answers a request, at once or when its work is done.
    pub(super) fn answer(&mut self, connection: u64, packet: Packet) {
        let Ok(request) = serde_json::from_slice::<Request>(&packet.bytes) else {
            // Without its number it cannot be answered; the daemon's version differs.
            self.connections.remove(&connection);
            return;
        };
        let number = request.number;
        let outcome = self.carry_out(connection, request, packet.descriptors);
        match outcome {
            Ok(Some(answer)) => self.reply(connection, number, Ok(answer), Vec::new()),
            Ok(None) => {}
            Err(failed) => self.reply(connection, number, Err(failed), Vec::new()),
        }
    }

    /// `None` when the reply is sent by itself or comes later.
    fn carry_out(
        &mut self,
        connection: u64,
        request: Request,
        mut descriptors: Vec<OwnedFd>,
    ) -> Result<Option<Answer>, Failure> {
        match request.call {
            Call::Hello { version } => {
                self.hello(connection, request.number, version);
                return Ok(None);
            }
            Call::List => return Ok(Some(Answer::Ves(self.statuses()))),
            Call::Launch { spec, cgroup } => {
                let groups = Groups::take(cgroup, &mut descriptors)?;
                self.launch(connection, request.number, *spec, &groups)?;
                return Ok(None);
            }
            Call::Restore { spec } => {
                self.restore(connection, request.number, *spec)?;
                return Ok(None);
            }
            Call::ConnectWoken { id, pid } => self.connect_woken(id, pid)?,
            Call::Waking => return Ok(Some(Answer::Waking(!self.restores.is_empty()))),
            Call::Signal { id, signal } => {
                kernel::pidfd::send_signal(&self.living(id)?.pidfd, signal)
                    .step(format_args!("signal the init of VE {id}"))?;
            }
            Call::Adopt {
                id,
                pid,
                start_time,
            } => {
                self.adopt(id, Launched { pid, start_time })?;
            }
            Call::Acknowledge { id, pid } => self.acknowledge(id, pid),
            Call::Exec { id, spec, cgroup } => {
                let groups = Groups::take(cgroup, &mut descriptors)?;
                self.exec(connection, request.number, id, &spec, &groups, &descriptors)?;
                return Ok(None);
            }
            Call::SignalTask { task, signal } => {
                self.signal_task(connection, task, signal)?;
            }
            Call::ConsoleAttach { id } => self.attach_console(id, descriptors.pop())?,
            Call::ConsoleResize { id, size } => self.resize_console(id, size)?,
            Call::Files {
                id,
                stopped,
                work,
                cgroup,
            } => {
                let groups = Groups::take(cgroup, &mut descriptors)?;
                let stream = descriptors
                    .pop()
                    .ok_or_else(|| failure(FailureKind::Invalid, "the request lacks a stream"))?;
                let stopped = stopped.as_ref();
                let transfer = Transfer {
                    id,
                    stopped,
                    work: &work,
                    stream: &stream,
                };
                self.files(connection, request.number, &transfer, &groups)?;
                return Ok(None);
            }
            Call::Hold => self.held = descriptors.pop(),
            Call::View { first_id } => self.set_view(descriptors.pop(), first_id)?,
            Call::Shutdown => self.shut_down()?,
        }
        Ok(Some(Answer::Done))
    }

    fn hello(&mut self, connection: u64, number: u64, _theirs: u32) {
        let pid = std::process::id();
        let answer = Answer::Hello {
            version: VERSION,
            pid,
            ves: self.statuses(),
        };
        let held = self.held.as_ref().and_then(|held| held.try_clone().ok());
        self.reply(connection, number, Ok(answer), held.into_iter().collect());
        let ends: Vec<Event> = self
            .ves
            .values()
            .filter_map(|ve| match ve.state {
                VeState::Exited(exit) => Some(Event::Exited {
                    id: ve.id,
                    pid: ve.init.pid,
                    exit,
                }),
                _ => None,
            })
            .collect();
        for event in ends {
            self.send(connection, &Message::Event(event), Vec::new());
        }
    }

    fn statuses(&self) -> Vec<crate::protocol::VeStatus> {
        self.ves.values().map(Ve::status).collect()
    }

    /// The VE, if its init lives.
    pub(super) fn living(&self, id: VeId) -> Result<&Ve, Failure> {
        self.ves.get(&id).filter(|ve| ve.is_alive()).ok_or_else(|| {
            failure(
                FailureKind::NotFound,
                format!("VE {id} does not run: start it first"),
            )
        })
    }

    fn adopt(&mut self, id: VeId, init: Launched) -> Result<(), Failure> {
        if let Some(ve) = self.ves.get(&id) {
            if ve.init == init {
                return Ok(());
            }
            return Err(failure(
                FailureKind::Busy,
                format!("VE {id} has another init already: process {}", ve.init.pid),
            ));
        }
        let gone = || {
            failure(
                FailureKind::NotFound,
                format!("the init of VE {id} has ended"),
            )
        };
        let pid = i32::try_from(init.pid)
            .ok()
            .and_then(Pid::from_raw)
            .ok_or_else(gone)?;
        let pidfd = pidfd_open(pid, PidfdFlags::NONBLOCK).map_err(|_| gone())?;
        // After the pidfd was opened: a number that was reused before is found out here, and one
        // that is reused later does not matter.
        let started = kernel::proc::start_time(init.pid).map_err(|_| gone())?;
        if started.ticks() != init.start_time {
            return Err(gone());
        }
        self.poller
            .add(&pidfd, Source::Init(u64::from(id.get())))
            .step("watch the init")?;
        let ve = Ve {
            id,
            init,
            pidfd,
            ours: false,
            state: VeState::Ready,
            kind: InitKind::Systemd,
            nesting: false,
            compat_32bit: false,
            launching: None,
            refusal: None,
            notify: None,
            console: None,
            image: None,
            root_watch: None,
            ending: None,
        };
        self.ves.insert(id, ve);
        self.begin_view(id);
        Ok(())
    }

    fn acknowledge(&mut self, id: VeId, pid: u32) {
        let ended = self
            .ves
            .get(&id)
            .is_some_and(|ve| ve.init.pid == pid && matches!(ve.state, VeState::Exited(_)));
        if ended {
            self.ves.remove(&id);
        }
    }

    fn shut_down(&mut self) -> Result<(), Failure> {
        if let Some(id) = self.ves.keys().chain(self.restores.keys()).next() {
            let message = format!("the launcher holds VE {id} and cannot end: stop every VE first");
            return Err(failure(FailureKind::Busy, message));
        }
        self.let_go_of_view();
        self.ended = true;
        Ok(())
    }

    fn resize_console(&self, id: VeId, size: WindowSize) -> Result<(), Failure> {
        let console = self
            .living(id)?
            .console
            .as_ref()
            .ok_or_else(|| no_console(id))?;
        console.resize(size).step("tell the console its size")
    }

    fn attach_console(&mut self, id: VeId, socket: Option<OwnedFd>) -> Result<(), Failure> {
        let socket =
            socket.ok_or_else(|| failure(FailureKind::Invalid, "the request lacks a socket"))?;
        self.living(id)?;
        let number = self.fresh();
        let console = self.ves.get_mut(&id).and_then(|ve| ve.console.as_mut());
        let console = console.ok_or_else(|| no_console(id))?;
        if console.is_full() {
            let message = format!("too many are at the console of VE {id} already");
            return Err(failure(FailureKind::Busy, message));
        }
        rustix::io::ioctl_fionbio(&socket, true).step("use the socket for the console")?;
        self.poller
            .add(socket.as_fd(), Source::Attachment(number))
            .step("use the socket for the console")?;
        console.attach(number, socket);
        self.attachments.insert(number, id);
        Ok(())
    }
}

fn no_console(id: VeId) -> Failure {
    failure(
        FailureKind::NotFound,
        format!("the console of VE {id} was lost with an earlier launcher: restart the VE"),
    )
}
