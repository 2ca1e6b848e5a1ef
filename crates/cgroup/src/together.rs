//! The memory of all VEs of a node together: what they may use, what of it is protected, and hearing of it
//! when they come near.

use std::io::Write as _;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::OFlags;

use crate::error::FileError;
use crate::files::failure;
use crate::layout::{Controller, Home};
use crate::limits::{Refusal, V1_USAGE, bound};
use crate::node::NodeGroup;

/// Who keeps the guaranteed memory of a VE from being taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Protection {
    /// The kernel (`memory.min`).
    Kernel,
    /// The kernel, but for what is said.
    KernelExcept(String),
    /// Nobody but whoever holds the other VEs back, with [`crate::VeGroup::cap_memory`]: v1 has no such limit.
    Nobody,
    /// There is no memory controller.
    Missing,
}

impl NodeGroup {
    /// Bounds what all VEs use together, and protects `guaranteed_bytes` of it, as far as the kernel can.
    /// Memory beyond the bound is taken back first, which may take seconds.
    ///
    /// # Errors
    /// [`Refusal::MemoryInUse`] when the kernel cannot take so much back; the bound is as before then.
    pub fn divide_memory(&self, for_ves_bytes: u64, guaranteed_bytes: u64) -> Result<(), Refusal> {
        let Some((directory, home)) = self.inner().directory(Controller::Memory) else {
            return Ok(());
        };
        if home == Home::V2 {
            directory.write(Path::new("memory.min"), &guaranteed_bytes.to_string())?;
        }
        bound(directory, home, Path::new("."), Some(for_ves_bytes))
    }

    /// What all VEs use together.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn memory_usage(&self) -> Result<u64, FileError> {
        let Some((directory, home)) = self.inner().directory(Controller::Memory) else {
            return Ok(0);
        };
        let name = if home == Home::V2 {
            "memory.current"
        } else {
            V1_USAGE
        };
        let text = directory.read(Path::new(name))?;
        Ok(text.trim().parse().unwrap_or(u64::MAX))
    }

    /// A descriptor that becomes readable when all VEs together begin to use more than one of `amounts`, or
    /// less again; `None` on cgroup2, which tells nobody. It lasts until it is closed.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn memory_watch(&self, amounts: &[u64]) -> Result<Option<OwnedFd>, FileError> {
        let Some((directory, Home::V1(_))) = self.inner().directory(Controller::Memory) else {
            return Ok(None);
        };
        let control = Path::new("cgroup.event_control");
        let refused = |errno| failure("watch", directory.path().join(control), errno);
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let event = eventfd(0, flags).map_err(refused)?;
        let usage = directory.open_file(Path::new(V1_USAGE), OFlags::RDONLY)?;
        for bytes in amounts {
            let request = format!("{} {} {bytes}", event.as_raw_fd(), usage.as_raw_fd());
            let mut file = std::fs::File::from(directory.open_file(control, OFlags::WRONLY)?);
            file.write_all(request.as_bytes())
                .map_err(|source| FileError {
                    action: "write a watch to".to_owned(),
                    path: directory.path().join(control),
                    source,
                })?;
        }
        Ok(Some(event))
    }

    /// Who protects what VEs are guaranteed of memory on this host.
    #[must_use]
    pub fn memory_protection(&self) -> Protection {
        let inner = self.inner();
        match inner.directory(Controller::Memory) {
            None => Protection::Missing,
            Some((_, Home::V1(_))) => Protection::Nobody,
            Some((_, Home::V2)) => match inner.layout.unified() {
                Some(unified) if !unified.protects_below => Protection::KernelExcept(
                    "cgroup2 is mounted without `memory_recursiveprot`, so what a VE's own services \
                     use is not protected"
                        .to_owned(),
                ),
                Some(unified) if unified.delegated => unprotected_above(unified)
                    .map_or(Protection::Kernel, Protection::KernelExcept),
                _ => Protection::Kernel,
            },
        }
    }
}

/// Whether a group above the delegated one leaves it unprotected: protection is the least of all above.
fn unprotected_above(unified: &crate::layout::Unified) -> Option<String> {
    let above = unified
        .base
        .ancestors()
        .take_while(|group| **group != *unified.mount_point);
    for group in above {
        let minimum = std::fs::read_to_string(group.join("memory.min")).ok()?;
        if minimum.trim() == "0" {
            return Some(format!(
                "{} has no `memory.min`, so other services can take the memory; set `MemoryMin=` in that unit",
                group.display()
            ));
        }
    }
    None
}
