//! `/v1/alerts` and what is below it.

use api::latest::{AlertChannel, AlertRule, AlertSilenceRequest};
use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::{delete, get, post, put};

use crate::answer::{self, Answer, usage};
use crate::door::Door;
use crate::query::{Json, Query};

pub(super) fn router() -> Router<Door> {
    Router::new()
        .route("/alerts", get(list))
        .route("/alerts/metrics", get(metrics))
        .route("/alerts/rules", get(rules))
        .route("/alerts/rules/{name}", put(put_rule).delete(delete_rule))
        .route("/alerts/channels", get(channels))
        .route(
            "/alerts/channels/{name}",
            put(put_channel).delete(delete_channel),
        )
        .route("/alerts/channels/{name}/test", post(test_channel))
        .route("/alerts/silences", get(silences).post(silence))
        .route("/alerts/silences/{id}", delete(end_silence))
}

fn gone() -> Answer {
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn list(State(door): State<Door>, query: Query) -> Answer {
    query.only(&[])?;
    Ok(answer::json(&door.node.alerts().await?))
}

async fn metrics(State(door): State<Door>, query: Query) -> Answer {
    query.only(&[])?;
    Ok(answer::json(&door.node.alert_metrics().await?))
}

async fn rules(State(door): State<Door>, query: Query) -> Answer {
    query.only(&[])?;
    Ok(answer::json(&door.node.alert_rules().await?))
}

async fn put_rule(
    State(door): State<Door>,
    Path(name): Path<String>,
    query: Query,
    Json(rule): Json<AlertRule>,
) -> Answer {
    query.only(&[])?;
    let rule = AlertRule { name, ..rule };
    Ok(answer::json(&door.node.put_alert_rule(rule).await?))
}

async fn delete_rule(State(door): State<Door>, Path(name): Path<String>, query: Query) -> Answer {
    query.only(&[])?;
    door.node.delete_alert_rule(name).await?;
    gone()
}

async fn channels(State(door): State<Door>, query: Query) -> Answer {
    query.only(&[])?;
    Ok(answer::json(&door.node.alert_channels().await?))
}

async fn put_channel(
    State(door): State<Door>,
    Path(name): Path<String>,
    query: Query,
    Json(channel): Json<AlertChannel>,
) -> Answer {
    query.only(&[])?;
    let channel = AlertChannel { name, ..channel };
    Ok(answer::json(&door.node.put_alert_channel(channel).await?))
}

async fn delete_channel(
    State(door): State<Door>,
    Path(name): Path<String>,
    query: Query,
) -> Answer {
    query.only(&[])?;
    door.node.delete_alert_channel(name).await?;
    gone()
}

async fn test_channel(State(door): State<Door>, Path(name): Path<String>, query: Query) -> Answer {
    query.only(&[])?;
    door.node.test_alert_channel(name).await?;
    gone()
}

async fn silences(State(door): State<Door>, query: Query) -> Answer {
    query.only(&[])?;
    Ok(answer::json(&door.node.alert_silences().await?))
}

async fn silence(
    State(door): State<Door>,
    query: Query,
    Json(request): Json<AlertSilenceRequest>,
) -> Answer {
    query.only(&[])?;
    Ok(answer::json(&door.node.silence_alerts(request).await?))
}

async fn end_silence(State(door): State<Door>, Path(id): Path<String>, query: Query) -> Answer {
    query.only(&[])?;
    let id = id
        .parse()
        .map_err(|_| usage(format!("`{id}` is not the number of a silence")))?;
    door.node.end_alert_silence(id).await?;
    gone()
}
