//! Requests about revisions of templates.

use std::sync::Arc;

use api::latest::{
    ApiError, ErrorCode, Operation, PackageChange, TemplateDifference, TemplateUpdateRequest,
};
use engine::TemplateRequest;
use server::Versions;
use server::node::Reply;
use template::Manifest;
use ve::Stack;

use super::NodeDoor;
use super::templates::{parse_reference, resolve, submit};
use crate::daemon::Up;

impl Versions for NodeDoor {
    fn update_template(
        &self,
        name: String,
        request: TemplateUpdateRequest,
    ) -> Reply<'_, Operation> {
        Box::pin(self.with_up(move |up| update(up, &name, request)))
    }

    fn template_difference(&self, name: String, from: String) -> Reply<'_, TemplateDifference> {
        Box::pin(self.with_up(move |up| difference(up, &from, &name)))
    }
}

fn update(up: &Arc<Up>, name: &str, request: TemplateUpdateRequest) -> Result<Operation, ApiError> {
    let reference = parse_reference(name)?;
    let template = reference.template();
    let refused = |message: String, hint: String| {
        Err(ApiError::new(ErrorCode::Usage, message).with_hint(hint))
    };
    if reference.applications().len() > 0 {
        return refused(
            format!("`{name}` is no template of an operating system"),
            format!(
                "update `{template}`: its applications are installed on the new revision when one is wanted"
            ),
        );
    }
    if reference.revision().is_some() {
        return refused(
            format!("an update is made of the newest revision, and `{name}` names one"),
            format!("write `vessel template update {template}`"),
        );
    }
    submit(
        up,
        TemplateRequest::Update {
            name: template.clone(),
            mirror: request.mirror,
        },
    )
}

/// What differs between the packages of two templates. Of a revision that is not kept any more, the one that was made
/// of it still tells what became of its packages.
fn difference(up: &Arc<Up>, from: &str, to: &str) -> Result<TemplateDifference, ApiError> {
    let to = read(up, &resolve(up, to)?)?;
    let from = match resolve(up, from) {
        Ok(from) => from,
        Err(gone) => {
            let named = parse_reference(from)?;
            let update = to.update.as_ref().filter(|update| {
                let made_of = update.from.parse::<Stack>();
                made_of.is_ok_and(|stack| named.revision().is_some() && named.names(&stack))
            });
            let update = update.ok_or(gone)?;
            return Ok(told(&update.from, &to.name, &update.packages));
        }
    };
    let from = read(up, &from)?;
    let packages = to.packages.changes_from(&from.packages);
    Ok(told(&from.name, &to.name, &packages))
}

fn read(up: &Up, stack: &Stack) -> Result<Manifest, ApiError> {
    let manifest = up.host.catalogue.get(stack);
    manifest.map_err(|error| {
        ApiError::new(ErrorCode::Failed, engine::Fault::from_error(&error).message)
    })
}

fn told(
    from: &str,
    to: &str,
    packages: &[template::manifest::PackageChange],
) -> TemplateDifference {
    let packages = packages.iter().map(|change| PackageChange {
        name: change.name.clone(),
        old: change.old.clone(),
        new: change.new.clone(),
    });
    TemplateDifference {
        from: from.to_owned(),
        to: to.to_owned(),
        packages: packages.collect(),
    }
}
