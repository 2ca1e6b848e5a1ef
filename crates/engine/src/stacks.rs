//! Making stacks: templates with applications on them, and next revisions of templates.
//!
//! A stack is built by installing one application on the stack below it, or by upgrading the packages of the revision
//! before, in a sandbox that is a VE in all
//! but name: it has a number, a private area, groups, a link and the walls of any other, because what
//! runs in it is what packages and recipes bring along, and that is as hostile as a VE's root. Its record is
//! hidden, so nobody enters it, and a node that finds one at its start removes it. The sandbox has an operation
//! of its own in the journal, beside that of whoever asked.
//!
//! A stack that is there is never changed, so making one again is finding it. Each is made by one at a time,
//! and whoever wants the same one waits.

use std::collections::{BTreeMap, BTreeSet};

use registry::{NewOperation, OperationId, Outcome, Stage, VeRecord};
use ve::{Bytes, Key, Limits, Name, Options, Spec, Stack, StackReference, State, VeId};

use crate::admission::{self, AdmissionError};
use crate::driver::event;
use crate::error::{Failure, FailureKind};
use crate::inner::TicketSink;
use crate::lanes::Engine;
use crate::mechanisms::{Nobody, Patience, Progress, ProgressSink, Support};
use crate::plan::{self, Step, Work};
use crate::request::{BuildWork, NodeFacts, StackBuild};

/// What a sandbox may write, where the pool counts it: far more than any server's packages, and less than would fill
/// a pool in one go.
const SANDBOX_DISK_BYTES: u64 = 16 << 30;

impl Engine {
    /// Makes a stack if it is not there, those below it first; returns its version.
    pub(crate) fn stack_ensure(
        &self,
        operation: OperationId,
        stack: &Stack,
    ) -> Result<String, Failure> {
        let mechanisms = self.inner.parts.mechanisms.as_ref();
        if let Some(version) = mechanisms.template_version(stack)? {
            return Ok(version);
        }
        let (below, _) = stack.parts().ok_or_else(|| no_such_template(stack))?;
        self.stack_ensure(operation, &below)?;
        let _turn = self.inner.stack_turn(stack);
        if mechanisms.template_version(stack)?.is_none() {
            let build = StackBuild {
                stack: stack.clone(),
                work: BuildWork::Application { recipe: None },
                mirror: None,
            };
            self.stack_build(operation, &build)?;
        }
        mechanisms
            .template_version(stack)?
            .ok_or_else(|| no_such_template(stack))
    }

    /// Builds a stack in a sandbox. `operation` hears of progress, and can be cancelled.
    pub(crate) fn stack_build(
        &self,
        operation: OperationId,
        build: &StackBuild,
    ) -> Result<(), Failure> {
        let (sandbox, own) = self.sandbox_reserve(build)?;
        let id = sandbox.spec.id;
        let name = sandbox.spec.name.clone();
        self.inner.open_ticket(own);
        self.inner.mark_running(own);
        let mechanisms = self.inner.parts.mechanisms.as_ref();
        let [asked, own_sink] = [operation, own].map(|operation| TicketSink {
            inner: &self.inner,
            operation,
        });
        let sink = Both(asked, own_sink);
        let mut work = Work::new(sandbox, mechanisms, &sink);
        let built = work.carry_out(&[
            Step::AreaCreate,
            Step::GroupsCreate,
            Step::Launch,
            Step::Install(Box::new(build.clone())),
            Step::End(Patience::None),
            Step::Keep(Box::new(build.clone())),
        ]);
        // Whatever there is of it goes, however far it came.
        let mut work = Work::new(work.record, mechanisms, &Nobody);
        let removed = work.carry_out(&plan::delete());
        self.settle_exit_of(id);
        self.inner.sandbox_ended(id);
        let left = VeRecord {
            stage: Stage::Building,
            unclean: true,
            ..work.record
        };
        let outcome = if removed.is_ok() {
            Outcome::Forget(id)
        } else {
            // Tried again as soon as this lane is free, and at the next start of the node.
            self.inner.doubt(id);
            Outcome::Record(&left)
        };
        let (word, message) = match &built {
            Ok(()) if self.is_there(&build.stack) => ("stack-made", build.stack.to_string()),
            Ok(()) => ("stack-unchanged", build.stack.to_string()),
            Err(failure) => ("operation-failed", failure.to_string()),
        };
        let event = event(word, Some(id), name.to_string(), Some(message));
        if let Err(failure) = self.inner.end_operation(own, &built, outcome, event) {
            // Its record is still there, and is held against what is as soon as it can be written.
            self.inner.doubt(id);
            return Err(failure);
        }
        built
    }

    /// Whether a stack is there now.
    pub(crate) fn is_there(&self, stack: &Stack) -> bool {
        let all = self.inner.parts.mechanisms.templates();
        all.is_ok_and(|all| all.contains(stack))
    }

    /// Lets the launcher forget how the init of a sandbox ended.
    pub(crate) fn settle_exit_of(&self, id: VeId) {
        let mechanisms = &self.inner.parts.mechanisms;
        if let Ok(mut exits) = mechanisms.exits()
            && let Some((run, _)) = exits.remove(&id)
        {
            mechanisms.exit_settled(id, run.pid);
        }
    }

    /// Reserves what a sandbox needs of the node.
    fn sandbox_reserve(&self, build: &StackBuild) -> Result<(VeRecord, OperationId), Failure> {
        let parts = &self.inner.parts;
        let below = (build.below()).ok_or_else(|| no_such_template(&build.stack))?;
        let limits = match parts.mechanisms.support(Key::DiskLimit) {
            Support::None(_) => Limits::default(),
            _ => Limits {
                disk: Some(Bytes::new(SANDBOX_DISK_BYTES)),
                ..Limits::default()
            },
        };
        let _gate = self.inner.template_gate();
        let version = parts.mechanisms.template_version(&below)?;
        let version = version.ok_or_else(|| no_such_template(&below))?;
        let strangers = self.inner.strangers();
        let now = (parts.clock)();
        let mut begun = None;
        let reserved = parts.registry.build_reserve(now, |ids, addresses| {
            let ids: BTreeSet<_> = ids.union(&strangers).copied().collect();
            let id = last_free_id(&parts.facts, &ids)?;
            let spec = Spec {
                addresses: admission::automatic_addresses(&parts.facts, addresses)?,
                limits,
                ..sandbox_spec(id, &below, &version, now)?
            };
            self.inner.sandbox_begins(id);
            begun = Some(id);
            let operation = NewOperation {
                kind: "stack-build",
                ve: Some(id),
                subject: spec.name.to_string(),
                request: build.stack.to_string(),
            };
            Ok::<_, AdmissionError>((spec, operation))
        });
        let (spec, operation) = reserved.map_err(|AdmissionError(failure)| {
            if let Some(id) = begun {
                self.inner.sandbox_ended(id);
            }
            failure
        })?;
        let record = VeRecord {
            spec,
            state: State::Stopped,
            run: None,
            fault: None,
            first_boot: None,
            stage: Stage::Building,
            unclean: false,
        };
        Ok((record, operation))
    }

    /// Puts applications below the files of a stopped VE, and takes others away; returns how it went, and the record
    /// as it is true then. How its files were is kept until that record is written.
    pub(crate) fn applications_change(
        &self,
        operation: OperationId,
        before: &VeRecord,
        add: &BTreeMap<Name, Options>,
        remove: &BTreeSet<Name>,
    ) -> (Result<(), Failure>, VeRecord) {
        let spec = match self.applications_admit(before, add, remove) {
            Ok(spec) => spec,
            Err(failure) => return (Err(failure), before.clone()),
        };
        let stack = spec.stack();
        let made = self.stack_ensure(operation, &stack).and_then(|version| {
            let mechanisms = &self.inner.parts.mechanisms;
            mechanisms.lower_check(before, &stack)?;
            Ok(version)
        });
        let template_version = match made {
            Ok(version) => version,
            Err(failure) => return (Err(failure), before.clone()),
        };
        let (result, record) = self.work(operation, before.clone(), &[Step::Lower(stack)]);
        let spec = match result {
            Ok(()) => Spec {
                template_version,
                ..spec
            },
            Err(_) => record.spec,
        };
        (result, VeRecord { spec, ..record })
    }

    /// The specification with other applications, if they are there; their stack is held.
    fn applications_admit(
        &self,
        before: &VeRecord,
        add: &BTreeMap<Name, Options>,
        remove: &BTreeSet<Name>,
    ) -> Result<Spec, Failure> {
        let mechanisms = self.inner.parts.mechanisms.as_ref();
        let mut spec = before.spec.clone();
        for name in remove {
            if spec.applications.remove(name).is_none() {
                let message = format!("it has no application `{name}`");
                return Err(Failure::new(FailureKind::NotFound, message)
                    .with_hint("`vessel show` tells which it has"));
            }
        }
        spec.applications.extend(add.clone());
        let names = spec.applications.keys().cloned();
        let stack = Stack::new(spec.template.clone(), spec.revision, names)
            .map_err(|error| Failure::new(FailureKind::Usage, error.to_string()))?;
        let _gate = self.inner.template_gate();
        for (name, options) in add {
            let recipe = self.recipe_of(&stack.of_one(name))?;
            mechanisms.options_check(&recipe, options)?;
        }
        self.inner.stack_hold(spec.id, Some(stack));
        Ok(spec)
    }

    /// The stack that keeps the recipe of an application: its own, or that on another revision of the template.
    pub(crate) fn recipe_of(&self, own: &Stack) -> Result<Stack, Failure> {
        let mechanisms = self.inner.parts.mechanisms.as_ref();
        if mechanisms.template_version(own)?.is_some() {
            return Ok(own.clone());
        }
        let recipe = policy::stacks::recipe_of(&mechanisms.templates()?, own);
        recipe.ok_or_else(|| no_such_template(own))
    }

    /// Ends a change of what lies below a VE's files, when its record is written.
    pub(crate) fn lower_settled(&self, record: &VeRecord) {
        let id = record.spec.id;
        self.inner.stack_hold(id, None);
        if let Err(fault) = self.inner.parts.mechanisms.lower_settle(record) {
            tracing::warn!(
                "VE {id}: how its files were stays for now: {}",
                fault.message
            );
            self.inner.doubt(id);
        }
        self.stacks_collect();
    }

    /// Removes stacks of several applications, and older revisions of templates, that no VE uses. Called when one may
    /// have become so; what cannot be removed now is tried again then.
    pub(crate) fn stacks_collect(&self) {
        let _gate = self.inner.template_gate();
        if let Err(failure) = self.try_stacks_collect() {
            tracing::warn!("templates that nobody uses stay for now: {failure}");
        }
    }

    fn try_stacks_collect(&self) -> Result<(), Failure> {
        let mechanisms = self.inner.parts.mechanisms.as_ref();
        let all = mechanisms.templates()?;
        // Most often there are none, and the records of a thousand VEs need not be read for that.
        if policy::stacks::unneeded(&all, &BTreeSet::new()).is_empty() {
            return Ok(());
        }
        let records = self.registry().ves()?;
        let mut used: BTreeSet<Stack> = records.iter().map(|r| r.spec.stack()).collect();
        used.extend(self.inner.stacks_held());
        for stack in policy::stacks::unneeded(&all, &used) {
            mechanisms.template_remove(&stack)?;
        }
        Ok(())
    }
}

/// A build tells both the operation that it is and the one that wanted it, and obeys both.
struct Both<'a>(TicketSink<'a>, TicketSink<'a>);

impl ProgressSink for Both<'_> {
    fn report(&self, progress: Progress) {
        self.0.report(progress.clone());
        self.1.report(progress);
    }

    fn cancelled(&self) -> bool {
        self.0.cancelled() || self.1.cancelled()
    }
}

/// Sandboxes come from the end of the node's numbers: those of VEs are given from the beginning, and show no gaps.
fn last_free_id(facts: &NodeFacts, taken: &BTreeSet<VeId>) -> Result<VeId, Failure> {
    (facts.first_id.get()..=facts.last_id.get())
        .rev()
        .filter_map(|number| VeId::new(number).ok())
        .find(|id| !taken.contains(id))
        .ok_or_else(|| {
            Failure::new(
                FailureKind::Resources,
                "every number of the node has a VE, and a build needs one for its sandbox",
            )
            .with_hint("delete a VE that is not needed any more")
        })
}

fn sandbox_spec(id: VeId, below: &Stack, version: &str, now: u64) -> Result<Spec, Failure> {
    let name = Name::new(&format!("build-{id}"))
        .map_err(|error| Failure::new(FailureKind::Failed, error.to_string()))?;
    let applications = below.applications().cloned();
    Ok(Spec {
        revision: below.revision(),
        applications: applications
            .map(|name| (name, ve::Options::new()))
            .collect(),
        template_version: version.to_owned(),
        ..Spec::new(id, name, below.template().clone(), now)
    })
}

/// What is said of a revision that is not there, and was asked for.
pub(crate) fn no_such_revision(bare: Stack) -> Failure {
    // The text of a first revision would mean the newest to whoever reads it.
    let asked = StackReference::from(bare);
    let message = format!("there is no template `{asked}`");
    Failure::new(FailureKind::NotFound, message)
        .with_hint("`vessel template list` shows those of this node")
}

/// What is said of a template or an application that is not there.
pub(crate) fn no_such_template(stack: &Stack) -> Failure {
    let message = format!("there is no template `{stack}`");
    let hint = match stack.parts() {
        None => {
            "`vessel template list` shows those of this node; `vessel template build debian-12` makes one"
                .to_owned()
        }
        Some((below, top)) => {
            let below = below.template();
            format!("`vessel template build {top} --on {below}` makes it")
        }
    };
    Failure::new(FailureKind::NotFound, message).with_hint(hint)
}
