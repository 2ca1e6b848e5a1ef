//! `vessel set`.

use api::latest::{SetOutcome, SetRequest, SettingChange};
use client::ClientError;

use super::labels;
use crate::Context;
use crate::arguments::{SetArguments, Targets};
use crate::bulk::{self, Done};
use crate::output::{Outcome, usage};

pub(crate) async fn run(context: &Context, arguments: SetArguments) -> Outcome {
    let (names, request) = parse(&arguments)?;
    let targets = Targets {
        names,
        all: arguments.all,
        label: arguments.label,
    };
    let chosen = targets.choose(context, &[]).await?;
    let client = context.client.clone();
    bulk::run(context, "set", chosen, lines, move |name, _| {
        let (client, request) = (client.clone(), request.clone());
        async move {
            let reply = client
                .set(&name, &request)
                .await
                .map_err(ClientError::into_api_error)?;
            Ok(Done {
                changes: reply.changes,
                ..Done::by(&reply.operation, &name, "set")
            })
        }
    })
    .await
}

/// Tells names from settings by their `=`.
fn parse(arguments: &SetArguments) -> Outcome<(Vec<String>, SetRequest)> {
    let (settings, names): (Vec<String>, Vec<String>) = arguments
        .words
        .iter()
        .cloned()
        .partition(|word| word.contains('='));
    let selects = arguments.all || !arguments.label.is_empty();
    if names.is_empty() && !selects {
        return Err(usage("no VE is named: every word is KEY=VALUE")
            .with_hint("`vessel set NAME KEY=VALUE`; --all and --label select several")
            .into());
    }
    if !names.is_empty() && selects {
        return Err(usage(format!(
            "`{}`: a name beside --all or --label",
            names.join(" ")
        ))
        .with_hint("name VEs, or select them; settings are KEY=VALUE")
        .into());
    }
    let is_ve = |word: &&String| ve::Name::new(word).is_ok() || word.parse::<u32>().is_ok();
    if let Some(word) = names.iter().find(|word| !is_ve(word)) {
        return Err(
            usage(format!("`{word}` is neither KEY=VALUE nor a name of a VE"))
                .with_hint("`vessel set NAME KEY=VALUE`; `vessel set --help` lists the keys")
                .into(),
        );
    }
    let labels = labels(&arguments.add_label)?;
    let labels_removed = arguments.remove_label.clone();
    if settings.is_empty() && labels.is_empty() && labels_removed.is_empty() {
        let last = names.last().map_or("", String::as_str);
        return Err(usage(format!("nothing to set: `{last}` is not KEY=VALUE"))
            .with_hint("`vessel set NAME KEY=VALUE`; `vessel set --help` lists the keys")
            .into());
    }
    let request = SetRequest {
        settings,
        labels,
        labels_removed,
    };
    Ok((names, request))
}

/// A line for each setting of a VE.
fn lines(done: &Done) -> String {
    let line = |change: &SettingChange| {
        let what = format!("{} {}={}", done.name, change.key, change.value);
        let what = match &change.note {
            Some(note) => format!("{what} ({note})"),
            None => what,
        };
        match (change.outcome, &change.because) {
            (SetOutcome::PendingRestart, Some(because)) => {
                format!("{what} pending restart, because {because}")
            }
            (SetOutcome::PendingRestart, None) => format!("{what} pending restart"),
            (outcome, _) => format!("{what} {outcome}"),
        }
    };
    if done.changes.is_empty() {
        return format!("{} labels applied", done.name);
    }
    done.changes.iter().map(line).collect::<Vec<_>>().join("\n")
}
