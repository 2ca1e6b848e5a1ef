//! The newest version of each type.

pub use crate::initial::*;
pub use crate::time::Timestamp;
