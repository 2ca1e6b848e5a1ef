//! What a VE changed, on the wire.

use std::collections::BTreeMap;

use api::latest::{ApiError, Change, ChangeKind, Difference, ErrorCode, FileType};
use difference::{Changed, Kind, shown};
use registry::VeRecord;

use super::Layers;
use crate::convert::api_fault;
use crate::host::Host;

/// Places listed in one answer, about 200 bytes each; more are counted.
const LISTED_MAX: usize = 50_000;

/// Holds a VE against its template. Copies that are equal are counted, and listed when `equal`.
pub(crate) fn difference(
    host: &Host,
    record: &VeRecord,
    equal: bool,
) -> Result<Difference, ApiError> {
    let layers = Layers::of_ve(host, record).map_err(api_fault)?;
    let mut found = Difference {
        id: record.spec.id.get(),
        name: record.spec.name.to_string(),
        template: record.spec.template.to_string(),
        counts: ChangeKind::ALL
            .iter()
            .map(|kind| (kind.as_str().to_owned(), 0))
            .collect::<BTreeMap<_, _>>(),
        size_bytes: 0,
        changes: Vec::new(),
        truncated: false,
    };
    let unseen = difference::walk(&layers.merged(), &mut |changed| {
        let kind = change(changed.change);
        *found.counts.entry(kind.as_str().to_owned()).or_default() += 1;
        if !matches!(kind, ChangeKind::Equal | ChangeKind::Metadata) {
            found.size_bytes += changed.size_bytes;
        }
        if kind == ChangeKind::Equal && !equal {
            return Ok(());
        }
        if found.changes.len() < LISTED_MAX {
            found.changes.push(told(changed));
        } else {
            found.truncated = true;
        }
        Ok(())
    });
    let unseen = unseen.map_err(|error| {
        let name = &record.spec.name;
        let message = format!("VE `{name}`: its private area cannot be read: {error}");
        ApiError::new(ErrorCode::Failed, message)
            .with_hint("a running VE may have changed it meanwhile: ask again")
    })?;
    found.truncated |= unseen.too_many || unseen.too_deep > 0;
    Ok(found)
}

fn change(change: difference::Change) -> ChangeKind {
    match change {
        difference::Change::Added => ChangeKind::Added,
        difference::Change::Deleted => ChangeKind::Deleted,
        difference::Change::Content => ChangeKind::Changed,
        difference::Change::Kind => ChangeKind::Type,
        difference::Change::Metadata => ChangeKind::Metadata,
        difference::Change::Equal => ChangeKind::Equal,
    }
}

fn told(changed: &Changed) -> Change {
    let path = |path: &[u8]| format!("/{}", shown(path));
    Change {
        path: path(&changed.path),
        change: change(changed.change),
        kind: match changed.kind {
            Kind::Directory => FileType::Directory,
            Kind::File => FileType::File,
            Kind::Symlink => FileType::Symlink,
            Kind::Special => FileType::Special,
        },
        size_bytes: changed.size_bytes,
        template_bytes: changed.template_bytes,
        disk_bytes: changed.disk_bytes,
        moved_from: changed.moved_from.as_deref().map(path),
        differs: changed.differs.iter().map(ToString::to_string).collect(),
    }
}
