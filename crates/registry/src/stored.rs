//! The records as they lie in the database. Fields are only ever added, each with a default, so
//! that a newer node reads what an older one wrote.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use ve::{
    Autostart, Bits, Bytes, Cores, Limits, MemoryGrowth, Name, Operations, Options, Percent,
    Revision, Seconds, Spec, VeId,
};

use crate::record::{FirstBoot, Run};

#[derive(Serialize, Deserialize)]
pub(crate) struct StoredSpec {
    name: String,
    template: String,
    #[serde(default)]
    revision: StoredRevision,
    #[serde(default)]
    applications: BTreeMap<String, Options>,
    template_version: String,
    hostname: String,
    addresses: Vec<IpAddr>,
    #[serde(default)]
    dns: Vec<IpAddr>,
    #[serde(default)]
    limits: StoredLimits,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    autostart: Option<u32>,
    #[serde(default)]
    protected: bool,
    #[serde(default)]
    nesting: bool,
    #[serde(default)]
    memory_merge: bool,
    #[serde(default)]
    owner: Option<String>,
    #[serde(default)]
    description: Option<String>,
    created: u64,
}

/// Records from before templates had revisions have the first.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct StoredRevision(u32);

impl Default for StoredRevision {
    fn default() -> Self {
        Self(Revision::FIRST.get())
    }
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct StoredLimits {
    cpu_guarantee_thousandths: Option<u32>,
    cpu_thousandths: Option<u32>,
    cpu_burst_thousandths: Option<u32>,
    cpu_share: Option<u32>,
    cpu_set: Option<String>,
    memory_guarantee_bytes: Option<u64>,
    memory_bytes: Option<u64>,
    memory_burst_bytes: Option<u64>,
    memory_grow_ceiling_bytes: Option<u64>,
    memory_grow_step_bytes: Option<u64>,
    memory_grow_threshold_percent: Option<u8>,
    memory_grow_cooldown_seconds: Option<u64>,
    memory_grow_give_back_seconds: Option<u64>,
    memory_given_bytes: Option<u64>,
    memory_swap_bytes: Option<u64>,
    processes: Option<u32>,
    files: Option<u32>,
    disk_guarantee_bytes: Option<u64>,
    disk_bytes: Option<u64>,
    io_share: Option<u32>,
    io_read_bytes: Option<u64>,
    io_write_bytes: Option<u64>,
    io_read_operations: Option<u32>,
    io_write_operations: Option<u32>,
    network_guarantee_bits: Option<u64>,
    network_bits: Option<u64>,
    network_burst_bits: Option<u64>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct StoredRun {
    pid: u32,
    start_time_ticks: u64,
    boot_id: String,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct StoredFirstBoot {
    root_password_hash: Option<String>,
    ssh_keys: Vec<String>,
}

impl From<&Spec> for StoredSpec {
    fn from(spec: &Spec) -> Self {
        Self {
            name: spec.name.to_string(),
            template: spec.template.to_string(),
            revision: StoredRevision(spec.revision.get()),
            applications: spec
                .applications
                .iter()
                .map(|(name, options)| (name.to_string(), options.clone()))
                .collect(),
            template_version: spec.template_version.clone(),
            hostname: spec.hostname.clone(),
            addresses: spec.addresses.clone(),
            dns: spec.dns.clone(),
            limits: StoredLimits::from(&spec.limits),
            labels: spec.labels.clone(),
            autostart: match spec.autostart {
                Autostart::Off => None,
                Autostart::Order(order) => Some(order),
            },
            protected: spec.protected,
            nesting: spec.nesting,
            memory_merge: spec.memory_merge,
            owner: spec.owner.clone(),
            description: spec.description.clone(),
            created: spec.created,
        }
    }
}

impl StoredSpec {
    /// The domain's form, or the words for what in it cannot be read.
    pub(crate) fn into_spec(self, id: VeId) -> Result<Spec, String> {
        let applications = self.applications.into_iter();
        let applications = applications.map(|(name, options)| Ok((Name::new(&name)?, options)));
        Ok(Spec {
            id,
            name: Name::new(&self.name).map_err(|error| error.to_string())?,
            template: Name::new(&self.template).map_err(|error| error.to_string())?,
            revision: Revision::new(self.revision.0).map_err(|error| error.to_string())?,
            applications: applications
                .collect::<Result<_, _>>()
                .map_err(|error: ve::InvalidName| error.to_string())?,
            template_version: self.template_version,
            hostname: self.hostname,
            addresses: self.addresses,
            dns: self.dns,
            limits: self.limits.into_limits()?,
            labels: self.labels,
            autostart: self.autostart.map_or(Autostart::Off, Autostart::Order),
            protected: self.protected,
            nesting: self.nesting,
            memory_merge: self.memory_merge,
            owner: self.owner,
            description: self.description,
            created: self.created,
        })
    }
}

impl From<&Limits> for StoredLimits {
    fn from(limits: &Limits) -> Self {
        let growth = &limits.memory_growth;
        Self {
            cpu_guarantee_thousandths: limits.cpu_guarantee.map(Cores::thousandths),
            cpu_thousandths: limits.cpu.map(Cores::thousandths),
            cpu_burst_thousandths: limits.cpu_burst.map(Cores::thousandths),
            cpu_share: limits.cpu_share,
            cpu_set: limits.cpu_set.as_ref().map(ToString::to_string),
            memory_guarantee_bytes: limits.memory_guarantee.map(Bytes::get),
            memory_bytes: limits.memory.map(Bytes::get),
            memory_burst_bytes: limits.memory_burst.map(Bytes::get),
            memory_grow_ceiling_bytes: growth.ceiling.map(Bytes::get),
            memory_grow_step_bytes: growth.step.map(Bytes::get),
            memory_grow_threshold_percent: growth.threshold.map(Percent::get),
            memory_grow_cooldown_seconds: growth.cooldown.map(Seconds::get),
            memory_grow_give_back_seconds: growth.give_back.map(Seconds::get),
            memory_given_bytes: growth.given.map(Bytes::get),
            memory_swap_bytes: limits.memory_swap.map(Bytes::get),
            processes: limits.processes,
            files: limits.files,
            disk_guarantee_bytes: limits.disk_guarantee.map(Bytes::get),
            disk_bytes: limits.disk.map(Bytes::get),
            io_share: limits.io_share,
            io_read_bytes: limits.io_read.map(Bytes::get),
            io_write_bytes: limits.io_write.map(Bytes::get),
            io_read_operations: limits.io_read_operations.map(Operations::get),
            io_write_operations: limits.io_write_operations.map(Operations::get),
            network_guarantee_bits: limits.network_guarantee.map(Bits::get),
            network_bits: limits.network.map(Bits::get),
            network_burst_bits: limits.network_burst.map(Bits::get),
        }
    }
}

impl StoredLimits {
    fn into_limits(self) -> Result<Limits, String> {
        let cpu_set = self.cpu_set.map(|text| text.parse()).transpose();
        Ok(Limits {
            cpu_guarantee: self.cpu_guarantee_thousandths.map(Cores::from_thousandths),
            cpu: self.cpu_thousandths.map(Cores::from_thousandths),
            cpu_burst: self.cpu_burst_thousandths.map(Cores::from_thousandths),
            cpu_share: self.cpu_share,
            cpu_set: cpu_set.map_err(|error: ve::InvalidUnit| error.to_string())?,
            memory_guarantee: self.memory_guarantee_bytes.map(Bytes::new),
            memory: self.memory_bytes.map(Bytes::new),
            memory_burst: self.memory_burst_bytes.map(Bytes::new),
            memory_growth: MemoryGrowth {
                ceiling: self.memory_grow_ceiling_bytes.map(Bytes::new),
                step: self.memory_grow_step_bytes.map(Bytes::new),
                threshold: self.memory_grow_threshold_percent.map(Percent::new),
                cooldown: self.memory_grow_cooldown_seconds.map(Seconds::new),
                give_back: self.memory_grow_give_back_seconds.map(Seconds::new),
                given: self.memory_given_bytes.map(Bytes::new),
            },
            memory_swap: self.memory_swap_bytes.map(Bytes::new),
            processes: self.processes,
            files: self.files,
            disk_guarantee: self.disk_guarantee_bytes.map(Bytes::new),
            disk: self.disk_bytes.map(Bytes::new),
            io_share: self.io_share,
            io_read: self.io_read_bytes.map(Bytes::new),
            io_write: self.io_write_bytes.map(Bytes::new),
            io_read_operations: self.io_read_operations.map(Operations::new),
            io_write_operations: self.io_write_operations.map(Operations::new),
            network_guarantee: self.network_guarantee_bits.map(Bits::new),
            network: self.network_bits.map(Bits::new),
            network_burst: self.network_burst_bits.map(Bits::new),
        })
    }
}

impl From<&Run> for StoredRun {
    fn from(run: &Run) -> Self {
        Self {
            pid: run.pid,
            start_time_ticks: run.start_time_ticks,
            boot_id: run.boot_id.clone(),
        }
    }
}

impl From<StoredRun> for Run {
    fn from(stored: StoredRun) -> Self {
        Self {
            pid: stored.pid,
            start_time_ticks: stored.start_time_ticks,
            boot_id: stored.boot_id,
        }
    }
}

impl From<&FirstBoot> for StoredFirstBoot {
    fn from(first_boot: &FirstBoot) -> Self {
        Self {
            root_password_hash: first_boot.root_password_hash.clone(),
            ssh_keys: first_boot.ssh_keys.clone(),
        }
    }
}

impl From<StoredFirstBoot> for FirstBoot {
    fn from(stored: StoredFirstBoot) -> Self {
        Self {
            root_password_hash: stored.root_password_hash,
            ssh_keys: stored.ssh_keys,
        }
    }
}
