//! What happens to VEs while nobody asks: readiness, ends, console output.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

use rustix::fs::inotify;
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{WaitId, WaitIdOptions, WaitIdStatus, waitid};
use std::os::fd::AsFd as _;
use ve::{Exit, VeId};

use super::console::Next;
use super::poller::Source;
use super::state::State;
use super::ves::Ending;
use crate::protocol::{Event, VeState};

/// How long an end waits for the kernel to free the root. Beyond it something else holds the root
/// (a look at the files, a backup), and whoever wants it next is told so.
const ROOT_FREE_TIMEOUT: Duration = Duration::from_secs(2);

/// `SIGHUP` and `SIGINT`: what reboot(2) ends a pid namespace's init with.
const REBOOT: i32 = 1;
const POWER_OFF: i32 = 2;
/// `SIGKILL`.
const KILLED: i32 = 9;

impl State {
    /// Takes note that a VE's init ended.
    pub(super) fn reap_init(&mut self, id: VeId) {
        let Some(ve) = self.ves.get_mut(&id).filter(|ve| ve.is_alive()) else {
            return;
        };
        let exit = if ve.ours {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
            match waitid(WaitId::PidFd(ve.pidfd.as_fd()), options) {
                Ok(Some(status)) => exit_of(&status),
                Ok(None) | Err(Errno::AGAIN) => return,
                Err(_) => Exit::Unknown,
            }
        } else {
            match kernel::pidfd::exit_status(&ve.pidfd) {
                Ok(Some(status)) => exit_of_stranger(status),
                // Ended and not reaped by its new parent yet: told again by the hang-up.
                Ok(None) => {
                    let _ = self
                        .poller
                        .pause(&ve.pidfd, Source::Init(u64::from(id.get())));
                    return;
                }
                Err(_) => Exit::Unknown,
            }
        };
        let pidfd = ve.pidfd.as_fd();
        let _ = self.poller.remove(pidfd);
        ve.notify = None;
        ve.image = None;
        let deadline = Instant::now() + ROOT_FREE_TIMEOUT;
        ve.ending = Some(Ending { exit, deadline });
        // What the VE wrote last is still in the terminal.
        self.finish_console(id);
        self.end_view(id);
        self.hear_launch(id);
        let watched = self.ves.get(&id).is_some_and(|ve| ve.root_watch.is_some());
        if !watched {
            self.announce_end(id);
        }
    }

    /// Tells that a VE ended, or forgets it when its launch failed and was answered so.
    pub(super) fn announce_end(&mut self, id: VeId) {
        let Some(ve) = self.ves.get_mut(&id) else {
            return;
        };
        let Some(ending) = ve.ending.take() else {
            return;
        };
        if let Some(watch) = ve.root_watch.take() {
            let _ = inotify::remove_watch(&self.roots_freed, watch);
        }
        if ve.state == VeState::Launching {
            let refusal = ve.refusal.take();
            self.ves.remove(&id);
            if let Some((connection, number, failed)) = refusal {
                self.reply(connection, number, Err(failed), Vec::new());
            }
            return;
        }
        ve.state = VeState::Exited(ending.exit);
        let event = Event::Exited {
            id,
            pid: ve.init.pid,
            exit: ending.exit,
        };
        self.publish(&event);
    }

    /// Ends of roots: the kernel tells when an overlay's inodes go.
    pub(super) fn read_freed_roots(&mut self) {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut freed = Vec::new();
        let mut reader = inotify::Reader::new(&self.roots_freed, &mut buffer);
        while let Ok(event) = reader.next() {
            freed.push(event.wd());
            if reader.is_buffer_empty() {
                break;
            }
        }
        for watch in freed {
            let found = self
                .ves
                .values_mut()
                .find(|ve| ve.root_watch == Some(watch));
            let Some(ve) = found else { continue };
            ve.root_watch = None;
            let id = ve.id;
            if ve.ending.is_some() {
                self.announce_end(id);
            }
        }
    }

    /// Hears what a VE's init says about its readiness.
    pub(super) fn hear_readiness(&mut self, id: VeId) {
        let Some(ve) = self.ves.get_mut(&id) else {
            return;
        };
        let Some(notify) = &mut ve.notify else { return };
        let mut text = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(
            &notify.socket,
            &mut [IoSliceMut::new(&mut text)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
        );
        let Ok(received) = received else { return };
        // Anybody in the VE may be root; only process 1 speaks for it. Descriptors that came along
        // are dropped here.
        let from_init = control.drain().any(|message| match message {
            RecvAncillaryMessage::ScmCredentials(sender) => {
                u32::try_from(sender.pid.as_raw_nonzero().get()).is_ok_and(|pid| pid == ve.init.pid)
            }
            _ => false,
        });
        notify.messages_left -= 1;
        let ready = from_init
            && text[..received.bytes]
                .split(|b| *b == b'\n')
                .any(|line| line == b"READY=1");
        if ready || notify.messages_left == 0 {
            ve.notify = None;
        }
        if ready && ve.state == VeState::Booting {
            ve.state = VeState::Ready;
            let event = Event::Ready {
                id,
                pid: ve.init.pid,
            };
            self.publish(&event);
        }
    }

    /// Reads a console once, within its allowance.
    pub(super) fn drain_console(&mut self, id: VeId) {
        let Some(console) = self.ves.get_mut(&id).and_then(|ve| ve.console.as_mut()) else {
            return;
        };
        let (next, broken) = console.drain(Instant::now());
        let source = Source::Console(u64::from(id.get()));
        match next {
            Next::Listen => {}
            Next::PauseUntil(at) => {
                if self.poller.pause(console.master(), source).is_ok() {
                    self.paused.insert(id, at);
                }
            }
            Next::Closed => {
                let _ = self.poller.remove(console.master());
            }
        }
        let attached = console.attachments();
        for number in broken {
            self.detach(number);
        }
        for number in attached {
            self.watch_attachment(number);
        }
    }

    /// Reads what is left in the console of a VE that ended, and closes it.
    fn finish_console(&mut self, id: VeId) {
        if let Some(console) = self.ves.get_mut(&id).and_then(|ve| ve.console.as_mut()) {
            // A terminal's buffer holds 64 KiB at most; a read takes 4 KiB of it.
            for _ in 0..32 {
                if console.drain(Instant::now()).0 != Next::Listen {
                    break;
                }
            }
        }
        self.paused.remove(&id);
        if let Some(ve) = self.ves.get_mut(&id) {
            ve.console = None;
        }
        self.attachments.retain(|_, at| *at != id);
    }

    pub(super) fn resume_console(&mut self, id: VeId) {
        self.paused.remove(&id);
        if let Some(console) = self.ves.get(&id).and_then(|ve| ve.console.as_ref()) {
            let source = Source::Console(u64::from(id.get()));
            let _ = self.poller.resume(console.master(), source);
        }
    }

    pub(super) fn serve_attachment(&mut self, number: u64) {
        let id = self.attachments.get(&number).copied();
        let ve = id.and_then(|id| self.ves.get_mut(&id));
        let alive = ve
            .and_then(|ve| ve.console.as_mut())
            .is_some_and(|console| console.serve_attachment(number));
        if alive {
            self.watch_attachment(number);
        } else {
            self.detach(number);
        }
    }

    /// Waits for room to write exactly while an attached reader is behind.
    fn watch_attachment(&self, number: u64) {
        let ve = self
            .attachments
            .get(&number)
            .and_then(|id| self.ves.get(id));
        if let Some(console) = ve.and_then(|ve| ve.console.as_ref())
            && let Some(socket) = console.attachment(number)
        {
            let behind = console.is_behind(number);
            let _ = self
                .poller
                .set_writing(socket, Source::Attachment(number), behind);
        }
    }

    fn detach(&mut self, number: u64) {
        if let Some(id) = self.attachments.remove(&number)
            && let Some(console) = self.ves.get_mut(&id).and_then(|ve| ve.console.as_mut())
        {
            console.detach(number);
        }
    }
}

/// How an init ended, in a VE's words.
fn exit_of(status: &WaitIdStatus) -> Exit {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => exit_of_signal(signal),
        (None, None) => Exit::Unknown,
    }
}

/// How another launcher's init ended, from what its pidfd kept in waitpid's encoding: the signal
/// in the low seven bits, the code above.
///
/// reboot(2) in a pid namespace kills the init, and what was asked for is told to its parent only
/// (the kernel records `exit_code`, waitpid shows `group_exit_code`): a kill says nothing here.
fn exit_of_stranger(status: i32) -> Exit {
    match status & 0x7f {
        0 => Exit::Code(status >> 8 & 0xff),
        KILLED => Exit::Unknown,
        signal => exit_of_signal(signal),
    }
}

fn exit_of_signal(signal: i32) -> Exit {
    match signal {
        REBOOT => Exit::Reboot,
        POWER_OFF => Exit::PowerOff,
        signal => Exit::Signal(signal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_ends_of_inits() {
        assert_eq!(exit_of_stranger(0), Exit::Code(0));
        assert_eq!(exit_of_stranger(3 << 8), Exit::Code(3));
        assert_eq!(exit_of_stranger(11 | 0x80), Exit::Signal(11));
        assert_eq!(exit_of_stranger(9), Exit::Unknown);
        assert_eq!(exit_of_signal(1), Exit::Reboot);
        assert_eq!(exit_of_signal(2), Exit::PowerOff);
    }
}
