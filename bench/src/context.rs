//! What all sections share: the stage, the node, and how much effort to spend.

use anyhow::Result;

use crate::interrupt;
use crate::node::Node;
use crate::stage::Stage;

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
}

impl Context {
    /// Sets the stage and starts a node on it.
    pub(crate) fn enter(effort: Effort) -> Result<Self> {
        // Namespaces can be changed only as long as there is one thread.
        let stage = Stage::enter()?;
        interrupt::listen()?;
        let node = Node::start(&stage)?;
        Ok(Self {
            effort,
            node,
            stage,
        })
    }

    /// One number for a quick look, another for figures.
    pub(crate) fn rounds(&self, quick: usize, full: usize) -> usize {
        match self.effort {
            Effort::Quick => quick,
            Effort::Full => full,
        }
    }
}
