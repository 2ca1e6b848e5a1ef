//! Holds what VEs send and receive to their limits, and knows which are.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engine::{FailureKind, Fault};
use network::shape::{self, Rate, ShapeError};
use ve::{Bits, Limits, VeId};

use crate::host::{self, Host};

/// The rates of VEs that run.
#[derive(Debug, Default)]
pub(crate) struct Shaper(Mutex<BTreeMap<VeId, Held>>);

/// What is known of a VE that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    /// An earlier daemon started it, or the last change failed.
    Unknown,
    /// It is held to this, or to nothing.
    To(Option<Rate>),
}

fn rate(limits: &Limits) -> Option<Rate> {
    Some(Rate {
        limit_bits: limits.network?.get(),
        burst_bits: limits.network_burst.map_or(0, Bits::get),
    })
}

fn fault(error: &ShapeError) -> Fault {
    let message = Fault::from_error(error).message;
    Fault::new(format!("network.limit: {message}")).of_kind(FailureKind::Resources)
}

impl Shaper {
    /// Takes a VE over that an earlier daemon started.
    pub(crate) fn adopt(&self, id: VeId) {
        self.note(id, Held::Unknown);
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<VeId, Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, id: VeId, held: Held) {
        self.held().insert(id, held);
    }
}

impl Host {
    /// Takes note of a VE whose link is new, and holds it to its limit.
    pub(crate) fn shape_new(&self, id: VeId, limits: &Limits) -> Result<(), Fault> {
        self.shaper.note(id, Held::To(None));
        self.shape(id, limits)
    }

    /// Holds a VE that runs to its limit, if it is not yet.
    pub(crate) fn shape(&self, id: VeId, limits: &Limits) -> Result<(), Fault> {
        let rate = rate(limits);
        if self.shaper.held().get(&id) == Some(&Held::To(rate)) {
            return Ok(());
        }
        self.shaper.note(id, Held::Unknown);
        let network = self.shaped_network()?;
        let mut netlink = self.netlink();
        // A VE without addresses has no link.
        let gone = network::link::wait_gone(&mut netlink, id, Duration::ZERO);
        if !gone.map_err(|error| Fault::from_error(&error))? {
            shape::set(&mut netlink, &network, id, rate).map_err(|error| fault(&error))?;
        }
        drop(netlink);
        self.shaper.note(id, Held::To(rate));
        Ok(())
    }

    /// Forgets a VE whose link is gone.
    pub(crate) fn shape_end(&self, id: VeId) -> Result<(), Fault> {
        let held = self.shaper.held().get(&id).copied();
        if !matches!(held, None | Some(Held::To(None))) {
            shape::forget(&self.shaped_network()?, id).map_err(|error| fault(&error))?;
        }
        self.shaper.held().remove(&id);
        Ok(())
    }

    fn shaped_network(&self) -> Result<network::node::NodeNetwork, Fault> {
        host::node_network(&self.config).map_err(|error| Fault::new(format!("{error:#}")))
    }
}
