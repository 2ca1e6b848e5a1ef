//! `vessel doctor`: what this host has, what it lacks, and how to get that.

use std::path::{Path, PathBuf};

use api::latest::{Diagnosis, DoctorReport, DoctorRow};
use cgroup::{Controller, Home};
use engine::Support;
use kernel::merging::{Merging, merging, merging_costs};
use kernel::probe::{Features, Need, Status};
use network::Netlink;
use ve::Key;

use crate::config::Config;
use crate::host::Host;

/// Looks at the host, and at the node at `root` if one was prepared there; if it is up, also at what `set`
/// can do.
pub(crate) fn report(root: &Path, host: Option<&Host>) -> DoctorReport {
    let features = Features::probe();
    let mut rows: Vec<_> = features.rows().iter().map(feature_row).collect();
    rows.extend(network_rows());
    let launcher = crate::launcher::program();
    let lost = "no VE can be started";
    rows.push(program_row("launcher", &launcher, Diagnosis::Missing, lost));
    let view = crate::launcher::view_program();
    let lost = "`free`, `top` and `uptime` in VEs show the machine's numbers";
    rows.push(program_row("view", &view, Diagnosis::Warning, lost));
    rows.push(criu_row());
    rows.push(node_row(root));
    rows.extend(host.map(fast_path_row));
    rows.extend(host.map(|_| disk_free_row()));
    rows.extend(host.map(runtimes_row));
    rows.push(merging_row());
    rows.extend(host.into_iter().flat_map(setting_rows));
    DoctorReport { rows }
}

fn feature_row(feature: &kernel::probe::Feature) -> DoctorRow {
    let description = feature.description;
    let (diagnosis, lost) = match (feature.status, description.need) {
        (Status::Present, _) => (Diagnosis::Ok, false),
        (Status::Missing, Need::Needed) => (Diagnosis::Missing, true),
        (Status::Missing | Status::Limited, _) => (Diagnosis::Warning, true),
    };
    let found = if lost {
        format!("{}; {}", feature.detail, description.loss)
    } else {
        feature.detail.clone()
    };
    DoctorRow {
        check: description.name.to_owned(),
        diagnosis,
        found,
        remedy: lost.then(|| description.remedy.to_owned()),
    }
}

/// The keys of `set` that this host does not hold wholly, or refuses.
fn setting_rows(host: &Host) -> Vec<DoctorRow> {
    let row = |key: Key| {
        let (found, remedy) = match host.support(key) {
            Support::Full => return None,
            Support::Partly(what) => (
                format!("not wholly: {what}"),
                match key {
                    Key::FilesLimit => "run `vesseld` with `CAP_SYS_RESOURCE`, as its unit does",
                    _ => "boot with cgroup2 alone (`systemd.unified_cgroup_hierarchy=1`)",
                },
            ),
            Support::None(why) => (
                format!("refused: {why}"),
                "leave it unset, or provide what is missing",
            ),
        };
        Some(DoctorRow {
            check: format!("set {key}"),
            diagnosis: Diagnosis::Warning,
            found,
            remedy: Some(remedy.to_owned()),
        })
    };
    // Merging has a row of its own.
    let keys = Key::ALL.into_iter().filter(|key| *key != Key::MemoryMerge);
    keys.filter_map(row).collect()
}

/// Whether memory of VEs with `memory.merge=yes` is merged. It is the machine's choice and never changed
/// unasked: it costs processor time, and tells VEs by timing what pages others have.
fn merging_row() -> DoctorRow {
    let (found, remedy) = match merging() {
        Merging::On => {
            let costs = merging_costs().unwrap_or_default();
            let (saved, seconds) = (costs.profit_bytes / (1 << 20), costs.cpu_ticks / 100);
            let found =
                format!("on: {saved} MiB saved on this machine, {seconds} s of ksmd since boot");
            (found, None)
        }
        Merging::Off => (
            "off: VEs with `memory.merge=yes` share nothing".to_owned(),
            Some(
                "`echo 1 > /sys/kernel/mm/ksm/run`, if VEs shall share equal memory at the price of processor time",
            ),
        ),
        Merging::Missing => (
            "the kernel cannot: `memory.merge` is refused".to_owned(),
            Some("run a kernel with `CONFIG_KSM`, 6.4 or newer"),
        ),
    };
    DoctorRow {
        check: "memory merging".to_owned(),
        diagnosis: Diagnosis::Ok,
        found,
        remedy: remedy.map(str::to_owned),
    }
}

/// What `df` tells in VEs, which no host can change.
fn disk_free_row() -> DoctorRow {
    DoctorRow {
        check: "df in VEs".to_owned(),
        diagnosis: Diagnosis::Ok,
        found: "shows the whole pool and not `disk.limit`: btrfs tells statfs(2) of no quota"
            .to_owned(),
        remedy: Some("`vessel show NAME` tells what a VE uses and may use".to_owned()),
    }
}

/// Whether programs that size themselves by cgroup2's files find a VE's limits there. Where these are missing, a JVM
/// takes memory from sysinfo(2) and processors from sched_getaffinity(2), which tell the machine's; `/proc/meminfo`
/// it does not read (JDK 17.0.21 and later, cgroupSubsystem_linux.cpp and os_linux.cpp).
fn runtimes_row(host: &Host) -> DoctorRow {
    let layout = host.groups.layout();
    let told = [Controller::Memory, Controller::Cpu]
        .into_iter()
        .all(|controller| layout.home(controller) == Some(Home::V2));
    let (diagnosis, found, remedy) = match told {
        true => (
            Diagnosis::Ok,
            "`memory.max` and `cpu.max` in /sys/fs/cgroup of a VE tell its limits; JVMs before JDK 24 read those \
             of their own service only: `MemoryMax=` in its unit, or `java -XX:MaxRAM=512m`",
            None,
        ),
        false => (
            Diagnosis::Warning,
            "JVMs take the machine's memory and processors for a VE's own: they look for cgroup2's \
             `memory.max`, and on this host cgroup v1 holds the limits",
            Some(
                "boot with cgroup2 alone (`systemd.unified_cgroup_hierarchy=1`), or tell them: \
                 `java -XX:MaxRAM=512m -XX:ActiveProcessorCount=1`, `GOMAXPROCS=1` for Go",
            ),
        ),
    };
    DoctorRow {
        check: "runtimes in VEs".to_owned(),
        diagnosis,
        found: found.to_owned(),
        remedy: remedy.map(str::to_owned),
    }
}

/// What in this host's network stands in the way of VEs.
fn network_rows() -> Vec<DoctorRow> {
    let probe = Netlink::open().and_then(|mut netlink| network::probe::probe(&mut netlink));
    let findings = match probe {
        Ok(probe) => probe.findings(),
        Err(error) => {
            return vec![DoctorRow {
                check: "network".to_owned(),
                diagnosis: Diagnosis::Missing,
                found: error.to_string(),
                remedy: Some("run as root, on a kernel with netlink".to_owned()),
            }];
        }
    };
    findings
        .into_iter()
        .map(|finding| DoctorRow {
            check: "network".to_owned(),
            diagnosis: if finding.fatal {
                Diagnosis::Missing
            } else {
                Diagnosis::Warning
            },
            found: finding.what,
            remedy: Some(finding.remedy),
        })
        .collect()
}

/// Whether packets of VEs take the fast path, and who stands in its way.
fn fast_path_row(host: &Host) -> DoctorRow {
    let obstacles = host.fast_path.as_ref().map(|path| path.obstacles());
    let (found, remedy) = match obstacles {
        None => (
            "the kernel refuses it; packets of VEs go through the node's IP stack".to_owned(),
            Some("run a kernel with `CONFIG_NET_CLS_ACT` and `CONFIG_BPF_SYSCALL`"),
        ),
        Some(obstacles) if obstacles.is_empty() => ("open for TCP over IPv4".to_owned(), None),
        Some(obstacles) => {
            let all: Vec<String> = obstacles.iter().map(ToString::to_string).collect();
            let found = format!("closed: {}", all.join("; "));
            (
                found,
                Some("nothing, unless VEs need it: others filter as they are to"),
            )
        }
    };
    DoctorRow {
        check: "fast path".to_owned(),
        // It costs speed alone, and whoever has a firewall wants it.
        diagnosis: Diagnosis::Ok,
        found,
        remedy: remedy.map(str::to_owned),
    }
}

/// A program that must lie beside the daemon; `lost` says what is lost without.
fn program_row(
    check: &str,
    program: &anyhow::Result<PathBuf>,
    diagnosis: Diagnosis,
    lost: &str,
) -> DoctorRow {
    let there = program.as_ref().is_ok_and(|program| program.is_file());
    let name = program
        .as_ref()
        .ok()
        .and_then(|program| program.file_name());
    let name = name.unwrap_or_default().display();
    DoctorRow {
        check: check.to_owned(),
        diagnosis: if there { Diagnosis::Ok } else { diagnosis },
        found: match program {
            Ok(program) if there => program.display().to_string(),
            Ok(program) => format!("{} is not there; {lost}", program.display()),
            Err(error) => format!("{error}; {lost}"),
        },
        remedy: (!there).then(|| format!("install `{name}` beside `vesseld`")),
    }
}

fn criu_row() -> DoctorRow {
    let (diagnosis, found, remedy) = match checkpoint::Criu::look() {
        Ok((command, version)) => {
            let program = command.last().cloned().unwrap_or_default();
            (Diagnosis::Ok, format!("CRIU {version} at {program}"), None)
        }
        Err(error) => (
            Diagnosis::Warning,
            format!(
                "{:#}; without it no VE can be suspended or woken",
                anyhow::Error::from(error)
            ),
            Some(
                "`cargo xtask dependencies`, or Debian's package `criu` in version 4.2 or later"
                    .to_owned(),
            ),
        ),
    };
    DoctorRow {
        check: "CRIU in use".to_owned(),
        diagnosis,
        found,
        remedy,
    }
}

fn node_row(root: &Path) -> DoctorRow {
    let (diagnosis, found, remedy) = match Config::load(root) {
        Ok(Some(config)) => (
            Diagnosis::Ok,
            format!("{}, pool: {}", root.display(), config.pool),
            None,
        ),
        Ok(None) => (
            Diagnosis::Warning,
            format!("no node is prepared at {}", root.display()),
            Some("`vessel init`".to_owned()),
        ),
        Err(error) => (
            Diagnosis::Missing,
            format!("{error:#}"),
            Some("bring back a copy of node.toml".to_owned()),
        ),
    };
    DoctorRow {
        check: "node".to_owned(),
        diagnosis,
        found,
        remedy,
    }
}
