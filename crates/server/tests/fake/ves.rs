//! How the fake node finds and changes its VEs.

use api::latest::{
    ApiError, ErrorCode, Operation, SetOutcome, SetReply, SetRequest, SettingChange, VeDetails,
    VeState,
};
use server::{VeFilter, VeKey};

use super::node::refuse;
use super::{Fake, values};

impl Fake {
    pub(super) fn called(&self, call: String) {
        self.lock().calls.push(call);
    }

    pub(super) fn matching(&self, filter: &VeFilter) -> Vec<VeDetails> {
        let inner = self.lock();
        let fits = |ve: &&VeDetails| {
            let labels = filter.labels.iter().all(|(key, value)| {
                ve.labels
                    .get(key)
                    .is_some_and(|own| value.as_ref().is_none_or(|v| v == own))
            });
            let keys = filter.keys.is_empty()
                || filter.keys.iter().any(|key| match key {
                    VeKey::Id(id) => *id == ve.id,
                    VeKey::Name(name) => *name == ve.name,
                });
            labels && keys && (filter.states.is_empty() || filter.states.contains(&ve.state))
        };
        inner.ves.values().filter(fits).cloned().collect()
    }

    /// Changes the state of a VE as an operation.
    pub(super) fn change(
        &self,
        key: &VeKey,
        kind: &str,
        from: &[VeState],
        to: VeState,
    ) -> Result<Operation, ApiError> {
        let ve = self.find(key)?;
        if ve.state == to {
            return Ok(self.done(kind, &ve.name, Some(ve.id), None));
        }
        if !from.contains(&ve.state) {
            let message = format!("VE `{}` is {}", ve.name, ve.state);
            return refuse(ErrorCode::WrongState, message, "see `vessel list`");
        }
        if ve.name.starts_with("broken") {
            let error = ApiError::new(
                ErrorCode::Failed,
                format!("VE `{}`: its template is damaged", ve.name),
            );
            return Ok(self.done(kind, &ve.name, Some(ve.id), Some(error)));
        }
        let mut changed = values::details(ve.id, &ve.name, to);
        changed.labels = ve.labels;
        self.add(changed);
        Ok(self.done(kind, &ve.name, Some(ve.id), None))
    }

    pub(super) fn settings_change(
        &self,
        ve: &VeKey,
        request: &SetRequest,
    ) -> Result<SetReply, ApiError> {
        let ve = self.find(ve)?;
        let mut changes = Vec::new();
        for setting in &request.settings {
            let (key, value) = setting.split_once('=').unwrap();
            let (outcome, because) = match key {
                "memry.limit" => {
                    return refuse(
                        ErrorCode::Usage,
                        "unknown key `memry.limit`",
                        "did you mean `memory.limit`?",
                    );
                }
                "hostname" => (
                    SetOutcome::PendingRestart,
                    Some("its init has read the name".to_owned()),
                ),
                _ => (SetOutcome::Applied, None),
            };
            changes.push(SettingChange {
                key: key.to_owned(),
                value: value.to_owned(),
                outcome,
                because,
                note: (key == "io.write.limit")
                    .then(|| "only direct writes are held back".to_owned()),
            });
        }
        let operation = self.done("set", &ve.name, Some(ve.id), None);
        Ok(SetReply { operation, changes })
    }
}
