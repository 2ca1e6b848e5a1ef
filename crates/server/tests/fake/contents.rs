//! What the fake node tells of what is in its VEs.

use std::collections::BTreeMap;

use api::latest::{
    Change, ChangeKind, CompactReply, Difference, ErrorCode, FileType, InstalledPackage,
    InventoryEntry, InventoryKind, VeState,
};
use server::{Contents, InventoryFilter, Reply, VeKey};

use super::Fake;
use super::node::refuse;

impl Contents for Fake {
    fn inventory(&self, filter: InventoryFilter) -> Reply<'_, Vec<InventoryEntry>> {
        Box::pin(async move {
            self.called(format!("{filter:?}"));
            let ves = self.matching(&filter.ves);
            let entry = |ve: api::latest::VeDetails| InventoryEntry {
                kind: InventoryKind::Ve,
                id: Some(ve.id),
                problem: ve
                    .name
                    .starts_with("broken")
                    .then(|| "its packages cannot be read".to_owned()),
                name: ve.name,
                state: Some(ve.state),
                template: Some(ve.template),
                owner: Some("=Jane \"J\" Doe".to_owned()),
                description: None,
                labels: ve.labels,
                addresses: ve.addresses,
                system: "Debian GNU/Linux 12 (bookworm)".to_owned(),
                manager: "dpkg".to_owned(),
                packages_count: 2,
                packages: match filter.brief {
                    true => Vec::new(),
                    false => vec![InstalledPackage {
                        name: "libssl3".to_owned(),
                        version: "3.0.11-1~deb12u2".to_owned(),
                        architecture: "amd64".to_owned(),
                        source: Some("openssl".to_owned()),
                    }],
                },
            };
            Ok(ves.into_iter().map(entry).collect())
        })
    }

    fn difference(&self, ve: VeKey, equal: bool) -> Reply<'_, Difference> {
        Box::pin(async move {
            let ve = self.find(&ve)?;
            self.called(format!("difference {equal}"));
            Ok(Difference {
                id: ve.id,
                name: ve.name,
                template: ve.template,
                counts: BTreeMap::from([("added".to_owned(), 1), ("equal".to_owned(), 3)]),
                size_bytes: 2_048,
                changes: vec![Change {
                    path: "/etc/new".to_owned(),
                    change: ChangeKind::Added,
                    kind: FileType::File,
                    size_bytes: 2_048,
                    template_bytes: 0,
                    disk_bytes: 4_096,
                    moved_from: None,
                    differs: Vec::new(),
                }],
                truncated: false,
            })
        })
    }

    fn compact(&self, ve: VeKey) -> Reply<'_, CompactReply> {
        Box::pin(async move {
            let ve = self.find(&ve)?;
            if ve.state == VeState::Checkpointed {
                let message = format!("VE `{}` is checkpointed", ve.name);
                return refuse(ErrorCode::WrongState, message, "resume it first");
            }
            Ok(CompactReply {
                operation: self.done("compact", &ve.name, Some(ve.id), None),
                id: ve.id,
                name: ve.name,
                whole: ve.state == VeState::Stopped,
                files: 12,
                size_bytes: 3_000_000,
                disk_bytes: 2 << 20,
                kept_files: 1,
            })
        })
    }
}
