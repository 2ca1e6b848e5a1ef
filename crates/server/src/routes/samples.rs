//! `/v1/samples`.

use api::latest::Sample;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;

use crate::answer::{self, Answer};
use crate::door::Door;
use crate::query::{Json, Query};

pub(super) async fn list(State(door): State<Door>, query: Query) -> Answer {
    query.only(&[])?;
    Ok(answer::json(&door.node.samples().await?))
}

pub(super) async fn create(
    State(door): State<Door>,
    query: Query,
    Json(sample): Json<Sample>,
) -> Answer {
    query.only(&[])?;
    Ok(answer::json(&door.node.create_sample(sample).await?))
}

pub(super) async fn delete(
    State(door): State<Door>,
    Path(name): Path<String>,
    query: Query,
) -> Answer {
    query.only(&[])?;
    door.node.delete_sample(name).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
