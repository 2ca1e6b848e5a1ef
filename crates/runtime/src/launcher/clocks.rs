//! A VE's clocks: those that count from a boot count from the VE's own.
//!
//! `ps` and `top` take a process's age from `/proc/PID/stat`, which counts from the machine's boot,
//! and subtract it from the uptime; with an uptime of its own alone a VE's processes would be older
//! than the VE. A time namespace moves both, and a checkpoint keeps its clocks: they go on when the VE
//! wakes, on whatever machine.

use rustix::fs::{Access, CWD, Mode, OFlags, access, openat};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::time::{ClockId, Timespec, clock_gettime};

use super::step::Step;
use crate::protocol::Failure;

/// A moment just before a VE's first process is made: its clocks begin there. Not later, since a
/// process that is older than its clocks has an age that makes no sense.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beginning {
    monotonic: Timespec,
    boot: Timespec,
}

impl Beginning {
    /// Now.
    pub(super) fn now() -> Self {
        Self {
            monotonic: clock_gettime(ClockId::Monotonic),
            boot: clock_gettime(ClockId::Boottime),
        }
    }

    /// Makes the VE's clocks in its first process, which has them once it executes its init. CRIU
    /// wants them to be the VE's own, so the launcher cannot make them.
    ///
    /// # Errors
    /// What the kernel refuses. Without time namespaces (`CONFIG_TIME_NS`) the clocks are the node's.
    pub(super) fn begin(self) -> Result<(), Failure> {
        match kernel::clone::prepare_time_namespace() {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => return Ok(()),
            outcome => outcome.step("make the VE's clocks")?,
        }
        // The files of a process that must not be looked at belong to the node's root. Nobody in
        // a VE can name this process yet.
        set_dumpable_behavior(DumpableBehavior::Dumpable).step("reach the VE's clocks")?;
        let set = self.set_offsets().step("set the VE's clocks");
        set_dumpable_behavior(DumpableBehavior::NotDumpable).step("protect its memory")?;
        set
    }

    fn set_offsets(self) -> Result<(), Errno> {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = openat(CWD, "/proc/self/timens_offsets", flags, Mode::empty())?;
        rustix::io::write(&file, self.offsets().as_bytes()).map(drop)
    }

    /// The lines of `/proc/PID/timens_offsets` with which clocks said zero at this moment.
    fn offsets(self) -> String {
        let (monotonic, boot) = (negated(self.monotonic), negated(self.boot));
        format!(
            "monotonic {} {}\nboottime {} {}\n",
            monotonic.tv_sec, monotonic.tv_nsec, boot.tv_sec, boot.tv_nsec
        )
    }
}

/// Whether VEs have clocks of their own on this kernel.
pub(super) fn available() -> bool {
    access("/proc/self/ns/time", Access::EXISTS).is_ok()
}

/// The kernel wants nanoseconds that are not negative.
fn negated(time: Timespec) -> Timespec {
    match time.tv_nsec {
        0 => Timespec {
            tv_sec: -time.tv_sec,
            tv_nsec: 0,
        },
        nanoseconds => Timespec {
            tv_sec: -time.tv_sec - 1,
            tv_nsec: 1_000_000_000 - nanoseconds,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_take_the_beginning_back_to_zero() {
        let at = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
        let beginning = Beginning {
            monotonic: at(5, 0),
            boot: at(7, 250_000_000),
        };
        assert_eq!(
            beginning.offsets(),
            "monotonic -5 0\nboottime -8 750000000\n"
        );
    }
}
