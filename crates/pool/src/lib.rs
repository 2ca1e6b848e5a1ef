//! The node's btrfs file system: subvolumes, quotas, sizes, health.
#![forbid(unsafe_code)]
