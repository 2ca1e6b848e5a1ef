//! `vessel doctor`: what this host has, what it lacks, and how to get that.

use std::path::Path;

use api::latest::{Diagnosis, DoctorReport, DoctorRow};
use kernel::probe::{Features, Need, Status};
use network::Netlink;

use crate::config::Config;

/// Looks at the host, and at the node at `root` if one was prepared there.
pub(crate) fn report(root: &Path) -> DoctorReport {
    let features = Features::probe();
    let mut rows: Vec<_> = features.rows().iter().map(feature_row).collect();
    rows.extend(network_rows());
    rows.push(launcher_row());
    rows.push(node_row(root));
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

fn launcher_row() -> DoctorRow {
    let program = crate::launcher::program();
    let found = program.as_ref().is_ok_and(|program| program.is_file());
    DoctorRow {
        check: "launcher".to_owned(),
        diagnosis: if found {
            Diagnosis::Ok
        } else {
            Diagnosis::Missing
        },
        found: match &program {
            Ok(program) if found => program.display().to_string(),
            Ok(program) => format!("{} is not there", program.display()),
            Err(error) => error.to_string(),
        },
        remedy: (!found).then(|| "install `vessel-launcher` beside `vesseld`".to_owned()),
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
