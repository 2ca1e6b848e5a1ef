//! Freezing and thawing a VE.
//!
//! cgroup2 freezes wherever it is mounted, also on a hybrid host, where it has no controllers: it
//! says when it is done by an event, frozen processes can still be killed, and CRIU works on them.
//! The v1 freezer, for pure v1, has to be asked again and again.

use std::time::{Duration, Instant};

use crate::error::{FileError, FreezeError};
use crate::files::Directory;
use crate::group::VeGroup;
use crate::layout::Controller;
use crate::wait;

/// How often the v1 freezer is asked. It freezes in half a millisecond, or misses a process that is
/// just forking and wants to be told again.
const V1_PAUSE: Duration = Duration::from_millis(1);

impl VeGroup {
    /// Stops all processes of the VE, and waits until all are stopped. One that is frozen already is well.
    ///
    /// # Errors
    /// [`FreezeError::Timeout`] when one does not stop in `timeout`; then the VE is thawed again.
    pub fn freeze(&self, timeout: Duration) -> Result<(), FreezeError> {
        let refused = |source| FreezeError::File {
            ve: self.ve,
            source,
        };
        let start = Instant::now();
        let frozen = if let Some(v2) = &self.inner.v2 {
            v2.write(&self.file("cgroup.freeze"), "1")
                .map_err(refused)?;
            let events = self.file("cgroup.events");
            wait::for_event(v2, &events, "frozen", 1, timeout).map_err(refused)?
        } else {
            self.freeze_v1(self.freezer()?, timeout).map_err(refused)?
        };
        if frozen {
            return Ok(());
        }
        let reason = self.who_resists();
        self.write_thaw().map_err(refused)?;
        Err(FreezeError::Timeout {
            ve: self.ve,
            waited: start.elapsed(),
            reason,
        })
    }

    /// Lets all processes of the VE go on. One that is not frozen is well.
    ///
    /// # Errors
    /// When the kernel refuses, or does not do it in `timeout`.
    pub fn thaw(&self, timeout: Duration) -> Result<(), FreezeError> {
        let refused = |source| FreezeError::File {
            ve: self.ve,
            source,
        };
        let start = Instant::now();
        loop {
            // Each time: whoever else froze it meanwhile does not undo that.
            self.write_thaw().map_err(refused)?;
            if !self.is_frozen()? {
                return Ok(());
            }
            if start.elapsed() >= timeout {
                return Err(FreezeError::StillFrozen {
                    ve: self.ve,
                    waited: start.elapsed(),
                });
            }
            std::thread::sleep(V1_PAUSE);
        }
    }

    /// Whether the VE is frozen, all of it.
    ///
    /// # Errors
    /// When the VE has no group.
    pub fn is_frozen(&self) -> Result<bool, FreezeError> {
        let refused = |source| FreezeError::File {
            ve: self.ve,
            source,
        };
        if let Some(v2) = &self.inner.v2 {
            return Ok(self.keyed(v2, "cgroup.events", "frozen").map_err(refused)? == 1);
        }
        let state = self
            .freezer()?
            .read(&self.file("freezer.state"))
            .map_err(refused)?;
        Ok(state.trim() == "FROZEN")
    }

    pub(crate) fn write_thaw(&self) -> Result<(), FileError> {
        if let Some(v2) = &self.inner.v2 {
            return v2.write(&self.file("cgroup.freeze"), "0");
        }
        match self.inner.directory(Controller::Freezer) {
            Some((directory, _)) => directory.write(&self.file("freezer.state"), "THAWED"),
            None => Ok(()),
        }
    }

    fn freezer(&self) -> Result<&Directory, FreezeError> {
        let freezer = self.inner.directory(Controller::Freezer);
        freezer
            .map(|(directory, _)| directory)
            .ok_or(FreezeError::Unsupported { ve: self.ve })
    }

    fn freeze_v1(&self, freezer: &Directory, timeout: Duration) -> Result<bool, FileError> {
        let start = Instant::now();
        let file = self.file("freezer.state");
        loop {
            freezer.write(&file, "FROZEN")?;
            if freezer.read(&file)?.trim() == "FROZEN" {
                return Ok(true);
            }
            if start.elapsed() >= timeout {
                return Ok(false);
            }
            std::thread::sleep(V1_PAUSE);
        }
    }

    /// Names a process in uninterruptible sleep, which is what resists.
    fn who_resists(&self) -> String {
        let list = self.process_list().unwrap_or_default();
        let waiting = list.into_iter().find(|pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit_once(')')
                .is_some_and(|(_, rest)| rest.trim_start().starts_with('D'))
        });
        match waiting {
            Some(pid) => {
                let name = kernel::proc::program_name(pid).unwrap_or_default();
                format!("`{name}` (pid {pid}) waits for a device or a network file system")
            }
            None => "its processes did not stop in time".to_owned(),
        }
    }
}
