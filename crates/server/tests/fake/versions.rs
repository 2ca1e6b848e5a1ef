//! Revisions of the fake node's template: each update makes one, until there are two.

use api::latest::{Operation, PackageChange, TemplateDifference, TemplateUpdateRequest};
use server::Versions;
use server::node::Reply;

use super::Fake;

fn change(name: &str, old: Option<&str>, new: Option<&str>) -> PackageChange {
    PackageChange {
        name: name.to_owned(),
        old: old.map(str::to_owned),
        new: new.map(str::to_owned),
    }
}

impl Versions for Fake {
    fn update_template(
        &self,
        name: String,
        request: TemplateUpdateRequest,
    ) -> Reply<'_, Operation> {
        Box::pin(async move {
            self.called(format!("{request:?}"));
            self.lock().updated = true;
            Ok(self.done("template-update", &name, None, None))
        })
    }

    fn template_difference(&self, to: String, from: String) -> Reply<'_, TemplateDifference> {
        let packages = vec![
            change(
                "libssl3",
                Some("3.0.16-1~deb12u1"),
                Some("3.0.17-1~deb12u2"),
            ),
            change("linux-base", None, Some("4.9")),
            change("oldlib", Some("1:2.3-4"), None),
        ];
        Box::pin(async move { Ok(TemplateDifference { from, to, packages }) })
    }
}
