//! The keys of `vessel node set KEY=VALUE`: what a node keeps for itself, and how much it sells.

use std::fmt;

use super::InvalidSetting;
use super::value::{assigned, at_least, each_once, nearest, shortened, unit, unless_none};
use crate::units::{Bits, Bytes, Cores, Factor};

/// What a node keeps for itself, and how much more than it has it may sell. `None` is what the
/// node finds right by itself: see each field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeResources {
    /// Processor time that is never guaranteed to VEs. By itself a twentieth of all, and no less
    /// than a tenth of a processor.
    pub cpu_reserve: Option<Cores>,
    /// Memory that VEs together never use. By itself a twentieth of all, and no less than 256 MiB.
    pub memory_reserve: Option<Bytes>,
    /// What of [`NodeResources::network_capacity`] VEs together never use while one is guaranteed a part of
    /// it: the node's own, and what keeps the queue on the node. By itself a twentieth.
    pub network_reserve: Option<Bits>,
    /// Most that the limits of running VEs may sum up to, as a multiple of what the node has for
    /// VEs. By itself no bound.
    pub cpu_overcommit: Option<Factor>,
    /// The same for memory.
    pub memory_overcommit: Option<Factor>,
    /// Space in the pool that VEs together never use while one is guaranteed some: for templates, and for
    /// what the file system itself needs. By itself a twentieth, and no less than 256 MiB.
    pub disk_reserve: Option<Bytes>,
    /// The same for space in the pool, where VEs that do not run count, too.
    pub disk_overcommit: Option<Factor>,
    /// How fast the node's way to other networks is, each direction. Without it nothing of it can be
    /// guaranteed.
    pub network_capacity: Option<Bits>,
}

/// A key that `node set` knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeKey {
    /// `cpu.reserve`
    CpuReserve,
    /// `cpu.overcommit`
    CpuOvercommit,
    /// `memory.reserve`
    MemoryReserve,
    /// `memory.overcommit`
    MemoryOvercommit,
    /// `disk.reserve`
    DiskReserve,
    /// `disk.overcommit`
    DiskOvercommit,
    /// `network.capacity`
    NetworkCapacity,
    /// `network.reserve`
    NetworkReserve,
}

/// A key of a node with its value; `None` takes it back to what the node finds right by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeSetting {
    /// [`NodeResources::cpu_reserve`].
    CpuReserve(Option<Cores>),
    /// [`NodeResources::cpu_overcommit`].
    CpuOvercommit(Option<Factor>),
    /// [`NodeResources::memory_reserve`].
    MemoryReserve(Option<Bytes>),
    /// [`NodeResources::memory_overcommit`].
    MemoryOvercommit(Option<Factor>),
    /// [`NodeResources::disk_reserve`].
    DiskReserve(Option<Bytes>),
    /// [`NodeResources::disk_overcommit`].
    DiskOvercommit(Option<Factor>),
    /// [`NodeResources::network_capacity`].
    NetworkCapacity(Option<Bits>),
    /// [`NodeResources::network_reserve`].
    NetworkReserve(Option<Bits>),
}

/// A slower network than this cannot be divided among VEs.
const CAPACITY_MIN: Bits = Bits::new(1_000_000);
/// Less cannot hold the daemon itself.
const MEMORY_RESERVE_MIN: Bytes = Bytes::from_mebibytes(64);

impl NodeKey {
    /// Every key, in the order of tables.
    pub const ALL: [Self; 8] = [
        Self::CpuReserve,
        Self::CpuOvercommit,
        Self::MemoryReserve,
        Self::MemoryOvercommit,
        Self::DiskReserve,
        Self::DiskOvercommit,
        Self::NetworkCapacity,
        Self::NetworkReserve,
    ];

    /// The word that people and scripts write.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CpuReserve => "cpu.reserve",
            Self::CpuOvercommit => "cpu.overcommit",
            Self::MemoryReserve => "memory.reserve",
            Self::MemoryOvercommit => "memory.overcommit",
            Self::DiskReserve => "disk.reserve",
            Self::DiskOvercommit => "disk.overcommit",
            Self::NetworkCapacity => "network.capacity",
            Self::NetworkReserve => "network.reserve",
        }
    }

    /// The value that this key has, as `node set` would read it back; none where the node decides.
    #[must_use]
    pub fn value_in(self, resources: &NodeResources) -> Option<String> {
        match self {
            Self::CpuReserve => resources.cpu_reserve.map(|value| value.to_string()),
            Self::CpuOvercommit => resources.cpu_overcommit.map(|value| value.to_string()),
            Self::MemoryReserve => resources.memory_reserve.map(|value| value.to_string()),
            Self::MemoryOvercommit => resources.memory_overcommit.map(|value| value.to_string()),
            Self::DiskReserve => resources.disk_reserve.map(|value| value.to_string()),
            Self::DiskOvercommit => resources.disk_overcommit.map(|value| value.to_string()),
            Self::NetworkCapacity => resources.network_capacity.map(|value| value.to_string()),
            Self::NetworkReserve => resources.network_reserve.map(|value| value.to_string()),
        }
    }
}

impl NodeSetting {
    /// Reads several `KEY=VALUE`; `none` or nothing as a value takes a key back.
    ///
    /// # Errors
    /// Refuses all of them when one cannot be used, or when a key comes twice.
    pub fn parse_all<T: AsRef<str>>(assignments: &[T]) -> Result<Vec<Self>, InvalidSetting> {
        each_once(assignments, Self::parse, |setting| setting.key().as_str())
    }

    fn parse(assignment: &str) -> Result<Self, InvalidSetting> {
        let (word, value) = assigned(assignment)?;
        let key = NodeKey::ALL.into_iter().find(|key| key.as_str() == word);
        let key = key.ok_or_else(|| InvalidSetting::UnknownKey {
            given: shortened(word),
            advice: nearest(word, &NodeKey::ALL.map(NodeKey::as_str)),
        })?;
        let word = key.as_str();
        let value = if value.is_empty() { "none" } else { value };
        let factor = || unless_none(value, |text| unit(word, text));
        let bits = |least| unless_none(value, |text| at_least(word, text, least));
        let memory = || unless_none(value, |text| at_least(word, text, MEMORY_RESERVE_MIN));
        Ok(match key {
            NodeKey::CpuReserve => Self::CpuReserve(unless_none(value, |text| unit(word, text))?),
            NodeKey::CpuOvercommit => Self::CpuOvercommit(factor()?),
            NodeKey::MemoryReserve => Self::MemoryReserve(memory()?),
            NodeKey::MemoryOvercommit => Self::MemoryOvercommit(factor()?),
            NodeKey::DiskReserve => Self::DiskReserve(unless_none(value, |text| unit(word, text))?),
            NodeKey::DiskOvercommit => Self::DiskOvercommit(factor()?),
            NodeKey::NetworkCapacity => Self::NetworkCapacity(bits(CAPACITY_MIN)?),
            NodeKey::NetworkReserve => Self::NetworkReserve(bits(Bits::new(0))?),
        })
    }

    /// The key that this setting belongs to.
    #[must_use]
    pub fn key(&self) -> NodeKey {
        match self {
            Self::CpuReserve(_) => NodeKey::CpuReserve,
            Self::CpuOvercommit(_) => NodeKey::CpuOvercommit,
            Self::MemoryReserve(_) => NodeKey::MemoryReserve,
            Self::MemoryOvercommit(_) => NodeKey::MemoryOvercommit,
            Self::DiskReserve(_) => NodeKey::DiskReserve,
            Self::DiskOvercommit(_) => NodeKey::DiskOvercommit,
            Self::NetworkCapacity(_) => NodeKey::NetworkCapacity,
            Self::NetworkReserve(_) => NodeKey::NetworkReserve,
        }
    }
}

impl NodeResources {
    /// Puts one setting in place of what was there.
    pub fn apply(&mut self, setting: &NodeSetting) {
        match *setting {
            NodeSetting::CpuReserve(value) => self.cpu_reserve = value,
            NodeSetting::CpuOvercommit(value) => self.cpu_overcommit = value,
            NodeSetting::MemoryReserve(value) => self.memory_reserve = value,
            NodeSetting::MemoryOvercommit(value) => self.memory_overcommit = value,
            NodeSetting::DiskReserve(value) => self.disk_reserve = value,
            NodeSetting::DiskOvercommit(value) => self.disk_overcommit = value,
            NodeSetting::NetworkCapacity(value) => self.network_capacity = value,
            NodeSetting::NetworkReserve(value) => self.network_reserve = value,
        }
    }
}

impl fmt::Display for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
