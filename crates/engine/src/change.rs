//! Changing the settings of a VE, live if it runs.

use std::collections::BTreeMap;

use registry::{OperationId, VeRecord};
use ve::{Limits, Setting};

use crate::admission::{self, AdmissionError};
use crate::error::Failure;
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
            // The pool keeps its part of them through a power cut, so the journal has to know first.
            parts.registry.sync()?;
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
        if wanted.disk != before.spec.limits.disk {
            inner.promise_disk(id, wanted)?;
        }
        if before.run.is_some() {
            inner.promise(id, wanted)
        } else {
            inner.promisable(wanted)
        }
    }
}
