//! Taking out of a tree what must not be shared by all VEs made from it.

use crate::manifest::FirstBoot;
use crate::path::MemberPath;
use crate::tree::{Body, Content, Tree};

/// Takes out a system's identity: what two VEs must never have in common. Gives what has to be made
/// anew for each VE, and notes of what was taken.
pub(crate) fn identity(tree: &mut Tree) -> (Vec<FirstBoot>, Vec<String>) {
    let (mut first_boot, mut notes) = (Vec::new(), Vec::new());
    // An empty file, not a missing one: systemd would take a missing one for the first boot of a
    // system not set up yet and reset all its units to their presets.
    if let Some(node) = tree.lookup(&path("/etc/machine-id"))
        && matches!(tree.body(node), Body::File(_))
    {
        if *tree.body(node) != empty() {
            notes.push("machine id of `/etc/machine-id` removed".to_owned());
            tree.set_body(node, empty());
        }
        first_boot.push(FirstBoot::MachineId);
    }
    for name in ["/var/lib/dbus/machine-id", "/var/lib/systemd/random-seed"] {
        // On Debian the first is a link to /etc/machine-id, which is right.
        let node = tree.lookup_no_follow(&path(name));
        if node.is_some_and(|node| matches!(tree.body(node), Body::File(_))) {
            tree.remove(&path(name));
            notes.push(format!("`{name}` removed"));
        }
    }
    let ssh = path("/etc/ssh");
    for name in tree.list(&ssh) {
        if name.starts_with(b"ssh_host_") {
            tree.remove(&ssh.join(&name));
            notes.push(format!(
                "host key `/etc/ssh/{}` removed",
                name.escape_ascii()
            ));
        }
    }
    let sshd = ["/usr/sbin/sshd", "/sbin/sshd", "/usr/bin/sshd"];
    if sshd
        .into_iter()
        .any(|name| tree.lookup(&path(name)).is_some())
    {
        first_boot.push(FirstBoot::SshHostKeys);
    }
    empty_directory(tree, "/dev");
    (first_boot, notes)
}

/// Takes out what building leaves behind: the building machine's name and resolver, package lists
/// and archives, logs, run-time files.
pub(crate) fn build_leftovers(tree: &mut Tree) {
    for name in [
        // Options that only the build was given.
        "/etc/apt/apt.conf.d/99mmdebstrap",
        "/etc/dpkg/dpkg.cfg.d/99mmdebstrap",
        "/etc/hostname",
        "/etc/resolv.conf",
        "/var/cache/apt/pkgcache.bin",
        "/var/cache/apt/srcpkgcache.bin",
        "/var/cache/ldconfig/aux-cache",
        "/var/cache/debconf/config.dat-old",
        "/var/cache/debconf/templates.dat-old",
        "/var/lib/dpkg/status-old",
        "/var/lib/dpkg/diversions-old",
        "/var/lib/dpkg/statoverride-old",
        "/var/log/alternatives.log",
        "/var/log/bootstrap.log",
        "/var/log/dpkg.log",
    ] {
        tree.remove(&path(name));
    }
    for name in ["/run", "/tmp", "/var/tmp", "/var/log/apt"] {
        empty_directory(tree, name);
    }
    for name in ["/var/lib/apt/lists", "/var/cache/apt/archives"] {
        // apt wants `partial` to be there.
        for file in tree.list(&path(name)) {
            if *file != *b"partial" {
                tree.remove(&path(name).join(&file));
            }
        }
    }
}

/// Writes a small file, owned by root, 0644.
pub(crate) fn write(
    tree: &mut Tree,
    name: &str,
    content: Body,
) -> Result<(), crate::tree::TreeError> {
    let metadata = crate::tree::Metadata {
        mode: 0o644,
        ..Default::default()
    };
    tree.insert(&path(name), metadata, content)
}

fn empty_directory(tree: &mut Tree, name: &str) {
    let directory = path(name);
    // A link would lead to a directory that is something else as well.
    if let Some(node) = tree.lookup_no_follow(&directory)
        && matches!(tree.body(node), Body::Directory(_))
    {
        tree.set_body(node, Body::Directory(std::collections::BTreeMap::new()));
    }
}

fn empty() -> Body {
    Body::File(Content::Inline(Box::from([])))
}

fn path(name: &str) -> MemberPath {
    // The names are this module's own.
    MemberPath::parse(name.as_bytes()).unwrap_or_default()
}
