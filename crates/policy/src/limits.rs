//! Whether limits make sense together, and can be granted given what the VE uses.

use std::fmt::Display;

use ve::{Bytes, Key, Limits, MemoryGrowth};

/// What a VE uses of the things that cannot be taken back without killing or losing something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InUse {
    /// Memory that reclaim cannot free: everything but clean page cache, in bytes.
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    pub processes: Option<u64>,
    /// Space in the pool, in bytes.
    pub disk_bytes: Option<u64>,
    /// Open files of the process that has most of them.
    pub open_files: Option<u64>,
}

/// What a machine has that no VE can have more of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// How many processors.
    pub processors: u32,
    /// Open files that the node may give a process.
    pub open_files: u64,
}

/// Why a limit is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitDenied {
    /// It is below what the VE uses now.
    #[error("{key}: {wanted} is below the {used} that it uses now")]
    BelowUse {
        /// The key of the setting.
        key: Key,
        /// What was asked for.
        wanted: String,
        /// What is in use.
        used: String,
    },
    /// Two settings contradict each other.
    #[error("{key}: {value} {rule}")]
    Contradiction {
        /// The key of the one that has to change.
        key: Key,
        /// Its value.
        value: String,
        /// What it contradicts.
        rule: String,
    },
    /// A processor of the set does not exist.
    #[error("cpu.set: there is no processor {processor}; this node has {first} to {last}",
            first = 0, last = processors - 1)]
    NoSuchProcessor {
        /// The first missing processor of the set.
        processor: u32,
        /// How many the node has.
        processors: u32,
    },
    /// The node itself may not have so many.
    #[error(
        "files.limit: {wanted} is more than the {most} open files that this node may give a process"
    )]
    TooManyFiles {
        /// What was asked for.
        wanted: u32,
        /// What it may give.
        most: u64,
    },
}

/// Decides whether settings make sense together, whatever the node.
///
/// # Errors
/// Names the first that contradicts another: a guarantee above its limit, a burst without one.
pub fn consistent(limits: &Limits) -> Result<(), LimitDenied> {
    let Limits {
        cpu,
        memory,
        network,
        ..
    } = limits;
    within(Key::CpuGuarantee, limits.cpu_guarantee, Key::CpuLimit, *cpu)?;
    if let (Some(guarantee), Some(set)) = (limits.cpu_guarantee, &limits.cpu_set)
        && guarantee > set_cores(set)
    {
        let rule = format!("is more than the processors of cpu.set={set}");
        return Err(contradiction(Key::CpuGuarantee, guarantee, rule));
    }
    needs(Key::CpuBurst, limits.cpu_burst, Key::CpuLimit, *cpu)?;
    // The kernel takes no burst above the quota (`tg_set_cfs_bandwidth`, kernel/sched/core.c).
    within(Key::CpuBurst, limits.cpu_burst, Key::CpuLimit, *cpu)?;
    let guarantee = limits.memory_guarantee;
    within(Key::MemoryGuarantee, guarantee, Key::MemoryLimit, *memory)?;
    needs(
        Key::MemoryBurst,
        limits.memory_burst,
        Key::MemoryLimit,
        *memory,
    )?;
    growth_consistent(limits)?;
    let guarantee = limits.disk_guarantee;
    within(Key::DiskGuarantee, guarantee, Key::DiskLimit, limits.disk)?;
    let guarantee = limits.network_guarantee;
    within(
        Key::NetworkGuarantee,
        guarantee,
        Key::NetworkLimit,
        *network,
    )?;
    needs(
        Key::NetworkBurst,
        limits.network_burst,
        Key::NetworkLimit,
        *network,
    )
}

/// Growth needs a limit to begin at and a ceiling above it, and no more steps than can be told of.
fn growth_consistent(limits: &Limits) -> Result<(), LimitDenied> {
    let growth = &limits.memory_growth;
    let Some(ceiling) = growth.ceiling else {
        let rest = [
            Key::MemoryGrowStep,
            Key::MemoryGrowThreshold,
            Key::MemoryGrowCooldown,
            Key::MemoryGrowGiveBack,
        ];
        let lone = rest
            .into_iter()
            .find_map(|key| Some((key, key.limit_in(limits)?)));
        return lone.map_or(Ok(()), |(key, value)| {
            let rule = format!("needs a {} to grow to", Key::MemoryGrowCeiling);
            Err(contradiction(key, value, rule))
        });
    };
    let key = Key::MemoryGrowCeiling;
    let Some(limit) = limits.memory else {
        let rule = format!("needs a {} to grow from", Key::MemoryLimit);
        return Err(contradiction(key, ceiling, rule));
    };
    if ceiling < limit {
        let rule = format!("is less than {}, which is {limit}", Key::MemoryLimit);
        return Err(contradiction(key, ceiling, rule));
    }
    match growth.step {
        Some(step) if (ceiling.get() - limit.get()) / step.get() > MemoryGrowth::STEPS_MAX => {
            let most = MemoryGrowth::STEPS_MAX;
            let rule =
                format!("is too little: it must lead from {limit} to {ceiling} in {most} steps");
            Err(contradiction(Key::MemoryGrowStep, step, rule))
        }
        _ => Ok(()),
    }
}

/// A value that may not exceed the limit, if there is one.
fn within<T: PartialOrd + Display>(
    key: Key,
    value: Option<T>,
    limit_key: Key,
    limit: Option<T>,
) -> Result<(), LimitDenied> {
    match (value, limit) {
        (Some(value), Some(limit)) if value > limit => {
            let rule = format!("is more than {limit_key}, which is {limit}");
            Err(contradiction(key, value, rule))
        }
        _ => Ok(()),
    }
}

/// A value that means nothing without a limit.
fn needs<T: Display>(
    key: Key,
    value: Option<T>,
    limit_key: Key,
    limit: Option<T>,
) -> Result<(), LimitDenied> {
    match (value, limit) {
        (Some(value), None) => {
            let rule = format!("needs a {limit_key} to go beyond");
            Err(contradiction(key, value, rule))
        }
        _ => Ok(()),
    }
}

fn contradiction(key: Key, value: impl Display, rule: String) -> LimitDenied {
    LimitDenied::Contradiction {
        key,
        value: value.to_string(),
        rule,
    }
}

/// As many processors as a set has.
pub(crate) fn set_cores(set: &ve::CpuSet) -> ve::Cores {
    let thousandths = u32::try_from(set.processors().len()).map_or(u32::MAX, |n| n * 1_000);
    ve::Cores::from_thousandths(thousandths)
}

/// Decides whether `wanted` can take the place of the limits of a VE that uses `in_use`, on a node
/// with `processors`.
///
/// A memory limit may go below the page cache, which the kernel drops without loss, but not below
/// what would have to be swapped or killed.
///
/// # Errors
/// Names the first limit that cannot be granted, with both numbers.
pub fn grant(wanted: &Limits, in_use: &InUse, machine: Machine) -> Result<(), LimitDenied> {
    let below = |key, wanted: u64, used: u64, show: &dyn Fn(u64) -> String| {
        Err(LimitDenied::BelowUse {
            key,
            wanted: show(wanted),
            used: show(used),
        })
    };
    let bytes = |value| readable(Bytes::new(value));
    if let (Some(limit), Some(used)) = (wanted.memory, in_use.memory_bytes)
        && limit.get() < used
    {
        return below(Key::MemoryLimit, limit.get(), used, &bytes);
    }
    if let (Some(limit), Some(used)) = (wanted.disk, in_use.disk_bytes)
        && limit.get() < used
    {
        return below(Key::DiskLimit, limit.get(), used, &bytes);
    }
    if let (Some(limit), Some(used)) = (wanted.processes, in_use.processes)
        && u64::from(limit) < used
    {
        return below(Key::ProcessesLimit, limit.into(), used, &|value| {
            value.to_string()
        });
    }
    if let (Some(limit), Some(used)) = (wanted.files, in_use.open_files)
        && u64::from(limit) < used
    {
        return below(Key::FilesLimit, limit.into(), used, &|value| {
            value.to_string()
        });
    }
    if let Some(wanted) = wanted.files
        && u64::from(wanted) > machine.open_files
    {
        let most = machine.open_files;
        return Err(LimitDenied::TooManyFiles { wanted, most });
    }
    let processors = machine.processors;
    let missing = wanted
        .cpu_set
        .iter()
        .flat_map(|set| set.processors())
        .find(|p| **p >= processors);
    match missing {
        Some(processor) => Err(LimitDenied::NoSuchProcessor {
            processor: *processor,
            processors,
        }),
        None => Ok(()),
    }
}

/// The limits of `new` that are tighter than those of `old`: only they can be below what is in
/// use because of this change, and a VE above a limit that is raised must be allowed to raise it.
#[must_use]
pub fn lowered(old: &Limits, new: &Limits) -> Limits {
    fn tighter<T: PartialOrd + Copy>(old: Option<T>, new: Option<T>) -> Option<T> {
        new.filter(|new| old.is_none_or(|old| *new < old))
    }
    Limits {
        memory: tighter(old.memory_now(), new.memory_now()),
        processes: tighter(old.processes, new.processes),
        files: tighter(old.files, new.files),
        disk: tighter(old.disk, new.disk),
        ..new.clone()
    }
}

/// A size rounded up to a tenth of a mebibyte, so that a use is never shown below its limit.
fn readable(bytes: Bytes) -> String {
    let tenths = (bytes.get() * 10).div_ceil(1 << 20);
    format!("{}.{}M", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: Machine = Machine {
        processors: 2,
        open_files: 20_000,
    };

    #[test]
    fn open_files_are_bounded_by_use_and_by_the_node() {
        let wanted = |files| Limits {
            files: Some(files),
            ..Limits::default()
        };
        let in_use = InUse {
            open_files: Some(100),
            ..InUse::default()
        };
        let refused = |files| grant(&wanted(files), &in_use, TWO).unwrap_err().to_string();
        assert!(refused(99).contains("99 is below the 100 that it uses"));
        assert!(refused(20_001).contains("more than the 20000 open files"));
        assert_eq!(grant(&wanted(100), &in_use, TWO), Ok(()));
        assert_eq!(lowered(&wanted(100), &wanted(200)).files, None);
    }

    #[test]
    fn a_limit_below_use_is_refused_with_both_numbers() {
        let wanted = Limits {
            memory: Some(Bytes::from_mebibytes(64)),
            ..Limits::default()
        };
        let in_use = InUse {
            memory_bytes: Some(100 << 20),
            ..InUse::default()
        };
        let denied = grant(&wanted, &in_use, TWO).unwrap_err();
        assert_eq!(
            denied.to_string(),
            "memory.limit: 64.0M is below the 100.0M that it uses now"
        );
    }

    #[test]
    fn contradictions_name_both_sides() {
        let read = |texts: &[&str]| {
            consistent(&crate::testing::limits(texts)).map_err(|denied| denied.to_string())
        };
        for (texts, words) in [
            (
                &["cpu.guarantee=2", "cpu.limit=1"][..],
                "cpu.guarantee: 2 is more than cpu.limit, which is 1",
            ),
            (
                &["cpu.guarantee=2", "cpu.set=3"],
                "cpu.guarantee: 2 is more than the processors of cpu.set=3",
            ),
            (
                &["cpu.burst=1"],
                "cpu.burst: 1 needs a cpu.limit to go beyond",
            ),
            (
                &["cpu.burst=2", "cpu.limit=1"],
                "cpu.burst: 2 is more than cpu.limit, which is 1",
            ),
            (
                &["memory.guarantee=2G", "memory.limit=1G"],
                "memory.guarantee: 2G is more than memory.limit, which is 1G",
            ),
            (
                &["memory.burst=1G"],
                "memory.burst: 1G needs a memory.limit to go beyond",
            ),
            (
                &["disk.guarantee=2G", "disk.limit=1G"],
                "disk.guarantee: 2G is more than disk.limit, which is 1G",
            ),
            (
                &["network.guarantee=2Mbit", "network.limit=1Mbit"],
                "network.guarantee: 2Mbit is more than network.limit, which is 1Mbit",
            ),
            (
                &["network.burst=2Mbit"],
                "network.burst: 2Mbit needs a network.limit to go beyond",
            ),
            (
                &["memory.grow.ceiling=2G"],
                "memory.grow.ceiling: 2G needs a memory.limit to grow from",
            ),
            (
                &["memory.grow.ceiling=1G", "memory.limit=2G"],
                "memory.grow.ceiling: 1G is less than memory.limit, which is 2G",
            ),
            (
                &["memory.limit=2G", "memory.grow.cooldown=5s"],
                "memory.grow.cooldown: 5s needs a memory.grow.ceiling to grow to",
            ),
            (
                &[
                    "memory.limit=1G",
                    "memory.grow.ceiling=2G",
                    "memory.grow.step=10M",
                ],
                "memory.grow.step: 10M is too little: it must lead from 1G to 2G in 64 steps",
            ),
        ] {
            assert_eq!(read(texts), Err(words.to_owned()));
        }
        assert_eq!(
            read(&["cpu.guarantee=1", "cpu.limit=1", "cpu.burst=1"]),
            Ok(())
        );
        assert_eq!(read(&["memory.guarantee=1G"]), Ok(()));
    }

    #[test]
    fn only_a_tightened_limit_is_held_against_use() {
        let old = Limits {
            memory: Some(Bytes::from_mebibytes(10)),
            ..Limits::default()
        };
        let new = Limits {
            memory: Some(Bytes::from_mebibytes(20)),
            ..Limits::default()
        };
        assert_eq!(lowered(&old, &new).memory, None);
        assert_eq!(lowered(&new, &old).memory, old.memory);
        assert_eq!(lowered(&Limits::default(), &old).memory, old.memory);
    }

    #[test]
    fn a_stopped_ve_uses_nothing() {
        let wanted = Limits {
            processes: Some(1),
            ..Limits::default()
        };
        assert_eq!(grant(&wanted, &InUse::default(), TWO), Ok(()));
    }

    #[test]
    fn processors_must_exist() {
        let wanted = Limits {
            cpu_set: Some("0,5".parse().unwrap()),
            ..Limits::default()
        };
        let denied = grant(&wanted, &InUse::default(), TWO)
            .unwrap_err()
            .to_string();
        assert!(
            denied.contains("no processor 5") && denied.contains("0 to 1"),
            "{denied}"
        );
    }
}
