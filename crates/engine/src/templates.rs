//! Requests about templates.

use registry::{OperationId, Outcome};
use ve::Stack;

use crate::driver::event;
use crate::error::{Failure, FailureKind};
use crate::inner::TicketSink;
use crate::lanes::Engine;
use crate::mechanisms::ProgressSink as _;
use crate::plan;
use crate::request::{StackBuild, TemplateRequest};
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
        let stack = request.stack();
        let result = match request {
            _ if sink.cancelled() => Err(plan::cancelled().into()),
            TemplateRequest::Remove { .. } => self.template_remove(&stack),
            TemplateRequest::Application(build) => self.application_build(operation, build),
            _ => mechanisms
                .template_work(request, &sink)
                .map_err(Failure::from),
        };
        let word = match (&result, request) {
            (Err(_), _) => "operation-failed",
            (Ok(()), TemplateRequest::Remove { .. }) => "template-removed",
            (Ok(()), TemplateRequest::Verify { .. }) => "template-verified",
            (Ok(()), _) => "template-made",
        };
        let message = result.as_ref().err().map(ToString::to_string);
        let event = event(word, None, stack.to_string(), message);
        self.inner
            .end_operation(operation, &result, Outcome::Unchanged, event)
    }

    /// Whether an application can be built on what is there.
    pub(crate) fn application_admit(&self, build: &StackBuild) -> Result<(), Failure> {
        let mechanisms = self.inner.parts.mechanisms.as_ref();
        let (below, _) = (build.stack.parts()).ok_or_else(|| no_such_template(&build.stack))?;
        if mechanisms.template_version(&below)?.is_none() {
            return Err(no_such_template(&below));
        }
        Ok(mechanisms.recipe_check(build)?)
    }

    fn application_build(&self, operation: OperationId, build: &StackBuild) -> Result<(), Failure> {
        let _turn = self.inner.stack_turn(&build.stack);
        self.stack_build(operation, build)
    }

    fn template_remove(&self, stack: &Stack) -> Result<(), Failure> {
        // Those that only wait for a VE to want them must not hold what they are made of.
        self.stacks_collect();
        let _gate = self.inner.template_gate();
        let mechanisms = self.inner.parts.mechanisms.as_ref();
        let records = self.registry().ves()?;
        let users = records.iter().filter(|r| is_below(stack, &r.spec.stack()));
        let mut users: Vec<_> = users.map(|r| r.spec.name.to_string()).collect();
        let held = self.inner.stacks_held();
        let held = held.iter().filter(|held| is_below(stack, held));
        users.extend(held.map(|held| format!("one that gets {held}")));
        if !users.is_empty() {
            return Err(used(stack, "VEs", &users).with_hint("delete these VEs first"));
        }
        if stack.applications().len() == 0 {
            let on_it = mechanisms.applications()?.into_iter();
            let on_it = on_it.filter(|other| other.template() == stack.template());
            let on_it: Vec<_> = on_it.map(|other| other.to_string()).collect();
            if !on_it.is_empty() {
                let next = format!("`vessel template remove {}` first", on_it.join(" "));
                return Err(used(stack, "applications", &on_it).with_hint(next));
            }
        }
        Ok(mechanisms.template_remove(stack)?)
    }
}

/// Whether one stack is a part of another.
fn is_below(part: &Stack, whole: &Stack) -> bool {
    part.template() == whole.template() && part.applications().all(|name| whole.has(name))
}

fn used(stack: &Stack, by: &str, users: &[String]) -> Failure {
    let shown = users.iter().take(5).map(String::as_str).collect::<Vec<_>>();
    let (count, shown) = (users.len(), shown.join(", "));
    let message = format!("template `{stack}` is used by {count} {by}: {shown}");
    Failure::new(FailureKind::Conflict, message)
}
