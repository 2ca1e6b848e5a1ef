//! Running a command of the administrator's.
//!
//! It is run as root, by its absolute path, without a shell, in `/`. The message is in its environment
//! (`VESSEL_ALERT_ID`, `_SUBJECT`, `_TEXT`) and as JSON at its standard input.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};

use tokio::io::AsyncWriteExt;

use crate::{Message, SEND_TIMEOUT};

/// How much of what a failed command said is told.
const WORDS_BYTES_MAX: usize = 500;

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The program's absolute path.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
}

/// Why a command did not take a message.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It is not an absolute path.
    #[error("`{}` is no absolute path of a program", .0.display())]
    Relative(PathBuf),
    /// It cannot be run.
    #[error("{} cannot be run", program.display())]
    Run {
        /// Which program.
        program: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// It failed.
    #[error("{} ended with {status}: {words}", program.display())]
    Failed {
        /// Which program.
        program: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// The last of what it said.
        words: String,
    },
    /// It took too long and was killed.
    #[error("{} was killed: it ran for more than 30 s", .0.display())]
    Slow(PathBuf),
}

impl Command {
    /// Checks the path.
    ///
    /// # Errors
    /// Refuses one that depends on where it is run.
    pub fn check(&self) -> Result<(), CommandError> {
        match self.program.is_absolute() {
            true => Ok(()),
            false => Err(CommandError::Relative(self.program.clone())),
        }
    }

    /// Runs it with a message, and comes back when it has ended well.
    ///
    /// # Errors
    /// When it cannot be run, fails, or takes more than [`SEND_TIMEOUT`].
    pub async fn send(&self, message: &Message) -> Result<(), CommandError> {
        self.check()?;
        let slow = |_| CommandError::Slow(self.program.clone());
        tokio::time::timeout(SEND_TIMEOUT, self.run(message))
            .await
            .map_err(slow)?
    }

    async fn run(&self, message: &Message) -> Result<(), CommandError> {
        let failed = |source| CommandError::Run {
            program: self.program.clone(),
            source,
        };
        let mut child = tokio::process::Command::new(&self.program)
            .args(&self.arguments)
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("VESSEL_ALERT_ID", &message.id)
            .env("VESSEL_ALERT_SUBJECT", &message.subject)
            .env("VESSEL_ALERT_TEXT", &message.text)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        if let Some(mut input) = child.stdin.take() {
            let text = format!("{}\n", message.json);
            // One that does not want it reads nothing.
            let _ = input.write_all(text.as_bytes()).await;
        }
        let output = child.wait_with_output().await.map_err(failed)?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let words: Vec<char> = said.trim().chars().collect();
        let last = words.len().saturating_sub(WORDS_BYTES_MAX);
        Err(CommandError::Failed {
            program: self.program.clone(),
            status: output.status,
            words: words[last..].iter().collect(),
        })
    }
}
