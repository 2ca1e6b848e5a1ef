//! `vessel template update` and `vessel template diff`.

use api::latest::{Operation, PackageChange, TemplateDifference, TemplateUpdateRequest};
use serde::Serialize;

use crate::Context;
use crate::follow;
use crate::output::Outcome;
use crate::table::{Align, Table};

/// What an update came to.
#[derive(Serialize)]
struct Updated {
    operation: Operation,
    /// Whether there is a new revision.
    changed: bool,
    /// The newest revision before, and now.
    from: String,
    to: String,
    packages: Vec<PackageChange>,
}

pub(super) async fn update(
    context: &Context,
    name: &str,
    mirror: Option<String>,
    no_wait: bool,
) -> Outcome {
    let client = &context.client;
    let request = TemplateUpdateRequest { mirror };
    if no_wait {
        let begun = client.update_template(name, &request).await?;
        return match (context.out.json, context.out.quiet) {
            (true, _) => context.out.json(&begun),
            (false, true) => Ok(()),
            (false, false) => context
                .out
                .line(&format!("{name} updating, operation {}", begun.id)),
        };
    }
    let before = client.template(name, false).await;
    // What cannot be updated is refused with the reason; only then counts that it is not there.
    let begun = client.update_template(name, &request).await?;
    let before = before?;
    let bar = follow::spinner(context.out, &format!("update {name}"));
    let ended = follow::operation(client, begun, &bar).await;
    bar.finish_and_clear();
    let operation = ended?;
    let now = client.template(name, false).await?;
    let changed = now.revision > before.revision;
    let difference = match changed {
        true => {
            let numbered = |revision: u32| format!("{name}@{revision}");
            let [old, new] = [before.revision, now.revision].map(numbered);
            client.template_difference(&old, &new).await?
        }
        false => TemplateDifference {
            from: now.name.clone(),
            to: now.name,
            packages: Vec::new(),
        },
    };
    if context.out.json {
        let TemplateDifference { from, to, packages } = difference;
        return context.out.json(&Updated {
            operation,
            changed,
            from,
            to,
            packages,
        });
    }
    if context.out.quiet {
        return Ok(());
    }
    if !changed {
        let newest = &difference.to;
        return context
            .out
            .line(&format!("{newest} is up to date: no package is newer"));
    }
    show(context, &difference)
}

pub(super) async fn difference(context: &Context, from: &str, to: &str) -> Outcome {
    let difference = context.client.template_difference(from, to).await?;
    if context.out.json {
        return context.out.json(&difference);
    }
    if context.out.quiet {
        let mut packages = difference.packages.iter();
        return packages.try_for_each(|change| context.out.line(&change.name));
    }
    show(context, &difference)
}

fn show(context: &Context, difference: &TemplateDifference) -> Outcome {
    let mut table = Table::new([
        ("PACKAGE", Align::Left),
        ("OLD", Align::Left),
        ("NEW", Align::Left),
    ]);
    let version = |version: &Option<String>| version.clone().unwrap_or_else(|| "-".to_owned());
    for change in &difference.packages {
        table.row([
            change.name.clone(),
            version(&change.old),
            version(&change.new),
        ]);
    }
    if !difference.packages.is_empty() {
        for line in table.lines(true) {
            context.out.line(&line)?;
        }
    }
    context.out.line(&summary(difference))
}

/// How many packages came, went and changed.
fn summary(difference: &TemplateDifference) -> String {
    let count =
        |which: fn(&PackageChange) -> bool| difference.packages.iter().filter(|c| which(c)).count();
    let changed = count(|change| change.old.is_some() && change.new.is_some());
    let added = count(|change| change.old.is_none());
    let removed = count(|change| change.new.is_none());
    let TemplateDifference { from, to, .. } = difference;
    format!("{from} to {to}: {changed} changed, {added} added, {removed} removed")
}
