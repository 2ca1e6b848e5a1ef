//! What the floor program and the bench share: user namespaces and overlays over idmapped layers,
//! as the kernel wants them, without anything of Vessel's own.
#![forbid(unsafe_code)]

pub mod stack;
pub mod users;
