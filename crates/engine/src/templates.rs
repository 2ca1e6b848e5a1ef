//! Requests about templates.

use registry::{OperationId, Outcome};

use crate::driver::event;
use crate::error::{Failure, FailureKind};
use crate::inner::TicketSink;
use crate::lanes::Engine;
use crate::mechanisms::ProgressSink as _;
use crate::plan;
use crate::request::TemplateRequest;

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
        let name = request.name().clone();
        let result = match request {
            _ if sink.cancelled() => Err(plan::cancelled().into()),
            TemplateRequest::Remove { .. } => self.template_remove(&name),
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
        let event = event(word, None, name.to_string(), message);
        self.inner
            .end_operation(operation, &result, Outcome::Unchanged, event)
    }

    fn template_remove(&self, name: &ve::Name) -> Result<(), Failure> {
        let _gate = self.inner.template_gate();
        let records = self.registry().ves()?;
        let users: Vec<_> = records
            .iter()
            .filter(|record| record.spec.template == *name)
            .map(|record| record.spec.name.as_str())
            .collect();
        if !users.is_empty() {
            let shown = users.iter().take(5).copied().collect::<Vec<_>>().join(", ");
            let message = format!("template `{name}` is used by {} VEs: {shown}", users.len());
            return Err(
                Failure::new(FailureKind::Conflict, message).with_hint("delete these VEs first")
            );
        }
        Ok(self.inner.parts.mechanisms.template_remove(name)?)
    }
}
