//! The tree of a light VE: busybox as init and as a web server, in 2 MB.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use anyhow::{Context as _, Result};

/// A binary without libraries, of Debian's package `busybox-static`.
const BUSYBOX: &str = "/bin/busybox";

const FOLDERS: [&str; 10] = [
    "bin", "dev", "etc", "proc", "root", "run", "sbin", "srv", "sys", "tmp",
];

/// One server, and nothing that is done once at start: init waits, and httpd waits.
const INITTAB: &str = "::respawn:/bin/httpd -f -p 80 -h /srv\n";

/// Writes the tree into a folder that does not exist yet.
pub(crate) fn write(folder: &Path) -> Result<()> {
    for name in FOLDERS {
        fs::create_dir_all(folder.join(name)).with_context(|| format!("cannot make {name}"))?;
    }
    let program = folder.join("bin/busybox");
    fs::copy(BUSYBOX, &program)
        .with_context(|| format!("cannot copy {BUSYBOX}; install the package `busybox-static`"))?;
    fs::set_permissions(&program, Permissions::from_mode(0o755))
        .context("cannot allow it to run")?;
    for link in ["bin/sh", "bin/httpd", "sbin/init"] {
        symlink("/bin/busybox", folder.join(link))
            .with_context(|| format!("cannot link {link}"))?;
    }
    fs::write(folder.join("etc/inittab"), INITTAB).context("cannot write inittab")?;
    fs::write(folder.join("srv/index.html"), "light\n").context("cannot write a page")
}
