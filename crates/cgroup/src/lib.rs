//! Resource control on cgroup v1, hybrid and v2.
#![forbid(unsafe_code)]
