//! `/v1/templates`.

use api::latest::{BuildRequest, ImportRequest};
use axum::Extension;
use axum::extract::{Path, State};

use crate::answer::{self, Answer};
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
