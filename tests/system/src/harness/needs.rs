//! What a test needs, and whether this machine has it.

use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// What a test finds when it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fixture {
    /// A daemon on an empty root; nothing is prepared.
    Daemon,
    /// A prepared node with the template `tiny`: busybox and a web server, 2 MB.
    Node,
    /// The same, while no other test runs: for what is measured in parts of the whole machine.
    Alone,
    /// The node that is installed on this machine as a service, prepared, with `tiny`.
    Installed,
    /// The one node that the tests of this kind share, with the template `debian-12`.
    Debian,
    /// The one node that the tests of this kind share, with the templates `tiny` and `hostile`:
    /// busybox, a web server and Perl.
    Hostile,
}

/// What a machine must have for a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// The rights to make namespaces and mounts.
    Root,
    /// Debian's package mirror.
    Packages,
    /// Vessel as `cargo xtask install` puts it, on a machine that is the tests' own.
    Installed,
}

/// Where Debian's packages come from, for whoever has no mirror of their own.
const MIRROR: (&str, u16) = ("deb.debian.org", 80);

impl Need {
    /// Why this machine cannot meet the need, if it cannot.
    pub(crate) fn unmet(self) -> Option<String> {
        let (met, reason) = match self {
            Self::Root => (
                rustix::process::geteuid().is_root(),
                "not run as root".to_owned(),
            ),
            Self::Installed => (
                std::env::var_os("VESSEL_TEST_INSTALLED").is_some(),
                "it makes a node at /var/lib/vessel in this machine's own network; \
                 `VESSEL_TEST_INSTALLED=1` says that both are free and Vessel is installed"
                    .to_owned(),
            ),
            Self::Packages => (mirror_answers(), format!("{} cannot be reached", MIRROR.0)),
        };
        (!met).then_some(reason)
    }

    /// Whether every machine that tests Vessel for good must meet it.
    pub(crate) fn is_required(self) -> bool {
        matches!(self, Self::Root | Self::Packages)
    }
}

fn mirror_answers() -> bool {
    let timeout = Duration::from_secs(5);
    let Ok(addresses) = MIRROR.to_socket_addrs() else {
        return false;
    };
    let mut addresses = addresses;
    addresses.any(|address| TcpStream::connect_timeout(&address, timeout).is_ok())
}
