//! `vessel set`.

use std::sync::{Arc, Mutex};

use api::latest::{SetOutcome, SetReply, SetRequest};
use client::ClientError;

use super::labels;
use crate::Context;
use crate::arguments::{SetArguments, Targets};
use crate::bulk::{self, Done};
use crate::output::{Outcome, usage};

pub(crate) async fn run(context: &Context, arguments: SetArguments) -> Outcome {
    let (names, settings, request) = parse(&arguments)?;
    let targets = Targets {
        names,
        all: arguments.all,
        label: arguments.label,
    };
    let chosen = targets.choose(context, &[]).await?;
    let client = context.client.clone();
    let changes = settings.len();
    // Lines of one VE are several, so they are kept beside the result and written when it ended.
    let replies: Arc<Mutex<Vec<(String, SetReply)>>> = Arc::default();
    let kept = Arc::clone(&replies);
    let outcome = bulk::run(
        &Context {
            out: context.out.quietly(),
            ..context.clone()
        },
        "set",
        chosen,
        |done| done.name.clone(),
        move |name, _| {
            let (client, request, kept) = (client.clone(), request.clone(), Arc::clone(&kept));
            async move {
                let reply = client.set(&name, &request).await;
                let reply = reply.map_err(ClientError::into_api_error)?;
                let done = Done::by(&reply.operation, &name, "set");
                if let Ok(mut kept) = kept.lock() {
                    kept.push((done.name.clone(), reply));
                }
                Ok(done)
            }
        },
    )
    .await;
    if !context.out.json && !context.out.quiet {
        let mut replies = replies.lock().map(|kept| kept.clone()).unwrap_or_default();
        replies.sort_by(|a, b| a.0.cmp(&b.0));
        for (name, reply) in &replies {
            for line in lines(name, reply, changes) {
                context.out.line(&line)?;
            }
        }
    }
    outcome
}

fn parse(arguments: &SetArguments) -> Outcome<(Vec<String>, Vec<String>, SetRequest)> {
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
    let labels = labels(&arguments.add_label)?;
    let labels_removed = arguments.remove_label.clone();
    if settings.is_empty() && labels.is_empty() && labels_removed.is_empty() {
        let last = names.last().map_or("", String::as_str);
        return Err(usage(format!("nothing to set: `{last}` is not KEY=VALUE"))
            .with_hint("`vessel set NAME KEY=VALUE`; `vessel set --help` lists the keys")
            .into());
    }
    let request = SetRequest {
        settings: settings.clone(),
        labels,
        labels_removed,
    };
    Ok((names, settings, request))
}

fn lines(name: &str, reply: &SetReply, settings: usize) -> Vec<String> {
    let mut lines: Vec<String> = reply
        .changes
        .iter()
        .map(|change| {
            let what = format!("{name} {}={}", change.key, change.value);
            match (change.outcome, &change.because) {
                (SetOutcome::PendingRestart, Some(because)) => {
                    format!("{what} pending restart, because {because}")
                }
                (SetOutcome::PendingRestart, None) => format!("{what} pending restart"),
                (outcome, _) => format!("{what} {outcome}"),
            }
        })
        .collect();
    if settings == 0 {
        lines.push(format!("{name} labels applied"));
    }
    lines
}
