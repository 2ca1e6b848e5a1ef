//! Changing the settings of a VE, live if it runs.

use std::collections::BTreeMap;

use registry::{OperationId, VeRecord};
use ve::{Bytes, Limits, Setting};

use crate::admission::{self, AdmissionError};
use crate::error::{Failure, FailureKind};
use crate::lanes::Engine;
use crate::plan::Step;

impl Engine {
    /// Changes settings and labels; returns how it went, and the record as it is true then: all of
    /// the change or nothing of it.
    pub(crate) fn change(
        &self,
        operation: OperationId,
        before: &VeRecord,
        settings: &[Setting],
        labels: &BTreeMap<String, Option<String>>,
    ) -> (Result<(), Failure>, VeRecord) {
        let (after, plan) = match self.changed(before, settings, labels) {
            Ok(changed) => changed,
            Err(failure) => return (Err(failure), before.clone()),
        };
        let (result, worked) = self.work(operation, before.clone(), &plan);
        let spec = if result.is_ok() {
            after.spec
        } else {
            before.spec.clone()
        };
        (result, VeRecord { spec, ..worked })
    }

    /// Lets a VE have other memory beyond its limit; returns as [`Engine::change`] does.
    ///
    /// More of it is recorded before it is given: a VE that uses it when the daemon dies could not be
    /// brought back to less.
    pub(crate) fn grow(
        &self,
        operation: OperationId,
        before: &VeRecord,
        given: Bytes,
    ) -> (Result<(), Failure>, VeRecord) {
        let mut after = before.clone();
        let growth = &mut after.spec.limits.memory_growth;
        growth.given = (given.get() > 0).then_some(given);
        if let Err(failure) = self.admit_growth(before, &after) {
            return (Err(failure), before.clone());
        }
        let limits = Step::Limits {
            old: Box::new(before.spec.limits.clone()),
            new: Box::new(after.spec.limits.clone()),
        };
        let (result, worked) = self.work(operation, before.clone(), &[limits]);
        let spec = match &result {
            Ok(()) => after.spec,
            Err(_) => before.spec.clone(),
        };
        (result, VeRecord { spec, ..worked })
    }

    /// Whether a VE may have what it is to be given, now that its turn has come; promises it.
    fn admit_growth(&self, before: &VeRecord, after: &VeRecord) -> Result<(), Failure> {
        let (old, new) = (&before.spec.limits, &after.spec.limits);
        if before.run.is_none() {
            return Err(Failure::new(FailureKind::State, "it runs no more"));
        }
        // Its administrator may have changed the rules meanwhile.
        if new
            .memory_growth
            .ceiling
            .is_none_or(|ceiling| new.memory_now() > Some(ceiling))
        {
            return Err(Failure::new(FailureKind::State, "it may not grow so far"));
        }
        self.inner.promise(before.spec.id, new)?;
        if new.memory_now() > old.memory_now() {
            self.inner.parts.registry.ve_intend(after)?;
            return Ok(());
        }
        let parts = &self.inner.parts;
        let in_use = parts.mechanisms.in_use(before.spec.id, true)?;
        let lowered = policy::limits::lowered(old, new);
        Ok(policy::limits::grant(
            &lowered,
            &in_use,
            parts.facts.machine,
        )?)
    }

    /// The record with other settings, and the steps that make them true.
    fn changed(
        &self,
        before: &VeRecord,
        settings: &[Setting],
        labels: &BTreeMap<String, Option<String>>,
    ) -> Result<(VeRecord, Vec<Step>), Failure> {
        let parts = &self.inner.parts;
        let (id, running) = (before.spec.id, before.run.is_some());
        let mut after = before.clone();
        for setting in settings {
            after.spec.apply(setting);
        }
        for (label, value) in labels {
            match value {
                Some(value) => after.spec.labels.insert(label.clone(), value.clone()),
                None => after.spec.labels.remove(label),
            };
        }
        after.spec.limits.memory_growth.given =
            policy::growth::kept(&before.spec.limits, &after.spec.limits);
        let mut plan = Vec::new();
        if after.spec.limits != before.spec.limits {
            self.admit_limits(before, &after.spec.limits)?;
            let in_use = parts.mechanisms.in_use(id, running)?;
            let lowered = policy::limits::lowered(&before.spec.limits, &after.spec.limits);
            policy::limits::grant(&lowered, &in_use, parts.facts.machine)?;
            plan.push(Step::Limits {
                old: Box::new(before.spec.limits.clone()),
                new: Box::new(after.spec.limits.clone()),
            });
            if after.spec.limits.disk != before.spec.limits.disk {
                // The pool keeps it through a power cut, so the journal has to know first.
                parts.registry.sync()?;
            }
        }
        let addressed = |s: &Setting| matches!(s, Setting::AddressAuto | Setting::Addresses(_));
        if let Some(setting) = settings.iter().rev().find(|s| addressed(s)) {
            // Held before they are used: nobody else is given them while this VE gets them.
            let chosen = parts.registry.addresses_hold(id, |taken| match setting {
                Setting::Addresses(given) => Ok(given.clone()),
                _ => admission::automatic_addresses(&parts.facts, taken)
                    .map_err(AdmissionError::from),
            });
            after.spec.addresses = chosen.map_err(|AdmissionError(failure)| failure)?;
        }
        if running && after.spec.addresses != before.spec.addresses {
            let (old, new) = (before.spec.addresses.clone(), after.spec.addresses.clone());
            plan.push(Step::Addresses { old, new });
        }
        Ok((after, plan))
    }

    /// Whether these limits make sense, and can be promised; promises them to a VE that runs.
    fn admit_limits(&self, before: &VeRecord, wanted: &Limits) -> Result<(), Failure> {
        let (id, inner) = (before.spec.id, &self.inner);
        policy::limits::consistent(wanted)?;
        let old = &before.spec.limits;
        if wanted.disk != old.disk || wanted.disk_guarantee != old.disk_guarantee {
            inner.promise_disk(id, wanted)?;
        }
        if before.run.is_some() {
            inner.promise(id, wanted)
        } else {
            inner.promisable(wanted)
        }
    }
}
