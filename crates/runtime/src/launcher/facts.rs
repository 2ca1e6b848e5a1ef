//! Writing a VE's own facts into its files: host name, addresses of others, keys, passwords.
//!
//! Runs in a process that is confined to the VE already, so a hostile tree (links that lead
//! outside, directories where files should be) can only hurt the VE itself. Each file is replaced
//! whole by a rename; what an earlier start wrote and nobody changes stays untouched.

use std::ffi::CString;
use std::fs;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::child::PATH;
use super::confine;
use super::step::{Step, failure};
use crate::protocol::{Failure, FailureKind};
use crate::seccomp::Profile;
use crate::spec::Facts;

const SHADOW: &str = "/etc/shadow";

/// Writes what `facts` holds.
///
/// # Errors
/// `Guest`, naming the file that could not be written.
pub(super) fn write(facts: &Facts) -> Result<(), Failure> {
    if let Some(name) = &facts.hostname {
        replace("/etc/hostname", &format!("{name}\n"), 0o644)?;
    }
    if let Some(hosts) = &facts.hosts {
        replace("/etc/hosts", hosts, 0o644)?;
    }
    if let Some(resolv) = &facts.resolv_conf {
        replace("/etc/resolv.conf", resolv, 0o644)?;
    }
    if let Some(machine) = &facts.machine_id {
        // systemd makes it read-only, and Debian's dbus links its own to it.
        replace("/etc/machine-id", &format!("{machine}\n"), 0o444)?;
    }
    if let Some(hash) = &facts.root_password_hash {
        set_root_password(hash)?;
    }
    if let Some(keys) = &facts.authorized_keys {
        make_private_directory("/root")?;
        make_private_directory("/root/.ssh")?;
        let lines: String = keys.iter().map(|key| format!("{}\n", key.trim())).collect();
        replace("/root/.ssh/authorized_keys", &lines, 0o600)?;
    }
    for (path, content) in &facts.files {
        replace(path, content, 0o600)?;
    }
    Ok(())
}

/// Runs the VE's own `ssh-keygen` where no systemd unit does it (see `masks`). A VE without an SSH
/// server stays without keys; a key that cannot be made is the VE's matter, as on any server.
pub(super) fn make_ssh_keys() {
    let has_server = Path::new("/etc/ssh/sshd_config").exists();
    if !has_server || !Path::new("/usr/bin/ssh-keygen").exists() {
        return;
    }
    for kind in ["ecdsa", "ed25519"] {
        let file = format!("/etc/ssh/ssh_host_{kind}_key");
        if !Path::new(&file).exists() {
            make_ssh_key(kind, &file);
        }
    }
}

/// Makes one key, in a child that has the same walls as the VE's own programs.
fn make_ssh_key(kind: &str, file: &str) {
    let words = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", file];
    let arguments: Vec<CString> = words
        .iter()
        .filter_map(|word| CString::new(*word).ok())
        .collect();
    let path = CString::new(format!("PATH={PATH}")).unwrap_or_default();
    let child = kernel::clone::spawn(&kernel::clone::Options::default(), || {
        if confine::drop_privileges(Profile::default()).is_ok()
            && kernel::signal::reset_all().is_ok()
        {
            let _ = kernel::execute::execute(c"/usr/bin/ssh-keygen", &arguments, &[path]);
        }
        1
    });
    if let Ok(child) = child {
        let _ = waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED);
    }
}

/// Sets the second field of root's line in `/etc/shadow`. A VE without that file has no passwords.
fn set_root_password(hash: &str) -> Result<(), Failure> {
    let metadata = match fs::symlink_metadata(SHADOW) {
        Ok(metadata) if metadata.is_file() => metadata,
        Ok(_) => {
            let message = "cannot set root's password: the VE's /etc/shadow is no plain file";
            return Err(failure(FailureKind::Guest, message));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).guest_step("look at the VE's /etc/shadow"),
    };
    let old = fs::read_to_string(SHADOW).guest_step("read the VE's /etc/shadow")?;
    let (owner, mode) = (
        shadow_group(&metadata),
        metadata.permissions().mode() & 0o777,
    );
    replace(SHADOW, &with_root_password(&old, hash), mode)?;
    std::os::unix::fs::chown(SHADOW, Some(0), Some(owner))
        .guest_step("give /etc/shadow back to its group")
}

fn shadow_group(metadata: &fs::Metadata) -> u32 {
    std::os::unix::fs::MetadataExt::gid(metadata)
}

/// `shadow` with root's password replaced; a line for root is added when there is none.
fn with_root_password(shadow: &str, hash: &str) -> String {
    let mut found = false;
    let mut lines: Vec<String> = Vec::new();
    for line in shadow.lines() {
        let mut fields: Vec<&str> = line.split(':').collect();
        if fields.first() == Some(&"root") && fields.len() > 1 {
            fields[1] = hash;
            found = true;
            lines.push(fields.join(":"));
        } else {
            lines.push(line.to_owned());
        }
    }
    if !found {
        lines.insert(0, format!("root:{hash}::0:99999:7:::"));
    }
    lines.join("\n") + "\n"
}

fn make_private_directory(path: &str) -> Result<(), Failure> {
    match fs::create_dir(path) {
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(0o700))
            .guest_step(format_args!("protect the VE's {path}")),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error).guest_step(format_args!("make the VE's {path}")),
    }
}

/// Replaces a file of the VE at once: readers see the old or the new one. A symbolic link at the
/// path itself is replaced by a file.
fn replace(path: &str, content: &str, mode: u32) -> Result<(), Failure> {
    // Looked at before it is read: a pipe there would be waited on for ever.
    if fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file())
        && fs::read(path).is_ok_and(|old| old == content.as_bytes())
    {
        return Ok(());
    }
    let temporary = format!("{path}.vessel-new");
    match write_aside(path, &temporary, content, mode) {
        // A VE that has used up its disk keeps the file it had: its owner must get in to clean up.
        Err(error) if is_full(&error) && Path::new(path).exists() => {
            let _ = fs::remove_file(&temporary);
            Ok(())
        }
        outcome => outcome.guest_step(format_args!("write the VE's {path}")),
    }
}

fn write_aside(path: &str, temporary: &str, content: &str, mode: u32) -> io::Result<()> {
    if let Some(directory) = Path::new(path).parent() {
        fs::create_dir_all(directory)?;
    }
    match fs::remove_file(temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(temporary)?;
    file.write_all(content.as_bytes())?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    fs::rename(temporary, path)
}

/// Whether the pool or the VE's part of it is used up.
fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_roots_password_and_nothing_else() {
        let old = "root:*:19000:0:99999:7:::\nwww-data:*:19000:0:99999:7:::\n";
        assert_eq!(
            with_root_password(old, "$6$x$y"),
            "root:$6$x$y:19000:0:99999:7:::\nwww-data:*:19000:0:99999:7:::\n"
        );
        assert_eq!(
            with_root_password("rooter:*::\n", "!"),
            "root:!::0:99999:7:::\nrooter:*::\n"
        );
        assert_eq!(with_root_password("", "!"), "root:!::0:99999:7:::\n");
    }
}
