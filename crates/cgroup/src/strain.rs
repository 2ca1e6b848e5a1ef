//! Hearing of a VE that is about to need more memory than its limit, before it is killed for it.
//!
//! | | tells |
//! |---|---|
//! | v1, `memory.usage_in_bytes` | at once and exactly when the use passes a mark, page cache included |
//! | v1, `memory.pressure_level` | when the kernel takes memory back: all marks lie below then, and page cache is what the use was |
//! | cgroup2, `memory.events` | when the VE passes `memory.high` or `memory.max`, at most every 10 ms |
//! | both, `memory.pressure` (PSI) | when processes wait for memory for a tenth of two seconds |
//!
//! On cgroup2 `memory.high` is for this ([`VeGroup::slow_memory`]): the kernel slows down who passes it, which is
//! what gives the listener time (cgroup-v2.rst, "memory.high").
//!
//! Does not read what is in use: who hears looks.

use std::io::Write as _;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, PollFlags, eventfd};
use rustix::fs::OFlags;

use crate::error::{FileError, UsageError};
use crate::files::{Directory, failure, keyed};
use crate::group::VeGroup;
use crate::layout::{Controller, Home};
use crate::limits::V1_USAGE;

/// Processes wait for a tenth of the time. Without `CAP_SYS_RESOURCE` the kernel takes only whole multiples of
/// two seconds as window (`psi_trigger_create`, kernel/sched/psi.c).
const STALL_TRIGGER: &str = "some 200000 2000000";

/// What tells of one VE. Ends when it is dropped.
#[derive(Debug)]
pub struct MemoryStrain {
    sources: Vec<Source>,
}

#[derive(Debug)]
struct Source {
    descriptor: OwnedFd,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// An event counter.
    Counter,
    /// A control file that says when it changed; it has to be read for the next change to be told.
    File,
    /// A PSI trigger.
    Stall,
}

/// What one descriptor had to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// The use passed a mark, or memory is being taken back.
    Use,
    /// Processes wait for memory.
    Stall,
}

impl MemoryStrain {
    /// The descriptors to poll, each with what to poll it for.
    pub fn descriptors(&self) -> impl Iterator<Item = (&OwnedFd, PollFlags)> {
        self.sources.iter().map(|source| {
            let flags = match source.kind {
                Kind::Counter => PollFlags::IN,
                Kind::File | Kind::Stall => PollFlags::PRI,
            };
            (&source.descriptor, flags)
        })
    }

    /// Takes what the descriptor at this place has told.
    #[must_use]
    pub fn take(&self, at: usize) -> Option<Told> {
        let source = self.sources.get(at)?;
        let mut buffer = [0; 512];
        match source.kind {
            Kind::Stall => return Some(Told::Stall),
            Kind::Counter => drop(rustix::io::read(&source.descriptor, &mut buffer[..8])),
            Kind::File => drop(rustix::io::pread(&source.descriptor, &mut buffer, 0)),
        }
        Some(Told::Use)
    }
}

impl VeGroup {
    /// Has the kernel tell when the VE's use of memory comes to these amounts, or when it has to take memory
    /// back from it.
    ///
    /// On v1 each amount takes a grace period of RCU, ten milliseconds, and more on a busy machine. cgroup2 knows
    /// no amounts but those of [`VeGroup::slow_memory`].
    ///
    /// # Errors
    /// When the VE has no group, or the kernel refuses. A kernel without PSI tells the rest.
    pub fn memory_strain(&self, marks: &[u64]) -> Result<MemoryStrain, UsageError> {
        let refused = |source| UsageError {
            ve: self.ve,
            source,
        };
        let mut sources = Vec::new();
        match self.inner.directory(Controller::Memory) {
            Some((directory, Home::V1(_))) => {
                let counter = self.counter(directory, marks).map_err(refused)?;
                sources.push(Source {
                    descriptor: counter,
                    kind: Kind::Counter,
                });
            }
            Some((directory, Home::V2)) => {
                let events = directory.open_file(&self.file("memory.events"), OFlags::RDONLY);
                sources.push(Source {
                    descriptor: events.map_err(refused)?,
                    kind: Kind::File,
                });
            }
            None => {}
        }
        sources.extend(self.stall_trigger().map(|descriptor| Source {
            descriptor,
            kind: Kind::Stall,
        }));
        Ok(MemoryStrain { sources })
    }

    /// From which use on the VE is slowed down, so that whoever listens has time: on cgroup2 only, where the
    /// kernel kills within some milliseconds otherwise.
    ///
    /// # Errors
    /// When the VE has no group.
    pub fn slow_memory(&self, from: Option<u64>) -> Result<(), UsageError> {
        let Some((directory, Home::V2)) = self.inner.directory(Controller::Memory) else {
            return Ok(());
        };
        let value = from.map_or_else(|| "max".to_owned(), |from| from.to_string());
        let written = directory.write(&self.file("memory.high"), &value);
        written.map_err(|source| UsageError {
            ve: self.ve,
            source,
        })
    }

    /// Memory that the VE uses and the kernel cannot take back without swapping or killing: all but the
    /// pages of files. With it all that it uses.
    ///
    /// # Errors
    /// When the VE has no group.
    pub fn memory_in_use(&self) -> Result<(u64, u64), UsageError> {
        let refused = |source| UsageError {
            ve: self.ve,
            source,
        };
        let Some((directory, home)) = self.inner.directory(Controller::Memory) else {
            return Ok((0, 0));
        };
        let all = self.memory_usage()?;
        let stat = directory.read(&self.file("memory.stat")).map_err(refused)?;
        let prefix = if home == Home::V2 { "" } else { "total_" };
        let pages =
            |which: &str| keyed(&stat, &format!("{prefix}{which}_file")).unwrap_or_default();
        let reclaimable = pages("active") + pages("inactive");
        Ok((all.saturating_sub(reclaimable), all))
    }

    fn counter(&self, directory: &Directory, marks: &[u64]) -> Result<OwnedFd, FileError> {
        let control = self.file("cgroup.event_control");
        let path = directory.path().join(&control);
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let event = eventfd(0, flags).map_err(|errno| failure("watch", path.clone(), errno))?;
        let request = |file: BorrowedFd<'_>, words: &str| {
            let request = format!("{} {} {words}", event.as_raw_fd(), file.as_raw_fd());
            let mut file = std::fs::File::from(directory.open_file(&control, OFlags::WRONLY)?);
            file.write_all(request.as_bytes())
                .map_err(|source| FileError {
                    action: "write a watch to".to_owned(),
                    path: path.clone(),
                    source,
                })
        };
        let open = |name: &str| directory.open_file(&self.file(name), OFlags::RDONLY);
        request(open("memory.pressure_level")?.as_fd(), "low")?;
        let usage = open(V1_USAGE)?;
        for bytes in marks {
            request(usage.as_fd(), &bytes.to_string())?;
        }
        Ok(event)
    }

    /// Not there on a kernel without PSI, nor where `cgroup.pressure` turned it off.
    fn stall_trigger(&self) -> Option<OwnedFd> {
        let v2 = self.inner.v2.as_ref()?;
        let flags = OFlags::RDWR | OFlags::NONBLOCK;
        let file = v2.open_file(&self.file("memory.pressure"), flags).ok()?;
        rustix::io::write(&file, STALL_TRIGGER.as_bytes()).ok()?;
        Some(file)
    }
}
