//! `/v1/operations` and `/v1/events`.

use axum::extract::{Path, State};
use axum::http::header;
use axum::response::IntoResponse;

use crate::answer::{self, Answer, Refusal, usage};
use crate::body;
use crate::door::Door;
use crate::limits::OPERATIONS_MAX;
use crate::node::{EventFilter, OperationFilter, VeKey};
use crate::query::Query;

pub(super) async fn list(State(door): State<Door>, query: Query) -> Answer {
    query.only(&["all", "ve", "count"])?;
    let filter = OperationFilter {
        ended: query.flag("all")?,
        ve: query.one("ve").map(VeKey::parse),
        count_max: query
            .parsed("count")?
            .unwrap_or(OPERATIONS_MAX)
            .min(OPERATIONS_MAX),
    };
    Ok(answer::json(&door.node.operations(filter).await?))
}

pub(super) async fn show(State(door): State<Door>, Path(id): Path<String>, query: Query) -> Answer {
    query.only(&[])?;
    Ok(answer::operation(&door.node.operation(number(&id)?).await?))
}

pub(super) async fn cancel(
    State(door): State<Door>,
    Path(id): Path<String>,
    query: Query,
) -> Answer {
    let operation = door.node.cancel_operation(number(&id)?).await?;
    super::begun(&door, &query, operation).await
}

pub(super) async fn wait(State(door): State<Door>, Path(id): Path<String>, query: Query) -> Answer {
    query.only(&["timeout_ms"])?;
    let wait = door.node.wait_operation(number(&id)?, query.timeout()?);
    Ok(answer::operation(&door.closing.or_closed(wait).await?))
}

pub(super) async fn events(State(door): State<Door>, query: Query) -> Answer {
    query.only(&["follow", "after"])?;
    let filter = EventFilter {
        follow: query.flag("follow")?,
        after: query.parsed("after")?,
    };
    let events = door.node.events(filter).await?;
    let body = body::from_events(events, door.closing.clone());
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

fn number(text: &str) -> Result<u64, Refusal> {
    text.parse()
        .map_err(|_| usage(format!("`{text}` is not the number of an operation")))
}
