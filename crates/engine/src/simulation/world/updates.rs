//! Updates of made-up VEs.

use std::time::Duration;

use registry::VeRecord;
use ve::Stack;

use super::FakeNode;
use crate::mechanisms::{Fault, ProgressSink};
use crate::updating::{Before, Check, Foreseen, Kept, Updating, Way};

impl FakeNode {
    fn runs(&self, record: &VeRecord) -> Result<(), Fault> {
        let world = self.world();
        let init = world.inits.get(&record.spec.id).map(|init| &init.run);
        match init == record.run.as_ref() && init.is_some() {
            true => Ok(()),
            false => Err(Fault::new("its init ended")),
        }
    }
}

impl Updating for FakeNode {
    fn update_foresee(&self, record: &VeRecord, _: &Stack) -> Result<Foreseen, Fault> {
        let id = record.spec.id;
        let call = self.begin(Some(id), "update_foresee")?;
        let own = self.world().areas.get(&id).map(|area| area.own_packages);
        let because = "it has packages of its own".to_owned();
        let way = match own {
            Some(true) => Way::Inside { because },
            _ => Way::Below,
        };
        let kept = Kept::default();
        call.end(Foreseen { way, kept })
    }

    fn lower_keep(&self, record: &VeRecord, new: &Stack) -> Result<(), Fault> {
        let id = record.spec.id;
        let call = self.begin(Some(id), "lower_keep")?;
        let freeze = |frozen| {
            if let Some(init) = self.world().inits.get_mut(&id) {
                init.frozen = frozen;
            }
        };
        freeze(true);
        let amid = call.middle();
        if amid.is_ok()
            && let Some(area) = self.world().areas.get_mut(&id)
        {
            area.before = Some((new.to_string(), Box::new(area.clone())));
        }
        self.moment("when files are kept");
        freeze(false);
        amid?;
        call.end(())
    }

    fn lower_before(&self, record: &VeRecord) -> Result<Before, Fault> {
        let id = record.spec.id;
        let call = self.begin(Some(id), "lower_before")?;
        let world = self.world();
        let kept = world.areas.get(&id).and_then(|area| area.before.as_ref());
        let before = match kept {
            None => Before::None,
            Some((label, _)) if *label == record.spec.stack().to_string() => Before::Done,
            Some(_) => Before::Pending,
        };
        drop(world);
        call.end(before)
    }

    fn upgrade(
        &self,
        record: &VeRecord,
        new: &Stack,
        sink: &dyn ProgressSink,
    ) -> Result<(), Fault> {
        let id = record.spec.id;
        let call = self.begin(Some(id), "upgrade")?;
        self.runs(record)?;
        let upgraded = |packages: String| {
            if let Some(area) = self.world().areas.get_mut(&id) {
                area.packages = Some(packages);
            }
        };
        upgraded("half of it".to_owned());
        call.middle()?;
        if sink.cancelled() {
            return Err(crate::plan::cancelled());
        }
        upgraded(new.to_string());
        call.end(())
    }

    fn lower_move(&self, record: &VeRecord, new: &Stack, _: &Way) -> Result<Kept, Fault> {
        let id = record.spec.id;
        let call = self.begin(Some(id), "lower_move")?;
        let mut world = self.world();
        let kept = world
            .areas
            .get(&id)
            .is_some_and(|area| area.before.is_some());
        if world.inits.contains_key(&id) || !kept {
            world.violation(format!("VE {id} gets {new} while it runs, or for good"));
        }
        if let Some(area) = world.areas.get_mut(&id) {
            area.below = Some("half of it".to_owned());
        }
        drop(world);
        call.middle()?;
        if let Some(area) = self.world().areas.get_mut(&id) {
            area.below = Some(new.to_string());
        }
        call.end(Kept::default())
    }

    fn ready_wait(
        &self,
        record: &VeRecord,
        _: Duration,
        sink: &dyn ProgressSink,
    ) -> Result<(), Fault> {
        let call = self.begin(Some(record.spec.id), "ready_wait")?;
        self.runs(record)?;
        if sink.cancelled() {
            return Err(crate::plan::cancelled());
        }
        call.end(())
    }

    fn check(
        &self,
        record: &VeRecord,
        check: &Check,
        sink: &dyn ProgressSink,
    ) -> Result<(), Fault> {
        let call = self.begin(Some(record.spec.id), "check")?;
        self.runs(record)?;
        call.middle()?;
        if sink.cancelled() {
            return Err(crate::plan::cancelled());
        }
        if self.world().unhealthy && record.spec.revision > ve::Revision::FIRST {
            return Err(Fault::new(format!("`{}` ended with code 1", check.command)));
        }
        call.end(())
    }

    fn files_sync(&self) -> Result<(), Fault> {
        self.begin(None, "files_sync")?.end(())
    }
}
