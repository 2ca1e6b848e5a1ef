//! Which device nodes a VE may open, and the two ways to say so.
//!
//! The VE's own /dev has only nodes that the launcher made, and a user namespace makes none, so this
//! is the second fence: a node that comes in with a file system or by a mistake opens nothing.

use std::os::fd::AsFd;
use std::sync::OnceLock;

use kernel::device_program::{self, DeviceKind, DeviceProgram, DeviceProgramError, DeviceRule};

use crate::error::CreateError;
use crate::files::Directory;
use crate::group::VeGroup;
use crate::layout::{Controller, Home};

/// One row of the table: what is allowed, and why.
#[derive(Clone, Copy, Debug)]
pub struct AllowedDevice {
    /// The node's name below /dev.
    pub name: &'static str,
    /// The device.
    pub rule: DeviceRule,
    /// Why a VE may have it.
    pub reason: &'static str,
}

const fn character(
    name: &'static str,
    major: u32,
    minor: Option<u32>,
    make_node: bool,
    reason: &'static str,
) -> AllowedDevice {
    let rule = DeviceRule {
        kind: DeviceKind::Character,
        major,
        minor,
        make_node,
    };
    AllowedDevice { name, rule, reason }
}

/// What every VE may open (numbers: the kernel's `devices.txt`). Nodes may be made of those that
/// the launcher makes; with a real device none may.
///
/// Not here: `console` (5:1) is the host's own console; a VE's `/dev/console` is a terminal of
/// `pts`. `kmsg` is the host's log. No block device, no `mem`, no `hpet`, no `rtc`.
pub const ALLOWED: [AllowedDevice; 10] = [
    character("null", 1, Some(3), true, "holds no state"),
    character("zero", 1, Some(5), true, "holds no state"),
    character("full", 1, Some(7), true, "holds no state"),
    character("random", 1, Some(8), true, "reading costs others nothing"),
    character("urandom", 1, Some(9), true, "reading costs others nothing"),
    character(
        "tty",
        5,
        Some(0),
        true,
        "stands for the process's own terminal",
    ),
    character(
        "ptmx",
        5,
        Some(2),
        true,
        "makes terminals in the VE's own devpts",
    ),
    character(
        "pts/*",
        136,
        None,
        false,
        "terminals of the VE's own devpts, and its console",
    ),
    character(
        "fuse",
        10,
        Some(229),
        true,
        "file systems in the VE's own user namespace",
    ),
    character(
        "net/tun",
        10,
        Some(200),
        true,
        "tunnels in the VE's own network namespace",
    ),
];

/// The table as the two versions want it. The BPF program is loaded once per node, at first use.
#[derive(Debug)]
pub(crate) struct DeviceTable {
    pub(crate) rules: Vec<DeviceRule>,
    program: OnceLock<DeviceProgram>,
}

impl DeviceTable {
    pub(crate) fn standard() -> Self {
        let rules = ALLOWED.iter().map(|device| device.rule).collect();
        Self {
            rules,
            program: OnceLock::new(),
        }
    }

    fn program(&self) -> Result<&DeviceProgram, DeviceProgramError> {
        if let Some(program) = self.program.get() {
            return Ok(program);
        }
        let program = DeviceProgram::load(&self.rules)?;
        Ok(self.program.get_or_init(|| program))
    }
}

impl VeGroup {
    pub(crate) fn restrict_devices(&self) -> Result<(), CreateError> {
        match self.inner.directory(Controller::Devices) {
            Some((directory, Home::V1(_))) => self.restrict_v1(directory),
            Some((directory, Home::V2)) => self.restrict_v2(directory),
            // No host with control groups is without either.
            None => Ok(()),
        }
    }

    fn restrict_v1(&self, directory: &Directory) -> Result<(), CreateError> {
        let refused = |source| CreateError::File {
            ve: self.ve,
            source,
        };
        // Between the two a running VE of that name would lack its devices: leave a list that is
        // right alone.
        let list = directory
            .read(&self.file("devices.list"))
            .map_err(refused)?;
        let wanted = &self.inner.devices.rules;
        let lines = list.lines().collect::<Vec<_>>();
        if lines.len() == wanted.len() && wanted.iter().all(|r| lines.contains(&&*v1_line(r))) {
            return Ok(());
        }
        directory
            .write(&self.file("devices.deny"), "a")
            .map_err(refused)?;
        for rule in wanted {
            directory
                .write(&self.file("devices.allow"), &v1_line(rule))
                .map_err(refused)?;
        }
        Ok(())
    }

    fn restrict_v2(&self, directory: &Directory) -> Result<(), CreateError> {
        let refused = |source| CreateError::Devices {
            ve: self.ve,
            source,
        };
        let group = directory
            .open_below(&self.below)
            .map_err(|source| CreateError::File {
                ve: self.ve,
                source,
            })?;
        if device_program::count_attached(group.as_fd()).map_err(refused)? > 0 {
            return Ok(());
        }
        let program = self.inner.devices.program().map_err(refused)?;
        program.attach(group.as_fd()).map_err(refused)
    }
}

/// A rule as `devices.allow` takes it and `devices.list` shows it.
pub(crate) fn v1_line(rule: &DeviceRule) -> String {
    let kind = match rule.kind {
        DeviceKind::Character => 'c',
        DeviceKind::Block => 'b',
    };
    let minor = rule
        .minor
        .map_or_else(|| "*".to_owned(), |minor| minor.to_string());
    format!(
        "{kind} {}:{minor} rw{}",
        rule.major,
        if rule.make_node { "m" } else { "" }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v1_lines() {
        let lines: Vec<_> = ALLOWED.iter().map(|device| v1_line(&device.rule)).collect();
        assert!(lines.contains(&"c 1:3 rwm".to_owned()));
        assert!(lines.contains(&"c 136:* rw".to_owned()));
    }

    #[test]
    fn nothing_of_the_host_is_in_the_table() {
        for device in ALLOWED {
            let rule = device.rule;
            assert_eq!(rule.kind, DeviceKind::Character, "{}", device.name);
            assert!(
                (rule.major, rule.minor) != (5, Some(1)),
                "the host's console"
            );
            assert!(
                (rule.major, rule.minor) != (1, Some(11)),
                "the host's kernel log"
            );
            assert!(!device.reason.is_empty());
        }
    }
}
