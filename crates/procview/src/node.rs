//! The tree that is served, and the number of each thing in it.
//!
//! ```text
//! /                       1
//! /101/                   a VE's folder, whatever VE 101 is
//! /101/meminfo ...        bound over the VE's /proc/meminfo ...
//! /101/pressure/          bound over the VE's /proc/pressure
//! /101/cpu/               bound over the VE's /sys/devices/system/cpu
//! /101/cpu/cpu0/          only for processors that the VE is shown
//! /101/cpu/cpu0/topology/core_id    the machine's own text
//! ```
//!
//! The kernel keeps a number for as long as somebody has the thing open, so numbers must mean the
//! same to every server that ever follows: each is composed of what it stands for. Rows are only
//! added to the tables below, at their ends.

use ve::VeId;

/// Number of the root (`FUSE_ROOT_ID`).
pub(crate) const ROOT: u64 = 1;

/// A file of `/proc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum ProcFile {
    Meminfo,
    Cpuinfo,
    Stat,
    Loadavg,
    Uptime,
    Swaps,
    Diskstats,
    Vmstat,
}

/// A file directly in `/sys/devices/system/cpu` that differs from the machine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum CpuFile {
    Online,
    Offline,
}

/// A thing in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Node {
    Root,
    Folder(VeId),
    Proc(VeId, ProcFile),
    PressureFolder(VeId),
    /// Index in [`crate::source::PRESSURES`].
    Pressure(VeId, u16),
    CpuFolder(VeId),
    Cpu(VeId, CpuFile),
    /// Index in [`SHARED`].
    Shared(VeId, u16),
    /// Folder of a processor.
    Processor(VeId, u16),
    /// Of a processor, index in [`ATTRIBUTES`].
    Attribute(VeId, u16, u16),
}

pub(crate) const PROC_FILES: [(ProcFile, &str); 8] = [
    (ProcFile::Meminfo, "meminfo"),
    (ProcFile::Cpuinfo, "cpuinfo"),
    (ProcFile::Stat, "stat"),
    (ProcFile::Loadavg, "loadavg"),
    (ProcFile::Uptime, "uptime"),
    (ProcFile::Swaps, "swaps"),
    (ProcFile::Diskstats, "diskstats"),
    (ProcFile::Vmstat, "vmstat"),
];

pub(crate) const PRESSURE_FOLDER: &str = "pressure";
pub(crate) const CPU_FOLDER: &str = "cpu";

pub(crate) const CPU_FILES: [(CpuFile, &str); 2] =
    [(CpuFile::Online, "online"), (CpuFile::Offline, "offline")];

/// Where the machine has what is shared.
pub(crate) const HOST_FOLDER: &str = "/sys/devices/system/cpu";

/// Files and folders below [`HOST_FOLDER`] that are shown as the machine has them.
///
/// `possible` and `present` among them: programs size arrays by them that they index with the
/// number of the processor they happen to run on, which may be any that the VE's limit allows.
#[rustfmt::skip]
pub(crate) const SHARED: &[&str] = &[
    "possible", "present", "kernel_max", "isolated", "nohz_full", "modalias",
    "smt", "smt/active", "smt/control",
    "vulnerabilities", "vulnerabilities/gather_data_sampling", "vulnerabilities/ghostwrite",
    "vulnerabilities/indirect_target_selection", "vulnerabilities/itlb_multihit",
    "vulnerabilities/l1tf", "vulnerabilities/mds", "vulnerabilities/meltdown",
    "vulnerabilities/mmio_stale_data", "vulnerabilities/old_microcode",
    "vulnerabilities/reg_file_data_sampling", "vulnerabilities/retbleed",
    "vulnerabilities/spec_rstack_overflow", "vulnerabilities/spec_store_bypass",
    "vulnerabilities/spectre_v1", "vulnerabilities/spectre_v2", "vulnerabilities/srbds",
    "vulnerabilities/tsa", "vulnerabilities/tsx_async_abort", "vulnerabilities/vmscape",
];

/// Files and folders of a processor that are shown as the machine has them: those that `lscpu`, the C
/// library and runtimes of languages look at.
#[rustfmt::skip]
pub(crate) const ATTRIBUTES: &[&str] = &[
    "online", "cpu_capacity",
    "topology", "topology/cluster_cpus", "topology/cluster_cpus_list", "topology/cluster_id",
    "topology/core_cpus", "topology/core_cpus_list", "topology/core_id", "topology/core_siblings",
    "topology/core_siblings_list", "topology/die_cpus", "topology/die_cpus_list",
    "topology/die_id", "topology/package_cpus", "topology/package_cpus_list",
    "topology/physical_package_id", "topology/thread_siblings", "topology/thread_siblings_list",
    "cpufreq", "cpufreq/cpuinfo_max_freq", "cpufreq/cpuinfo_min_freq", "cpufreq/scaling_cur_freq",
    "cpufreq/scaling_max_freq", "cpufreq/scaling_min_freq",
    "cache",
    "cache/index0", "cache/index0/coherency_line_size", "cache/index0/id", "cache/index0/level",
    "cache/index0/number_of_sets", "cache/index0/physical_line_partition",
    "cache/index0/shared_cpu_list", "cache/index0/shared_cpu_map", "cache/index0/size",
    "cache/index0/type", "cache/index0/ways_of_associativity",
    "cache/index1", "cache/index1/coherency_line_size", "cache/index1/id", "cache/index1/level",
    "cache/index1/number_of_sets", "cache/index1/physical_line_partition",
    "cache/index1/shared_cpu_list", "cache/index1/shared_cpu_map", "cache/index1/size",
    "cache/index1/type", "cache/index1/ways_of_associativity",
    "cache/index2", "cache/index2/coherency_line_size", "cache/index2/id", "cache/index2/level",
    "cache/index2/number_of_sets", "cache/index2/physical_line_partition",
    "cache/index2/shared_cpu_list", "cache/index2/shared_cpu_map", "cache/index2/size",
    "cache/index2/type", "cache/index2/ways_of_associativity",
    "cache/index3", "cache/index3/coherency_line_size", "cache/index3/id", "cache/index3/level",
    "cache/index3/number_of_sets", "cache/index3/physical_line_partition",
    "cache/index3/shared_cpu_list", "cache/index3/shared_cpu_map", "cache/index3/size",
    "cache/index3/type", "cache/index3/ways_of_associativity",
];

/// Layout of a number: VE, kind, processor, index.
const VE_SHIFT: u32 = 40;
const KIND_SHIFT: u32 = 32;
const PROCESSOR_SHIFT: u32 = 16;

impl Node {
    /// The number that the kernel knows it by.
    pub(crate) fn number(self) -> u64 {
        let (ve, kind, processor, index): (VeId, u64, u16, u16) = match self {
            Self::Root => return ROOT,
            Self::Folder(ve) => (ve, 1, 0, 0),
            Self::Proc(ve, file) => (ve, 2, 0, position(&PROC_FILES, &file)),
            Self::PressureFolder(ve) => (ve, 3, 0, 0),
            Self::Pressure(ve, index) => (ve, 4, 0, index),
            Self::CpuFolder(ve) => (ve, 5, 0, 0),
            Self::Cpu(ve, file) => (ve, 6, 0, position(&CPU_FILES, &file)),
            Self::Shared(ve, index) => (ve, 7, 0, index),
            Self::Processor(ve, processor) => (ve, 8, processor, 0),
            Self::Attribute(ve, processor, index) => (ve, 9, processor, index),
        };
        u64::from(ve.get()) << VE_SHIFT
            | kind << KIND_SHIFT
            | u64::from(processor) << PROCESSOR_SHIFT
            | u64::from(index)
    }

    /// What a number stands for, if for anything.
    pub(crate) fn from_number(number: u64) -> Option<Self> {
        if number == ROOT {
            return Some(Self::Root);
        }
        let ve = VeId::new(u32::try_from(number >> VE_SHIFT).ok()?).ok()?;
        let field = |shift: u32| u16::try_from(number >> shift & 0xffff).ok();
        let (processor, index) = (field(PROCESSOR_SHIFT)?, field(0)?);
        let at = usize::from(index);
        let node = match number >> KIND_SHIFT & 0xff {
            1 => Self::Folder(ve),
            2 => Self::Proc(ve, PROC_FILES.get(at)?.0),
            3 => Self::PressureFolder(ve),
            4 if at < crate::source::PRESSURES.len() => Self::Pressure(ve, index),
            5 => Self::CpuFolder(ve),
            6 => Self::Cpu(ve, CPU_FILES.get(at)?.0),
            7 if at < SHARED.len() => Self::Shared(ve, index),
            8 => Self::Processor(ve, processor),
            9 if at < ATTRIBUTES.len() => Self::Attribute(ve, processor, index),
            _ => return None,
        };
        // Fields that the kind does not have must be empty: one thing has one number.
        (node.number() == number).then_some(node)
    }

    /// Whose view it belongs to.
    pub(crate) fn ve(self) -> Option<VeId> {
        match self {
            Self::Root => None,
            Self::Folder(ve)
            | Self::Proc(ve, _)
            | Self::PressureFolder(ve)
            | Self::Pressure(ve, _)
            | Self::CpuFolder(ve)
            | Self::Cpu(ve, _)
            | Self::Shared(ve, _)
            | Self::Processor(ve, _)
            | Self::Attribute(ve, ..) => Some(ve),
        }
    }
}

fn position<T: PartialEq>(table: &[(T, &str)], wanted: &T) -> u16 {
    let found = table.iter().position(|(entry, _)| entry == wanted);
    // Every value has its row: a test sees to that.
    found
        .and_then(|at| u16::try_from(at).ok())
        .unwrap_or(u16::MAX)
}

/// Rows of a table of paths that lie directly in a folder of it (`""` for the top): index and name.
pub(crate) fn rows_in(
    table: &'static [&'static str],
    folder: &str,
) -> impl Iterator<Item = (u16, &'static str)> {
    let prefix = if folder.is_empty() {
        String::new()
    } else {
        format!("{folder}/")
    };
    (0_u16..).zip(table).filter_map(move |(index, path)| {
        let name = path.strip_prefix(prefix.as_str())?;
        (!name.contains('/')).then_some((index, name))
    })
}

/// Whether a row of a table of paths is a folder: others lie in it.
pub(crate) fn is_folder(table: &[&str], path: &str) -> bool {
    let mut others = table.iter();
    others.any(|other| {
        other
            .strip_prefix(path)
            .is_some_and(|rest| rest.starts_with('/'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_thing_has_a_number_of_its_own() {
        let ve = VeId::new(101).unwrap();
        let index = |count: usize| 0..u16::try_from(count).unwrap();
        let mut all = vec![
            Node::Root,
            Node::Folder(ve),
            Node::PressureFolder(ve),
            Node::CpuFolder(ve),
            Node::Processor(ve, 0),
            Node::Processor(ve, 1_023),
        ];
        all.extend(PROC_FILES.map(|(file, _)| Node::Proc(ve, file)));
        all.extend(CPU_FILES.map(|(file, _)| Node::Cpu(ve, file)));
        all.extend(index(crate::source::PRESSURES.len()).map(|at| Node::Pressure(ve, at)));
        all.extend(index(SHARED.len()).map(|at| Node::Shared(ve, at)));
        all.extend(index(ATTRIBUTES.len()).map(|at| Node::Attribute(ve, 7, at)));
        for node in &all {
            assert_eq!(Node::from_number(node.number()), Some(*node));
            assert_eq!(node.ve(), (*node != Node::Root).then_some(ve));
        }
        let mut numbers: Vec<u64> = all.iter().map(|node| node.number()).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), all.len());
    }

    /// A server that follows must understand these, so they are written out.
    #[test]
    fn numbers_stay_what_they_were() {
        let ve = VeId::new(101).unwrap();
        assert_eq!(Node::Proc(ve, ProcFile::Meminfo).number(), 0x6502_0000_0000);
        assert_eq!(
            Node::Proc(ve, ProcFile::Diskstats).number(),
            0x6502_0000_0006
        );
        assert_eq!(Node::PressureFolder(ve).number(), 0x6503_0000_0000);
        assert_eq!(Node::CpuFolder(ve).number(), 0x6505_0000_0000);
        assert_eq!(Node::Processor(ve, 3).number(), 0x6508_0003_0000);
        assert_eq!(
            (SHARED[8], ATTRIBUTES[18]),
            ("smt/control", "topology/thread_siblings_list")
        );
    }

    #[test]
    fn parents_come_before_what_is_in_them() {
        for table in [SHARED, ATTRIBUTES] {
            for (at, path) in table.iter().enumerate() {
                assert!(!table[..at].contains(path), "{path} twice");
                if let Some((folder, _)) = path.rsplit_once('/') {
                    assert!(table[..at].contains(&folder), "{path}");
                    assert!(is_folder(table, folder));
                }
            }
        }
        let names: Vec<_> = rows_in(SHARED, "smt").map(|(_, name)| name).collect();
        assert_eq!(names, ["active", "control"]);
        assert!(rows_in(ATTRIBUTES, "").any(|(_, name)| name == "cache"));
        assert!(!is_folder(SHARED, "smt/active"));
    }

    proptest! {
        #[test]
        fn no_number_panics_and_none_has_two_meanings(number: u64) {
            if let Some(node) = Node::from_number(number) {
                prop_assert_eq!(node.number(), number);
            }
        }
    }
}
