//! What a node must be able to tell of what VEs used, for the door to serve it.

use api::latest::{Account, History};

use crate::node::{Reply, VeKey};

/// What of a VE's past is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryQuery {
    /// How far back, in seconds.
    pub since_seconds: u64,
    /// Metrics by name; empty for all.
    pub metrics: Vec<String>,
}

/// The part of a [`crate::Node`] that meters.
pub trait Meters: Send + Sync + 'static {
    /// `GET /v1/ves/KEY/history?since_seconds=N&metric=M`: in the finest steps that reach back so far.
    fn history(&self, ve: VeKey, query: HistoryQuery) -> Reply<'_, History>;
    /// `GET /v1/accounts?month=M`: totals of each VE in a month, or in all that are kept; VEs that are gone, too.
    fn accounts(&self, month: Option<String>) -> Reply<'_, Vec<Account>>;
    /// `GET /metrics`: text in Prometheus' exposition format 0.0.4.
    fn metrics(&self) -> Reply<'_, String>;
}
