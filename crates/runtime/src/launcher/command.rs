//! A command of the node's administrator in a VE: user, terminal, environment, execution.
//!
//! Runs in the worker (see `exec`), so every file that is read here is the VE's own and may hold
//! anything: each is read up to a limit, never waited on, and believed only about the VE itself.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::pty::OpenptFlags;

use super::child::PATH;
use super::report::{Report, tell};
use super::step::{Step, failure};
use super::{confine, identity};
use crate::protocol::{Failure, FailureKind};
use crate::seccomp::Profile;
use crate::spec::{ExecSpec, WindowSize};

/// What is read of a VE's user database: ten thousand users fit many times.
const DATABASE_BYTES_MAX: u64 = 4 << 20;
/// Supplementary groups that a process may have (`NGROUPS_MAX`).
const GROUPS_MAX: usize = 65_536;
/// Major and minor number of `/dev/pts/ptmx`.
const PTMX_DEVICE: (u32, u32) = (5, 2);
/// `DEVPTS_SUPER_MAGIC` of the kernel's `include/uapi/linux/magic.h`.
const DEVPTS_MAGIC: u64 = 0x1cd1;

/// A user as the VE's files have it.
#[derive(Debug, PartialEq, Eq)]
struct User {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
    shell: String,
}

/// Runs as the worker; returns only when the command could not be executed.
pub(super) fn run(
    spec: &ExecSpec,
    profile: Profile,
    channel: BorrowedFd<'_>,
    streams: &[BorrowedFd<'_>],
) -> Result<(), Failure> {
    rustix::process::setsid().step("begin a session")?;
    let user = find_user(&spec.user)?;
    let groups = groups_of(&user);
    match (spec.terminal, streams) {
        (Some(size), _) => {
            let (master, slave) = open_terminal(size, &user)?;
            tell(channel, &Report::Terminal, &[master.as_fd()]).step("hand over the terminal")?;
            confine::use_streams([slave.as_fd(); 3])?;
        }
        (None, [input, output, error, ..]) => confine::use_streams([*input, *output, *error])?,
        (None, _) => {
            return Err(failure(
                FailureKind::Invalid,
                "the command lacks its streams",
            ));
        }
    }
    enter_directory(spec, &user)?;
    confine::limit_open_files(spec.open_files.0, spec.open_files.1)?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    kernel::signal::reset_all().step("reset signals")?;
    confine::drop_privileges(profile)?;
    identity::become_user(user.uid, user.gid, &groups)
        .guest_step(format_args!("become the VE's user {}", user.name))?;
    tell(channel, &Report::Executing, &[]).step("tell the launcher")?;
    Err(execute(spec, &user))
}

/// Opens a terminal of the VE's own devpts.
///
/// The VE's root may have put anything at this path, so what was opened is looked at: only the
/// multiplexer of a devpts makes terminals.
fn open_terminal(size: WindowSize, user: &User) -> Result<(OwnedFd, OwnedFd), Failure> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let flags = flags | OFlags::NONBLOCK;
    let master = rustix::fs::open("/dev/pts/ptmx", flags, Mode::empty())
        .guest_step("open the VE's /dev/pts/ptmx")?;
    let status = rustix::fs::fstat(&master).step("look at the VE's /dev/pts/ptmx")?;
    let system = rustix::fs::fstatfs(&master).step("look at the VE's /dev/pts/ptmx")?;
    let device = (
        rustix::fs::major(status.st_rdev),
        rustix::fs::minor(status.st_rdev),
    );
    if device != PTMX_DEVICE || u64::try_from(system.f_type) != Ok(DEVPTS_MAGIC) {
        let message = "the VE's /dev/pts/ptmx is not the kernel's: restart the VE";
        return Err(failure(FailureKind::Guest, message));
    }
    rustix::io::ioctl_fionbio(&master, false).step("open a terminal")?;
    rustix::pty::unlockpt(&master).step("open a terminal")?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).step("open a terminal")?;
    crate::task::resize_terminal(&slave, size).step("tell the terminal its size")?;
    rustix::fs::fchown(&slave, Some(Uid::from_raw(user.uid)), None::<Gid>)
        .guest_step(format_args!("give the terminal to {}", user.name))?;
    rustix::process::ioctl_tiocsctty(&slave).step("make the terminal the session's")?;
    Ok((master, slave))
}

fn enter_directory(spec: &ExecSpec, user: &User) -> Result<(), Failure> {
    match &spec.directory {
        Some(directory) => rustix::process::chdir(directory.as_str())
            .guest_step(format_args!("enter the VE's directory {directory}")),
        None => rustix::process::chdir(user.home.as_str())
            .or_else(|_| rustix::process::chdir("/"))
            .guest_step("enter the VE's root directory"),
    }
}

/// Executes the command as a shell would find it; tells why not.
fn execute(spec: &ExecSpec, user: &User) -> Failure {
    let shell = vec![user.shell.clone()];
    let command = if spec.command.is_empty() {
        &shell
    } else {
        &spec.command
    };
    let program = command[0].as_str();
    let zero = || {
        failure(
            FailureKind::Invalid,
            "the command or its environment has a zero byte",
        )
    };
    let mut arguments = command.clone();
    if spec.login || spec.command.is_empty() {
        let name = program.rsplit('/').next().unwrap_or(program);
        arguments[0] = format!("-{name}");
    }
    let environment = environment(spec, user);
    let path = environment
        .iter()
        .find_map(|v| v.strip_prefix("PATH="))
        .unwrap_or(PATH)
        .to_owned();
    let texts = |list: &[String]| -> Result<Vec<CString>, _> {
        list.iter()
            .map(|text| CString::new(text.as_str()))
            .collect()
    };
    let (Ok(arguments), Ok(environment)) = (texts(&arguments), texts(&environment)) else {
        return zero();
    };
    let candidates: Vec<String> = if program.contains('/') {
        vec![program.to_owned()]
    } else {
        path.split(':')
            .map(|directory| format!("{directory}/{program}"))
            .collect()
    };
    let mut denied = None;
    for candidate in candidates {
        let Ok(candidate) = CString::new(candidate) else {
            return zero();
        };
        let error = kernel::execute::execute(&candidate, &arguments, &environment);
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {}
            _ => denied = Some(error),
        }
    }
    match denied {
        Some(error) => failure(
            FailureKind::CommandNotExecutable,
            format!("`{program}` cannot be executed in the VE: {error}"),
        ),
        None => failure(
            FailureKind::CommandNotFound,
            format!("`{program}` was not found in the VE"),
        ),
    }
}

/// `KEY=VALUE` of a command; what was asked for replaces what is usual.
fn environment(spec: &ExecSpec, user: &User) -> Vec<String> {
    let mut usual = vec![
        ("HOME", user.home.as_str()),
        ("USER", &user.name),
        ("LOGNAME", &user.name),
        ("SHELL", &user.shell),
        ("PATH", PATH),
    ];
    if spec.terminal.is_some() {
        usual.push(("TERM", "xterm-256color"));
    }
    usual.retain(|(key, _)| spec.environment.iter().all(|(asked, _)| asked != key));
    let asked = spec
        .environment
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()));
    usual
        .into_iter()
        .chain(asked)
        .map(|(key, value)| format!("{key}={value}"))
        .collect()
}

/// Finds a user by name or number. Root and numbers need no database.
fn find_user(wanted: &str) -> Result<User, Failure> {
    let passwd = read_database("/etc/passwd").unwrap_or_default();
    if let Some(user) = user_in(&passwd, wanted) {
        return Ok(user);
    }
    let uid = if wanted == "root" {
        Some(0)
    } else {
        wanted.parse::<u32>().ok()
    };
    match uid {
        Some(uid) => Ok(User {
            name: wanted.to_owned(),
            uid,
            gid: uid,
            home: "/".to_owned(),
            shell: "/bin/sh".to_owned(),
        }),
        None => Err(failure(
            FailureKind::Guest,
            format!("the VE has no user `{wanted}`"),
        )),
    }
}

fn user_in(passwd: &str, wanted: &str) -> Option<User> {
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, shell, ..] = fields.as_slice() else {
            return None;
        };
        if *name != wanted && *uid != wanted {
            return None;
        }
        let or = |text: &str, usual: &str| {
            if text.is_empty() {
                usual.to_owned()
            } else {
                text.to_owned()
            }
        };
        Some(User {
            name: (*name).to_owned(),
            uid: uid.parse().ok()?,
            gid: gid.parse().ok()?,
            home: or(home, "/"),
            shell: or(shell, "/bin/sh"),
        })
    })
}

/// The user's own group and every group of `/etc/group` that lists it.
fn groups_of(user: &User) -> Vec<u32> {
    let group = read_database("/etc/group").unwrap_or_default();
    groups_in(&group, user)
}

fn groups_in(group: &str, user: &User) -> Vec<u32> {
    let mut groups = vec![user.gid];
    for line in group.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        let [_, _, gid, members] = fields.as_slice() else {
            continue;
        };
        if let Ok(gid) = gid.parse()
            && members.split(',').any(|member| member == user.name)
            && !groups.contains(&gid)
            && groups.len() < GROUPS_MAX
        {
            groups.push(gid);
        }
    }
    groups
}

/// Reads a plain file of the VE, at most [`DATABASE_BYTES_MAX`] of it.
fn read_database(path: &str) -> io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut text = Vec::new();
    file.take(DATABASE_BYTES_MAX).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nbroken\n\
                          www:x:33:33::/var/www:\nhuge:x:99999999999:1::/:/bin/sh\n";

    #[test]
    fn finds_users_by_name_and_number() {
        let www = user_in(PASSWD, "www").unwrap();
        assert_eq!((www.uid, www.shell.as_str()), (33, "/bin/sh"));
        assert_eq!(user_in(PASSWD, "33"), Some(www));
        assert_eq!(user_in(PASSWD, "huge"), None);
        assert_eq!(user_in(PASSWD, "broken"), None);
    }

    #[test]
    fn collects_groups_once_each() {
        let www = user_in(PASSWD, "www").unwrap();
        let group = "www:x:33:www\nssl:x:110:other,www\nx:x:no:www\nssl2:x:110:www\n";
        assert_eq!(groups_in(group, &www), [33, 110]);
    }

    #[test]
    fn what_was_asked_for_replaces_what_is_usual() {
        let spec = ExecSpec {
            command: Vec::new(),
            user: "root".to_owned(),
            environment: vec![("PATH".to_owned(), "/x".to_owned())],
            directory: None,
            login: false,
            terminal: None,
            open_files: crate::open_files(None),
        };
        let user = user_in(PASSWD, "root").unwrap();
        let variables = environment(&spec, &user);
        assert!(variables.contains(&"PATH=/x".to_owned()));
        assert_eq!(
            variables.iter().filter(|v| v.starts_with("PATH=")).count(),
            1
        );
        assert!(variables.contains(&"HOME=/root".to_owned()));
    }

    proptest! {
        #[test]
        fn no_database_panics(text in "\\PC*(:\\PC*){0,8}\n?", wanted in "\\PC*") {
            if let Some(user) = user_in(&text, &wanted) {
                let _ = groups_in(&text, &user);
            }
        }
    }
}
