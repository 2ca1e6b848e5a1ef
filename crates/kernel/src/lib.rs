//! System calls with owned descriptors, and one probe of what this kernel can do.
#![expect(unsafe_code, reason = "the one crate that speaks to the kernel directly")]

pub mod device_program;
pub mod proc;
