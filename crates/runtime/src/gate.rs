//! What CRIU runs at the turning points of its work (its action script, criu(8)): it asks the daemon
//! whether the work may be completed.
//!
//! ```text
//! CRIU, a dump                              this            daemon
//!   all images written ------ post-dump --> asks ---------> makes the checkpoint valid
//!   ends the processes <------------------- 0 <------------ go
//!   lets them run on  <-------------------- 1 <------------ no, or the daemon is gone
//!
//! CRIU, a restore
//!   all made, none ran yet -- pre-resume -> asks ---------> connects the VE
//!                                           marks the checkpoint as spent <-- go
//!   lets them go on <---------------------- 0
//!   (killed) <----- ends their init, and CRIU <------------ no, or the daemon is gone
//! ```
//!
//! So a VE is in one place at any time: its processes end only once a whole checkpoint is on disk,
//! and none goes on before the checkpoint is marked as spent, whoever dies in between. CRIU has no
//! other place where it can be stopped without harm: what it does to processes while it looks at
//! them is undone by itself alone.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, getppid, kill_process};

/// Variable with the path of the daemon's socket; CRIU passes it on.
pub const GATE_VARIABLE: &str = "VESSEL_GATE";
/// Name of a file in a checkpoint whose VE was woken: it is of no use any more.
pub const SPENT: &str = "spent";
/// What the daemon answers when the work may be completed.
pub const GO: u8 = b'+';

/// What CRIU calls the turning points.
const POST_DUMP: &str = "post-dump";
const PRE_RESUME: &str = "pre-resume";

/// What CRIU says to its script, in variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    action: String,
    images: PathBuf,
    init: Option<i32>,
}

impl Question {
    /// What this process was run for, if CRIU ran it.
    #[must_use]
    pub fn of_criu() -> Option<Self> {
        let variable = std::env::var_os;
        Some(Self {
            action: variable("CRTOOLS_SCRIPT_ACTION")?.into_string().ok()?,
            images: PathBuf::from(variable("CRTOOLS_IMAGE_DIR").unwrap_or_default()),
            init: variable("CRTOOLS_INIT_PID").and_then(|text| text.to_str()?.parse().ok()),
        })
    }

    /// Asks the daemon, where there is something to ask; returns the code for CRIU.
    #[must_use]
    pub fn ask(&self) -> u8 {
        let waking = match self.action.as_str() {
            POST_DUMP => false,
            PRE_RESUME => true,
            _ => return 0,
        };
        let asked = self.exchange();
        match if waking {
            asked.and_then(|()| mark(&self.images))
        } else {
            asked
        } {
            Ok(()) => 0,
            Err(_) => {
                if waking {
                    self.stop_waking();
                }
                1
            }
        }
    }

    /// CRIU would let them go on all the same. Their init first: what CRIU holds goes on when it dies.
    /// And CRIU, too: it would wait for the init, which waits for processes that CRIU holds.
    fn stop_waking(&self) {
        if let Some(init) = self.init.and_then(Pid::from_raw) {
            let _ = kill_process(init, Signal::KILL);
        }
        if let Some(criu) = getppid().filter(|_| self.init.is_some()) {
            let _ = kill_process(criu, Signal::KILL);
        }
    }

    fn exchange(&self) -> io::Result<()> {
        let path = std::env::var_os(GATE_VARIABLE).unwrap_or_default();
        let mut daemon = UnixStream::connect(PathBuf::from(path))?;
        writeln!(daemon, "{}", self.init.unwrap_or(0))?;
        let mut answer = [0];
        daemon.read_exact(&mut answer)?;
        if answer == [GO] {
            Ok(())
        } else {
            Err(io::ErrorKind::PermissionDenied.into())
        }
    }
}

/// Marks the checkpoint in this folder, on disk.
fn mark(images: &Path) -> io::Result<()> {
    File::create(images.join(SPENT))?.sync_all()?;
    File::open(images)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_moments_are_nobodys_business() {
        for action in ["network-lock", "post-restore", ""] {
            let question = Question {
                action: action.to_owned(),
                images: PathBuf::new(),
                init: None,
            };
            assert_eq!(question.ask(), 0, "{action}");
        }
    }

    #[test]
    fn without_a_daemon_the_answer_is_no() {
        let folder = tempfile::tempdir().unwrap();
        for action in [POST_DUMP, PRE_RESUME] {
            let question = Question {
                action: action.to_owned(),
                images: folder.path().to_owned(),
                init: None,
            };
            assert_eq!(question.ask(), 1, "{action}");
            assert!(!folder.path().join(SPENT).exists());
        }
    }
}
