//! `/v1/node`, `/v1/pool` and `/v1/doctor`.

use api::latest::{DestroyRequest, InitRequest, NodeSetRequest, ShutdownRequest};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;

use crate::answer::{self, Answer};
use crate::door::Door;
use crate::query::{Json, Query};

pub(super) async fn pool(State(door): State<Door>, query: Query) -> Answer {
    query.only(&[])?;
    Ok(answer::json(&door.node.pool().await?))
}

pub(super) async fn show(State(door): State<Door>, query: Query) -> Answer {
    query.only(&[])?;
    Ok(answer::json(&door.node.node().await?))
}

pub(super) async fn set(
    State(door): State<Door>,
    query: Query,
    Json(request): Json<NodeSetRequest>,
) -> Answer {
    query.only(&[])?;
    Ok(answer::json(&door.node.set_node(request).await?))
}

pub(super) async fn init(
    State(door): State<Door>,
    query: Query,
    Json(request): Json<InitRequest>,
) -> Answer {
    query.only(&[])?;
    Ok(answer::json(&door.node.init(request).await?))
}

pub(super) async fn shutdown(
    State(door): State<Door>,
    query: Query,
    Json(request): Json<ShutdownRequest>,
) -> Answer {
    query.only(&[])?;
    door.node.shutdown(request).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn destroy(
    State(door): State<Door>,
    query: Query,
    Json(request): Json<DestroyRequest>,
) -> Answer {
    query.only(&[])?;
    door.node.destroy(request).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn doctor(State(door): State<Door>, query: Query) -> Answer {
    query.only(&[])?;
    Ok(answer::json(&door.node.doctor().await?))
}
