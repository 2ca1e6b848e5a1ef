//! The words that `vessel set` knows.

use std::fmt;

use super::InvalidSetting;
use super::value::{join, nearest, shortened, yes_or_no};
use crate::limits::Limits;
use crate::spec::Spec;

/// A key that `set` knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// `cpu.guarantee`
    CpuGuarantee,
    /// `cpu.limit`
    CpuLimit,
    /// `cpu.burst`
    CpuBurst,
    /// `cpu.share`
    CpuShare,
    /// `cpu.set`
    CpuSet,
    /// `memory.guarantee`
    MemoryGuarantee,
    /// `memory.limit`
    MemoryLimit,
    /// `memory.burst`
    MemoryBurst,
    /// `memory.grow.ceiling`
    MemoryGrowCeiling,
    /// `memory.grow.step`
    MemoryGrowStep,
    /// `memory.grow.threshold`
    MemoryGrowThreshold,
    /// `memory.grow.cooldown`
    MemoryGrowCooldown,
    /// `memory.grow.give-back`
    MemoryGrowGiveBack,
    /// `memory.swap`
    MemorySwap,
    /// `processes.limit`
    ProcessesLimit,
    /// `files.limit`
    FilesLimit,
    /// `disk.guarantee`
    DiskGuarantee,
    /// `disk.limit`
    DiskLimit,
    /// `io.share`
    IoShare,
    /// `io.read.limit`
    IoReadLimit,
    /// `io.write.limit`
    IoWriteLimit,
    /// `io.read.ops`
    IoReadOperations,
    /// `io.write.ops`
    IoWriteOperations,
    /// `network.guarantee`
    NetworkGuarantee,
    /// `network.limit`
    NetworkLimit,
    /// `network.burst`
    NetworkBurst,
    /// `address`
    Address,
    /// `hostname`
    Hostname,
    /// `dns`
    Dns,
    /// `autostart`
    Autostart,
    /// `protected`
    Protected,
    /// `nesting`
    Nesting,
    /// `memory.merge`
    MemoryMerge,
    /// `owner`
    Owner,
    /// `description`
    Description,
}

impl Key {
    /// Every key, in the order of tables.
    pub const ALL: [Self; 35] = [
        Self::CpuGuarantee,
        Self::CpuLimit,
        Self::CpuBurst,
        Self::CpuShare,
        Self::CpuSet,
        Self::MemoryGuarantee,
        Self::MemoryLimit,
        Self::MemoryBurst,
        Self::MemoryGrowCeiling,
        Self::MemoryGrowStep,
        Self::MemoryGrowThreshold,
        Self::MemoryGrowCooldown,
        Self::MemoryGrowGiveBack,
        Self::MemorySwap,
        Self::ProcessesLimit,
        Self::FilesLimit,
        Self::DiskGuarantee,
        Self::DiskLimit,
        Self::IoShare,
        Self::IoReadLimit,
        Self::IoWriteLimit,
        Self::IoReadOperations,
        Self::IoWriteOperations,
        Self::NetworkGuarantee,
        Self::NetworkLimit,
        Self::NetworkBurst,
        Self::Address,
        Self::Hostname,
        Self::Dns,
        Self::Autostart,
        Self::Protected,
        Self::Nesting,
        Self::MemoryMerge,
        Self::Owner,
        Self::Description,
    ];

    /// The word that people and scripts write.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CpuGuarantee => "cpu.guarantee",
            Self::CpuLimit => "cpu.limit",
            Self::CpuBurst => "cpu.burst",
            Self::CpuShare => "cpu.share",
            Self::CpuSet => "cpu.set",
            Self::MemoryGuarantee => "memory.guarantee",
            Self::MemoryLimit => "memory.limit",
            Self::MemoryBurst => "memory.burst",
            Self::MemoryGrowCeiling => "memory.grow.ceiling",
            Self::MemoryGrowStep => "memory.grow.step",
            Self::MemoryGrowThreshold => "memory.grow.threshold",
            Self::MemoryGrowCooldown => "memory.grow.cooldown",
            Self::MemoryGrowGiveBack => "memory.grow.give-back",
            Self::MemorySwap => "memory.swap",
            Self::ProcessesLimit => "processes.limit",
            Self::FilesLimit => "files.limit",
            Self::DiskGuarantee => "disk.guarantee",
            Self::DiskLimit => "disk.limit",
            Self::IoShare => "io.share",
            Self::IoReadLimit => "io.read.limit",
            Self::IoWriteLimit => "io.write.limit",
            Self::IoReadOperations => "io.read.ops",
            Self::IoWriteOperations => "io.write.ops",
            Self::NetworkGuarantee => "network.guarantee",
            Self::NetworkLimit => "network.limit",
            Self::NetworkBurst => "network.burst",
            Self::Address => "address",
            Self::Hostname => "hostname",
            Self::Dns => "dns",
            Self::Autostart => "autostart",
            Self::Protected => "protected",
            Self::Nesting => "nesting",
            Self::MemoryMerge => "memory.merge",
            Self::Owner => "owner",
            Self::Description => "description",
        }
    }

    /// Finds the key that a word names.
    ///
    /// # Errors
    /// An unknown word is refused with the nearest key, or with all of them.
    pub fn from_word(word: &str) -> Result<Self, InvalidSetting> {
        Self::ALL
            .into_iter()
            .find(|key| key.as_str() == word)
            .ok_or_else(|| InvalidSetting::UnknownKey {
                given: shortened(word),
                advice: nearest(word, &Self::ALL.map(Self::as_str)),
            })
    }

    /// The value that this key has in `spec`, as `set` would read it back; none where nothing is
    /// set.
    #[must_use]
    pub fn value_in(self, spec: &Spec) -> Option<String> {
        match self {
            Self::Address => join(&spec.addresses),
            Self::Hostname => Some(spec.hostname.clone()),
            Self::Dns => join(&spec.dns),
            Self::Autostart => Some(spec.autostart.to_string()),
            Self::Protected => Some(yes_or_no(spec.protected).to_owned()),
            Self::Nesting => Some(yes_or_no(spec.nesting).to_owned()),
            Self::MemoryMerge => Some(yes_or_no(spec.memory_merge).to_owned()),
            Self::Owner => spec.owner.clone(),
            Self::Description => spec.description.clone(),
            _ => self.limit_in(&spec.limits),
        }
    }

    /// The value that this key has in `limits`; none where nothing is set, and for keys of no
    /// resource.
    #[must_use]
    pub fn limit_in(self, limits: &Limits) -> Option<String> {
        fn text<T: fmt::Display>(value: Option<&T>) -> Option<String> {
            value.map(ToString::to_string)
        }
        match self {
            Self::CpuGuarantee => text(limits.cpu_guarantee.as_ref()),
            Self::CpuLimit => text(limits.cpu.as_ref()),
            Self::CpuBurst => text(limits.cpu_burst.as_ref()),
            Self::CpuShare => text(limits.cpu_share.as_ref()),
            Self::CpuSet => text(limits.cpu_set.as_ref()),
            Self::MemoryGuarantee => text(limits.memory_guarantee.as_ref()),
            Self::MemoryLimit => text(limits.memory.as_ref()),
            Self::MemoryBurst => text(limits.memory_burst.as_ref()),
            Self::MemoryGrowCeiling => text(limits.memory_growth.ceiling.as_ref()),
            Self::MemoryGrowStep => text(limits.memory_growth.step.as_ref()),
            Self::MemoryGrowThreshold => text(limits.memory_growth.threshold.as_ref()),
            Self::MemoryGrowCooldown => text(limits.memory_growth.cooldown.as_ref()),
            Self::MemoryGrowGiveBack => text(limits.memory_growth.give_back.as_ref()),
            Self::MemorySwap => text(limits.memory_swap.as_ref()),
            Self::ProcessesLimit => text(limits.processes.as_ref()),
            Self::FilesLimit => text(limits.files.as_ref()),
            Self::DiskGuarantee => text(limits.disk_guarantee.as_ref()),
            Self::DiskLimit => text(limits.disk.as_ref()),
            Self::IoShare => text(limits.io_share.as_ref()),
            Self::IoReadLimit => text(limits.io_read.as_ref()),
            Self::IoWriteLimit => text(limits.io_write.as_ref()),
            Self::IoReadOperations => text(limits.io_read_operations.as_ref()),
            Self::IoWriteOperations => text(limits.io_write_operations.as_ref()),
            Self::NetworkGuarantee => text(limits.network_guarantee.as_ref()),
            Self::NetworkLimit => text(limits.network.as_ref()),
            Self::NetworkBurst => text(limits.network_burst.as_ref()),
            Self::Address
            | Self::Hostname
            | Self::Dns
            | Self::Autostart
            | Self::Protected
            | Self::Nesting
            | Self::MemoryMerge
            | Self::Owner
            | Self::Description => None,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
