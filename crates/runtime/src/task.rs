//! A command or transfer in a VE, as the daemon holds it.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::Errno;

use crate::exchange::{CallError, Exchange};
use crate::protocol::Call;
use crate::spec::WindowSize;

/// A command or transfer in a VE.
#[derive(Debug)]
pub struct Task {
    exchange: Arc<Exchange>,
    number: u64,
    pid: u32,
    master: Option<OwnedFd>,
    /// Behind a lock so that one thread can wait while another sends signals.
    end: Mutex<Receiver<TaskEnd>>,
}

/// How a task ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskEnd {
    /// Exit code; 128 and the signal's number when a signal ended it.
    pub code: i32,
    /// Why a transfer failed.
    pub message: Option<String>,
}

impl Task {
    pub(crate) fn new(
        exchange: Arc<Exchange>,
        number: u64,
        pid: u32,
        master: Option<OwnedFd>,
        end: Receiver<TaskEnd>,
    ) -> Self {
        Self {
            exchange,
            number,
            pid,
            master,
            end: Mutex::new(end),
        }
    }

    /// Process number of the task as the node sees it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    fn end(&self) -> MutexGuard<'_, Receiver<TaskEnd>> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the master of the command's terminal, if it has one.
    pub fn take_terminal(&mut self) -> Option<OwnedFd> {
        self.master.take()
    }

    /// Sends a signal to the task's process.
    ///
    /// # Errors
    /// `NotFound` when it has ended.
    pub fn signal(&self, signal: i32) -> Result<(), CallError> {
        let number = self.exchange.fresh();
        let call = Call::SignalTask {
            task: self.number,
            signal,
        };
        self.exchange.exchange(number, call, &[]).map(|_| ())
    }

    /// Waits until the task has ended.
    ///
    /// # Errors
    /// [`CallError::Gone`] when the launcher died first.
    pub fn wait(&self) -> Result<TaskEnd, CallError> {
        self.end().recv().map_err(|_| CallError::Gone)
    }

    /// Waits at most `timeout`; nothing when the task still runs.
    ///
    /// # Errors
    /// [`CallError::Gone`] when the launcher died first.
    pub fn wait_within(&self, timeout: Duration) -> Result<Option<TaskEnd>, CallError> {
        match self.end().recv_timeout(timeout) {
            Ok(end) => Ok(Some(end)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(CallError::Gone),
        }
    }
}

/// Tells the process behind a terminal's master how large the terminal is.
///
/// # Errors
/// `EIO` or `ENOTTY` when the terminal is gone or none.
pub fn resize_terminal(master: impl AsFd, size: WindowSize) -> Result<(), Errno> {
    let size = rustix::termios::Winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    rustix::termios::tcsetwinsize(master, size)
}
