//! The packages of VEs and templates.
//!
//! A database is found and told from others by looking at it (some microseconds); it is read when it is
//! another one than the last time, which on most VEs is never: they have their template's.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use ::difference::{Identity, Merged, Place};
use api::latest::{ApiError, ErrorCode, InstalledPackage, InventoryEntry, InventoryKind};
use engine::Fault;
use packages::{Manager, Package};
use registry::VeRecord;
use server::InventoryFilter;
use ve::Stack;

use super::{ImageKey, Layers, locked};
use crate::convert;
use crate::host::Host;

/// Where databases are, in the order in which they are believed.
const DATABASES: [(Manager, &str); 6] = [
    (Manager::Dpkg, "/var/lib/dpkg/status"),
    (Manager::Apk, "/lib/apk/db/installed"),
    (Manager::Apk, "/usr/lib/apk/db/installed"),
    (Manager::Rpm, "/usr/lib/sysimage/rpm/rpmdb.sqlite"),
    (Manager::Rpm, "/var/lib/rpm/rpmdb.sqlite"),
    (Manager::Pacman, "/var/lib/pacman/local"),
];
/// Where rpm keeps databases that are not read.
const RPM_FOLDERS: [&str; 2] = ["/usr/lib/sysimage/rpm", "/var/lib/rpm"];

/// Bytes of a database that is text; Debian's desktop has 5 MB.
const TEXT_BYTES_MAX: u64 = 32 << 20;
/// Bytes of `os-release`; Debian's has 400.
const RELEASE_BYTES_MAX: u64 = 64 << 10;

/// Contents of databases that are kept; each takes about 25 KB for a Debian server.
const KEPT_MAX: usize = 2_000;

/// What databases hold that were read before. What a template's image itself holds is told by the image.
pub(super) type Databases = HashMap<(Manager, Option<ImageKey>, Identity), Arc<[Package]>>;

/// What was found in a tree.
#[derive(Default)]
struct Findings {
    system: String,
    manager: Option<Manager>,
    packages: Arc<[Package]>,
    problem: Option<String>,
}

/// What packages are asked for.
struct Wanted<'a> {
    filter: &'a InventoryFilter,
}

/// Lists packages of VEs, in their order, and of templates.
///
/// # Errors
/// Refuses a version without a package to compare. What cannot be read is in the answer.
pub(crate) fn inventory(
    host: &Host,
    records: &[VeRecord],
    templates: &[Stack],
    filter: &InventoryFilter,
) -> Result<Vec<InventoryEntry>, ApiError> {
    if filter.older_than.is_some() && filter.packages.is_empty() {
        let message = "a version to compare with needs the package that it is of";
        return Err(ApiError::new(ErrorCode::Usage, message)
            .with_hint("as `vessel inventory --package openssl --older-than 3.0.11`"));
    }
    let wanted = Wanted { filter };
    let ves = records.iter().map(|record| {
        let layers = Layers::of_ve(host, record);
        (entry_of_ve(record), layers)
    });
    let templates = templates.iter().map(|name| {
        let layers = Layers::of_template(host, name);
        (entry_of_template(name), layers)
    });
    Ok(ves
        .chain(templates)
        .filter_map(|(entry, layers)| wanted.fill(entry, look(host, layers)))
        .collect())
}

fn entry_of_ve(record: &VeRecord) -> InventoryEntry {
    let ve = convert::ve(record);
    InventoryEntry {
        kind: InventoryKind::Ve,
        id: Some(ve.id),
        name: ve.name,
        state: Some(ve.state),
        template: Some(ve.template),
        owner: record.spec.owner.clone(),
        description: record.spec.description.clone(),
        labels: ve.labels,
        addresses: ve.addresses,
        ..entry_of_template(&record.spec.stack())
    }
}

fn entry_of_template(name: &Stack) -> InventoryEntry {
    InventoryEntry {
        kind: InventoryKind::Template,
        id: None,
        name: name.to_string(),
        state: None,
        template: None,
        owner: None,
        description: None,
        labels: std::collections::BTreeMap::new(),
        addresses: Vec::new(),
        system: String::new(),
        manager: String::new(),
        packages_count: 0,
        packages: Vec::new(),
        problem: None,
    }
}

impl Wanted<'_> {
    /// Puts what was found into an entry; nothing where packages were asked for, and none is there.
    fn fill(&self, entry: InventoryEntry, found: Findings) -> Option<InventoryEntry> {
        let chosen: Vec<_> = match self.filter.brief {
            true => Vec::new(),
            false => found
                .packages
                .iter()
                .filter(|p| self.wants(&found, p))
                .collect(),
        };
        let asked = !self.filter.packages.is_empty();
        if asked && chosen.is_empty() && found.problem.is_none() {
            return None;
        }
        Some(InventoryEntry {
            packages_count: u32::try_from(found.packages.len()).unwrap_or(u32::MAX),
            packages: chosen.into_iter().map(installed).collect(),
            system: found.system,
            manager: found.manager.map_or("", Manager::as_str).to_owned(),
            problem: found.problem,
            ..entry
        })
    }

    fn wants(&self, found: &Findings, package: &Package) -> bool {
        let named = self.filter.packages.is_empty()
            || self.filter.packages.iter().any(|pattern| {
                let source = package.source.as_deref();
                matches(pattern, &package.name) || source.is_some_and(|s| matches(pattern, s))
            });
        let older = self.filter.older_than.as_deref().zip(found.manager);
        named && older.is_none_or(|(than, m)| packages::compare(m, &package.version, than).is_lt())
    }
}

fn installed(package: &Package) -> InstalledPackage {
    InstalledPackage {
        name: package.name.clone(),
        version: package.version.clone(),
        architecture: package.architecture.clone(),
        source: package.source.clone(),
    }
}

/// Whether a name fits a pattern in which `*` stands for anything.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else {
        return false;
    };
    let mut last = None;
    for part in parts {
        if let Some(passed) = last.replace(part) {
            let Some(at) = str::find(rest, passed) else {
                return false;
            };
            rest = &rest[at + passed.len()..];
        }
    }
    last.map_or(rest.is_empty(), |last| rest.ends_with(last))
}

/// What there is in a tree. Whatever goes wrong is told in it.
fn look(host: &Host, layers: Result<Layers, Fault>) -> Findings {
    let layers = match layers {
        Ok(layers) => layers,
        Err(fault) => return unknown(fault.message),
    };
    let merged = layers.merged();
    let system = system(&merged).unwrap_or_default();
    let found = match find(&merged) {
        Ok(Some((manager, place))) => database(host, &layers, manager, &place),
        Ok(None) => without(&merged),
        Err(error) => unknown(format!("its package database cannot be found: {error}")),
    };
    Findings { system, ..found }
}

fn unknown(problem: String) -> Findings {
    Findings {
        problem: Some(problem),
        ..Findings::default()
    }
}

fn find<'a>(merged: &Merged<'a>) -> io::Result<Option<(Manager, Place<'a>)>> {
    for (manager, path) in DATABASES {
        if let Some(place) = merged.lookup(path)? {
            return Ok(Some((manager, place)));
        }
    }
    Ok(None)
}

/// What has no database that is read: nothing, or one of rpm's older ones.
fn without(merged: &Merged<'_>) -> Findings {
    let there = |path: &str| matches!(merged.lookup(path), Ok(Some(_)));
    let mut unread = RPM_FOLDERS.iter().flat_map(|folder| {
        let names = packages::RPM_UNREAD.iter();
        names.map(move |name| format!("{folder}/{name}"))
    });
    match unread.find(|path| there(path)) {
        Some(path) => Findings {
            manager: Some(Manager::Rpm),
            ..unknown(format!(
                "its packages are in {path}, a database of an rpm before 4.16 or of SUSE, which is not read"
            ))
        },
        None => Findings::default(),
    }
}

fn database(host: &Host, layers: &Layers, manager: Manager, place: &Place<'_>) -> Findings {
    let identity = place.identity();
    // What lies in the image itself has no name of its own.
    let image = matches!(identity, Identity::Template { object: None }).then(|| layers.key.clone());
    let key = (manager, image, identity);
    // A folder's own identity says nothing of the names that show through from below.
    let keeps = manager != Manager::Pacman;
    let kept = &host.contents.databases;
    let known = locked(kept).get(&key).filter(|_| keeps).cloned();
    let packages = match known.map_or_else(|| read(&layers.merged(), manager, place), Ok) {
        Ok(packages) => packages,
        Err(problem) => {
            return Findings {
                manager: Some(manager),
                ..unknown(problem)
            };
        }
    };
    if keeps {
        let mut kept = locked(kept);
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(key, Arc::clone(&packages));
    }
    Findings {
        manager: Some(manager),
        packages,
        ..Findings::default()
    }
}

fn read(
    merged: &Merged<'_>,
    manager: Manager,
    place: &Place<'_>,
) -> Result<Arc<[Package]>, String> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::FileTooLarge => {
            "its package database is larger than any real one".to_owned()
        }
        _ => format!("its package database cannot be read: {error}"),
    };
    let bytes = |most| {
        let bytes = merged.read(place, most).map_err(failed)?;
        bytes.ok_or_else(|| "its package database is no file".to_owned())
    };
    let text = || bytes(TEXT_BYTES_MAX).map(|b| String::from_utf8_lossy(&b).into_owned());
    let list = match manager {
        Manager::Dpkg => packages::dpkg(&text()?),
        Manager::Apk => packages::apk(&text()?),
        Manager::Rpm => packages::rpm(&bytes(packages::DATABASE_BYTES_MAX)?)
            .map_err(|error| format!("its package database cannot be read: {error}"))?,
        Manager::Pacman => {
            let names = merged
                .names(place, packages::PACKAGES_MAX)
                .map_err(failed)?;
            let name = |name: &Vec<u8>| String::from_utf8_lossy(name).into_owned();
            packages::pacman(&names.iter().map(name).collect::<Vec<_>>())
        }
    };
    Ok(list.into())
}

/// What `os-release` says for people.
fn system(merged: &Merged<'_>) -> Option<String> {
    let read = |path: &str| {
        let place = merged.lookup(path).ok()??;
        merged.read(&place, RELEASE_BYTES_MAX).ok()?
    };
    let bytes = read("/etc/os-release").or_else(|| read("/usr/lib/os-release"))?;
    let text = String::from_utf8_lossy(&bytes);
    let mut fields = text.lines().filter_map(|line| line.split_once('='));
    let (_, value) = fields.find(|(key, _)| *key == "PRETTY_NAME")?;
    packages::word(value.trim().trim_matches(['"', '\'']))
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, name) in [
            ("openssl", "openssl"),
            ("*", ""),
            ("lib*", "libssl3"),
            ("*ssl*", "libssl3"),
            ("l*s*3", "libssl3"),
            ("*3", "libssl3"),
            ("a*a", "aa"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("openssl", "openssl1"),
            ("ssl*", "libssl3"),
            ("*ssl", "libssl3"),
            ("a*a", "a"),
            ("", "a"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }
}
