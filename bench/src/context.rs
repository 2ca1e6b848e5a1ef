//! What all sections share: the stage, the node, and how much effort to spend.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::debian;
use crate::interrupt;
use crate::node::Node;
use crate::stage::Stage;
use crate::web;

/// How long the bench may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// Just enough to see that everything works.
    Quick,
    /// Figures to rely on.
    Full,
}

/// What sections work with.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) effort: Effort,
    /// Before the stage, so that the node is taken away first.
    pub(crate) node: Node,
    pub(crate) stage: Stage,
    /// The archive of a Debian, where a section wants one.
    archive: Option<PathBuf>,
}

impl Context {
    /// Sets the stage and starts a node on it.
    pub(crate) fn enter(effort: Effort, archive: Option<PathBuf>) -> Result<Self> {
        // Namespaces can be changed only as long as there is one thread.
        let stage = Stage::enter()?;
        interrupt::listen()?;
        let node = Node::start(&stage)?;
        Ok(Self {
            effort,
            node,
            stage,
            archive,
        })
    }

    /// A Debian: its files in a folder, which is returned, and the same as a template of the node.
    pub(crate) fn debian(&self) -> Result<PathBuf> {
        let tree = self.stage.folder().join("debian");
        if !tree.exists() {
            let archive = self.archive.as_ref().context("no Debian was fetched")?;
            debian::unpack(archive, &tree)?;
            web::configure(&tree)?;
            let from = tree.display().to_string();
            let words = ["template", "import", &from, "--name", debian::NAME];
            self.node.vessel(&words)?;
        }
        Ok(tree)
    }

    /// One number for a quick look, another for figures.
    pub(crate) fn rounds(&self, quick: usize, full: usize) -> usize {
        match self.effort {
            Effort::Quick => quick,
            Effort::Full => full,
        }
    }
}
