//! The installed node as its administrator handles it: by systemd.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::harness::{command, until};

const UNIT: &str = "vesseld.service";
/// How long a unit may take to change its state.
const PATIENCE: Duration = Duration::from_secs(15);

/// Runs `systemctl`.
pub(crate) fn systemctl(words: &[&str]) -> Result<String> {
    command::run(Command::new("systemctl").args(words))?.success()
}

/// A property of a unit, as systemd shows it.
pub(crate) fn property(unit: &str, name: &str) -> Result<String> {
    let text = systemctl(&["show", "--property", name, "--value", unit])?;
    Ok(text.trim().to_owned())
}

/// Starts the node. It answers when this returns: the unit tells when it is ready.
pub(crate) fn start() -> Result<()> {
    systemctl(&["start", UNIT])?;
    Ok(())
}

/// Stops the daemon.
pub(crate) fn stop() -> Result<()> {
    systemctl(&["stop", UNIT])?;
    Ok(())
}

/// Stops the daemon of a failed test, whatever systemd thinks of it.
pub(crate) fn give_up() {
    let _ = stop();
    // One that failed too often would not start for the next test.
    let _ = systemctl(&["reset-failed"]);
}

/// Kills the daemon, and waits until systemd has started another.
pub(crate) fn kill() -> Result<()> {
    let before = main_pid()?;
    systemctl(&["kill", "--kill-whom=main", "--signal=KILL", UNIT])?;
    let ask = || Ok((property(UNIT, "ActiveState")?, main_pid()?));
    until(
        "systemd has started the daemon again",
        PATIENCE,
        ask,
        |(state, pid)| state == "active" && *pid != before,
    )?;
    Ok(())
}

/// Number of the daemon's process; 0 while there is none.
pub(crate) fn main_pid() -> Result<i32> {
    let text = property(UNIT, "MainPID")?;
    text.parse().with_context(|| format!("no pid: {text}"))
}

/// Waits until the daemon has ended well.
pub(crate) fn expect_ended() -> Result<()> {
    let state = || property(UNIT, "ActiveState");
    until("the unit has ended", PATIENCE, state, |state| {
        state == "inactive"
    })?;
    Ok(())
}

/// The end of its journal.
pub(crate) fn journal() -> String {
    let mut command = Command::new("journalctl");
    command.args(["--no-pager", "--output=cat", "--lines=15", "--unit", UNIT]);
    command::run(&mut command).map_or_else(|error| format!("{error:#}"), |output| output.stdout)
}
