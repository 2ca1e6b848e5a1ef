//! The paths of the API, and what they have in common.

mod alerts;
mod contents;
mod meters;
mod nodes;
mod operations;
mod samples;
mod templates;
mod updates;
mod ves;

use api::latest::{ApiError, ErrorCode, Operation};
use axum::Router;
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use crate::answer::{self, Answer, Refusal, usage};
use crate::door::Door;
use crate::limits::WAIT_MAX;
use crate::query::Query;

/// Every path of the API.
pub(crate) fn router(door: Door) -> Router {
    let v1 = Router::new()
        .route("/ves", get(ves::list).post(ves::create))
        .route(
            "/ves/{key}",
            get(ves::show).patch(ves::set).delete(ves::delete),
        )
        .route("/ves/{key}/start", post(ves::start))
        .route("/ves/{key}/stop", post(ves::stop))
        .route("/ves/{key}/restart", post(ves::restart))
        .route("/ves/{key}/applications", post(ves::applications))
        .route("/ves/{key}/pause", post(ves::pause))
        .route("/ves/{key}/suspend", post(ves::suspend))
        .route("/ves/{key}/resume", post(ves::resume))
        .route("/ves/{key}/exec", post(ves::exec))
        .route("/ves/{key}/console", post(ves::console))
        .route("/ves/{key}/logs", get(ves::logs))
        .route("/ves/{key}/files", get(ves::get_files).put(ves::put_files))
        .route("/ves/{key}/files/kind", get(ves::kind_of_file))
        .route("/ves/{key}/isolation", get(ves::isolation))
        .route("/ves/{key}/stats", get(ves::stats))
        .route("/ves/{key}/history", get(meters::history))
        .route("/ves/{key}/difference", get(contents::difference))
        .route("/ves/{key}/compact", post(contents::compact))
        .route(
            "/ves/{key}/update",
            get(updates::plan).post(updates::update),
        )
        .route("/inventory", get(contents::inventory))
        .route("/stats", get(ves::stats_of))
        .route("/accounts", get(meters::accounts))
        .route("/operations", get(operations::list))
        .route("/operations/{id}", get(operations::show))
        .route("/operations/{id}/cancel", post(operations::cancel))
        .route("/operations/{id}/wait", get(operations::wait))
        .route("/events", get(operations::events))
        .route("/samples", get(samples::list).post(samples::create))
        .route("/samples/{name}", axum::routing::delete(samples::delete))
        .route("/templates", get(templates::list))
        .route("/templates/build", post(templates::build))
        .route("/templates/import", post(templates::import))
        .route(
            "/templates/{name}",
            get(templates::show).delete(templates::remove),
        )
        .route("/templates/{name}/verify", post(templates::verify))
        .route("/templates/{name}/update", post(templates::update))
        .route("/templates/{name}/difference", get(templates::difference))
        .route("/pool", get(nodes::pool))
        .route("/node", get(nodes::show).patch(nodes::set))
        .route("/node/init", post(nodes::init))
        .route("/node/shutdown", post(nodes::shutdown))
        .route("/node/destroy", post(nodes::destroy))
        .route("/doctor", get(nodes::doctor))
        .merge(alerts::router());
    Router::new()
        .nest(api::PATH_PREFIX, v1)
        .route("/metrics", get(meters::metrics))
        .fallback(no_path)
        .method_not_allowed_fallback(no_method)
        .with_state(door)
}

/// The one path that is answered on TCP, to whoever may connect.
pub(crate) fn metrics_router(door: Door) -> Router {
    Router::new()
        .route("/metrics", get(meters::metrics))
        .fallback(no_path)
        .method_not_allowed_fallback(no_method)
        .with_state(door)
}

async fn no_path(uri: Uri) -> Response {
    let message = format!("`{}` is no path of this API", uri.path());
    Refusal(ApiError::new(ErrorCode::NotFound, message)).into_response()
}

async fn no_method(method: axum::http::Method, uri: Uri) -> Response {
    usage(format!("`{}` does not take {method}", uri.path())).into_response()
}

/// Answers a mutation: at once, or with `?wait=true` when its operation ended.
async fn begun(door: &Door, query: &Query, operation: Operation) -> Answer {
    query.only(&["wait"])?;
    let mut operation = operation;
    while query.flag("wait")? && !operation.state.is_ended() {
        let wait = door.node.wait_operation(operation.id, WAIT_MAX);
        operation = door.closing.or_closed(wait).await?;
    }
    Ok(answer::operation(&operation))
}
