//! Requests about templates.

use std::fmt::Display;

use registry::{OperationId, Outcome};
use ve::{Name, Stack, StackReference};

use crate::driver::event;
use crate::error::{Failure, FailureKind};
use crate::inner::TicketSink;
use crate::lanes::Engine;
use crate::mechanisms::ProgressSink as _;
use crate::plan;
use crate::request::{BuildWork, StackBuild, TemplateRequest};
use crate::stacks::no_such_template;

impl Engine {
    pub(crate) fn template_request(
        &self,
        operation: OperationId,
        request: &TemplateRequest,
    ) -> Result<(), Failure> {
        self.inner.mark_running(operation);
        let mechanisms = self.inner.parts.mechanisms.as_ref();
        let sink = TicketSink {
            inner: &self.inner,
            operation,
        };
        let mut updated = false;
        let result = match request {
            _ if sink.cancelled() => Err(plan::cancelled().into()),
            TemplateRequest::Update { name, mirror } => {
                let made = self.template_update(operation, name, mirror.as_deref());
                made.map(|made| updated = made.is_some())
            }
            TemplateRequest::Remove { name } => self.template_remove(name),
            TemplateRequest::Application(build) => self.application_build(operation, build),
            _ => mechanisms
                .template_work(request, &sink)
                .map_err(Failure::from),
        };
        let word = match (&result, request) {
            (Err(_), _) => "operation-failed",
            (Ok(()), TemplateRequest::Remove { .. }) => "template-removed",
            (Ok(()), TemplateRequest::Verify { .. }) => "template-verified",
            (Ok(()), TemplateRequest::Update { .. }) if updated => "template-updated",
            (Ok(()), TemplateRequest::Update { .. }) => "template-unchanged",
            (Ok(()), _) => "template-made",
        };
        let message = result.as_ref().err().map(ToString::to_string);
        let event = event(word, None, request.subject(), message);
        self.inner
            .end_operation(operation, &result, Outcome::Unchanged, event)
    }

    /// Whether a request makes sense with the templates that there are.
    pub(crate) fn template_admit(&self, request: &TemplateRequest) -> Result<(), Failure> {
        let mechanisms = self.inner.parts.mechanisms.as_ref();
        let all = mechanisms.templates()?;
        let taken = |name: &Name| policy::stacks::newest(&all, name).is_some();
        match request {
            TemplateRequest::Build { name, .. } | TemplateRequest::Import { name, .. } => {
                match taken(name) {
                    true => Err(is_there(name)),
                    false => Ok(()),
                }
            }
            TemplateRequest::Application(build) if all.contains(&build.stack) => {
                Err(is_there(&build.stack))
            }
            TemplateRequest::Application(build) => self.application_admit(build),
            TemplateRequest::Verify { name } if !all.contains(name) => Err(is_not_there(name)),
            TemplateRequest::Remove { name } if !all.iter().any(|stack| name.names(stack)) => {
                Err(is_not_there(name))
            }
            TemplateRequest::Verify { .. } | TemplateRequest::Remove { .. } => Ok(()),
            TemplateRequest::Update { name, mirror } => {
                let build = self.update_of(name, mirror.as_deref())?;
                Ok(mechanisms.build_check(&build)?)
            }
        }
    }

    /// The update of a template as it is now.
    fn update_of(&self, name: &Name, mirror: Option<&str>) -> Result<StackBuild, Failure> {
        let all = self.inner.parts.mechanisms.templates()?;
        let newest = policy::stacks::newest(&all, name).ok_or_else(|| is_not_there(name))?;
        let too_many = || Failure::new(FailureKind::Resources, "there is no number left for it");
        let next = newest.next().ok_or_else(too_many)?;
        let from = Stack::from(name).at(newest);
        let stack = Stack::from(name).at(next);
        let usage = |error: ve::InvalidStack| Failure::new(FailureKind::Usage, error.to_string());
        Ok(StackBuild {
            stack: stack.map_err(usage)?,
            work: BuildWork::Update {
                from: from.map_err(usage)?,
            },
            mirror: mirror.map(str::to_owned),
        })
    }

    /// Makes the next revision of a template; nothing if its packages are the newest.
    fn template_update(
        &self,
        operation: OperationId,
        name: &Name,
        mirror: Option<&str>,
    ) -> Result<Option<Stack>, Failure> {
        let build = self.update_of(name, mirror)?;
        let turn = self.inner.stack_turn(&build.stack);
        self.stack_build(operation, &build)?;
        drop(turn);
        let made = self.is_there(&build.stack).then_some(build.stack);
        // The revision before, if nobody uses it.
        self.stacks_collect();
        Ok(made)
    }

    /// Whether an application can be built on what is there.
    fn application_admit(&self, build: &StackBuild) -> Result<(), Failure> {
        let mechanisms = self.inner.parts.mechanisms.as_ref();
        let (below, _) = (build.stack.parts()).ok_or_else(|| no_such_template(&build.stack))?;
        if mechanisms.template_version(&below)?.is_none() {
            return Err(no_such_template(&below));
        }
        Ok(mechanisms.build_check(build)?)
    }

    fn application_build(&self, operation: OperationId, build: &StackBuild) -> Result<(), Failure> {
        let turn = self.inner.stack_turn(&build.stack);
        self.stack_build(operation, build)?;
        drop(turn);
        // Its recipe was kept with an older revision until now.
        self.stacks_collect();
        Ok(())
    }

    /// Removes the templates that a name means.
    fn template_remove(&self, name: &StackReference) -> Result<(), Failure> {
        // Those that only wait for a VE to want them must not hold what they are made of.
        self.stacks_collect();
        let _gate = self.inner.template_gate();
        let mechanisms = self.inner.parts.mechanisms.as_ref();
        let all = mechanisms.templates()?;
        let meant: Vec<_> = all.iter().filter(|stack| name.names(stack)).collect();
        let is_below = |whole: &Stack| meant.iter().any(|part| part.is_part_of(whole));
        let records = self.registry().ves()?;
        let users = records.iter().filter(|r| is_below(&r.spec.stack()));
        let mut users: Vec<_> = users.map(|r| r.spec.name.to_string()).collect();
        let held = self.inner.stacks_held();
        let held = held.iter().filter(|held| is_below(held));
        users.extend(held.map(|held| format!("one that gets {held}")));
        if !users.is_empty() {
            return Err(used(name, "VEs", &users).with_hint("delete these VEs first"));
        }
        if name.applications().len() == 0 {
            let on_it = all.iter().filter(|other| name.names(&other.bare()));
            let on_it = on_it.filter(|other| other.applications().len() > 0);
            let on_it: Vec<_> = on_it.map(ToString::to_string).collect();
            if !on_it.is_empty() {
                let next = format!("`vessel template remove {}` first", on_it.join(" "));
                return Err(used(name, "applications", &on_it).with_hint(next));
            }
        }
        for stack in meant {
            mechanisms.template_remove(stack)?;
        }
        Ok(())
    }
}

fn is_there(name: &dyn Display) -> Failure {
    let message = format!("there is a template `{name}` already");
    Failure::new(FailureKind::Conflict, message)
        .with_hint("give this one another name with `--name`")
}

fn is_not_there(name: &dyn Display) -> Failure {
    let message = format!("there is no template `{name}`");
    Failure::new(FailureKind::NotFound, message)
        .with_hint("`vessel template list` shows those of this node")
}

fn used(stack: &StackReference, by: &str, users: &[String]) -> Failure {
    let shown = users.iter().take(5).map(String::as_str).collect::<Vec<_>>();
    let (count, shown) = (users.len(), shown.join(", "));
    let message = format!("template `{stack}` is used by {count} {by}: {shown}");
    Failure::new(FailureKind::Conflict, message)
}
