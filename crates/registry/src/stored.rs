//! The records as they lie in the database. Fields are only ever added, each with a default, so
//! that a newer node reads what an older one wrote.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use ve::{Autostart, Bytes, Cores, Limits, Name, Spec, VeId};

use crate::record::{FirstBoot, Run};

#[derive(Serialize, Deserialize)]
pub(crate) struct StoredSpec {
    name: String,
    template: String,
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
    created: u64,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct StoredLimits {
    cpu_thousandths: Option<u32>,
    cpu_share: Option<u32>,
    cpu_set: Option<String>,
    memory_bytes: Option<u64>,
    memory_swap_bytes: Option<u64>,
    processes: Option<u32>,
    disk_bytes: Option<u64>,
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
        let Limits {
            cpu,
            cpu_share,
            cpu_set,
            memory,
            memory_swap,
            processes,
            disk,
        } = &spec.limits;
        Self {
            name: spec.name.to_string(),
            template: spec.template.to_string(),
            template_version: spec.template_version.clone(),
            hostname: spec.hostname.clone(),
            addresses: spec.addresses.clone(),
            dns: spec.dns.clone(),
            limits: StoredLimits {
                cpu_thousandths: cpu.map(Cores::thousandths),
                cpu_share: *cpu_share,
                cpu_set: cpu_set.as_ref().map(ToString::to_string),
                memory_bytes: memory.map(Bytes::get),
                memory_swap_bytes: memory_swap.map(Bytes::get),
                processes: *processes,
                disk_bytes: disk.map(Bytes::get),
            },
            labels: spec.labels.clone(),
            autostart: match spec.autostart {
                Autostart::Off => None,
                Autostart::Order(order) => Some(order),
            },
            protected: spec.protected,
            nesting: spec.nesting,
            created: spec.created,
        }
    }
}

impl StoredSpec {
    /// The domain's form, or the words for what in it cannot be read.
    pub(crate) fn into_spec(self, id: VeId) -> Result<Spec, String> {
        let cpu_set = self.limits.cpu_set.map(|text| text.parse()).transpose();
        Ok(Spec {
            id,
            name: Name::new(&self.name).map_err(|error| error.to_string())?,
            template: Name::new(&self.template).map_err(|error| error.to_string())?,
            template_version: self.template_version,
            hostname: self.hostname,
            addresses: self.addresses,
            dns: self.dns,
            limits: Limits {
                cpu: self.limits.cpu_thousandths.map(Cores::from_thousandths),
                cpu_share: self.limits.cpu_share,
                cpu_set: cpu_set.map_err(|error: ve::InvalidUnit| error.to_string())?,
                memory: self.limits.memory_bytes.map(Bytes::new),
                memory_swap: self.limits.memory_swap_bytes.map(Bytes::new),
                processes: self.limits.processes,
                disk: self.limits.disk_bytes.map(Bytes::new),
            },
            labels: self.labels,
            autostart: self.autostart.map_or(Autostart::Off, Autostart::Order),
            protected: self.protected,
            nesting: self.nesting,
            created: self.created,
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
