//! What VEs hold of the node: read by admission, and divided among them.
//!
//! A promise is entered before the first step towards it, so that two requests at once cannot both get
//! the same, and is held until the operation ends; then the VE's record says what it holds. Nothing of
//! this is stored: a new daemon finds the same in the records.

use std::collections::BTreeMap;

use policy::{AdmissionDenied, Claim, NodeCapacity, admission};
use registry::{Outcome, VeRecord};
use ve::{Bytes, Limits, NodeResources, VeId};

use crate::error::Failure;
use crate::inner::Inner;
use crate::lanes::Engine;
use crate::mechanisms::{Division, Fault};

/// What VEs hold.
#[derive(Debug)]
pub(crate) struct Ledger {
    node: NodeCapacity,
    holdings: BTreeMap<VeId, Holding>,
    /// The weights that were given, by VE.
    weights: BTreeMap<VeId, u32>,
}

/// What one VE holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Its settings; while they change, of each the greater promise.
    pub limits: Limits,
    /// Whether it has processes, or is about to: otherwise it holds only its place in the pool.
    pub runs: bool,
}

impl Ledger {
    pub(crate) fn new(node: NodeCapacity) -> Self {
        Self {
            node,
            holdings: BTreeMap::new(),
            weights: BTreeMap::new(),
        }
    }

    fn others(&self, id: VeId, running: bool) -> Vec<&Limits> {
        let others = self.holdings.iter().filter(|(other, _)| **other != id);
        others
            .filter(|(_, holding)| holding.runs || !running)
            .map(|(_, holding)| &holding.limits)
            .collect()
    }

    /// Enters what a VE is to hold, beside what it holds already.
    fn promise(&mut self, id: VeId, wanted: &Limits) -> Result<(), AdmissionDenied> {
        let held = self.holdings.get(&id).filter(|holding| holding.runs);
        let held = held.map(|holding| &holding.limits);
        self.node.admit(wanted, held, &self.others(id, true))?;
        let limits = held.map_or_else(|| wanted.clone(), |held| admission::either(held, wanted));
        self.holdings.insert(id, Holding { limits, runs: true });
        Ok(())
    }

    /// Enters what a VE is to hold of the pool, beside what it holds already.
    fn promise_disk(&mut self, id: VeId, wanted: &Limits) -> Result<(), AdmissionDenied> {
        let held = self.holdings.get(&id).map(|holding| &holding.limits);
        self.node
            .admit_disk(wanted, held, &self.others(id, false))?;
        if let Some(holding) = self.holdings.get_mut(&id) {
            let either = admission::either(&holding.limits, wanted);
            holding.limits.disk_guarantee = either.disk_guarantee;
            holding.limits.disk = either.disk;
        }
        Ok(())
    }

    fn note(&mut self, record: &VeRecord) {
        let id = record.spec.id;
        let holding = Holding {
            limits: record.spec.limits.clone(),
            runs: record.run.is_some(),
        };
        self.holdings.insert(id, holding);
        // Its groups may be new ones.
        self.weights.remove(&id);
    }

    fn forget(&mut self, id: VeId) {
        self.holdings.remove(&id);
        self.weights.remove(&id);
    }

    /// What has to be given to whom, for what is held to be so. Weights that are given already are left
    /// out.
    fn division(&mut self) -> Division {
        let running = || self.holdings.iter().filter(|(_, holding)| holding.runs);
        let claims = running().map(|(id, holding)| (*id, Claim::of(&holding.limits)));
        let weights = policy::cpu_weights(self.node.cpu_for_ves(), &claims.collect());
        let guaranteed = running().filter_map(|(_, holding)| holding.limits.memory_guarantee);
        let memory_guaranteed = Bytes::new(guaranteed.map(Bytes::get).sum());
        let given = &self.weights;
        let changed = weights
            .iter()
            .filter(|(id, weight)| given.get(*id) != Some(*weight));
        let cpu_weights = changed.map(|(id, weight)| (*id, *weight)).collect();
        self.weights = weights;
        Division {
            cpu_weights,
            memory_guaranteed,
            memory_for_ves: self.node.memory_for_ves(),
            io_shared: running().any(|(_, holding)| holding.limits.io_share.is_some()),
            disk_guarantees: self.disk_guarantees(),
            disk_reserve: self.node.disk_reserve(),
            network_guaranteed: running()
                .any(|(_, holding)| holding.limits.network_guarantee.is_some()),
            network_for_ves: self.node.network_for_ves(),
        }
    }
}

impl Ledger {
    fn disk_guarantees(&self) -> BTreeMap<VeId, (Bytes, Option<Bytes>)> {
        let guarantee = |(id, holding): (&VeId, &Holding)| {
            let limits = &holding.limits;
            Some((*id, (limits.disk_guarantee?, limits.disk)))
        };
        self.holdings.iter().filter_map(guarantee).collect()
    }
}

impl Inner {
    /// Promises a VE that is to run, or runs, what it asks for.
    ///
    /// # Errors
    /// With the arithmetic of what the node cannot promise; nothing is promised then.
    pub(crate) fn promise(&self, id: VeId, wanted: &Limits) -> Result<(), Failure> {
        Ok(self.ledger().promise(id, wanted)?)
    }

    /// Whether a VE that stands still could ever run with these settings.
    pub(crate) fn promisable(&self, wanted: &Limits) -> Result<(), Failure> {
        Ok(self.ledger().node.admit(wanted, None, &[])?)
    }

    /// Whether a VE may take so much of the pool.
    pub(crate) fn promise_disk(&self, id: VeId, wanted: &Limits) -> Result<(), Failure> {
        Ok(self.ledger().promise_disk(id, wanted)?)
    }

    /// Enters a VE that is being made.
    pub(crate) fn promise_new(&self, id: VeId, wanted: &Limits) -> Result<(), Failure> {
        let mut ledger = self.ledger();
        ledger.node.admit(wanted, None, &[])?;
        ledger.promise_disk(id, wanted)?;
        let limits = wanted.clone();
        ledger.holdings.insert(
            id,
            Holding {
                limits,
                runs: false,
            },
        );
        Ok(())
    }

    /// Takes note of what an operation left, and divides the node anew.
    pub(crate) fn settle_holding(&self, outcome: Outcome<'_>) {
        let mut ledger = self.ledger();
        match outcome {
            Outcome::Record(record) => ledger.note(record),
            Outcome::Forget(id) => ledger.forget(id),
            Outcome::Unchanged => return,
        }
        self.divide_or_tell(&mut ledger);
    }

    /// Takes note of all records, and divides the node among those that run.
    pub(crate) fn settle_holdings(&self, records: &[VeRecord]) {
        let mut ledger = self.ledger();
        ledger.holdings.clear();
        ledger.weights.clear();
        let there = records.iter().filter(|record| !record.stage.is_hidden());
        there.for_each(|record| ledger.note(record));
        self.divide_or_tell(&mut ledger);
    }

    /// With the ledger locked: an older division must not be given after a newer one.
    fn divide(&self, ledger: &mut Ledger) -> Result<(), Fault> {
        let division = ledger.division();
        let given = self.parts.mechanisms.divide(&division);
        if given.is_err() {
            ledger.weights.clear();
        }
        given
    }

    /// Whoever asked did get what they asked for; what could not be given is given with the next division.
    fn divide_or_tell(&self, ledger: &mut Ledger) {
        if let Err(fault) = self.divide(ledger) {
            let message = fault.message;
            tracing::error!("the node is not divided as its VEs are promised: {message}");
        }
    }
}

impl Engine {
    /// What the node has, and what its administrator decided about it.
    #[must_use]
    pub fn capacity(&self) -> NodeCapacity {
        self.inner.ledger().node.clone()
    }

    /// What VEs hold.
    #[must_use]
    pub fn holdings(&self) -> BTreeMap<VeId, Holding> {
        self.inner.ledger().holdings.clone()
    }

    /// Changes what the node keeps for itself and how much it sells, at once. `save` makes it last, and
    /// is called when it can be.
    ///
    /// # Errors
    /// Refuses what would break a promise, and passes the failure to save on; nothing is changed then.
    pub fn set_resources(
        &self,
        change: impl FnOnce(&mut NodeResources),
        save: impl FnOnce(&NodeResources) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut ledger = self.inner.ledger();
        let mut node = ledger.node.clone();
        change(&mut node.resources);
        // A node that cannot keep its promises anyway, as it lost memory, must not be stuck.
        if ledger.keeps_promises(&ledger.node).is_ok() {
            ledger.keeps_promises(&node)?;
        }
        let before = std::mem::replace(&mut ledger.node, node);
        let given = self.inner.divide(&mut ledger).map_err(Failure::from);
        let kept = given.and_then(|()| save(&ledger.node.resources));
        if kept.is_err() {
            ledger.node = before;
            self.inner.divide_or_tell(&mut ledger);
        }
        kept
    }
}

impl Ledger {
    fn keeps_promises(&self, node: &NodeCapacity) -> Result<(), AdmissionDenied> {
        let all: Vec<_> = self
            .holdings
            .values()
            .map(|holding| &holding.limits)
            .collect();
        let running = self.holdings.values().filter(|holding| holding.runs);
        let running: Vec<_> = running.map(|holding| &holding.limits).collect();
        node.holds(&running, &all)
    }
}
