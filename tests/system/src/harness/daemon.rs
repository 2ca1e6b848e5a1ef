//! The programs of a node under test: starting them, ending them in every way, and the start of its
//! machine anew.

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::machine::Place;
use crate::harness::node::{PATIENCE, program};
use crate::harness::{Node, machine, service, until};

impl Node {
    /// Starts the daemon and waits for its socket.
    pub(crate) fn start_daemon(&mut self) -> Result<()> {
        if self.place == Place::Machine {
            return service::start();
        }
        let log = self.place.folder().join("vesseld.log");
        let file = File::options().create(true).append(true).open(&log);
        let file = file.with_context(|| format!("cannot write {}", log.display()))?;
        let errors = file.try_clone().context("cannot write the log twice")?;
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.place.network_namespace()))
            .arg("--");
        command
            .arg(program("vesseld"))
            .arg("--root")
            .arg(self.root());
        command
            .env_remove("VESSEL_ROOT")
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors);
        self.daemon = Some(command.spawn().context("cannot run `nsenter`")?);
        let socket = self.root().join("vessel.sock");
        let daemon = self.daemon.as_mut().context("there is no daemon")?;
        let ask = || {
            let connected = UnixStream::connect(&socket).is_ok();
            let ended = daemon.try_wait().context("cannot look at the daemon")?;
            Ok((connected, ended))
        };
        let (connected, ended) =
            until("the daemon listens", PATIENCE, ask, |(connected, ended)| {
                *connected || ended.is_some()
            })?;
        ensure!(
            connected,
            "the daemon ended with {ended:?}:\n{}",
            self.story()
        );
        Ok(())
    }

    /// Kills the daemon as a crash would. A service manager starts it again.
    pub(crate) fn kill_daemon(&mut self) -> Result<()> {
        if self.place == Place::Machine {
            return service::kill();
        }
        let mut daemon = self.daemon.take().context("there is no daemon to kill")?;
        daemon.kill().context("cannot kill the daemon")?;
        daemon.wait().context("cannot wait for the daemon")?;
        Ok(())
    }

    /// Begins a command of the command line, of which nobody hears.
    pub(crate) fn begin(&self, arguments: &[&str]) -> Result<Child> {
        self.command(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run `vessel`")
    }

    /// Begins a command of the command line, kills the daemon after a while, and starts it again.
    pub(crate) fn cut_off(&mut self, arguments: &[&str], after: Duration) -> Result<()> {
        let mut running = self.begin(arguments)?;
        std::thread::sleep(after);
        self.kill_daemon()?;
        running.wait()?;
        self.start_daemon()
    }

    /// Asks the daemon to end and waits for it.
    pub(crate) fn stop_daemon(&mut self) -> Result<()> {
        if self.place == Place::Machine {
            return service::stop();
        }
        let mut daemon = self.daemon.take().context("there is no daemon to stop")?;
        let pid = Pid::from_child(&daemon);
        kill_process(pid, Signal::TERM).context("cannot signal the daemon")?;
        let code = || daemon.try_wait().map_err(anyhow::Error::from);
        until("the daemon ends", PATIENCE, code, Option::is_some)?;
        Ok(())
    }

    /// Number of the daemon's process.
    pub(crate) fn daemon_pid(&self) -> Result<i32> {
        if self.place == Place::Machine {
            return service::main_pid();
        }
        let daemon = self.daemon.as_ref().context("there is no daemon")?;
        Ok(Pid::from_child(daemon).as_raw_nonzero().get())
    }

    /// Number of the launcher's process.
    pub(crate) fn launcher_pid(&self) -> Result<i32> {
        let found = self.running("vessel-launcher").first().copied();
        found.with_context(|| format!("no launcher runs for {}", self.root().display()))
    }

    /// Numbers of the processes that run one of the node's programs.
    pub(crate) fn running(&self, program: &str) -> Vec<i32> {
        let root = self.root().display().to_string();
        let runs = |pid: &Pid| {
            let folder = format!("/proc/{}", pid.as_raw_nonzero());
            let name = fs::read_to_string(format!("{folder}/comm")).unwrap_or_default();
            let line = fs::read(format!("{folder}/cmdline")).unwrap_or_default();
            // The kernel keeps 15 bytes of a program's name.
            name.trim() == program && String::from_utf8_lossy(&line).contains(&root)
        };
        let found = machine::all_processes().into_iter().filter(runs);
        found.map(|pid| pid.as_raw_nonzero().get()).collect()
    }

    /// What each thread of the node's programs is doing in the kernel, for a test that waited in vain.
    pub(super) fn waits(&self) -> String {
        let programs = [
            "vesseld",
            "vessel-launcher",
            "vessel-procview",
            "criu",
            "ld-linux-x86-64",
        ];
        let running = programs.iter().flat_map(|program| self.running(program));
        let folders = running.map(|pid| format!("/proc/{pid}/task"));
        let threads = folders.flat_map(|folder| fs::read_dir(folder).into_iter().flatten());
        let told = threads.flatten().map(|thread| {
            let read = |name: &str| {
                let text = fs::read_to_string(thread.path().join(name)).unwrap_or_default();
                let lines: Vec<&str> = text.lines().take(6).map(str::trim).collect();
                lines.join(" < ")
            };
            let path = thread.path();
            let (name, call, stack) = (read("comm"), read("syscall"), read("stack"));
            let call = call.split(' ').next().unwrap_or_default();
            format!("  {} {name}: system call {call}: {stack}", path.display())
        });
        told.collect::<Vec<_>>().join("\n")
    }

    /// Kills the launcher as a crash would.
    pub(crate) fn kill_launcher(&self) -> Result<()> {
        let launcher = Pid::from_raw(self.launcher_pid()?).context("no launcher")?;
        kill_process(launcher, Signal::KILL).context("cannot kill the launcher")
    }

    /// Waits for a daemon that ends by itself.
    pub(crate) fn await_daemon_end(&mut self) -> Result<()> {
        if self.place == Place::Machine {
            return service::expect_ended();
        }
        let mut daemon = self.daemon.take().context("there is no daemon")?;
        let code = || daemon.try_wait().map_err(anyhow::Error::from);
        until("the daemon ends", PATIENCE, code, Option::is_some)?;
        Ok(())
    }

    /// Lets daemons find a variable in their environment from now on, or none of that name.
    pub(crate) fn give_daemon(&mut self, name: &str, value: &str) -> Result<()> {
        self.environment.retain(|(other, _)| other != name);
        if !value.is_empty() {
            self.environment.push((name.to_owned(), value.to_owned()));
        }
        self.kill_daemon()?;
        self.start_daemon()
    }

    /// Starts a daemon that must refuse; returns what it said.
    pub(crate) fn daemon_refuses(&mut self) -> Result<String> {
        let log = self.place.folder().join("vesseld.log");
        let before = fs::read_to_string(&log).unwrap_or_default().len();
        let started = self.start_daemon();
        ensure!(started.is_err(), "a daemon that had to refuse runs");
        self.daemon = None;
        let said = fs::read_to_string(&log).context("it said nothing")?;
        Ok(said[before..].to_owned())
    }

    /// Ends every process of a node whose daemon has ended.
    pub(crate) fn end_all(&self) -> Result<()> {
        ensure!(self.daemon.is_none(), "the daemon runs");
        self.place.end_processes();
        Ok(())
    }

    /// The loop device under the node's pool.
    pub(crate) fn pool_device(&self) -> Result<String> {
        let root = self.root().display().to_string();
        let found = machine::loop_devices(&root).into_iter().next();
        found.context("the pool has no loop device")
    }

    /// Cuts the power of the node's machine and starts it anew, as far as one can who keeps the
    /// machine: every process, mount, link, group and filter of the node is gone at once.
    pub(crate) fn cut_power(&mut self) -> Result<()> {
        self.kill_daemon()?;
        self.end_all()?;
        self.inside(&["nft", "flush", "ruleset"])?.success()?;
        self.start_daemon()
    }
}
