//! Which things there are in the views of a node's VEs, and what they look like.

use std::path::{Path, PathBuf};

use crate::node::{
    ATTRIBUTES, CPU_FILES, CPU_FOLDER, Node, PRESSURE_FOLDER, PROC_FILES, ProcFile, SHARED,
    is_folder, rows_in,
};
use crate::source::PRESSURES;
use crate::view::{Views, attribute_path, shared_path};

/// Least length that a file of `/proc` has: more than its text. It is a guess as that of sysfs's
/// files is (the kernel's own in `/proc` have none, and then sendfile(2) on FUSE reads nothing), and
/// does not change with the text, since CRIU opens no file again whose length is another.
const PROC_LENGTH: u64 = 64 * 1024;

/// Length of a file of `/sys`: that of sysfs itself.
const SYS_LENGTH: u64 = 4_096;

/// An entry of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) node: Node,
    pub(crate) name: String,
}

impl Views {
    /// Whether a thing is there now.
    pub(crate) fn exists(&mut self, node: Node) -> bool {
        let host_has = |path: PathBuf| std::fs::symlink_metadata(path).is_ok();
        match node {
            Node::Root => true,
            Node::Pressure(_, index) => {
                let name = PRESSURES
                    .get(usize::from(index))
                    .copied()
                    .unwrap_or_default();
                host_has(Path::new("/proc/pressure").join(name))
            }
            Node::Shared(_, index) => shared_path(index).is_some_and(host_has),
            Node::Processor(ve, number) => self.shown(ve).contains(&u32::from(number)),
            Node::Attribute(ve, number, index) => {
                self.exists(Node::Processor(ve, number))
                    && attribute_path(number, index).is_some_and(host_has)
            }
            Node::Folder(ve)
            | Node::Proc(ve, _)
            | Node::PressureFolder(ve)
            | Node::CpuFolder(ve)
            | Node::Cpu(ve, _) => self.reader.exists(ve),
        }
    }

    /// Whether a thing is a folder.
    pub(crate) fn is_folder(node: Node) -> bool {
        let in_table = |table: &'static [&'static str], index: u16| {
            table
                .get(usize::from(index))
                .is_some_and(|path| is_folder(table, path))
        };
        match node {
            Node::Root
            | Node::Folder(_)
            | Node::PressureFolder(_)
            | Node::CpuFolder(_)
            | Node::Processor(..) => true,
            Node::Shared(_, index) => in_table(SHARED, index),
            Node::Attribute(_, _, index) => in_table(ATTRIBUTES, index),
            Node::Proc(..) | Node::Pressure(..) | Node::Cpu(..) => false,
        }
    }

    /// Whether a thing stays for as long as its VE: processors come and go.
    pub(crate) fn is_lasting(node: Node) -> bool {
        match node {
            Node::Root
            | Node::Folder(_)
            | Node::Proc(..)
            | Node::PressureFolder(_)
            | Node::CpuFolder(_) => true,
            Node::Pressure(..)
            | Node::Cpu(..)
            | Node::Shared(..)
            | Node::Processor(..)
            | Node::Attribute(..) => false,
        }
    }

    /// The length that a file has, whatever it says now: a power of two.
    pub(crate) fn length(&mut self, node: Node) -> u64 {
        match node {
            Node::Proc(_, ProcFile::Cpuinfo) => {
                let length = u64::try_from(self.host.cpuinfo().len()).unwrap_or(PROC_LENGTH);
                length.next_power_of_two().max(PROC_LENGTH)
            }
            Node::Proc(..) | Node::Pressure(..) => PROC_LENGTH,
            _ if Self::is_folder(node) => 0,
            _ => SYS_LENGTH,
        }
    }

    /// Finds a name in a folder.
    pub(crate) fn find(&mut self, folder: Node, name: &[u8]) -> Option<Node> {
        let name = std::str::from_utf8(name).ok()?;
        let found = match folder {
            // Not by its list, which holds only VEs that were told of: at a launch the VE itself may
            // look before that.
            Node::Root => {
                let ve = name.parse().ok()?;
                (name == format!("{ve}")).then_some(Node::Folder(ve))?
            }
            Node::CpuFolder(ve) if name.strip_prefix("cpu").is_some() => {
                let number: u16 = name.strip_prefix("cpu")?.parse().ok()?;
                (name == format!("cpu{number}")).then_some(Node::Processor(ve, number))?
            }
            _ => {
                self.below(folder)
                    .into_iter()
                    .find(|entry| entry.name == name)?
                    .node
            }
        };
        self.exists(found).then_some(found)
    }

    /// What is in a folder now.
    pub(crate) fn list(&mut self, folder: Node) -> Vec<Entry> {
        let mut entries = self.below(folder);
        entries.retain(|entry| self.exists(entry.node));
        entries
    }

    /// What may be in a folder.
    fn below(&mut self, folder: Node) -> Vec<Entry> {
        let entry = |node: Node, name: &str| Entry {
            node,
            name: name.to_owned(),
        };
        let rows = |table, at: &str, node: &dyn Fn(u16) -> Node| -> Vec<Entry> {
            rows_in(table, at)
                .map(|(index, name)| entry(node(index), name))
                .collect()
        };
        match folder {
            Node::Root => {
                let ves = self.ves.keys();
                ves.map(|ve| entry(Node::Folder(*ve), &ve.to_string()))
                    .collect()
            }
            Node::Folder(ve) => PROC_FILES
                .iter()
                .map(|(file, name)| entry(Node::Proc(ve, *file), name))
                .chain([
                    entry(Node::PressureFolder(ve), PRESSURE_FOLDER),
                    entry(Node::CpuFolder(ve), CPU_FOLDER),
                ])
                .collect(),
            Node::PressureFolder(ve) => (0_u16..)
                .zip(PRESSURES)
                .map(|(index, name)| entry(Node::Pressure(ve, index), name))
                .collect(),
            Node::CpuFolder(ve) => {
                let shown = self.shown(ve);
                let numbers = shown
                    .iter()
                    .filter_map(|number| u16::try_from(*number).ok());
                let files = CPU_FILES.iter();
                files
                    .map(|(file, name)| entry(Node::Cpu(ve, *file), name))
                    .chain(rows(SHARED, "", &|index| Node::Shared(ve, index)))
                    .chain(numbers.map(|n| entry(Node::Processor(ve, n), &format!("cpu{n}"))))
                    .collect()
            }
            Node::Shared(ve, index) => {
                let at = SHARED.get(usize::from(index)).copied().unwrap_or_default();
                rows(SHARED, at, &|index| Node::Shared(ve, index))
            }
            Node::Processor(ve, number) => {
                rows(ATTRIBUTES, "", &|index| Node::Attribute(ve, number, index))
            }
            Node::Attribute(ve, number, index) => {
                let at = ATTRIBUTES
                    .get(usize::from(index))
                    .copied()
                    .unwrap_or_default();
                rows(ATTRIBUTES, at, &|index| Node::Attribute(ve, number, index))
            }
            Node::Proc(..) | Node::Pressure(..) | Node::Cpu(..) => Vec::new(),
        }
    }
}
