//! Finding out what a tree is: distribution, processor, first program, packages.
//!
//! Everything read here is hostile text: lengths are bounded and nothing is believed beyond what is
//! shown to people. The one thing acted on, the path of the first program, is executed inside the VE
//! only.

use std::io::Read as _;
use std::os::fd::{AsFd, BorrowedFd};

use packages::word;

use crate::limits::INSPECTED_BYTES_MAX;
use crate::manifest::{Distribution, Init, InitKind, Package, PackageManager, Packages};
use crate::path::MemberPath;
use crate::store::open_object;
use crate::tree::{Body, Content, NodeId, Tree};

/// Where first programs lie, in the order in which the kernel (`init/main.c`) and then container
/// managers look for them.
const INITS: [&str; 8] = [
    "/sbin/init",
    "/usr/sbin/init",
    "/etc/init",
    "/bin/init",
    "/usr/lib/systemd/systemd",
    "/lib/systemd/systemd",
    "/init",
    "/sbin/openrc-init",
];

/// What was found out.
#[derive(Debug)]
pub(crate) struct Findings {
    pub distribution: Distribution,
    pub architecture: String,
    pub init: Option<Init>,
    pub packages: Packages,
}

/// A tree and the store of its contents.
#[derive(Clone, Copy, Debug)]
struct Reader<'a> {
    tree: &'a Tree,
    objects: BorrowedFd<'a>,
}

/// Looks at a tree.
pub(crate) fn inspect(tree: &Tree, objects: &impl AsFd) -> Findings {
    let reader = Reader {
        tree,
        objects: objects.as_fd(),
    };
    let packages = packages(reader);
    let init = init(reader, &packages);
    let architecture = init
        .as_ref()
        .and_then(|init| architecture(reader, &init.path))
        .or_else(|| architecture(reader, "/bin/sh"))
        .unwrap_or_else(|| "unknown".to_owned());
    Findings {
        distribution: distribution(reader),
        architecture,
        init,
        packages,
    }
}

impl Reader<'_> {
    fn find(self, path: &str) -> Option<NodeId> {
        self.tree.lookup(&MemberPath::parse(path.as_bytes()).ok()?)
    }

    fn exists(self, path: &str) -> bool {
        self.find(path).is_some()
    }

    /// At most this many bytes of a file's beginning.
    fn head(self, path: &str, length: u64) -> Option<Vec<u8>> {
        let Body::File(content) = self.tree.body(self.find(path)?) else {
            return None;
        };
        let mut bytes = Vec::new();
        match content {
            Content::Inline(inline) => bytes.extend_from_slice(inline),
            Content::Object(id, _) => {
                let file = open_object(self.objects, id).ok()?;
                file.take(length).read_to_end(&mut bytes).ok()?;
            }
        }
        Some(bytes)
    }

    fn text(self, path: &str) -> Option<String> {
        let bytes = self.head(path, INSPECTED_BYTES_MAX)?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn names(self, path: &str) -> Vec<String> {
        MemberPath::parse(path.as_bytes())
            .map(|path| self.tree.list(&path))
            .unwrap_or_default()
            .iter()
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .collect()
    }
}

fn distribution(reader: Reader<'_>) -> Distribution {
    let text = reader
        .text("/etc/os-release")
        .or_else(|| reader.text("/usr/lib/os-release"))
        .unwrap_or_default();
    let field = |wanted: &str| {
        text.lines()
            .filter_map(|line| line.split_once('='))
            .find(|(key, _)| *key == wanted)
            .and_then(|(_, value)| word(value.trim().trim_matches(['"', '\''])))
    };
    Distribution {
        id: field("ID"),
        version: field("VERSION_ID"),
        codename: field("VERSION_CODENAME"),
        pretty_name: field("PRETTY_NAME"),
    }
}

/// Debian's word for the machine in an ELF header (`e_machine`, and the class and byte order that
/// tell variants apart).
fn architecture(reader: Reader<'_>, path: &str) -> Option<String> {
    let head = reader.head(path, 20)?;
    let [0x7f, b'E', b'L', b'F', class, order, ..] = head[..] else {
        return None;
    };
    let machine = [*head.get(18)?, *head.get(19)?];
    let machine = match order {
        1 => u16::from_le_bytes(machine),
        _ => u16::from_be_bytes(machine),
    };
    let name = match (machine, class, order) {
        (62, 2, _) => "amd64",
        (62, 1, _) => "x32",
        (3, ..) => "i386",
        (183, ..) => "arm64",
        (40, ..) => "armhf",
        (243, 2, _) => "riscv64",
        (21, _, 1) => "ppc64el",
        (22, 2, _) => "s390x",
        (258, 2, _) => "loong64",
        _ => return None,
    };
    Some(name.to_owned())
}

fn init(reader: Reader<'_>, packages: &Packages) -> Option<Init> {
    let path = INITS.into_iter().find(|path| {
        let node = reader.find(path).map(|node| reader.tree.body(node));
        matches!(node, Some(Body::File(_)))
    })?;
    let found = reader.find(path);
    let is = |other: &str| found.is_some() && found == reader.find(other);
    let kind = if is("/lib/systemd/systemd") || is("/usr/lib/systemd/systemd") {
        InitKind::Systemd {
            version: systemd_version(reader, packages),
        }
    } else if reader.exists("/sbin/openrc") && (is("/bin/busybox") || is("/sbin/openrc-init")) {
        InitKind::OpenRc
    } else if is("/bin/busybox") || is("/usr/bin/busybox") {
        InitKind::Busybox
    } else if reader.exists("/etc/inittab") {
        InitKind::Sysvinit
    } else {
        InitKind::Other
    };
    Some(Init {
        kind,
        path: path.to_owned(),
    })
}

/// systemd's major version: from its package, else from the name of its private library.
fn systemd_version(reader: Reader<'_>, packages: &Packages) -> Option<u32> {
    let number = |text: &str| {
        let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    };
    let of_package = packages
        .list
        .iter()
        .find(|package| package.name == "systemd")
        .and_then(|package| {
            let version = &package.version;
            number(version.split_once(':').map_or(version, |(_, rest)| rest))
        });
    of_package.or_else(|| {
        ["/usr/lib/systemd", "/lib/systemd", "/usr/lib64/systemd"]
            .into_iter()
            .flat_map(|path| reader.names(path))
            .find_map(|name| number(name.strip_prefix("libsystemd-shared-")?))
    })
}

fn packages(reader: Reader<'_>) -> Packages {
    let (manager, found) = if let Some(text) = reader.text("/var/lib/dpkg/status") {
        (PackageManager::Dpkg, packages::dpkg(&text))
    } else if let Some(text) = apk_database(reader) {
        (PackageManager::Apk, packages::apk(&text))
    } else if reader.exists("/var/lib/pacman/local") {
        let names = reader.names("/var/lib/pacman/local");
        (PackageManager::Pacman, packages::pacman(&names))
    } else if reader.exists("/var/lib/rpm") || reader.exists("/usr/lib/sysimage/rpm") {
        (PackageManager::Rpm, rpm(reader))
    } else {
        (PackageManager::Unknown, Vec::new())
    };
    let list = found.into_iter().map(|package| Package {
        name: package.name,
        version: package.version,
    });
    Packages {
        manager,
        list: list.collect(),
    }
}

/// Of SQLite only; an older database lists nothing.
fn rpm(reader: Reader<'_>) -> Vec<packages::Package> {
    [
        "/usr/lib/sysimage/rpm/rpmdb.sqlite",
        "/var/lib/rpm/rpmdb.sqlite",
    ]
    .into_iter()
    .find_map(|path| reader.head(path, packages::DATABASE_BYTES_MAX))
    .and_then(|database| packages::rpm(&database).ok())
    .unwrap_or_default()
}

fn apk_database(reader: Reader<'_>) -> Option<String> {
    reader
        .text("/lib/apk/db/installed")
        .or_else(|| reader.text("/usr/lib/apk/db/installed"))
}
