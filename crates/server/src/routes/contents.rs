//! `/v1/inventory`, `/v1/ves/KEY/difference` and `/v1/ves/KEY/compact`.

use axum::extract::{Path, State};

use crate::answer::{self, Answer};
use crate::contents::InventoryFilter;
use crate::door::Door;
use crate::node::VeKey;
use crate::query::Query;

pub(super) async fn inventory(State(door): State<Door>, query: Query) -> Answer {
    let own = ["template", "templates", "package", "older_than", "brief"];
    let texts = |key| query.all(key).map(str::to_owned).collect();
    let filter = InventoryFilter {
        ves: super::ves::filter_beside(&query, &own)?,
        templates: texts("template"),
        all_templates: query.flag("templates")?,
        packages: texts("package"),
        older_than: query.one("older_than").map(str::to_owned),
        brief: query.flag("brief")?,
    };
    Ok(answer::json(&door.node.inventory(filter).await?))
}

pub(super) async fn difference(
    State(door): State<Door>,
    Path(key): Path<String>,
    query: Query,
) -> Answer {
    query.only(&["equal"])?;
    let difference = door
        .node
        .difference(VeKey::parse(&key), query.flag("equal")?);
    Ok(answer::json(&difference.await?))
}

pub(super) async fn compact(
    State(door): State<Door>,
    Path(key): Path<String>,
    query: Query,
) -> Answer {
    query.only(&[])?;
    Ok(answer::json(&door.node.compact(VeKey::parse(&key)).await?))
}
