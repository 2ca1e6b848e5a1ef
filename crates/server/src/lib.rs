//! The HTTP door of a node. The only crate that knows HTTP on the serving side.
//!
//! [`bind`] makes the socket, [`serve`] answers on it for a [`Node`], which the daemon implements. The
//! door parses requests into wire types, hands them to the node, and turns answers and refusals back
//! into HTTP; it decides nothing about VEs.
//!
//! Who may speak: root, and the user that the daemon runs as. The socket's mode says so, and each connection's
//! credentials are checked again, since a socket's mode can be changed by mistake.
//!
//! Answers: `200` with what was asked for; `202` with an `Operation` that has not ended; with
//! `?wait=true` a mutation answers `200` when its operation ended, whether it is `done` or `failed`; every
//! refusal is an `ApiError` with the status of its code. All limits are named in [`limits`].
#![forbid(unsafe_code)]

mod accepting;
mod alerts;
mod answer;
mod body;
mod contents;
mod door;
pub mod limits;
pub mod meters;
pub mod node;
mod query;
mod routes;
mod samples;
mod session;
mod tcp;
mod updates;
mod versions;

pub use alerts::Alerts;
pub use contents::{Contents, InventoryFilter};
pub use door::{BindError, bind, serve};
pub use meters::{HistoryQuery, Meters};
pub use node::{
    ByteSink, ByteSource, Control, EventFilter, LogFilter, Node, OperationFilter, Peer, PutFiles,
    Reply, Session, VeFilter, VeKey,
};
pub use samples::Samples;
pub use tcp::{ListenError, listen, serve_metrics};
pub use updates::Updates;
pub use versions::Versions;
