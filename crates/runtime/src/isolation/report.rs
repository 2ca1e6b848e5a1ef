//! The walls of a VE: what was planned, what holds, and what each stops.

use ve::VeId;

use super::capabilities::DROPPED;
use super::kernel_limits::{MOUNT_LIMITS, USER_LIMITS};
use super::namespaces::{NAMESPACES, Origin};
use super::observed::Observed;
use super::paths::MASKED;
use super::seccomp::{self, Answer, Profile, When};

/// What was planned for a VE.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The VE.
    pub id: VeId,
    /// Which filter it has.
    pub profile: Profile,
}

/// Whether a part of a wall is as planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    Holds,
    /// It is not.
    Differs,
    /// It cannot be seen: the VE does not run, or the kernel does not say.
    Unseen,
}

/// A part of a wall.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// How it should be.
    pub planned: String,
    /// How it is, where that can be seen.
    pub found: Option<String>,
    /// What follows.
    pub verdict: Verdict,
    /// What it stops, or why it is as it is.
    pub reason: String,
}

/// One kind of wall.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wall {
    /// Its name.
    pub name: &'static str,
    /// What it stops.
    pub stops: &'static str,
    /// Its parts.
    pub entries: Vec<Entry>,
}

impl Entry {
    /// An entry whose verdict follows from comparing texts.
    #[must_use]
    pub fn compared(name: &str, planned: String, found: Option<String>, reason: &str) -> Self {
        let verdict = match &found {
            None => Verdict::Unseen,
            Some(found) if *found == planned => Verdict::Holds,
            Some(_) => Verdict::Differs,
        };
        Self {
            name: name.to_owned(),
            planned,
            found,
            verdict,
            reason: reason.to_owned(),
        }
    }

    /// An entry that was judged by something else than its texts.
    fn judged(name: &str, planned: &str, found: Option<(String, bool)>, reason: &str) -> Self {
        let verdict = match &found {
            None => Verdict::Unseen,
            Some((_, true)) => Verdict::Holds,
            Some((_, false)) => Verdict::Differs,
        };
        Self {
            name: name.to_owned(),
            planned: planned.to_owned(),
            found: found.map(|(text, _)| text),
            verdict,
            reason: reason.to_owned(),
        }
    }
}

/// Lays the plan beside what was seen. Without `seen` (a VE that does not run) it is the plan.
///
/// Devices and the limits of control groups are their crate's; whoever calls adds them.
#[must_use]
pub fn report(plan: &Plan, seen: Option<&Observed>) -> Vec<Wall> {
    vec![
        Wall {
            name: "namespaces",
            stops: "naming what is not the VE's",
            entries: namespaces(seen),
        },
        Wall {
            name: "users",
            stops: "owning what is not the VE's",
            entries: users(plan, seen),
        },
        Wall {
            name: "filter",
            stops: "kernel code that has no use in a VE, and what namespaces do not separate",
            entries: filter(plan, seen),
        },
        Wall {
            name: "capabilities",
            stops: "rights that mean the node",
            entries: capabilities(seen),
        },
        Wall {
            name: "paths",
            stops: "reading about the node; behind them stands the user namespace",
            entries: paths(plan, seen),
        },
        Wall {
            name: "kernel limits",
            stops: "using up what no control group counts",
            entries: kernel_limits(seen),
        },
    ]
}

fn namespaces(seen: Option<&Observed>) -> Vec<Entry> {
    let judge = |name: &str, shared: bool| {
        let seen = seen?;
        let found = seen.namespaces.get(name)?;
        let same = seen.own_namespaces.get(name) == Some(found);
        Some((found.clone(), same == shared))
    };
    NAMESPACES
        .iter()
        .map(|namespace| {
            let shared = namespace.from == Origin::Shared;
            let planned = if shared { "the node's" } else { "its own" };
            let found = judge(namespace.name, shared);
            Entry::judged(namespace.name, planned, found, namespace.reason)
        })
        .collect()
}

fn users(plan: &Plan, seen: Option<&Observed>) -> Vec<Entry> {
    let map = format!("0 {} {}", plan.id.uid_base().get(), ve::id::UIDS_PER_VE);
    let reason = "no user of the VE is a user of the node or of another VE";
    [
        ("uid_map", seen.map(|seen| seen.uid_map.clone())),
        ("gid_map", seen.map(|seen| seen.gid_map.clone())),
    ]
    .into_iter()
    .map(|(name, found)| Entry::compared(name, map.clone(), found, reason))
    .collect()
}

fn filter(plan: &Plan, seen: Option<&Observed>) -> Vec<Entry> {
    let field = |name: &str| seen.and_then(|seen| seen.status.get(name).cloned());
    let on = field("Seccomp").map(|mode| mode == "2");
    let mode = field("Seccomp").map(|mode| match field("Seccomp_filters") {
        Some(count) => format!("mode {mode}, {count} filters"),
        None => format!("mode {mode}"),
    });
    let mut entries = vec![
        Entry::judged(
            "filter",
            "mode 2",
            mode.zip(on),
            "the list below; what a VE adds itself only makes it stricter",
        ),
        Entry::compared(
            "no_new_privs",
            "0".to_owned(),
            field("NoNewPrivs"),
            "not set: `su` and `sudo` work inside, within the VE's own users",
        ),
    ];
    let nesting = plan.profile.nesting;
    let rules = seccomp::RULES
        .iter()
        .filter(|rule| !(nesting && rule.spared_by_nesting));
    entries.extend(rules.map(|rule| {
        let found = on.map(|on| (if on { "filtered" } else { "open" }.to_owned(), on));
        let name = match rule.when {
            When::Always => rule.call.to_owned(),
            When::AnyBit(index, bits) => format!("{} (argument {index} & {bits:#x})", rule.call),
            When::Is(index, value) => format!("{} (argument {index} = {value:#x})", rule.call),
            When::IsNone(index, _) => format!("{} (argument {index}, most)", rule.call),
        };
        Entry::judged(&name, word(rule.answer), found, rule.reason)
    }));
    let compat = if plan.profile.compat_32bit {
        ("allowed", "asked for; they have the list above too")
    } else {
        ("ENOSYS", "a second, little used set of doors")
    };
    let found = on.map(|on| (if on { compat.0 } else { "open" }.to_owned(), on));
    entries.push(Entry::judged("32-bit programs", compat.0, found, compat.1));
    entries
}

fn word(answer: Answer) -> &'static str {
    match answer {
        Answer::NotPermitted => "EPERM",
        Answer::NotThere => "ENOSYS",
        Answer::NoSuchFamily => "EAFNOSUPPORT",
    }
}

fn capabilities(seen: Option<&Observed>) -> Vec<Entry> {
    let bounding = seen.and_then(|seen| seen.mask("CapBnd"));
    let judge = |bits: u64| {
        let mask = bounding?;
        let gone = mask & bits == 0;
        Some((if gone { "dropped" } else { "in reach" }.to_owned(), gone))
    };
    DROPPED
        .iter()
        .map(|dropped| {
            let found = judge(dropped.capability.bits());
            Entry::judged(dropped.name, "dropped", found, dropped.reason)
        })
        .collect()
}

fn paths(plan: &Plan, seen: Option<&Observed>) -> Vec<Entry> {
    if plan.profile.nesting {
        return vec![Entry::judged(
            "(none)",
            "open",
            None,
            "nesting: the kernel lets nobody mount a /proc who sees only a covered one",
        )];
    }
    let covered = seen.map(Observed::covered);
    // One that this kernel lacks is nothing to cover.
    let present = |path: &str| std::fs::symlink_metadata(path).is_ok();
    MASKED
        .iter()
        .filter(|masked| present(masked.path))
        .map(|masked| {
            let found = covered.as_ref().map(|covered| {
                let hidden = covered.contains(masked.path);
                (if hidden { "hidden" } else { "open" }.to_owned(), hidden)
            });
            Entry::judged(masked.path, "hidden", found, masked.reason)
        })
        .collect()
}

fn kernel_limits(seen: Option<&Observed>) -> Vec<Entry> {
    let users = USER_LIMITS.iter().map(|limit| {
        let name = format!("user.{}", limit.name);
        Entry::judged(&name, &limit.most.to_string(), None, limit.reason)
    });
    let mounts = MOUNT_LIMITS.iter().map(|limit| {
        let name = format!("{} {}", limit.path, limit.option);
        let found = seen.map(|seen| {
            let options = seen.mounts.get(limit.path).map_or("", String::as_str);
            let value = options
                .split(',')
                .rev()
                .find_map(|option| option.strip_prefix(limit.option)?.strip_prefix('='));
            value.unwrap_or("none").to_owned()
        });
        let same = found.as_deref().map(|found| same(found, limit.most));
        Entry::judged(&name, limit.most, found.zip(same), limit.reason)
    });
    users.chain(mounts).collect()
}

/// Whether two values of a mount option are one: the kernel shows sizes in `k`, and numbers of
/// inodes too since 5.14 where they are whole.
fn same(found: &str, planned: &str) -> bool {
    let value = |text: &str| {
        let (number, unit) = match text.chars().last()? {
            'k' => (&text[..text.len() - 1], 1 << 10),
            'M' => (&text[..text.len() - 1], 1 << 20),
            _ => (text, 1),
        };
        number.parse::<u64>().ok()?.checked_mul(unit)
    };
    value(found).is_some() && value(found) == value(planned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            id: VeId::new(100).unwrap(),
            profile: Profile::default(),
        }
    }

    fn entry<'a>(walls: &'a [Wall], wall: &str, name: &str) -> &'a Entry {
        let wall = walls.iter().find(|found| found.name == wall).unwrap();
        wall.entries.iter().find(|e| e.name == name).unwrap()
    }

    #[test]
    fn a_ve_that_does_not_run_has_a_plan_and_no_verdicts() {
        let walls = report(&plan(), None);
        for wall in &walls {
            assert!(!wall.entries.is_empty(), "{}", wall.name);
            for entry in &wall.entries {
                assert_eq!(entry.verdict, Verdict::Unseen, "{}", entry.name);
                assert!(entry.reason.len() > 5, "{}", entry.name);
            }
        }
    }

    #[test]
    fn a_process_without_walls_differs_in_every_one() {
        let seen = Observed {
            uid_map: "0 0 4294967295".to_owned(),
            ..Observed::of(std::process::id()).unwrap()
        };
        let walls = report(&plan(), Some(&seen));
        for (wall, name) in [
            ("namespaces", "user"),
            ("namespaces", "time"),
            ("users", "uid_map"),
            ("paths", "/proc/irq"),
            ("kernel limits", "/dev/pts max"),
        ] {
            let entry = entry(&walls, wall, name);
            assert_eq!(entry.verdict, Verdict::Differs, "{entry:?}");
        }
    }

    #[test]
    fn one_capability_too_many_shows() {
        let mut seen = Observed::default();
        seen.status
            .insert("CapBnd".into(), "0000000000010000".into());
        let walls = report(&plan(), Some(&seen));
        let found = entry(&walls, "capabilities", "CAP_SYS_MODULE");
        assert_eq!(found.verdict, Verdict::Differs);
        assert_eq!(
            entry(&walls, "capabilities", "CAP_BPF").verdict,
            Verdict::Holds
        );
    }

    #[test]
    fn sizes_are_compared_as_numbers() {
        assert!(same("1024k", "1M") && same("1024", "1024") && same("64k", "65536"));
        assert!(!same("none", "256") && !same("1M", "1024"));
    }
}
