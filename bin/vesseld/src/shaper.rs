//! Holds what VEs send and receive to their limits, and divides the node's way to other networks while a
//! VE is guaranteed a part of it; knows what is so.
//!
//! ```text
//!             set network.guarantee, or a start with one
//! undivided ---------------------------------------------> divided: every VE that runs has a part
//!           <--------------------------------------------
//!             the next division without a guarantee
//! ```
//!
//! What was set stays while no daemon runs. A new one knows nothing, and sets everything anew where the
//! node is divided or is to be: nothing where neither is.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use engine::{Division, FailureKind, Fault, Support};
use network::Netlink;
use network::node::NodeNetwork;
use network::shape::{self, Hold, Part, Rate, ShapeError};
use ve::{Bits, Limits, VeId};

use crate::host::{self, Host};

/// The rates of VEs that run.
#[derive(Debug, Default)]
pub(crate) struct Shaper {
    state: Mutex<State>,
    /// Whether this kernel can divide, once somebody asked.
    division: OnceLock<Support>,
}

/// Locked while anything is set, so that a division and a VE's own change follow one another.
#[derive(Debug, Default)]
struct State {
    ves: BTreeMap<VeId, Shaped>,
    /// Whether the VEs that an earlier daemon started are known.
    begun: bool,
    /// What VEs get together if the node is divided.
    for_ves: Option<u64>,
    /// Whether it is to be.
    to_divide: bool,
    /// What it is divided into, or that it is not; `None` when that is not known.
    divided: Option<Option<u64>>,
}

/// A VE that runs.
#[derive(Clone, Copy, Debug)]
struct Shaped {
    limit: Option<Rate>,
    guarantee_bits: u64,
    /// What its link is held to; `None` when an earlier daemon started it, or the last change failed.
    held: Option<Hold>,
}

impl Shaped {
    fn new(limits: &Limits, held: Option<Hold>) -> Self {
        Self {
            limit: limits.network.map(|limit| Rate {
                limit_bits: limit.get(),
                burst_bits: limits.network_burst.map_or(0, Bits::get),
            }),
            guarantee_bits: limits.network_guarantee.map_or(0, Bits::get),
            held,
        }
    }

    /// What its link is to be held to on a node that is divided like this.
    fn hold(&self, divided: Option<u64>) -> Hold {
        Hold {
            limit: self.limit,
            part: divided.map(|all_bits| Part {
                guarantee_bits: self.guarantee_bits,
                all_bits,
            }),
        }
    }
}

fn fault(error: &ShapeError) -> Fault {
    let message = Fault::from_error(error).message;
    Fault::new(format!("network.limit, network.guarantee: {message}"))
        .of_kind(FailureKind::Resources)
}

impl Shaper {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this kernel can divide a node's network: tried once, where nobody is disturbed.
    pub(crate) fn division_support(&self, network: Result<NodeNetwork, Fault>) -> Support {
        let tried = || {
            network
                .map_err(|fault| fault.message)
                .and_then(|network| try_division(&network))
        };
        let support = self.division.get_or_init(|| match tried() {
            Ok(()) => Support::Full,
            Err(why) => Support::None(why),
        });
        support.clone()
    }
}

/// Divides an empty network namespace, on a thread that ends with it.
fn try_division(network: &NodeNetwork) -> Result<(), String> {
    if let Some(missing) = shape::missing() {
        return Err(missing.to_owned());
    }
    let divide = || -> Result<(), String> {
        let refused = |error: &dyn std::error::Error| error.to_string();
        kernel::namespace::leave_network_namespace().map_err(|error| refused(&error))?;
        let mut netlink = Netlink::open().map_err(|error| refused(&error))?;
        shape::try_division(&mut netlink, network)
            .map_err(|error| Fault::from_error(&error).message)
    };
    std::thread::scope(|scope| scope.spawn(divide).join())
        .unwrap_or_else(|_| Err("trying it failed".to_owned()))
}

impl Host {
    /// Takes VEs over that an earlier daemon started.
    ///
    /// # Errors
    /// When the node cannot be divided as it is to be; it is tried again with the next division.
    pub(crate) fn shape_begin<'a>(
        &self,
        running: impl Iterator<Item = (VeId, &'a Limits)>,
    ) -> Result<(), Fault> {
        let mut state = self.shaper.state();
        for (id, limits) in running {
            let shaped = Shaped::new(limits, None);
            state.ves.entry(id).or_insert(shaped);
            // Else an earlier daemon has said it.
            if self.fast_path.as_ref().is_some_and(|path| path.is_fresh()) {
                self.pass_by(id, shaped.hold(None) == Hold::default(), false)?;
            }
        }
        state.begun = true;
        self.shape_settle(&mut state)
    }

    /// Takes note of a VE whose link is new, and holds it to its limit.
    pub(crate) fn shape_new(&self, id: VeId, limits: &Limits) -> Result<(), Fault> {
        let new = Shaped::new(limits, Some(Hold::default()));
        self.shaper.state().ves.insert(id, new);
        self.shape(id, limits)?;
        let state = self.shaper.state();
        let held = state.ves.get(&id).and_then(|shaped| shaped.held);
        self.pass_by(id, held == Some(Hold::default()), true)
    }

    /// Lets packets of a VE take the fast path, or not: past all that holds them.
    fn pass_by(&self, id: VeId, allowed: bool, new_link: bool) -> Result<(), Fault> {
        let Some(fast_path) = &self.fast_path else {
            return Ok(());
        };
        match fast_path.allow(id, allowed, new_link) {
            Ok(()) => Ok(()),
            Err(error) if allowed => {
                tracing::warn!("packets of VE {id} take no fast path: {error}");
                Ok(())
            }
            Err(error) => Err(Fault::from_error(&error).of_kind(FailureKind::Resources)),
        }
    }

    /// Holds a VE that runs to its limit, if it is not yet; divides the node if it is guaranteed a part.
    pub(crate) fn shape(&self, id: VeId, limits: &Limits) -> Result<(), Fault> {
        let mut state = self.shaper.state();
        let held = state.ves.get(&id).and_then(|shaped| shaped.held);
        let shaped = Shaped::new(limits, held);
        state.ves.insert(id, shaped);
        if shaped.guarantee_bits > 0 {
            state.to_divide = true;
            self.shape_settle(&mut state)?;
        }
        let divided = state.divided.flatten();
        self.shape_hold(&mut state, divided, &[id])
    }

    /// Divides the node, or ends its division.
    pub(crate) fn shape_divide(&self, division: &Division) -> Result<(), Fault> {
        let mut state = self.shaper.state();
        state.for_ves = division.network_for_ves.map(Bits::get);
        state.to_divide = division.network_guaranteed;
        self.shape_settle(&mut state)
    }

    /// Forgets a VE whose link is gone.
    pub(crate) fn shape_end(&self, id: VeId) -> Result<(), Fault> {
        let mut state = self.shaper.state();
        if let Some(shaped) = state.ves.get(&id)
            && shaped.held != Some(Hold::default())
        {
            shape::forget(&self.shaped_network()?, id).map_err(|error| fault(&error))?;
        }
        state.ves.remove(&id);
        Ok(())
    }

    /// Makes the node as divided as it is to be.
    fn shape_settle(&self, state: &mut State) -> Result<(), Fault> {
        let wanted = if state.to_divide { state.for_ves } else { None };
        if !state.begun || state.divided == Some(wanted) {
            return Ok(());
        }
        let network = self.shaped_network()?;
        let known = state.divided.take();
        let all: Vec<_> = state.ves.keys().copied().collect();
        let set = |change: Result<(), ShapeError>| change.map_err(|error| fault(&error));
        if let Some(bits) = wanted {
            set(shape::divide(&mut self.netlink(), &network, bits))?;
            self.shape_hold(state, wanted, &all)?;
        } else if known.is_some() || shape::is_divided(&network).map_err(|error| fault(&error))? {
            self.shape_hold(state, None, &all)?;
            set(shape::undivide(&mut self.netlink(), &network))?;
        }
        state.divided = Some(wanted);
        Ok(())
    }

    /// Holds links to what they are to be held to, those that are not yet.
    fn shape_hold(
        &self,
        state: &mut State,
        divided: Option<u64>,
        ids: &[VeId],
    ) -> Result<(), Fault> {
        let mut holds = Vec::new();
        for id in ids {
            if let Some(shaped) = state.ves.get_mut(id) {
                let hold = shaped.hold(divided);
                if shaped.held != Some(hold) {
                    shaped.held = None;
                    holds.push((*id, hold));
                }
            }
        }
        if holds.is_empty() {
            return Ok(());
        }
        let network = self.shaped_network()?;
        shape::set(&mut self.netlink(), &network, &holds).map_err(|error| fault(&error))?;
        for (id, hold) in holds {
            self.pass_by(id, hold == Hold::default(), false)?;
            if let Some(shaped) = state.ves.get_mut(&id) {
                shaped.held = Some(hold);
            }
        }
        Ok(())
    }

    pub(crate) fn shaped_network(&self) -> Result<NodeNetwork, Fault> {
        host::node_network(&self.config).map_err(|error| Fault::new(format!("{error:#}")))
    }
}
