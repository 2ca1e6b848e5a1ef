//! The mechanisms of the made-up node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use policy::InUse;
use registry::{Run, VeRecord};
use ve::{Bytes, Exit, Limits, Options, Spec, Stack, VeId};

use crate::mechanisms::{Division, Fault, Mechanisms, Patience, ProgressSink, Running, Sweep};
use crate::request::{BuildWork, StackBuild, TemplateRequest};

use super::{Dump, FakeNode, Init, Sleeper, World};

impl Mechanisms for FakeNode {
    fn templates(&self) -> Result<BTreeSet<Stack>, Fault> {
        let templates = self.world().templates.clone().0.into_iter();
        Ok(templates.filter_map(|stack| stack.parse().ok()).collect())
    }

    fn template_version(&self, stack: &Stack) -> Result<Option<String>, Fault> {
        let there = self.world().templates.0.contains(&stack.to_string());
        Ok(there.then(|| "1".to_owned()))
    }

    fn template_work(&self, _: &TemplateRequest, sink: &dyn ProgressSink) -> Result<(), Fault> {
        let call = self.begin(None, "template_work")?;
        if sink.cancelled() {
            return Err(crate::plan::cancelled());
        }
        call.end(())
    }

    fn template_remove(&self, stack: &Stack) -> Result<(), Fault> {
        let call = self.begin(None, "template_remove")?;
        self.world().templates.0.remove(&stack.to_string());
        call.end(())
    }

    fn options_check(&self, _: &Stack, _: &Options) -> Result<(), Fault> {
        Ok(())
    }

    fn build_check(&self, _: &StackBuild) -> Result<(), Fault> {
        Ok(())
    }

    fn stack_install(
        &self,
        sandbox: &VeRecord,
        build: &StackBuild,
        sink: &dyn ProgressSink,
    ) -> Result<(), Fault> {
        let id = sandbox.spec.id;
        let call = self.begin(Some(id), "stack_install")?;
        let mut world = self.world();
        if !world.inits.contains_key(&id) {
            world.violation(format!("{} is built in no sandbox", build.stack));
        }
        drop(world);
        call.middle()?;
        if sink.cancelled() {
            return Err(crate::plan::cancelled());
        }
        call.end(())
    }

    fn stack_keep(
        &self,
        sandbox: &VeRecord,
        build: &StackBuild,
        _: &dyn ProgressSink,
    ) -> Result<(), Fault> {
        let id = sandbox.spec.id;
        let call = self.begin(Some(id), "stack_keep")?;
        let mut world = self.world();
        if world.inits.contains_key(&id) || !world.areas.contains_key(&id) {
            world.violation(format!("{} is kept while it changes", build.stack));
        }
        drop(world);
        call.middle()?;
        let mut world = self.world();
        // Of an update that finds nothing new, nothing is kept.
        if !matches!(build.work, BuildWork::Update { .. }) || world.packages_are_newer {
            world.templates.0.insert(build.stack.to_string());
        }
        drop(world);
        call.end(())
    }

    fn lower_check(&self, record: &VeRecord, _: &Stack) -> Result<(), Fault> {
        let id = record.spec.id;
        self.begin(Some(id), "lower_check")?.end(())
    }

    fn lower_change(&self, record: &VeRecord, new: &Stack) -> Result<(), Fault> {
        self.change_lower(record, new)
    }

    fn lower_settle(&self, record: &VeRecord) -> Result<(), Fault> {
        self.settle_lower(record)
    }

    fn address_check(&self, _: IpAddr) -> Result<(), Fault> {
        Ok(())
    }

    fn divide(&self, division: &Division) -> Result<(), Fault> {
        let mut world = self.world();
        for (id, weight) in &division.cpu_weights {
            if world.groups.contains_key(id) {
                world.weights.insert(*id, *weight);
            }
        }
        Ok(())
    }

    fn area_create(&self, id: VeId, disk: Option<Bytes>) -> Result<(), Fault> {
        let call = self.begin(Some(id), "area_create")?;
        self.world().areas.entry(id).or_default();
        call.middle()?;
        self.world().areas.entry(id).or_default().disk = disk;
        call.end(())
    }

    fn area_remove(&self, id: VeId) -> Result<(), Fault> {
        let call = self.begin(Some(id), "area_remove")?;
        let mut world = self.world();
        if world.inits.contains_key(&id) {
            world.violation(format!("the area of VE {id} is removed while it runs"));
        }
        if let Some(area) = world.areas.get_mut(&id) {
            area.files = BTreeSet::from(["half of it".to_owned()]);
        }
        drop(world);
        call.middle()?;
        self.world().areas.remove(&id);
        self.world().sleepers.remove(&id);
        call.end(())
    }

    fn groups_create(&self, spec: &Spec) -> Result<(), Fault> {
        let call = self.begin(Some(spec.id), "groups_create")?;
        let mut world = self.world();
        world.groups.entry(spec.id).or_default();
        // A new group has the usual weight, whatever an older one had.
        world.weights.insert(spec.id, 100);
        drop(world);
        call.middle()?;
        self.world()
            .groups
            .insert(spec.id, Some(spec.limits.clone()));
        call.end(())
    }

    fn launch(&self, record: &VeRecord) -> Result<Running, Fault> {
        let id = record.spec.id;
        let call = self.begin(Some(id), "launch")?;
        let mut world = self.world();
        if world.inits.contains_key(&id) {
            world.violation(format!("a second init of VE {id}"));
        }
        if !world.groups.contains_key(&id) || !world.areas.contains_key(&id) {
            world.violation(format!("VE {id} is launched without groups or area"));
        }
        if world.asleep(id).is_some() {
            world.violation(format!("VE {id} is launched while it sleeps"));
        }
        let addresses = record.spec.addresses.iter().copied().collect();
        world.links.insert(id, addresses);
        drop(world);
        call.middle()?;
        let mut world = self.world();
        world.pids += 1;
        let run = Run {
            pid: world.pids,
            start_time_ticks: 1,
            boot_id: "boot".to_owned(),
        };
        let stack = record.spec.stack().to_string();
        let area = world.areas.entry(id).or_default();
        let fits = *area.below.get_or_insert_with(|| stack.clone()) == stack;
        if !fits {
            world.violation(format!(
                "VE {id} is launched on files that are not for {stack}"
            ));
        }
        let area = world.areas.entry(id).or_default();
        area.files.insert(record.spec.name.to_string());
        area.copies += 2;
        world.exits.remove(&id);
        world.inits.insert(
            id,
            Init {
                run: run.clone(),
                memory: run.pid,
                ready: true,
                frozen: false,
                held: true,
            },
        );
        drop(world);
        call.end(Running { run, ready: true })
    }

    fn end(
        &self,
        id: VeId,
        _: Option<&Stack>,
        patience: Patience,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Exit, Fault> {
        let call = self.begin(Some(id), "end")?;
        let asked = matches!(patience, Patience::Until(_));
        if asked && cancelled() {
            return Err(crate::plan::cancelled());
        }
        let mut world = self.world();
        if asked && world.inits.get(&id).is_some_and(|init| init.frozen) {
            world.violation(format!("VE {id} is asked to end while it is frozen"));
        }
        let exit = if asked {
            Exit::PowerOff
        } else {
            Exit::Signal(9)
        };
        world.die(id, exit);
        world.dumps.remove(&id);
        drop(world);
        call.end(exit)
    }

    fn clear(&self, id: VeId) -> Result<(), Fault> {
        let call = self.begin(Some(id), "clear")?;
        if self.world().inits.contains_key(&id) {
            return Err(Fault::new("its groups have processes"));
        }
        self.world().groups.remove(&id);
        self.world().weights.remove(&id);
        call.middle()?;
        self.world().links.remove(&id);
        call.end(())
    }

    fn running(
        &self,
        known: &BTreeMap<VeId, Option<Run>>,
    ) -> Result<BTreeMap<VeId, Running>, Fault> {
        let call = self.begin(None, "running")?;
        let mut world = self.world();
        let World { inits, groups, .. } = &mut *world;
        for (id, init) in inits {
            init.held |= known.get(id).is_some_and(|run| match run {
                Some(run) => *run == init.run,
                None => groups.contains_key(id),
            });
        }
        let held = world.inits.iter().filter(|(_, init)| init.held);
        let running = held.map(|(id, init)| {
            let (run, ready) = (init.run.clone(), init.ready);
            (*id, Running { run, ready })
        });
        let running = running.collect();
        drop(world);
        call.end(running)
    }

    fn exits(&self) -> Result<BTreeMap<VeId, (Run, Exit)>, Fault> {
        Ok(self.world().exits.clone())
    }

    fn exit_settled(&self, id: VeId, pid: u32) {
        let mut world = self.world();
        if world.exits.get(&id).is_some_and(|(run, _)| run.pid == pid) {
            world.exits.remove(&id);
        }
    }

    fn freeze(&self, id: VeId) -> Result<(), Fault> {
        let call = self.begin(Some(id), "freeze")?;
        if !self.world().groups.contains_key(&id) {
            return Err(Fault::new("it has no groups"));
        }
        if let Some(init) = self.world().inits.get_mut(&id) {
            init.frozen = true;
        }
        call.end(())
    }

    fn thaw(&self, id: VeId) -> Result<(), Fault> {
        let call = self.begin(Some(id), "thaw")?;
        if let Some(init) = self.world().inits.get_mut(&id) {
            init.frozen = false;
        }
        call.end(())
    }

    fn frozen(&self, id: VeId) -> Result<bool, Fault> {
        let call = self.begin(Some(id), "frozen")?;
        let frozen = self.world().inits.get(&id).is_some_and(|init| init.frozen);
        call.end(frozen)
    }

    fn suspend(&self, record: &VeRecord, sink: &dyn ProgressSink) -> Result<(), Fault> {
        let id = record.spec.id;
        let call = self.begin(Some(id), "suspend")?;
        match self.world().inits.get_mut(&id) {
            None => return Err(Fault::new("it has no init")),
            Some(init) => init.frozen = true,
        }
        self.world().dumps.insert(id, Dump::Completes);
        let amid = call.middle();
        let amid = if sink.cancelled() {
            amid.and(Err(crate::plan::cancelled()))
        } else {
            amid
        };
        if amid.is_err() {
            self.world().stay_awake(id);
            return amid;
        }
        self.world().fall_asleep(id);
        call.end(())
    }

    fn asleep(&self, record: &VeRecord) -> Result<bool, Fault> {
        let id = record.spec.id;
        let call = self.begin(Some(id), "asleep")?;
        let mut world = self.world();
        match world.dumps.get(&id) {
            Some(Dump::Completes) => world.fall_asleep(id),
            Some(Dump::Fails) => world.stay_awake(id),
            None => {}
        }
        let asleep = world.asleep(id).is_some();
        drop(world);
        call.end(asleep)
    }

    fn wake(&self, record: &VeRecord, sink: &dyn ProgressSink) -> Result<Running, Fault> {
        let id = record.spec.id;
        let call = self.begin(Some(id), "wake")?;
        let mut world = self.world();
        if world.inits.contains_key(&id) || !world.groups.contains_key(&id) {
            world.violation(format!("VE {id} is woken while it runs, or without groups"));
        }
        let Some(memory) = world.asleep(id) else {
            return Err(Fault::new("nothing of it is on disk"));
        };
        let addresses = record.spec.addresses.iter().copied().collect();
        world.links.insert(id, addresses);
        world.pids += 1;
        let run = Run {
            pid: world.pids,
            start_time_ticks: 1,
            boot_id: "boot".to_owned(),
        };
        world.exits.remove(&id);
        // Made, and not let go on yet.
        let init = Init {
            run: run.clone(),
            memory,
            ready: true,
            frozen: false,
            held: true,
        };
        world.inits.insert(id, init);
        drop(world);
        call.middle()?;
        if sink.cancelled() {
            return Err(crate::plan::cancelled());
        }
        let spent = true;
        let spent = Sleeper { memory, spent };
        self.world().sleepers.insert(id, spent);
        self.moment("when its processes go on");
        self.world().sleepers.remove(&id);
        call.end(Running { run, ready: true })
    }

    fn discard(&self, id: VeId) -> Result<(), Fault> {
        let call = self.begin(Some(id), "discard")?;
        self.world().sleepers.remove(&id);
        call.end(())
    }

    fn compact(&self, record: &VeRecord, sink: &dyn ProgressSink) -> Result<(), Fault> {
        let id = record.spec.id;
        let call = self.begin(Some(id), "compact")?;
        let mut world = self.world();
        if record.run.is_none() && world.inits.contains_key(&id) {
            world.violation(format!("files of VE {id} are removed while it runs"));
        }
        if world.asleep(id).is_some() {
            world.violation(format!("files of VE {id} are removed while it sleeps"));
        }
        let copies = world.areas.get(&id).map(|area| area.copies);
        let left = |copies: u32| (record.run.is_none()).then_some(copies);
        let leave = |copies| {
            if let (Some(copies), Some(area)) = (left(copies), self.world().areas.get_mut(&id)) {
                area.copies = copies;
            }
        };
        drop(world);
        leave(copies.unwrap_or_default() / 2);
        call.middle()?;
        if sink.cancelled() {
            return Err(crate::plan::cancelled());
        }
        leave(0);
        call.end(())
    }

    fn in_use(&self, id: VeId, _: bool) -> Result<InUse, Fault> {
        self.begin(Some(id), "in_use")?.end(InUse::default())
    }

    fn limits_apply(&self, id: VeId, limits: &Limits, running: bool) -> Result<(), Fault> {
        let call = self.begin(Some(id), "limits_apply")?;
        match self.world().areas.get_mut(&id) {
            Some(area) => area.disk = limits.disk,
            None => return Err(Fault::new("it has no area")),
        }
        call.middle()?;
        if running {
            match self.world().groups.get_mut(&id) {
                Some(group) => *group = Some(limits.clone()),
                None => return Err(Fault::new("it has no groups")),
            }
        }
        call.end(())
    }

    fn addresses_apply(&self, id: VeId, old: &[IpAddr], new: &[IpAddr]) -> Result<(), Fault> {
        let call = self.begin(Some(id), "addresses_apply")?;
        let mut world = self.world();
        let Some(link) = world.links.get_mut(&id) else {
            return Err(Fault::new("it has no link"));
        };
        link.extend(new);
        drop(world);
        call.middle()?;
        if let Some(link) = self.world().links.get_mut(&id) {
            link.retain(|address| !old.contains(address) || new.contains(address));
        }
        call.end(())
    }

    fn sweep(&self, keep: &[VeId]) -> Result<Sweep, Fault> {
        let call = self.begin(None, "sweep")?;
        let mut world = self.world();
        let mut found = Vec::new();
        let written = world
            .areas
            .iter()
            .filter(|(_, area)| !area.files.is_empty());
        let written = written.map(|(id, _)| *id);
        let strangers: BTreeSet<_> = written.filter(|id| !keep.contains(id)).collect();
        let keep = [keep, &strangers.iter().copied().collect::<Vec<_>>()].concat();
        let count = world.areas.len() + world.groups.len() + world.links.len();
        world.areas.retain(|id, _| keep.contains(id));
        world.groups.retain(|id, _| keep.contains(id));
        world.weights.retain(|id, _| keep.contains(id));
        world.links.retain(|id, _| keep.contains(id));
        world
            .sleepers
            .retain(|id, sleeper| keep.contains(id) && !sleeper.spent);
        if count != world.areas.len() + world.groups.len() + world.links.len() {
            found.push("areas, groups or links".to_owned());
        }
        drop(world);
        call.end(Sweep { found, strangers })
    }
}
