//! `/v1/ves` and `/v1/stats`.

use api::UPGRADE_PROTOCOL;
use api::latest::{
    ApiError, ApplicationsRequest, ConsoleRequest, CreateRequest, DeleteRequest, ErrorCode,
    ExecRequest, SetRequest, StartRequest, StopRequest, VeState,
};
use axum::extract::{FromRequest, Path, Request, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use hyper::upgrade::OnUpgrade;
use serde::de::DeserializeOwned;

use crate::answer::{self, Answer, Refusal, usage};
use crate::body;
use crate::door::Door;
use crate::node::{LogFilter, PutFiles, Session, VeFilter, VeKey};
use crate::query::{Json, Query};
use crate::session;

pub(super) async fn list(State(door): State<Door>, query: Query) -> Answer {
    Ok(answer::json(&door.node.list(filter(&query)?).await?))
}

pub(super) async fn create(
    State(door): State<Door>,
    query: Query,
    Json(request): Json<CreateRequest>,
) -> Answer {
    let operation = door.node.create(request).await?;
    super::begun(&door, &query, operation).await
}

pub(super) async fn show(
    State(door): State<Door>,
    Path(key): Path<String>,
    query: Query,
) -> Answer {
    query.only(&["wait", "timeout_ms"])?;
    let ve = VeKey::parse(&key);
    let Some(word) = query.one("wait") else {
        return Ok(answer::json(&door.node.show(ve).await?));
    };
    let wait = door.node.wait(ve, state(word)?, query.timeout()?);
    Ok(answer::json(&door.closing.or_closed(wait).await?))
}

pub(super) async fn set(
    State(door): State<Door>,
    Path(key): Path<String>,
    query: Query,
    Json(request): Json<SetRequest>,
) -> Answer {
    query.only(&[])?;
    Ok(answer::json(
        &door.node.set(VeKey::parse(&key), request).await?,
    ))
}

pub(super) async fn delete(
    State(door): State<Door>,
    Path(key): Path<String>,
    query: Query,
    Json(request): Json<DeleteRequest>,
) -> Answer {
    let operation = door.node.delete(VeKey::parse(&key), request).await?;
    super::begun(&door, &query, operation).await
}

pub(super) async fn start(
    State(door): State<Door>,
    Path(key): Path<String>,
    query: Query,
    Json(request): Json<StartRequest>,
) -> Answer {
    let operation = door.node.start(VeKey::parse(&key), request).await?;
    super::begun(&door, &query, operation).await
}

pub(super) async fn stop(
    State(door): State<Door>,
    Path(key): Path<String>,
    query: Query,
    Json(request): Json<StopRequest>,
) -> Answer {
    let operation = door.node.stop(VeKey::parse(&key), request).await?;
    super::begun(&door, &query, operation).await
}

pub(super) async fn restart(
    State(door): State<Door>,
    Path(key): Path<String>,
    query: Query,
    Json(request): Json<StopRequest>,
) -> Answer {
    let operation = door.node.restart(VeKey::parse(&key), request).await?;
    super::begun(&door, &query, operation).await
}

pub(super) async fn pause(
    State(door): State<Door>,
    Path(key): Path<String>,
    query: Query,
) -> Answer {
    let operation = door.node.pause(VeKey::parse(&key)).await?;
    super::begun(&door, &query, operation).await
}

pub(super) async fn applications(
    State(door): State<Door>,
    Path(key): Path<String>,
    query: Query,
    Json(request): Json<ApplicationsRequest>,
) -> Answer {
    let key = VeKey::parse(&key);
    let operation = door.node.change_applications(key, request).await?;
    super::begun(&door, &query, operation).await
}

pub(super) async fn suspend(
    State(door): State<Door>,
    Path(key): Path<String>,
    query: Query,
) -> Answer {
    let operation = door.node.suspend(VeKey::parse(&key)).await?;
    super::begun(&door, &query, operation).await
}

pub(super) async fn resume(
    State(door): State<Door>,
    Path(key): Path<String>,
    query: Query,
) -> Answer {
    let operation = door.node.resume(VeKey::parse(&key)).await?;
    super::begun(&door, &query, operation).await
}

pub(super) async fn exec(
    State(door): State<Door>,
    Path(key): Path<String>,
    request: Request,
) -> Answer {
    let (upgrade, request): (_, ExecRequest) = upgrading(request).await?;
    let permit = session_permit(&door)?;
    let session = door.node.exec(VeKey::parse(&key), request).await?;
    Ok(upgraded(&door, upgrade, session, permit))
}

pub(super) async fn console(
    State(door): State<Door>,
    Path(key): Path<String>,
    request: Request,
) -> Answer {
    let (upgrade, request): (_, ConsoleRequest) = upgrading(request).await?;
    let permit = session_permit(&door)?;
    let session = door.node.console(VeKey::parse(&key), request).await?;
    Ok(upgraded(&door, upgrade, session, permit))
}

pub(super) async fn logs(
    State(door): State<Door>,
    Path(key): Path<String>,
    query: Query,
) -> Answer {
    query.only(&["follow", "lines"])?;
    let filter = LogFilter {
        follow: query.flag("follow")?,
        lines: query.parsed("lines")?,
    };
    let endless = filter.follow.then(|| door.closing.clone());
    let source = door.node.logs(VeKey::parse(&key), filter).await?;
    let body = body::from_source(source, endless);
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], body).into_response())
}

pub(super) async fn get_files(
    State(door): State<Door>,
    Path(key): Path<String>,
    query: Query,
) -> Answer {
    let path = inner_path(&query)?;
    let source = door.node.get_files(VeKey::parse(&key), path).await?;
    let body = body::from_source(source, None);
    Ok(([(header::CONTENT_TYPE, "application/x-tar")], body).into_response())
}

pub(super) async fn put_files(
    State(door): State<Door>,
    Path(key): Path<String>,
    query: Query,
    request: Request,
) -> Answer {
    let put = PutFiles {
        folder: inner_path(&query)?,
    };
    let archive = body::into_source(request.into_body());
    door.node
        .put_files(VeKey::parse(&key), put, archive)
        .await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn kind_of_file(
    State(door): State<Door>,
    Path(key): Path<String>,
    query: Query,
) -> Answer {
    let folder = door
        .node
        .is_folder(VeKey::parse(&key), inner_path(&query)?)
        .await?;
    Ok(answer::json(&api::latest::FileKind { folder }))
}

pub(super) async fn isolation(
    State(door): State<Door>,
    Path(key): Path<String>,
    query: Query,
) -> Answer {
    query.only(&[])?;
    let ve = VeKey::parse(&key);
    Ok(answer::json(&door.node.isolation(ve).await?))
}

pub(super) async fn stats(
    State(door): State<Door>,
    Path(key): Path<String>,
    query: Query,
) -> Answer {
    query.only(&[])?;
    Ok(answer::json(&door.node.stats(VeKey::parse(&key)).await?))
}

pub(super) async fn stats_of(State(door): State<Door>, query: Query) -> Answer {
    Ok(answer::json(&door.node.stats_of(filter(&query)?).await?))
}

fn filter(query: &Query) -> Result<VeFilter, Refusal> {
    filter_beside(query, &[])
}

/// Which VEs a query selects that may have these keys, too.
pub(super) fn filter_beside(query: &Query, others: &[&str]) -> Result<VeFilter, Refusal> {
    query.only(&[&["label", "ve", "state"], others].concat())?;
    let labels = query.all("label").map(|label| match label.split_once('=') {
        Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
        None => (label.to_owned(), None),
    });
    Ok(VeFilter {
        labels: labels.collect(),
        keys: query.all("ve").map(VeKey::parse).collect(),
        states: query.all("state").map(state).collect::<Result<_, _>>()?,
    })
}

fn state(word: &str) -> Result<VeState, Refusal> {
    VeState::from_word(word).ok_or_else(|| {
        let known: Vec<_> = VeState::ALL.iter().map(|state| state.as_str()).collect();
        usage(format!(
            "`{word}` is no state of a VE: known are {}",
            known.join(", ")
        ))
    })
}

/// The path inside of a VE that a request is about: absolute, with no step upwards.
fn inner_path(query: &Query) -> Result<String, Refusal> {
    query.only(&["path"])?;
    let path = query.one("path").unwrap_or_default();
    if !path.starts_with('/') || path.contains('\0') {
        return Err(usage(format!(
            "path `{path}`: it must be absolute inside the VE: `/root/file`"
        )));
    }
    if path.split('/').any(|part| part == "..") {
        return Err(usage(format!("path `{path}`: `..` is not accepted here")));
    }
    Ok(path.to_owned())
}

/// Takes a request that asks for a stream: its JSON, and the connection once it was answered.
async fn upgrading<T: DeserializeOwned>(mut request: Request) -> Result<(OnUpgrade, T), Refusal> {
    let asked = request
        .headers()
        .get(header::UPGRADE)
        .and_then(|value| value.to_str().ok());
    if asked != Some(UPGRADE_PROTOCOL) {
        return Err(usage(format!(
            "`{}` is a stream: ask for it with `Connection: upgrade` and `Upgrade: {UPGRADE_PROTOCOL}`",
            request.uri().path()
        )));
    }
    let upgrade = hyper::upgrade::on(&mut request);
    let Json(value) = Json::from_request(request, &()).await?;
    Ok((upgrade, value))
}

fn session_permit(door: &Door) -> Result<tokio::sync::OwnedSemaphorePermit, Refusal> {
    std::sync::Arc::clone(&door.sessions)
        .try_acquire_owned()
        .map_err(|_| {
            let message = format!(
                "this node serves {} sessions of exec and console at once and all are taken",
                crate::limits::SESSIONS_MAX
            );
            Refusal(ApiError::new(ErrorCode::NoResources, message).with_hint("end one of them"))
        })
}

/// Answers with the change of protocol and serves the session on the connection.
fn upgraded(
    door: &Door,
    upgrade: OnUpgrade,
    session: Session,
    permit: tokio::sync::OwnedSemaphorePermit,
) -> axum::response::Response {
    let closing = door.closing.clone();
    tokio::spawn(async move {
        // A caller that went away before the upgrade drops the session, which hangs up.
        if let Ok(connection) = upgrade.await {
            session::serve(connection, session, closing).await;
        }
        drop(permit);
    });
    let headers = [
        (header::CONNECTION, "upgrade"),
        (header::UPGRADE, UPGRADE_PROTOCOL),
    ];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}
