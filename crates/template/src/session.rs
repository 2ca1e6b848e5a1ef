//! How far a build or import has come, and how to end it early.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A flag that ends a build or import; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// A flag that is not raised.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Raises the flag. The work ends with an error within a second and leaves nothing behind.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the flag was raised.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// One sign of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress<'a> {
    /// A new part of the work began.
    Stage(Stage),
    /// What the build program says it does now, for people.
    Message(&'a str),
    /// How much of the tree was read so far.
    Read {
        /// Inodes.
        inodes: u64,
        /// Bytes of files.
        content_bytes: u64,
    },
}

/// Part of a build or import.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Packages are fetched and installed.
    InstallPackages,
    /// The tree is read into the object store.
    ReadTree,
    /// The tree is looked at: distribution, init, packages.
    Inspect,
    /// The image is written and everything made durable.
    WriteImage,
    /// Objects are hashed.
    Verify,
}

/// Whom to tell and whom to obey during one piece of work.
#[derive(Clone, Copy)]
pub struct Session<'a> {
    /// Called often; must be quick. Builds call it from two threads.
    pub progress: &'a (dyn Fn(Progress<'_>) + Sync),
    /// Raised by whoever wants the work to end.
    pub cancel: &'a Cancel,
}

impl std::fmt::Debug for Session<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("cancel", self.cancel)
            .finish_non_exhaustive()
    }
}

impl Session<'_> {
    /// Whether somebody wants the work to end.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    pub(crate) fn stage(&self, stage: Stage) {
        (self.progress)(Progress::Stage(stage));
    }
}
