//! System calls with owned descriptors, and one probe of what this kernel can do.
#![expect(
    unsafe_code,
    reason = "the one crate that speaks to the kernel directly"
)]

pub mod bpf;
pub mod btrfs;
pub mod clone;
mod control;
pub mod device_program;
pub mod execute;
pub mod file;
pub mod fork;
pub mod loop_device;
pub mod merging;
pub mod mount;
pub mod namespace;
pub mod netns;
pub mod packet;
pub mod pidfd;
pub mod probe;
pub mod proc;
pub mod seccomp;
pub mod signal;
pub mod taskstats;
pub mod tcp;
