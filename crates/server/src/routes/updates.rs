//! `/v1/ves/KEY/update`.

use api::latest::UpdateRequest;
use axum::extract::{Path, State};

use crate::answer::{self, Answer};
use crate::door::Door;
use crate::node::VeKey;
use crate::query::{Json, Query};

pub(super) async fn plan(
    State(door): State<Door>,
    Path(key): Path<String>,
    query: Query,
) -> Answer {
    query.only(&["revision"])?;
    let plan = door
        .node
        .update_plan(VeKey::parse(&key), query.parsed("revision")?);
    Ok(answer::json(&plan.await?))
}

pub(super) async fn update(
    State(door): State<Door>,
    Path(key): Path<String>,
    query: Query,
    Json(request): Json<UpdateRequest>,
) -> Answer {
    let operation = door.node.update(VeKey::parse(&key), request).await?;
    super::begun(&door, &query, operation).await
}
