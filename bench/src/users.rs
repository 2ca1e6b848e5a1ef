//! A range of user ids as a user namespace, for idmapped mounts and for acting as its root.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use kernel::clone::{Child, Options, namespaces, spawn};
use rustix::process::{Gid, Signal, Uid, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use rustix::thread::CapabilitiesSecureBits;

/// Ids in a range: those that an unmodified distribution uses.
pub const COUNT: u32 = 65_536;

/// Gives the user namespace of a new process the range that begins at `base`.
///
/// # Errors
/// What the kernel says; `EPERM` without the right to set another's ids.
pub fn map(pid: u32, base: u32) -> Result<()> {
    let text = format!("0 {base} {COUNT}");
    for name in ["gid_map", "uid_map"] {
        let path = format!("/proc/{pid}/{name}");
        fs::write(&path, &text).with_context(|| format!("cannot write {path}"))?;
    }
    Ok(())
}

/// A user namespace with this range and no process in it.
///
/// # Errors
/// What the kernel says; `EDEADLK` in a program that has threads already.
pub fn namespace(base: u32) -> Result<OwnedFd> {
    let options = Options {
        namespaces: namespaces::USER,
        ..Options::default()
    };
    let holder = spawn(&options, || {
        // Until it is killed, below.
        loop {
            std::thread::park();
        }
    })
    .context("cannot make a user namespace")?;
    let found = map(holder.pid, base)
        .and_then(|()| kernel::pidfd::user_namespace(&holder.pidfd).context("no user namespace"));
    end(&holder);
    found
}

/// Kills a child and reaps it.
pub fn end(child: &Child) {
    let _ = pidfd_send_signal(&child.pidfd, Signal::KILL);
    let _ = waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED);
}

/// Does something with the ids that the root of a range has outside, and with all capabilities.
///
/// # Errors
/// What setresuid(2) says.
pub fn as_root_of<T>(base: u32, work: impl FnOnce() -> T) -> Result<T> {
    let bits = rustix::thread::capabilities_secure_bits()?;
    rustix::thread::set_capabilities_secure_bits(bits | CapabilitiesSecureBits::NO_SETUID_FIXUP)?;
    set_effective(base)?;
    let result = work();
    set_effective(0)?;
    Ok(result)
}

fn set_effective(id: u32) -> Result<()> {
    rustix::thread::set_thread_res_gid(None::<Gid>, Gid::from_raw(id), None::<Gid>)?;
    rustix::thread::set_thread_res_uid(None::<Uid>, Uid::from_raw(id), None::<Uid>)?;
    Ok(())
}
