//! Between the meter's words and the registry's.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use meter::{Account, Baseline, Counter, Counters};
use registry::AccountEntry;
use serde::{Deserialize, Serialize};
use ve::VeId;

/// A baseline as it is stored. Fields may be added with a default.
#[derive(Debug, Serialize, Deserialize)]
struct StoredBaseline {
    at_ms: u64,
    time: u64,
    run: Option<String>,
    filter_epoch: Option<String>,
    counters: BTreeMap<String, u64>,
    memory_bytes: u64,
    #[serde(default)]
    memory_given_bytes: u64,
    disk_bytes: u64,
}

pub(super) fn baseline(text: &str) -> Result<Baseline> {
    let stored: StoredBaseline =
        serde_json::from_str(text).context("its baseline cannot be read")?;
    let mut counters = Counters::default();
    for (name, value) in stored.counters {
        // A word that is not known was counted by a newer daemon, and is nobody's now.
        if let Some(counter) = Counter::from_name(&name) {
            counters.set(counter, Some(value));
        }
    }
    Ok(Baseline {
        at_ms: stored.at_ms,
        time: stored.time,
        run: stored.run,
        filter_epoch: stored.filter_epoch,
        counters,
        memory_bytes: stored.memory_bytes,
        memory_given_bytes: stored.memory_given_bytes,
        disk_bytes: stored.disk_bytes,
    })
}

pub(super) fn entry(id: VeId, created: u64, name: &str, account: &Account) -> AccountEntry {
    let baseline = account.baseline();
    let counters = baseline.counters.entries();
    let stored = StoredBaseline {
        at_ms: baseline.at_ms,
        time: baseline.time,
        run: baseline.run.clone(),
        filter_epoch: baseline.filter_epoch.clone(),
        counters: counters
            .map(|(counter, value)| (counter.name().to_owned(), value))
            .collect(),
        memory_bytes: baseline.memory_bytes,
        memory_given_bytes: baseline.memory_given_bytes,
        disk_bytes: baseline.disk_bytes,
    };
    let months = account.pending().iter().map(|(month, totals)| {
        let amounts = totals.entries().into_iter();
        let amounts = amounts.map(|(name, amount)| (name.to_owned(), amount));
        (month.to_string(), amounts.collect())
    });
    AccountEntry {
        ve: id,
        created,
        name: name.to_owned(),
        // Strings and numbers always become JSON.
        baseline: serde_json::to_string(&stored).unwrap_or_default(),
        months: months.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meter::{Bounds, Reading};

    #[test]
    fn a_baseline_comes_back() {
        let usage = cgroup::Usage {
            cpu_microseconds: 77,
            ..cgroup::Usage::default()
        };
        let mut account = Account::default();
        let usage = Some(("boot:1".to_owned(), usage));
        account.add(&Reading::new(5, 9, usage, None, Some(3), Bounds::default()));
        let entry = entry(VeId::new(100).unwrap(), 1, "web", &account);
        assert_eq!(baseline(&entry.baseline).unwrap(), *account.baseline());
        assert_eq!(entry.months[0].0, "1970-01");
        assert!(
            entry.months[0]
                .1
                .contains(&("cpu_microseconds".to_owned(), 77))
        );
        assert!(baseline("{}").is_err());
    }
}
