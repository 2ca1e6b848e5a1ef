//! Requests about what is in VEs and templates.

use std::time::Duration;

use api::latest::{ApiError, CompactReply, Difference, ErrorCode, InventoryEntry};
use engine::VeRequest;
use policy::Action;
use server::node::{Reply, VeFilter, VeKey};
use server::{Contents, InventoryFilter};
use ve::Stack;

use super::{NodeDoor, status, templates, ves};
use crate::contents;
use crate::daemon::Up;

impl Contents for NodeDoor {
    fn inventory(&self, filter: InventoryFilter) -> Reply<'_, Vec<InventoryEntry>> {
        Box::pin(self.with_up(move |up| inventory(up, &filter)))
    }

    fn difference(&self, ve: VeKey, equal: bool) -> Reply<'_, Difference> {
        Box::pin(self.with_up(move |up| {
            let record = ves::find(up, &ve)?;
            contents::difference(&up.host, &record, equal)
        }))
    }

    fn compact(&self, ve: VeKey) -> Reply<'_, CompactReply> {
        Box::pin(compact(self, ve))
    }
}

fn inventory(up: &Up, filter: &InventoryFilter) -> Result<Vec<InventoryEntry>, ApiError> {
    let templates = chosen_templates(up, filter)?;
    let only_templates = filter.all_templates || !filter.templates.is_empty();
    let records = match only_templates && filter.ves == VeFilter::default() {
        true => Vec::new(),
        false => {
            // Of names, each that does not exist is told: nobody shall be taken for up to date.
            for key in &filter.ves.keys {
                ves::find(up, key)?;
            }
            ves::matching(up, &filter.ves)?
        }
    };
    contents::inventory(&up.host, &records, &templates, filter)
}

fn chosen_templates(up: &Up, filter: &InventoryFilter) -> Result<Vec<Stack>, ApiError> {
    if filter.all_templates {
        let listing = up.host.catalogue.list();
        let listing = listing.map_err(|error| {
            ApiError::new(ErrorCode::Failed, engine::Fault::from_error(&error).message)
        })?;
        let names = listing.templates.iter().map(|m| m.name.as_str());
        let names = names.chain(listing.broken.iter().map(|(name, _)| name.as_str()));
        let mut names: Vec<Stack> = names.filter_map(|name| name.parse().ok()).collect();
        names.sort();
        return Ok(names);
    }
    let meant = filter.templates.iter();
    meant.map(|text| templates::resolve(up, text)).collect()
}

async fn compact(door: &NodeDoor, ve: VeKey) -> Result<CompactReply, ApiError> {
    let key = ve.clone();
    let (record, operation) = door
        .with_up(move |up| {
            let record = ves::find(up, &key)?;
            ves::permit(&record, Action::Compact)?;
            Ok((record, ves::submit(up, &key, VeRequest::Compact)?))
        })
        .await?;
    let operation = status::wait_operation(door, operation.id, Duration::MAX).await?;
    if let Some(error) = operation.error {
        return Err(error);
    }
    let id = record.spec.id;
    let compacted = door
        .with_up(move |up| Ok(up.host.contents.take_compacted(id)))
        .await?
        .unwrap_or_default();
    let kept = compacted.done.kept;
    Ok(CompactReply {
        id: id.get(),
        name: record.spec.name.to_string(),
        operation,
        whole: compacted.whole,
        files: compacted.done.files,
        size_bytes: compacted.done.bytes,
        disk_bytes: compacted.disk_bytes,
        kept_files: kept.linked + kept.hidden + kept.too_long,
    })
}
