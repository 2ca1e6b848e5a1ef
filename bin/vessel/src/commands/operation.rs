//! `vessel operation`.

use api::latest::{Operation, Subject};

use crate::Context;
use crate::arguments::OperationVerb;
use crate::follow;
use crate::human;
use crate::output::Outcome;
use crate::table::{Align, Table, pairs};

pub(crate) async fn run(context: &Context, verb: OperationVerb) -> Outcome {
    match verb {
        OperationVerb::List { all, ve } => list(context, all, ve.as_deref()).await,
        OperationVerb::Show { id } => {
            let operation = context.client.operation(id).await?;
            write(context, &operation)
        }
        OperationVerb::Cancel { id, no_wait } => {
            let mut operation = context.client.cancel_operation(id).await?;
            if !no_wait && !operation.state.is_ended() {
                operation = context.client.wait_operation(id).await?;
            }
            if context.out.json {
                context.out.json(&operation)
            } else {
                context
                    .out
                    .line(&format!("{} {}", operation.id, operation.state))
            }
        }
        OperationVerb::Wait { id } => {
            let operation = context.client.operation(id).await?;
            let bar = follow::spinner(context.out, &operation.kind);
            let ended = follow::operation(&context.client, operation, &bar).await;
            bar.finish_and_clear();
            let ended = ended?;
            if context.out.json {
                return context.out.json(&ended);
            }
            if context.out.quiet {
                return Ok(());
            }
            context.out.line(&format!("{} {}", ended.id, ended.state))
        }
    }
}

async fn list(context: &Context, all: bool, ve: Option<&str>) -> Outcome {
    let operations = context.client.operations(all, ve).await?;
    if context.out.json {
        return context.out.json(&operations);
    }
    if context.out.quiet {
        return operations
            .iter()
            .try_for_each(|one| context.out.line(&one.id.to_string()));
    }
    let mut table = Table::new([
        ("ID", Align::Right),
        ("KIND", Align::Left),
        ("SUBJECT", Align::Left),
        ("STATE", Align::Left),
        ("DONE", Align::Right),
        ("CREATED", Align::Left),
    ]);
    for operation in &operations {
        table.row([
            operation.id.to_string(),
            operation.kind.clone(),
            subjects(&operation.subjects),
            operation.state.to_string(),
            percent(operation),
            human::time(operation.created),
        ]);
    }
    for line in table.lines(true) {
        context.out.line(&line)?;
    }
    if operations.is_empty() && !all {
        context
            .out
            .note("no operation goes on; --all shows ended ones");
    }
    Ok(())
}

fn write(context: &Context, operation: &Operation) -> Outcome {
    if context.out.json {
        return context.out.json(operation);
    }
    let error = operation.error.as_ref();
    let lines = pairs(&[
        ("id", operation.id.to_string()),
        ("kind", operation.kind.clone()),
        ("subjects", subjects(&operation.subjects)),
        ("state", operation.state.to_string()),
        ("done", percent(operation)),
        ("now", operation.progress.message.clone()),
        ("created", human::time(operation.created)),
        (
            "ended",
            operation.ended.map(human::time).unwrap_or_default(),
        ),
        (
            "cancellable",
            if operation.cancellable { "yes" } else { "no" }.to_owned(),
        ),
        (
            "update",
            operation
                .update
                .as_ref()
                .map(super::update::told)
                .unwrap_or_default(),
        ),
        (
            "error",
            error.map(|error| error.message.clone()).unwrap_or_default(),
        ),
        (
            "hint",
            error
                .and_then(|error| error.hint.clone())
                .unwrap_or_default(),
        ),
    ]);
    lines.iter().try_for_each(|line| context.out.line(line))
}

fn percent(operation: &Operation) -> String {
    let fraction = operation.progress.fraction;
    fraction
        .map(|done| format!("{:.0}%", done.clamp(0.0, 1.0) * 100.0))
        .unwrap_or_default()
}

fn subjects(subjects: &[Subject]) -> String {
    subjects
        .iter()
        .map(|s| s.name.as_str())
        .collect::<Vec<_>>()
        .join(",")
}
