//! Keeps space in the pool for VEs that are guaranteed some: `policy::divide_disk` decides, the kernel
//! holds it, also while no daemon runs. What is free beyond is dealt out anew with every sweep of the
//! meter, and when promises change.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, PoisonError};

use engine::{Division, FailureKind, Fault};
use policy::{DiskClaim, DiskDivision, divide_disk};
use pool::Shares;
use ve::{Bytes, Limits, VeId};

use crate::host::Host;

/// What was promised, and dealt out.
#[derive(Debug, Default)]
pub(crate) struct Space(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Guarantee and limit of VEs that have a guarantee.
    promised: BTreeMap<VeId, (Bytes, Option<Bytes>)>,
    reserve: u64,
    /// What was dealt out last; `None` is not known.
    dealt: Option<Option<DiskDivision>>,
}

fn fault(error: &io::Error) -> Fault {
    Fault::new(format!(
        "disk.guarantee: the pool cannot be divided: {error}"
    ))
    .of_kind(FailureKind::Resources)
}

impl Host {
    /// Takes note of what is promised, and deals the pool out anew.
    pub(crate) fn space_divide(&self, division: &Division) -> Result<(), Fault> {
        let mut state = self.space.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.promised.clone_from(&division.disk_guarantees);
        state.reserve = division.disk_reserve.get();
        self.deal(&mut state)
    }

    /// Takes note of what one VE is promised, and deals out anew if anybody is promised anything.
    pub(crate) fn space_promise(&self, id: VeId, limits: &Limits) -> Result<(), Fault> {
        let mut state = self.space.0.lock().unwrap_or_else(PoisonError::into_inner);
        match limits.disk_guarantee {
            Some(guarantee) => state.promised.insert(id, (guarantee, limits.disk)),
            None => state.promised.remove(&id),
        };
        self.deal(&mut state)
    }

    /// Deals out anew what is free.
    pub(crate) fn space_deal(&self) {
        let mut state = self.space.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(fault) = self.deal(&mut state) {
            tracing::error!("{}", fault.message);
        }
    }

    fn deal(&self, state: &mut State) -> Result<(), Fault> {
        if self.pool.space_undivisible().is_some() {
            return Ok(());
        }
        if state.promised.is_empty() {
            if state.dealt != Some(None) {
                state.dealt = None;
                self.pool.space_undivide().map_err(|error| fault(&error))?;
                state.dealt = Some(None);
            }
            return Ok(());
        }
        let claims = self.disk_claims(state);
        let for_ves = self.disk_for_ves(state.reserve, &claims);
        let division = divide_disk(for_ves.map_err(|error| fault(&error))?, &claims);
        // Also when nothing of it changed: a VE that was made meanwhile is to be one of the others.
        state.dealt = None;
        let shares = Shares {
            own: division.own.clone(),
            common: division.common,
        };
        let divided = self.pool.space_divide(&shares);
        divided.map_err(|error| fault(&error))?;
        state.dealt = Some(Some(division));
        Ok(())
    }

    fn disk_claims(&self, state: &State) -> BTreeMap<VeId, DiskClaim> {
        let areas = self.pool.private_list().unwrap_or_default();
        let claim = |id: VeId| {
            // One whose area has just gone takes nothing.
            let used = self.pool.private_usage(id).unwrap_or(0);
            let promised = state.promised.get(&id);
            let claim = DiskClaim {
                used,
                guarantee: promised.map_or(0, |(guarantee, _)| guarantee.get()),
                limit: promised.and_then(|(_, limit)| *limit).map(Bytes::get),
            };
            (id, claim)
        };
        areas.into_iter().map(claim).collect()
    }

    /// What VEs may take together: what they have and what is free, as far as the reserve is left. Templates
    /// and the file system's own records lie in the reserve first.
    fn disk_for_ves(&self, reserve: u64, claims: &BTreeMap<VeId, DiskClaim>) -> io::Result<u64> {
        let usage = self.pool.usage()?;
        let taken: u64 = claims.values().map(|claim| claim.used).sum();
        let there = taken.saturating_add(usage.free_bytes);
        Ok(there.min(usage.size_bytes.saturating_sub(reserve)))
    }
}
