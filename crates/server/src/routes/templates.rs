//! `/v1/templates`.

use api::latest::{BuildRequest, ImportRequest, TemplateUpdateRequest};
use axum::Extension;
use axum::extract::{Path, State};

use crate::answer::{self, Answer, usage};
use crate::door::Door;
use crate::node::Peer;
use crate::query::{Json, Query};

pub(super) async fn list(State(door): State<Door>, query: Query) -> Answer {
    query.only(&[])?;
    Ok(answer::json(&door.node.templates().await?))
}

pub(super) async fn show(
    State(door): State<Door>,
    Path(name): Path<String>,
    query: Query,
) -> Answer {
    query.only(&["packages"])?;
    Ok(answer::json(
        &door.node.template(name, query.flag("packages")?).await?,
    ))
}

pub(super) async fn build(
    State(door): State<Door>,
    query: Query,
    Json(request): Json<BuildRequest>,
) -> Answer {
    let operation = door.node.build_template(request).await?;
    super::begun(&door, &query, operation).await
}

pub(super) async fn import(
    State(door): State<Door>,
    Extension(peer): Extension<Peer>,
    query: Query,
    Json(request): Json<ImportRequest>,
) -> Answer {
    let operation = door.node.import_template(peer, request).await?;
    super::begun(&door, &query, operation).await
}

pub(super) async fn remove(
    State(door): State<Door>,
    Path(name): Path<String>,
    query: Query,
) -> Answer {
    let operation = door.node.remove_template(name).await?;
    super::begun(&door, &query, operation).await
}

pub(super) async fn verify(
    State(door): State<Door>,
    Path(name): Path<String>,
    query: Query,
) -> Answer {
    let operation = door.node.verify_template(name).await?;
    super::begun(&door, &query, operation).await
}

pub(super) async fn update(
    State(door): State<Door>,
    Path(name): Path<String>,
    query: Query,
    Json(request): Json<TemplateUpdateRequest>,
) -> Answer {
    let operation = door.node.update_template(name, request).await?;
    super::begun(&door, &query, operation).await
}

pub(super) async fn difference(
    State(door): State<Door>,
    Path(name): Path<String>,
    query: Query,
) -> Answer {
    query.only(&["from"])?;
    let Some(from) = query.one("from") else {
        return Err(usage(
            "query parameter `from`: the template to compare with is missing",
        ));
    };
    let from = from.to_owned();
    Ok(answer::json(
        &door.node.template_difference(name, from).await?,
    ))
}
