//! Restarts, those of updates, too, whose daemon died before the old init had ended.
//!
//! That init may have been told to end, and does so some time later. Whoever asked for a restart must
//! not find the VE stopped then, so the restart is asked for once more.

use std::time::Duration;

use ve::{State, VeId};

use crate::lanes::Engine;
use crate::recovery::Found;
use crate::request::{Request, StopManner, VeRequest};

/// How long an init may take when the journal does not say.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);

/// A restart that was begun, and whose old init runs.
pub(crate) fn begun(found: &Found) -> Option<(VeId, StopManner)> {
    let operation = found.interrupted.as_ref()?;
    let runs = found.alive.as_ref().map(|alive| &alive.run);
    let old = runs.is_some() && runs == found.record.run.as_ref();
    let told = match operation.kind.as_str() {
        "restart" => true,
        "update" => found.record.state == State::Stopping,
        _ => false,
    };
    (told && old).then(|| (found.record.spec.id, manner(&operation.request)))
}

/// Reads what `VeRequest::summary` wrote.
fn manner(request: &str) -> StopManner {
    if request == "kill" {
        return StopManner::Kill;
    }
    let words = request.split(", ").next().unwrap_or_default();
    let seconds = words.strip_prefix("timeout ");
    let seconds = seconds.and_then(|rest| rest.strip_suffix('s')?.parse().ok());
    StopManner::Ask {
        timeout: seconds.map_or(TIMEOUT_DEFAULT, Duration::from_secs),
    }
}

impl Engine {
    /// Asks for restarts once more; says for which.
    pub(crate) fn carry_on(&self, restarts: Vec<(VeId, StopManner)>) -> Vec<String> {
        let again = |(id, manner): (VeId, StopManner)| {
            let submitted = self.submit(Request::Ve {
                reference: id.to_string(),
                request: VeRequest::Restart(manner),
            });
            match submitted {
                Ok(_) => format!("VE {id} is restarted: its restart was interrupted"),
                Err(failure) => format!("VE {id} is not restarted: {failure}"),
            }
        };
        restarts.into_iter().map(again).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_journal_says() {
        for manner in [
            StopManner::Kill,
            StopManner::Ask {
                timeout: Duration::from_secs(7),
            },
        ] {
            let written = VeRequest::Restart(manner).summary();
            assert_eq!(self::manner(&written), manner);
        }
        let timeout = TIMEOUT_DEFAULT;
        assert_eq!(manner(""), StopManner::Ask { timeout });
    }
}
