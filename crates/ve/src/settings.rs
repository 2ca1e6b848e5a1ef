//! The keys of `vessel set KEY=VALUE`, and their values.
//!
//! A [`Key`] is a word that people and scripts use; a [`Setting`] is a key with a value that was
//! read and found sensible on its own. Whether a node can grant it is decided elsewhere.

mod key;
mod node;
#[cfg(test)]
mod tests;
mod value;

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use crate::limits::CpuSet;
use crate::spec::Autostart;
use crate::units::{Bits, Bytes, Cores, InvalidUnit, Operations, Percent, Seconds};

pub use key::Key;
pub use node::{NodeKey, NodeResources, NodeSetting};
use value::{
    addresses, assigned, at_least, autostart, each_once, hostname, number, rate, size, truth, unit,
    unless_none, within, words,
};

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    /// Processor time per time that it gets whatever others do; `None` is no promise.
    CpuGuarantee(Option<Cores>),
    /// Processor time per time; `None` lifts the limit.
    CpuLimit(Option<Cores>),
    /// Processor time per time beyond the limit, saved up before; `None` is none.
    CpuBurst(Option<Cores>),
    /// Weight, 1 to 10,000; `None` is the default of 100.
    CpuShare(Option<u32>),
    /// Processors to run on; `None` is all.
    CpuSet(Option<CpuSet>),
    /// Memory that it keeps whatever others do; `None` is no promise.
    MemoryGuarantee(Option<Bytes>),
    /// Memory; `None` lifts the limit.
    MemoryLimit(Option<Bytes>),
    /// Memory beyond the limit while the node has some free; `None` is none.
    MemoryBurst(Option<Bytes>),
    /// What it may have at most, with what it is given by itself; `None` is no growth.
    MemoryGrowCeiling(Option<Bytes>),
    /// How much it is given at a time; `None` is an eighth of the way to the ceiling.
    MemoryGrowStep(Option<Bytes>),
    /// The part of its memory whose use calls for more; `None` is the default.
    MemoryGrowThreshold(Option<Percent>),
    /// Shortest time between two steps; `None` is none.
    MemoryGrowCooldown(Option<Seconds>),
    /// How long it does without a step before that goes back; `None` is never.
    MemoryGrowGiveBack(Option<Seconds>),
    /// Swap; `None` lifts the limit.
    MemorySwap(Option<Bytes>),
    /// Processes and threads; `None` lifts the limit.
    ProcessesLimit(Option<u32>),
    /// Open files of each process; `None` lifts the limit.
    FilesLimit(Option<u32>),
    /// Space in the pool that nobody else takes; `None` is no promise.
    DiskGuarantee(Option<Bytes>),
    /// Space in the pool; `None` lifts the limit.
    DiskLimit(Option<Bytes>),
    /// Weight at the disk, 1 to 1,000; `None` is the default of 100.
    IoShare(Option<u32>),
    /// Bytes read per second; `None` lifts the limit.
    IoReadLimit(Option<Bytes>),
    /// Bytes written per second; `None` lifts the limit.
    IoWriteLimit(Option<Bytes>),
    /// Operations of reading per second; `None` lifts the limit.
    IoReadOperations(Option<Operations>),
    /// Operations of writing per second; `None` lifts the limit.
    IoWriteOperations(Option<Operations>),
    /// Bits per second, each way, whatever others do; `None` is no promise.
    NetworkGuarantee(Option<Bits>),
    /// Bits per second, each way; `None` lifts the limit.
    NetworkLimit(Option<Bits>),
    /// Bits per second beyond the limit, saved up before; `None` is none.
    NetworkBurst(Option<Bits>),
    /// Addresses of the node's choice.
    AddressAuto,
    /// These addresses, in place of all others.
    Addresses(Vec<IpAddr>),
    /// Name that the VE has for itself.
    Hostname(String),
    /// Name servers; none means those of the node.
    Dns(Vec<IpAddr>),
    /// Whether and when it starts with the node.
    Autostart(Autostart),
    /// Whether it refuses to be deleted.
    Protected(bool),
    /// Whether it may run containers of its own.
    Nesting(bool),
    /// Whether equal pages of its processes are merged, with those of other VEs that chose it.
    MemoryMerge(bool),
    /// Who it belongs to, in words; `None` is nobody in particular.
    Owner(Option<String>),
    /// What it is for, in words.
    Description(Option<String>),
}

/// A `KEY=VALUE` that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSetting {
    /// There is no `=`.
    #[error("`{given}` is not KEY=VALUE")]
    NotAnAssignment {
        /// What was given.
        given: String,
    },
    /// No such key.
    #[error("unknown key `{given}`; {advice}")]
    UnknownKey {
        /// What was given.
        given: String,
        /// The nearest key, or all of them.
        advice: String,
    },
    /// The value is not a quantity of the key's kind.
    #[error("{key}")]
    Unit {
        /// The key whose value it is.
        key: &'static str,
        /// What is wrong with the value.
        source: InvalidUnit,
    },
    /// The value does not fit the key.
    #[error("{key}: `{given}` {rule}")]
    Value {
        /// The key whose value it is.
        key: &'static str,
        /// What was given.
        given: String,
        /// The rule that it breaks.
        rule: String,
    },
    /// One key has two values.
    #[error("{key} is given twice")]
    Twice {
        /// The key.
        key: &'static str,
    },
}

/// Least memory that lets an init run at all; below it the kernel kills every start.
const MEMORY_MIN: Bytes = Bytes::from_mebibytes(4);
/// Least space in which a distribution's first boot can write its logs and identity.
const DISK_MIN: Bytes = Bytes::from_mebibytes(16);
/// The scale of `cpu.weight` (cgroup-v2.rst).
const SHARE_MAX: u32 = 10_000;
/// The scale of the kernel's scheduler (`BFQ_MAX_WEIGHT`, block/bfq-iosched.h).
const IO_SHARE_MAX: u32 = 1_000;
/// The kernel's bound on process numbers (`PID_MAX_LIMIT`, proc_sys_kernel(5)).
const PROCESSES_MAX: u32 = 4_194_304;
/// More addresses than this on one VE are a mistake or an attack on the route table.
const ADDRESSES_MAX: usize = 64;
/// glibc reads three name servers and no more (resolv.conf(5), MAXNS).
const DNS_MAX: usize = 3;
/// Smaller steps are not worth telling of.
const GROW_STEP_MIN: Bytes = Bytes::from_mebibytes(1);
/// Below, half of the memory would never be used; above, the rest is full before anybody can act.
const GROW_THRESHOLDS: RangeInclusive<Percent> = Percent::new(50)..=Percent::new(95);
/// What goes back sooner would have to be given again at once.
const GIVE_BACK_MIN: Seconds = Seconds::new(1);
/// Below it, reading one page takes a second, and a VE hangs.
const IO_RATE_MIN: Bytes = Bytes::new(64 << 10);
/// The same for operations: starting one program takes tens.
const IO_OPERATIONS_MIN: Operations = Operations::new(10);
/// Below it, one packet of usual size takes a fifth of a second.
const NETWORK_MIN: Bits = Bits::new(64_000);
/// Fewer open files than this let no init run.
const FILES_MIN: u32 = 64;
/// The kernel's usual bound on open files of one process (`fs.nr_open`, proc_sys_fs(5)).
const FILES_MAX: u32 = 1_048_576;

/// A name with an address; a line or two of text.
const OWNER_MAX: usize = 128;
/// See [`OWNER_MAX`].
const DESCRIPTION_MAX: usize = 512;

impl Setting {
    /// Reads `KEY=VALUE`. `none` as a value takes a limit away.
    ///
    /// # Errors
    /// Refuses what has no `=`, an unknown key, and a value that cannot be right for its key.
    pub fn parse(assignment: &str) -> Result<Self, InvalidSetting> {
        let (word, value) = assigned(assignment)?;
        Self::read(Key::from_word(word)?, value)
    }

    fn read(key: Key, value: &str) -> Result<Self, InvalidSetting> {
        let word = key.as_str();
        let cores = || unless_none(value, |text| unit(word, text));
        let memory = || unless_none(value, |text| size(word, text, MEMORY_MIN));
        let share = || unless_none(value, |text| number(word, text, 1, SHARE_MAX));
        let bytes_rate = || unless_none(value, |text| rate(word, text, IO_RATE_MIN));
        let operations = || unless_none(value, |text| at_least(word, text, IO_OPERATIONS_MIN));
        let bits = || unless_none(value, |text| at_least(word, text, NETWORK_MIN));
        let count = |least, most| unless_none(value, |text| number(word, text, least, most));
        let bytes = |least| unless_none(value, |text| size(word, text, least));
        let span = |least| unless_none(value, |text| at_least(word, text, least));
        Ok(match key {
            Key::CpuGuarantee => Self::CpuGuarantee(cores()?),
            Key::CpuLimit => Self::CpuLimit(cores()?),
            Key::CpuBurst => Self::CpuBurst(cores()?),
            Key::CpuShare => Self::CpuShare(share()?),
            Key::CpuSet => Self::CpuSet(unless_none(value, |text| unit(word, text))?),
            Key::MemoryGuarantee => Self::MemoryGuarantee(memory()?),
            Key::MemoryLimit => Self::MemoryLimit(memory()?),
            Key::MemoryBurst => Self::MemoryBurst(memory()?),
            Key::MemoryGrowCeiling => Self::MemoryGrowCeiling(memory()?),
            Key::MemoryGrowStep => Self::MemoryGrowStep(bytes(GROW_STEP_MIN)?),
            Key::MemoryGrowThreshold => {
                let part = |text: &str| within(word, text, GROW_THRESHOLDS);
                Self::MemoryGrowThreshold(unless_none(value, part)?)
            }
            Key::MemoryGrowCooldown => Self::MemoryGrowCooldown(span(Seconds::new(0))?),
            Key::MemoryGrowGiveBack => Self::MemoryGrowGiveBack(span(GIVE_BACK_MIN)?),
            Key::MemorySwap => Self::MemorySwap(bytes(Bytes::new(0))?),
            Key::ProcessesLimit => Self::ProcessesLimit(count(1, PROCESSES_MAX)?),
            Key::FilesLimit => Self::FilesLimit(count(FILES_MIN, FILES_MAX)?),
            Key::DiskGuarantee => Self::DiskGuarantee(bytes(DISK_MIN)?),
            Key::DiskLimit => Self::DiskLimit(bytes(DISK_MIN)?),
            Key::IoShare => Self::IoShare(count(1, IO_SHARE_MAX)?),
            Key::IoReadLimit => Self::IoReadLimit(bytes_rate()?),
            Key::IoWriteLimit => Self::IoWriteLimit(bytes_rate()?),
            Key::IoReadOperations => Self::IoReadOperations(operations()?),
            Key::IoWriteOperations => Self::IoWriteOperations(operations()?),
            Key::NetworkGuarantee => Self::NetworkGuarantee(bits()?),
            Key::NetworkLimit => Self::NetworkLimit(bits()?),
            Key::NetworkBurst => Self::NetworkBurst(bits()?),
            Key::Address if value == "auto" => Self::AddressAuto,
            Key::Address => Self::Addresses(addresses(word, value, ADDRESSES_MAX)?),
            Key::Hostname => Self::Hostname(hostname(value)?),
            Key::Dns => Self::Dns(addresses(word, value, DNS_MAX)?),
            Key::Autostart => Self::Autostart(autostart(value)?),
            Key::Protected => Self::Protected(truth(word, value)?),
            Key::Nesting => Self::Nesting(truth(word, value)?),
            Key::MemoryMerge => Self::MemoryMerge(truth(word, value)?),
            Key::Owner => Self::Owner(unless_none(value, |text| words(word, text, OWNER_MAX))?),
            Key::Description => Self::Description(unless_none(value, |text| {
                words(word, text, DESCRIPTION_MAX)
            })?),
        })
    }

    /// Reads several assignments.
    ///
    /// # Errors
    /// Refuses all of them when one cannot be used, or when a key comes twice.
    pub fn parse_all<T: AsRef<str>>(assignments: &[T]) -> Result<Vec<Self>, InvalidSetting> {
        each_once(assignments, Self::parse, |setting| setting.key().as_str())
    }

    /// The key that this setting belongs to.
    #[must_use]
    pub fn key(&self) -> Key {
        match self {
            Self::CpuGuarantee(_) => Key::CpuGuarantee,
            Self::CpuLimit(_) => Key::CpuLimit,
            Self::CpuBurst(_) => Key::CpuBurst,
            Self::CpuShare(_) => Key::CpuShare,
            Self::CpuSet(_) => Key::CpuSet,
            Self::MemoryGuarantee(_) => Key::MemoryGuarantee,
            Self::MemoryLimit(_) => Key::MemoryLimit,
            Self::MemoryBurst(_) => Key::MemoryBurst,
            Self::MemoryGrowCeiling(_) => Key::MemoryGrowCeiling,
            Self::MemoryGrowStep(_) => Key::MemoryGrowStep,
            Self::MemoryGrowThreshold(_) => Key::MemoryGrowThreshold,
            Self::MemoryGrowCooldown(_) => Key::MemoryGrowCooldown,
            Self::MemoryGrowGiveBack(_) => Key::MemoryGrowGiveBack,
            Self::MemorySwap(_) => Key::MemorySwap,
            Self::ProcessesLimit(_) => Key::ProcessesLimit,
            Self::FilesLimit(_) => Key::FilesLimit,
            Self::DiskGuarantee(_) => Key::DiskGuarantee,
            Self::DiskLimit(_) => Key::DiskLimit,
            Self::IoShare(_) => Key::IoShare,
            Self::IoReadLimit(_) => Key::IoReadLimit,
            Self::IoWriteLimit(_) => Key::IoWriteLimit,
            Self::IoReadOperations(_) => Key::IoReadOperations,
            Self::IoWriteOperations(_) => Key::IoWriteOperations,
            Self::NetworkGuarantee(_) => Key::NetworkGuarantee,
            Self::NetworkLimit(_) => Key::NetworkLimit,
            Self::NetworkBurst(_) => Key::NetworkBurst,
            Self::AddressAuto | Self::Addresses(_) => Key::Address,
            Self::Hostname(_) => Key::Hostname,
            Self::Dns(_) => Key::Dns,
            Self::Autostart(_) => Key::Autostart,
            Self::Protected(_) => Key::Protected,
            Self::Nesting(_) => Key::Nesting,
            Self::MemoryMerge(_) => Key::MemoryMerge,
            Self::Owner(_) => Key::Owner,
            Self::Description(_) => Key::Description,
        }
    }
}

impl Setting {
    /// Whether it asks for something, and does not only take something away.
    #[must_use]
    pub fn asks(&self) -> bool {
        !matches!(
            self,
            Self::CpuGuarantee(None)
                | Self::CpuLimit(None)
                | Self::CpuBurst(None)
                | Self::CpuShare(None)
                | Self::CpuSet(None)
                | Self::MemoryGuarantee(None)
                | Self::MemoryLimit(None)
                | Self::MemoryBurst(None)
                | Self::MemoryGrowCeiling(None)
                | Self::MemoryGrowStep(None)
                | Self::MemoryGrowThreshold(None)
                | Self::MemoryGrowCooldown(None)
                | Self::MemoryGrowGiveBack(None)
                | Self::MemorySwap(None)
                | Self::ProcessesLimit(None)
                | Self::FilesLimit(None)
                | Self::DiskGuarantee(None)
                | Self::DiskLimit(None)
                | Self::IoShare(None)
                | Self::IoReadLimit(None)
                | Self::IoWriteLimit(None)
                | Self::IoReadOperations(None)
                | Self::IoWriteOperations(None)
                | Self::NetworkGuarantee(None)
                | Self::NetworkLimit(None)
                | Self::NetworkBurst(None)
                | Self::MemoryMerge(false)
                | Self::Owner(None)
                | Self::Description(None)
        )
    }
}

impl fmt::Display for Autostart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.pad("no"),
            Self::Order(order) => f.pad(&order.to_string()),
        }
    }
}
