//! What a VE is meant to be: everything that its administrator decided.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::id::VeId;
use crate::limits::Limits;
use crate::name::Name;
use crate::revision::Revision;
use crate::settings::Setting;
use crate::stack::{Options, Stack};

/// A VE as it was asked for. What it is doing is a [`State`](crate::State).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Its number, for life.
    pub id: VeId,
    /// Its name, unique on the node.
    pub name: Name,
    /// The template whose files it sees below its own.
    pub template: Name,
    /// Which revision of that template.
    pub revision: Revision,
    /// The applications on that template, with what was chosen of the settings that each offers.
    pub applications: BTreeMap<Name, Options>,
    /// The version of that template, with its applications, that it was made from, as the content digest of both;
    /// empty until the stack of several applications is made.
    pub template_version: String,
    /// What `hostname` says inside.
    pub hostname: String,
    /// Its addresses; no two VEs of a node share one.
    pub addresses: Vec<IpAddr>,
    /// Name servers; none means those of the node.
    pub dns: Vec<IpAddr>,
    /// What it may use.
    pub limits: Limits,
    /// Words of its administrator, to select VEs by.
    pub labels: BTreeMap<String, String>,
    /// Whether and when it starts with the node.
    pub autostart: Autostart,
    /// Whether it refuses to be deleted.
    pub protected: bool,
    /// Whether it may run containers of its own, at the price of never being checkpointed.
    pub nesting: bool,
    /// Whether equal pages of its processes are merged, with those of other VEs that chose it.
    pub memory_merge: bool,
    /// Who it belongs to, in words of its administrator.
    pub owner: Option<String>,
    /// What it is for, in words of its administrator.
    pub description: Option<String>,
    /// When it was made, in seconds since 1970.
    pub created: u64,
}

impl Spec {
    /// A VE with a name and the first revision of a template, and nothing else of its own: no address, no limit, started by hand.
    #[must_use]
    pub fn new(id: VeId, name: Name, template: Name, created: u64) -> Self {
        Self {
            id,
            hostname: name.to_string(),
            name,
            template,
            revision: Revision::FIRST,
            applications: BTreeMap::new(),
            template_version: String::new(),
            addresses: Vec::new(),
            dns: Vec::new(),
            limits: Limits::default(),
            labels: BTreeMap::new(),
            autostart: Autostart::Off,
            protected: false,
            nesting: false,
            memory_merge: false,
            owner: None,
            description: None,
            created,
        }
    }
}

/// Whether and when a VE starts with the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Autostart {
    /// Only when asked.
    Off,
    /// With the node: smaller numbers first, equal ones side by side.
    Order(u32),
}

impl Autostart {
    /// The place in the order of a VE whose administrator gave none.
    pub const ORDER_DEFAULT: u32 = 100;
}

impl Spec {
    /// The files that it shares with others: its template and applications.
    #[must_use]
    pub fn stack(&self) -> Stack {
        let applications = self.applications.keys().cloned().collect();
        Stack::admitted(&self.template, self.revision, applications)
    }

    /// Takes the template, its revision and its version from another specification.
    pub fn take_template(&mut self, other: &Self) {
        self.template.clone_from(&other.template);
        self.revision = other.revision;
        self.template_version.clone_from(&other.template_version);
    }

    /// Puts one setting in place of what was there. [`Setting::AddressAuto`] must have been turned
    /// into addresses by whoever knows the node; here it changes nothing.
    pub fn apply(&mut self, setting: &Setting) {
        match setting.clone() {
            Setting::CpuGuarantee(value) => self.limits.cpu_guarantee = value,
            Setting::CpuLimit(value) => self.limits.cpu = value,
            Setting::CpuBurst(value) => self.limits.cpu_burst = value,
            Setting::CpuShare(value) => self.limits.cpu_share = value,
            Setting::CpuSet(value) => self.limits.cpu_set = value,
            Setting::MemoryGuarantee(value) => self.limits.memory_guarantee = value,
            Setting::MemoryLimit(value) => self.limits.memory = value,
            Setting::MemoryBurst(value) => self.limits.memory_burst = value,
            Setting::MemoryGrowCeiling(value) => self.limits.memory_growth.ceiling = value,
            Setting::MemoryGrowStep(value) => self.limits.memory_growth.step = value,
            Setting::MemoryGrowThreshold(value) => self.limits.memory_growth.threshold = value,
            Setting::MemoryGrowCooldown(value) => self.limits.memory_growth.cooldown = value,
            Setting::MemoryGrowGiveBack(value) => self.limits.memory_growth.give_back = value,
            Setting::MemorySwap(value) => self.limits.memory_swap = value,
            Setting::ProcessesLimit(value) => self.limits.processes = value,
            Setting::FilesLimit(value) => self.limits.files = value,
            Setting::DiskGuarantee(value) => self.limits.disk_guarantee = value,
            Setting::DiskLimit(value) => self.limits.disk = value,
            Setting::IoShare(value) => self.limits.io_share = value,
            Setting::IoReadLimit(value) => self.limits.io_read = value,
            Setting::IoWriteLimit(value) => self.limits.io_write = value,
            Setting::IoReadOperations(value) => self.limits.io_read_operations = value,
            Setting::IoWriteOperations(value) => self.limits.io_write_operations = value,
            Setting::NetworkGuarantee(value) => self.limits.network_guarantee = value,
            Setting::NetworkLimit(value) => self.limits.network = value,
            Setting::NetworkBurst(value) => self.limits.network_burst = value,
            Setting::AddressAuto => {}
            Setting::Addresses(value) => self.addresses = value,
            Setting::Hostname(value) => self.hostname = value,
            Setting::Dns(value) => self.dns = value,
            Setting::Autostart(value) => self.autostart = value,
            Setting::Protected(value) => self.protected = value,
            Setting::Nesting(value) => self.nesting = value,
            Setting::MemoryMerge(value) => self.memory_merge = value,
            Setting::Owner(value) => self.owner = value,
            Setting::Description(value) => self.description = value,
        }
    }
}
