//! `/v1/ves/KEY/history`, `/v1/accounts` and `/metrics`.

use axum::extract::{Path, State};
use axum::http::header;
use axum::response::IntoResponse;

use crate::answer::{self, Answer};
use crate::door::Door;
use crate::meters::HistoryQuery;
use crate::node::VeKey;
use crate::query::Query;

/// How far back is looked when nobody says: the finest steps.
const SINCE_DEFAULT_SECONDS: u64 = 3_600;
/// Prometheus' exposition format.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) async fn history(
    State(door): State<Door>,
    Path(key): Path<String>,
    query: Query,
) -> Answer {
    query.only(&["since_seconds", "metric"])?;
    let asked = HistoryQuery {
        since_seconds: query
            .parsed("since_seconds")?
            .unwrap_or(SINCE_DEFAULT_SECONDS),
        metrics: query.all("metric").map(str::to_owned).collect(),
    };
    let history = door.node.history(VeKey::parse(&key), asked).await?;
    Ok(answer::json(&history))
}

pub(super) async fn accounts(State(door): State<Door>, query: Query) -> Answer {
    query.only(&["month"])?;
    let month = query.one("month").map(str::to_owned);
    Ok(answer::json(&door.node.accounts(month).await?))
}

pub(super) async fn metrics(State(door): State<Door>) -> Answer {
    let text = door.node.metrics().await?;
    Ok(([(header::CONTENT_TYPE, TEXT)], text).into_response())
}
