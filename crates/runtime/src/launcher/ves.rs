//! What the launcher knows of each VE and of each task.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Instant;

use ve::{Exit, VeId};

use super::console::ConsoleState;
use super::image::Image;
use crate::protocol::{Failure, Launched, VeState, VeStatus};
use crate::spec::InitKind;

/// A VE whose init lives, or whose end nobody acknowledged yet.
#[derive(Debug)]
pub(super) struct Ve {
    pub(super) id: VeId,
    pub(super) init: Launched,
    pub(super) pidfd: OwnedFd,
    /// Whether the launcher is its parent; another launcher's VE was adopted.
    pub(super) ours: bool,
    pub(super) state: VeState,
    pub(super) kind: InitKind,
    pub(super) nesting: bool,
    pub(super) compat_32bit: bool,
    pub(super) launching: Option<Launching>,
    /// The answer to a launch that failed (connection, number, why), until its process is gone.
    pub(super) refusal: Option<(u64, u64, Failure)>,
    pub(super) notify: Option<NotifySocket>,
    pub(super) console: Option<ConsoleState>,
    /// Keeps the template's image mounted for other VEs of it.
    pub(super) image: Option<Rc<Image>>,
    /// The inotify watch on the root, which tells when the kernel freed it.
    pub(super) root_watch: Option<i32>,
    /// Its end, while the root is not free yet.
    pub(super) ending: Option<Ending>,
}

/// A launch that was not answered yet.
#[derive(Debug)]
pub(super) struct Launching {
    pub(super) channel: OwnedFd,
    pub(super) connection: u64,
    pub(super) number: u64,
    pub(super) executing: bool,
    pub(super) failure: Option<Failure>,
    /// When it is given up.
    pub(super) deadline: Instant,
}

/// The readiness socket.
#[derive(Debug)]
pub(super) struct NotifySocket {
    pub(super) socket: OwnedFd,
    /// Messages that are still heard: an init says a handful, a hostile one is not listened to for
    /// ever.
    pub(super) messages_left: u32,
}

/// An init that ended, whose root the kernel has not freed yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    pub(super) exit: Exit,
    /// When the end is told although the root is still held by something.
    pub(super) deadline: Instant,
}

/// A command or transfer in a VE.
#[derive(Debug)]
pub(super) struct TaskState {
    pub(super) connection: u64,
    /// Number of the request that began it.
    pub(super) number: u64,
    pub(super) channel: Option<OwnedFd>,
    /// The process that enters the VE and makes the one that works there.
    pub(super) door: Option<OwnedFd>,
    pub(super) worker: Option<(u32, OwnedFd)>,
    pub(super) terminal: Option<OwnedFd>,
    /// Whether it executes or works.
    pub(super) ready: bool,
    /// Whether it is a transfer that works.
    pub(super) working: bool,
    pub(super) answered: bool,
    pub(super) failure: Option<Failure>,
    pub(super) code: Option<i32>,
    /// When it is killed unless it was answered.
    pub(super) deadline: Option<Instant>,
}

impl Ve {
    pub(super) fn status(&self) -> VeStatus {
        VeStatus {
            id: self.id,
            init: self.init,
            state: self.state,
            console: self.console.is_some(),
        }
    }

    pub(super) fn is_alive(&self) -> bool {
        self.ending.is_none() && !matches!(self.state, VeState::Exited(_))
    }
}
