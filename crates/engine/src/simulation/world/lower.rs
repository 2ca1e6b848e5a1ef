//! What lies below the files of made-up VEs.

use registry::VeRecord;
use ve::Stack;

use super::FakeNode;
use crate::mechanisms::Fault;

impl FakeNode {
    pub(super) fn change_lower(&self, record: &VeRecord, new: &Stack) -> Result<(), Fault> {
        let id = record.spec.id;
        let call = self.begin(Some(id), "lower_change")?;
        let mut world = self.world();
        let there = world.templates.0.contains(&new.to_string());
        if world.inits.contains_key(&id) || !there {
            world.violation(format!(
                "VE {id} gets {new} while it runs, or it is not there"
            ));
        }
        if let Some(area) = world.areas.get_mut(&id) {
            area.before = Some((new.to_string(), Box::new(area.clone())));
            area.below = Some("half of it".to_owned());
        }
        drop(world);
        call.middle()?;
        if let Some(area) = self.world().areas.get_mut(&id) {
            area.below = Some(new.to_string());
        }
        call.end(())
    }

    pub(super) fn settle_lower(&self, record: &VeRecord) -> Result<(), Fault> {
        let id = record.spec.id;
        let call = self.begin(Some(id), "lower_settle")?;
        let mut world = self.world();
        let runs = world.inits.contains_key(&id);
        let before = world.areas.get_mut(&id).and_then(|area| area.before.take());
        if let Some((label, before)) = before
            && label != record.spec.stack().to_string()
        {
            world.areas.insert(id, *before);
            if runs {
                world.violation(format!("files of VE {id} are replaced while it runs"));
            }
        }
        drop(world);
        call.end(())
    }
}
