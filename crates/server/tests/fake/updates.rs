//! Updates of the fake node's VEs.

use api::latest::{
    ErrorCode, Operation, UpdatePlan, UpdateReport, UpdateRequest, UpdateWay, VeState,
};
use server::{Reply, Updates, VeKey};

use super::Fake;
use super::node::refuse;

impl Updates for Fake {
    fn update(&self, ve: VeKey, request: UpdateRequest) -> Reply<'_, Operation> {
        Box::pin(async move {
            let ve = self.find(&ve)?;
            self.called(format!("{request:?}"));
            if ve.state == VeState::Checkpointed {
                let message = format!("VE `{}` is checkpointed", ve.name);
                return refuse(ErrorCode::WrongState, message, "resume it first");
            }
            Ok(self.done("update", &ve.name, Some(ve.id), None))
        })
    }

    fn update_plan(&self, ve: VeKey, revision: Option<u32>) -> Reply<'_, UpdatePlan> {
        Box::pin(async move {
            let ve = self.find(&ve)?;
            self.called(format!("update plan {revision:?}"));
            let to = revision.unwrap_or(2);
            Ok(UpdatePlan {
                id: ve.id,
                name: ve.name,
                to: format!("{}@{to}", ve.template),
                from: ve.template,
                way: UpdateWay::Template,
                because: None,
                restarts: ve.state == VeState::Running,
                conflicts: vec!["/etc/motd".to_owned()],
                conflicts_count: 1,
            })
        })
    }
}

/// How an update of the fake node's went.
pub(super) fn report() -> UpdateReport {
    UpdateReport {
        from: "debian-12".to_owned(),
        to: "debian-12@2".to_owned(),
        way: UpdateWay::Inside,
        because: Some("it has packages of its own".to_owned()),
        downtime_ms: Some(812),
        conflicts: vec!["/etc/motd".to_owned()],
        conflicts_count: 1,
        rolled_back: false,
    }
}
