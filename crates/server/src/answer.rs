//! Turns what a node says into HTTP.

use api::latest::{ApiError, ErrorCode, Operation};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// What every handler comes back with.
pub(crate) type Answer = Result<Response, Refusal>;

/// An [`ApiError`] on its way out.
#[derive(Debug)]
pub(crate) struct Refusal(pub(crate) ApiError);

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        with_json(status_of(self.0.code), &self.0)
    }
}

/// Answers with a value.
pub(crate) fn json<T: Serialize>(value: &T) -> Response {
    with_json(StatusCode::OK, value)
}

/// Answers with an operation: accepted while it goes on.
pub(crate) fn operation(operation: &Operation) -> Response {
    let status = if operation.state.is_ended() {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    with_json(status, operation)
}

/// Refuses a request that makes no sense.
pub(crate) fn usage(message: impl Into<String>) -> Refusal {
    Refusal(ApiError::new(ErrorCode::Usage, message))
}

fn status_of(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::Usage => StatusCode::BAD_REQUEST,
        ErrorCode::NotFound => StatusCode::NOT_FOUND,
        ErrorCode::Conflict | ErrorCode::WrongState => StatusCode::CONFLICT,
        ErrorCode::Locked => StatusCode::LOCKED,
        ErrorCode::NoResources => StatusCode::INSUFFICIENT_STORAGE,
        ErrorCode::Permission => StatusCode::FORBIDDEN,
        ErrorCode::Unreachable => StatusCode::BAD_GATEWAY,
        ErrorCode::CommandNotExecutable | ErrorCode::CommandNotFound => {
            StatusCode::UNPROCESSABLE_ENTITY
        }
        ErrorCode::Failed | ErrorCode::Partial | ErrorCode::Unknown => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

fn with_json<T: Serialize>(status: StatusCode, value: &T) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => (status, [(header::CONTENT_TYPE, "application/json")], bytes).into_response(),
        // Our own types always become JSON: their keys are strings. Say so rather than panic.
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
