//! Finding out what a tree is: distribution, processor, first program, packages.
//!
//! Everything read here is hostile text: lengths are bounded and nothing is believed beyond what is
//! shown to people. The one thing acted on, the path of the first program, is executed inside the VE
//! only.

use std::io::Read as _;
use std::os::fd::{AsFd, BorrowedFd};

use crate::limits::INSPECTED_BYTES_MAX;
use crate::manifest::{Distribution, Init, InitKind, Package, PackageManager, Packages};
use crate::path::MemberPath;
use crate::store::open_object;
use crate::tree::{Body, Content, NodeId, Tree};

/// Packages listed in a manifest. Debian's desktop has about 1,500.
const PACKAGES_MAX: usize = 20_000;

/// Longest word taken from the tree into the manifest, in bytes.
const WORD_BYTES_MAX: usize = 200;

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

/// A word fit for a manifest: no control characters, not too long.
fn word(text: &str) -> Option<String> {
    let text = text.trim();
    let fits = !text.is_empty() && text.len() <= WORD_BYTES_MAX;
    (fits && !text.chars().any(char::is_control)).then(|| text.to_owned())
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
    let (manager, mut list) = if let Some(text) = reader.text("/var/lib/dpkg/status") {
        (PackageManager::Dpkg, dpkg(&text))
    } else if let Some(text) = apk_database(reader) {
        (PackageManager::Apk, apk(&text))
    } else if reader.exists("/var/lib/pacman/local") {
        let names = reader.names("/var/lib/pacman/local");
        (PackageManager::Pacman, pacman(&names))
    } else if reader.exists("/var/lib/rpm") || reader.exists("/usr/lib/sysimage/rpm") {
        (PackageManager::Rpm, Vec::new())
    } else {
        (PackageManager::Unknown, Vec::new())
    };
    list.truncate(PACKAGES_MAX);
    list.sort();
    Packages { manager, list }
}

fn apk_database(reader: Reader<'_>) -> Option<String> {
    reader
        .text("/lib/apk/db/installed")
        .or_else(|| reader.text("/usr/lib/apk/db/installed"))
}

/// Paragraphs of `Key: value` lines; only installed packages count.
fn dpkg(text: &str) -> Vec<Package> {
    text.split("\n\n")
        .filter_map(|paragraph| {
            let field = |wanted: &str| {
                paragraph
                    .lines()
                    .filter_map(|line| line.split_once(": "))
                    .find(|(key, _)| *key == wanted)
                    .and_then(|(_, value)| word(value))
            };
            field("Status")?.ends_with(" installed").then_some(())?;
            Some(Package {
                name: field("Package")?,
                version: field("Version")?,
            })
        })
        .collect()
}

/// Paragraphs of `K:value` lines.
fn apk(text: &str) -> Vec<Package> {
    text.split("\n\n")
        .filter_map(|paragraph| {
            let field = |key: &str| {
                let line = paragraph.lines().find_map(|line| line.strip_prefix(key));
                line.and_then(word)
            };
            Some(Package {
                name: field("P:")?,
                version: field("V:")?,
            })
        })
        .collect()
}

/// Folders called `NAME-VERSION-RELEASE`.
fn pacman(names: &[String]) -> Vec<Package> {
    names
        .iter()
        .filter_map(|folder| {
            let (rest, release) = folder.rsplit_once('-')?;
            let (name, version) = rest.rsplit_once('-')?;
            Some(Package {
                name: word(name)?,
                version: word(&format!("{version}-{release}"))?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_package_databases() {
        let status = "Package: a\nStatus: install ok installed\nVersion: 1:2-3\nDescription: x\n y\n\n\
                      Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n\
                      Package: b\nStatus: hold ok installed\nVersion: 4\n";
        let names = |list: Vec<Package>| -> Vec<String> {
            list.into_iter()
                .map(|p| format!("{} {}", p.name, p.version))
                .collect()
        };
        assert_eq!(names(dpkg(status)), ["a 1:2-3", "b 4"]);
        assert_eq!(
            names(apk(
                "C:Q1\nP:musl\nV:1.2.4-r2\nA:x86_64\n\nP:zlib\nV:1.3-r2\n"
            )),
            ["musl 1.2.4-r2", "zlib 1.3-r2"]
        );
        assert_eq!(
            names(pacman(&[
                "gcc-libs-14.2-1".to_owned(),
                "ALPM_DB_VERSION".to_owned()
            ])),
            ["gcc-libs 14.2-1"]
        );
    }

    #[test]
    fn words_are_fit_for_a_manifest() {
        assert_eq!(word(" a b "), Some("a b".to_owned()));
        assert_eq!(word("a\x1b[31m"), None);
        assert_eq!(word(""), None);
        assert_eq!(word(&"a".repeat(201)), None);
    }
}
