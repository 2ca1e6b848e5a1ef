//! The parts of a request: its query, its JSON.

use std::str::FromStr;
use std::time::Duration;

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::answer::{Refusal, usage};
use crate::limits::{JSON_BYTES_MAX, JSON_TIMEOUT, WAIT_DEFAULT, WAIT_MAX};

/// The query of a request. Keys may repeat.
#[derive(Debug)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Refuses keys that the endpoint does not know, so that a misspelt filter never shows everything.
    pub(crate) fn only(&self, known: &[&str]) -> Result<(), Refusal> {
        match self
            .0
            .iter()
            .find(|(key, _)| !known.contains(&key.as_str()))
        {
            None => Ok(()),
            Some((key, _)) if known.is_empty() => Err(usage(format!(
                "query parameter `{key}`: this path takes none"
            ))),
            Some((key, _)) => Err(usage(format!(
                "query parameter `{key}` is not known here: known are {}",
                known.join(", ")
            ))),
        }
    }

    /// Every value of a key.
    pub(crate) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(k, _)| k == key)
            .map(|(_, value)| value.as_str())
    }

    /// The last value of a key.
    pub(crate) fn one<'a>(&'a self, key: &'a str) -> Option<&'a str> {
        self.all(key).last()
    }

    /// The last value of a key, as a number or the like.
    pub(crate) fn parsed<T: FromStr>(&self, key: &str) -> Result<Option<T>, Refusal> {
        self.one(key)
            .map(|text| {
                text.parse()
                    .map_err(|_| usage(format!("query parameter `{key}`: `{text}` is no number")))
            })
            .transpose()
    }

    /// Whether a flag is set: `?key`, `?key=true`.
    pub(crate) fn flag(&self, key: &str) -> Result<bool, Refusal> {
        match self.one(key) {
            None | Some("false") => Ok(false),
            Some("" | "true") => Ok(true),
            Some(other) => Err(usage(format!(
                "query parameter `{key}`: `{other}` is neither `true` nor `false`"
            ))),
        }
    }

    /// How long to wait: `?timeout_ms=N`, at most [`WAIT_MAX`].
    pub(crate) fn timeout(&self) -> Result<Duration, Refusal> {
        let asked = self
            .parsed("timeout_ms")?
            .map_or(WAIT_DEFAULT, Duration::from_millis);
        Ok(asked.min(WAIT_MAX))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        axum::extract::Query::try_from_uri(&parts.uri)
            .map(|axum::extract::Query(pairs)| Self(pairs))
            .map_err(|error| usage(format!("query `{}`: {error}", parts.uri)))
    }
}

/// The JSON body of a request; no body at all is an empty object.
#[derive(Debug)]
pub(crate) struct Json<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        let path = request.uri().path().to_owned();
        let read = axum::body::to_bytes(request.into_body(), JSON_BYTES_MAX);
        let bytes = tokio::time::timeout(JSON_TIMEOUT, read)
            .await
            .map_err(|_| {
                usage(format!(
                    "body of `{path}`: it took more than 30 s to arrive"
                ))
            })?
            .map_err(|error| {
                usage(format!(
                    "body of `{path}`, at most {JSON_BYTES_MAX} bytes: {error}"
                ))
            })?;
        let bytes = if bytes.is_empty() {
            b"{}".as_slice()
        } else {
            &bytes
        };
        serde_json::from_slice(bytes)
            .map(Self)
            .map_err(|error| usage(format!("body of `{path}`: {error}")))
    }
}
