//! What a node has for VEs, and whether what a VE is promised can be kept.
//!
//! A guarantee is sold while its VE runs: the sum over running VEs never exceeds what the node has,
//! less what it reserves for itself. A VE that stands still holds nothing, so its start can be refused.
//! Limits may be overcommitted, without bound unless the administrator sets one.

use ve::{Bits, Bytes, Cores, Factor, Key, Limits, MemoryGrowth, NodeResources};

use crate::limits::set_cores;

/// What a node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Processor time per time.
    pub cpu: Cores,
    /// Memory.
    pub memory: Bytes,
    /// Space in the pool.
    pub disk: Bytes,
}

/// What a node has, and what its administrator decided about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeCapacity {
    /// What it has.
    pub has: Capacity,
    /// What it keeps for itself, and how much it sells.
    pub resources: NodeResources,
}

/// Why a VE cannot be promised what it asks for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdmissionDenied {
    /// Guarantees would exceed the node.
    #[error("{key}: {wanted} is asked for, and {left}")]
    Guarantee {
        /// The key.
        key: Key,
        /// What is asked for.
        wanted: String,
        /// What is left, with the arithmetic.
        left: String,
    },
    /// The node does not know how much it has.
    #[error("{key}: this node does not know how fast its network is, so it can guarantee nothing")]
    Unknown {
        /// The key.
        key: Key,
    },
    /// The processors of a set are promised to others.
    #[error(
        "cpu.guarantee: {sold} is guaranteed to VEs that may run on the processors {set} only, and \
         these give {has}"
    )]
    Set {
        /// The processors.
        set: String,
        /// What is guaranteed there, with what is asked for.
        sold: Cores,
        /// What they give.
        has: Cores,
    },
    /// Limits would exceed what may be given.
    #[error("{key}: {wanted} is asked for, and {left}")]
    Overcommit {
        /// The key.
        key: Key,
        /// What is asked for.
        wanted: String,
        /// What is left, with the arithmetic.
        left: String,
    },
}

/// Reserves that a node finds right by itself: a twentieth, and no less than the daemon, the launcher and
/// an administrator's shell need.
const RESERVE_PARTS: u64 = 20;
const CPU_RESERVE_MIN: u64 = 100;
const MEMORY_RESERVE_MIN: u64 = 256 << 20;
/// A template and the file system's own records.
const DISK_RESERVE_MIN: u64 = 256 << 20;

impl NodeCapacity {
    /// Processor time that the node keeps for itself.
    #[must_use]
    pub fn cpu_reserve(&self) -> Cores {
        let all = self.has.cpu.thousandths();
        let own = u64::from(all).div_ceil(RESERVE_PARTS).max(CPU_RESERVE_MIN);
        let own = Cores::from_thousandths(u32::try_from(own).unwrap_or(all));
        self.resources.cpu_reserve.unwrap_or(own).min(self.has.cpu)
    }

    /// Memory that the node keeps for itself.
    #[must_use]
    pub fn memory_reserve(&self) -> Bytes {
        let own = (self.has.memory.get() / RESERVE_PARTS).max(MEMORY_RESERVE_MIN);
        let chosen = self.resources.memory_reserve.unwrap_or(Bytes::new(own));
        chosen.min(self.has.memory)
    }

    /// Space in the pool that the node keeps for itself.
    #[must_use]
    pub fn disk_reserve(&self) -> Bytes {
        let own = (self.has.disk.get() / RESERVE_PARTS).max(DISK_RESERVE_MIN);
        let chosen = self.resources.disk_reserve.unwrap_or(Bytes::new(own));
        chosen.min(self.has.disk)
    }

    /// What the node keeps for itself of its way to other networks.
    #[must_use]
    pub fn network_reserve(&self) -> Bits {
        let all = self.resources.network_capacity.unwrap_or(Bits::new(0));
        let own = Bits::new(all.get() / RESERVE_PARTS);
        self.resources.network_reserve.unwrap_or(own).min(all)
    }

    /// Processor time that can be guaranteed to VEs.
    #[must_use]
    pub fn cpu_for_ves(&self) -> Cores {
        let left = self.has.cpu.thousandths() - self.cpu_reserve().thousandths();
        Cores::from_thousandths(left)
    }

    /// Memory that can be guaranteed to VEs, and that they never exceed together.
    #[must_use]
    pub fn memory_for_ves(&self) -> Bytes {
        Bytes::new(self.has.memory.get() - self.memory_reserve().get())
    }

    /// What of the way to other networks can be guaranteed, if it is known.
    #[must_use]
    pub fn network_for_ves(&self) -> Option<Bits> {
        let all = self.resources.network_capacity?;
        Some(Bits::new(all.get() - self.network_reserve().get()))
    }

    /// Whether the node can keep what it promised to the VEs that run, and to `all` that exist; for a change
    /// of what it has or reserves.
    ///
    /// # Errors
    /// Names the first promise that it could not keep.
    pub fn holds(&self, running: &[&Limits], all: &[&Limits]) -> Result<(), AdmissionDenied> {
        for (at, wanted) in running.iter().enumerate() {
            self.admit(wanted, None, &running[..at])?;
        }
        all.iter()
            .enumerate()
            .try_for_each(|(at, wanted)| self.admit_disk(wanted, None, &all[..at]))
    }

    /// Decides whether a VE may run with `wanted`, beside `others` that run. What it holds already, when
    /// it runs, and does not ask more of is never refused.
    ///
    /// # Errors
    /// Names the first promise that could not be kept, with the arithmetic.
    pub fn admit(
        &self,
        wanted: &Limits,
        held: Option<&Limits>,
        others: &[&Limits],
    ) -> Result<(), AdmissionDenied> {
        self.guarantee_cpu(wanted, held, others)?;
        self.guarantee_memory(wanted, held, others)?;
        self.guarantee_network(wanted, held, others)?;
        self.set_fits(wanted, held, others)?;
        let cpu = |limits: &Limits| limits.cpu.map(|cores| u64::from(cores.thousandths()));
        let cpu = Resold {
            key: Key::CpuLimit,
            factor: self.resources.cpu_overcommit,
            has: u64::from(self.cpu_for_ves().thousandths()),
            of: &cpu,
            show: &|value| cores_of(value).to_string(),
        };
        cpu.admit(wanted, held, others)?;
        let memory = Resold {
            key: Key::MemoryLimit,
            factor: self.resources.memory_overcommit,
            has: self.memory_for_ves().get(),
            of: &|limits| limits.memory_now().map(Bytes::get),
            show: &readable,
        };
        memory.admit(wanted, held, others)
    }

    /// Decides whether a VE may be guaranteed its `disk.guarantee`, and may take up to its `disk.limit`, of
    /// the pool beside `others` that exist.
    ///
    /// # Errors
    /// With the arithmetic.
    pub fn admit_disk(
        &self,
        wanted: &Limits,
        held: Option<&Limits>,
        others: &[&Limits],
    ) -> Result<(), AdmissionDenied> {
        let guarantee = |limits: &Limits| limits.disk_guarantee.map_or(0, Bytes::get);
        Sale {
            key: Key::DiskGuarantee,
            has: self.has.disk.get(),
            reserve: self.disk_reserve().get(),
            buyer: "VE",
            show: &readable,
        }
        .admit(
            guarantee(wanted),
            held.map_or(0, guarantee),
            others.iter().map(|other| guarantee(other)),
        )?;
        let disk = Resold {
            key: Key::DiskLimit,
            factor: self.resources.disk_overcommit,
            has: self.has.disk.get(),
            of: &|limits| limits.disk.map(Bytes::get),
            show: &readable,
        };
        disk.admit(wanted, held, others)
    }

    fn guarantee_cpu(
        &self,
        wanted: &Limits,
        held: Option<&Limits>,
        others: &[&Limits],
    ) -> Result<(), AdmissionDenied> {
        let of = |limits: &Limits| {
            limits
                .cpu_guarantee
                .map_or(0, |cores| u64::from(cores.thousandths()))
        };
        let show = |value: u64| format!("{} processors", cores_of(value));
        Sale {
            key: Key::CpuGuarantee,
            has: u64::from(self.has.cpu.thousandths()),
            reserve: u64::from(self.cpu_reserve().thousandths()),
            buyer: "running VE",
            show: &show,
        }
        .admit(
            of(wanted),
            held.map_or(0, of),
            others.iter().map(|other| of(other)),
        )
    }

    fn guarantee_memory(
        &self,
        wanted: &Limits,
        held: Option<&Limits>,
        others: &[&Limits],
    ) -> Result<(), AdmissionDenied> {
        let of = |limits: &Limits| limits.memory_guarantee.map_or(0, Bytes::get);
        Sale {
            key: Key::MemoryGuarantee,
            has: self.has.memory.get(),
            reserve: self.memory_reserve().get(),
            buyer: "running VE",
            show: &readable,
        }
        .admit(
            of(wanted),
            held.map_or(0, of),
            others.iter().map(|other| of(other)),
        )
    }

    fn guarantee_network(
        &self,
        wanted: &Limits,
        held: Option<&Limits>,
        others: &[&Limits],
    ) -> Result<(), AdmissionDenied> {
        let of = |limits: &Limits| limits.network_guarantee.map_or(0, Bits::get);
        if of(wanted) <= held.map_or(0, of) {
            return Ok(());
        }
        let key = Key::NetworkGuarantee;
        let capacity = self.resources.network_capacity;
        Sale {
            key,
            has: capacity.ok_or(AdmissionDenied::Unknown { key })?.get(),
            reserve: self.network_reserve().get(),
            buyer: "running VE",
            show: &|value| Bits::new(value).to_string(),
        }
        .admit(
            of(wanted),
            held.map_or(0, of),
            others.iter().map(|other| of(other)),
        )
    }

    /// VEs that may run on a part of the processors only must find there what they are guaranteed.
    fn set_fits(
        &self,
        wanted: &Limits,
        held: Option<&Limits>,
        others: &[&Limits],
    ) -> Result<(), AdmissionDenied> {
        let same = held.is_some_and(|held| {
            wanted.cpu_set == held.cpu_set && wanted.cpu_guarantee <= held.cpu_guarantee
        });
        if same || wanted.cpu_guarantee.is_none() {
            return Ok(());
        }
        let all = || others.iter().copied().chain([wanted]);
        let within = |limits: &Limits, set: &ve::CpuSet| {
            let own = limits.cpu_set.as_ref();
            own.is_some_and(|own| {
                own.processors()
                    .iter()
                    .all(|p| set.processors().contains(p))
            })
        };
        for set in all().filter_map(|limits| limits.cpu_set.as_ref()) {
            let guaranteed = all()
                .filter(|limits| within(limits, set))
                .filter_map(|limits| limits.cpu_guarantee);
            let sold: u64 = guaranteed.map(|cores| u64::from(cores.thousandths())).sum();
            if within(wanted, set) && sold > u64::from(set_cores(set).thousandths()) {
                return Err(AdmissionDenied::Set {
                    set: set.to_string(),
                    sold: cores_of(sold),
                    has: set_cores(set),
                });
            }
        }
        Ok(())
    }
}

/// While settings change: of each promise the greater, so that whichever they end with is covered.
#[must_use]
pub fn either(old: &Limits, new: &Limits) -> Limits {
    /// Without a limit, everything may be taken.
    fn more<T: Ord + Copy>(old: Option<T>, new: Option<T>) -> Option<T> {
        Some(old?.max(new?))
    }
    Limits {
        cpu_guarantee: old.cpu_guarantee.max(new.cpu_guarantee),
        memory_guarantee: old.memory_guarantee.max(new.memory_guarantee),
        network_guarantee: old.network_guarantee.max(new.network_guarantee),
        disk_guarantee: old.disk_guarantee.max(new.disk_guarantee),
        cpu: more(old.cpu, new.cpu),
        memory: more(old.memory, new.memory),
        disk: more(old.disk, new.disk),
        memory_growth: MemoryGrowth {
            given: old.memory_growth.given.max(new.memory_growth.given),
            ..new.memory_growth
        },
        ..new.clone()
    }
}

/// Guarantees of one resource.
struct Sale<'a> {
    key: Key,
    has: u64,
    reserve: u64,
    /// Who holds what is sold, in words.
    buyer: &'static str,
    show: &'a dyn Fn(u64) -> String,
}

impl Sale<'_> {
    fn admit(
        &self,
        wanted: u64,
        held: u64,
        others: impl Iterator<Item = u64> + Clone,
    ) -> Result<(), AdmissionDenied> {
        let sold = others.clone().fold(0, u64::saturating_add);
        let free = self.has.saturating_sub(self.reserve).saturating_sub(sold);
        if wanted <= free || wanted <= held {
            return Ok(());
        }
        let show = self.show;
        let (free, has, reserve) = (show(free), show(self.has), show(self.reserve));
        let others = others_in_words(others.filter(|sold| *sold > 0).count(), self.buyer);
        let sold = show(sold);
        Err(AdmissionDenied::Guarantee {
            key: self.key,
            wanted: show(wanted),
            left: format!(
                "{free} is left: {has} less {reserve} for the node itself less {sold} guaranteed to \
                 {others}"
            ),
        })
    }
}

/// Limits of one resource. A VE without one can take all that there is.
struct Resold<'a> {
    key: Key,
    factor: Option<Factor>,
    has: u64,
    of: &'a dyn Fn(&Limits) -> Option<u64>,
    show: &'a dyn Fn(u64) -> String,
}

impl Resold<'_> {
    fn admit(
        &self,
        wanted: &Limits,
        held: Option<&Limits>,
        others: &[&Limits],
    ) -> Result<(), AdmissionDenied> {
        let Some(factor) = self.factor else {
            return Ok(());
        };
        let of = |limits: &Limits| (self.of)(limits).unwrap_or(self.has);
        let most = u128::from(self.has) * u128::from(factor.thousandths()) / 1_000;
        let most = u64::try_from(most).unwrap_or(u64::MAX);
        let given = others
            .iter()
            .map(|other| of(other))
            .fold(0, u64::saturating_add);
        let free = most.saturating_sub(given);
        let asked = of(wanted);
        if asked <= free || held.is_some_and(|held| asked <= of(held)) {
            return Ok(());
        }
        let show = self.show;
        let wanted = match (self.of)(wanted) {
            Some(asked) => show(asked),
            None => format!("no limit, which counts as {},", show(asked)),
        };
        let (free, has, given) = (show(free), show(self.has), show(given));
        let others = others_in_words(others.len(), "VE");
        Err(AdmissionDenied::Overcommit {
            key: self.key,
            wanted,
            left: format!(
                "{free} is left: {has} with an overcommitment of {factor} less {given} given to {others}"
            ),
        })
    }
}

fn cores_of(thousandths: u64) -> Cores {
    Cores::from_thousandths(u32::try_from(thousandths).unwrap_or(u32::MAX))
}

/// A size to a mebibyte: sums of guarantees seldom are round numbers.
fn readable(bytes: u64) -> String {
    let rounded = Bytes::new(bytes >> 20 << 20);
    if rounded.get() == 0 {
        Bytes::new(bytes)
    } else {
        rounded
    }
    .to_string()
}

fn others_in_words(count: usize, noun: &str) -> String {
    match count {
        0 => format!("no {noun}"),
        1 => format!("1 other {noun}"),
        count => format!("{count} other {noun}s"),
    }
}

#[cfg(test)]
mod tests;
