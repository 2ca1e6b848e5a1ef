//! `vessel show`.

use api::latest::{ApiError, VeDetails};
use client::{Client, ClientError};
use tokio::task::JoinSet;

use super::list::limits;
use crate::Context;
use crate::arguments::ShowArguments;
use crate::bulk::PARALLEL;
use crate::human;
use crate::output::{Outcome, Stop};
use crate::table::pairs;

pub(crate) async fn run(context: &Context, arguments: ShowArguments) -> Outcome {
    let chosen = arguments.targets.choose(context, &[]).await?;
    let (shown, code) = ask(context, chosen.names, |client, name| async move {
        client.show(&name).await
    })
    .await?;
    if context.out.json && !(shown.is_empty() && code != 0) {
        context.out.json_of(&shown, chosen.one)?;
    } else {
        write(context, &shown)?;
    }
    if code == 0 {
        Ok(())
    } else {
        Err(Stop::Said(code))
    }
}

/// Asks something about each VE, some at once. Gives the answers in the order of the names, tells failures, and
/// gives the exit code.
pub(super) async fn ask<T, F, W>(
    context: &Context,
    names: Vec<String>,
    work: W,
) -> Outcome<(Vec<T>, u8)>
where
    T: Send + 'static,
    F: Future<Output = client::Result<T>> + Send + 'static,
    W: Fn(Client, String) -> F,
{
    let count = names.len();
    let mut waiting = names.into_iter().enumerate();
    let mut running = JoinSet::new();
    let mut answers: Vec<(usize, Result<T, ApiError>)> = Vec::with_capacity(count);
    loop {
        while running.len() < PARALLEL
            && let Some((index, name)) = waiting.next()
        {
            let asked = work(context.client.clone(), name);
            running.spawn(async move { (index, asked.await) });
        }
        let Some(ended) = running.join_next().await else {
            break;
        };
        let (index, answer) = ended
            .map_err(|error| crate::output::failed(format!("a part of the work broke: {error}")))?;
        answers.push((index, answer.map_err(ClientError::into_api_error)));
    }
    answers.sort_by_key(|(index, _)| *index);
    let mut shown = Vec::with_capacity(count);
    let mut codes = Vec::new();
    for (_, answer) in answers {
        match answer {
            Ok(answer) => shown.push(answer),
            Err(error) => {
                codes.push(error.code.exit_code());
                context.out.error(&error);
            }
        }
    }
    codes.dedup();
    let code = match codes.as_slice() {
        [] => 0,
        [code] if shown.is_empty() => *code,
        _ => api::latest::ErrorCode::Partial.exit_code(),
    };
    Ok((shown, code))
}

fn write(context: &Context, shown: &[VeDetails]) -> Outcome {
    for (index, ve) in shown.iter().enumerate() {
        if index > 0 {
            context.out.line("")?;
        }
        for line in lines(ve) {
            context.out.line(&line)?;
        }
    }
    Ok(())
}

fn lines(ve: &VeDetails) -> Vec<String> {
    let optional = |value: Option<String>| value.unwrap_or_default();
    let state = match &ve.reason {
        Some(reason) => format!("{} ({reason})", ve.state),
        None => ve.state.to_string(),
    };
    let labels = ve
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"));
    let options = ve
        .options
        .iter()
        .map(|(key, value)| format!("{key}={value}"));
    let mut all = vec![
        ("id", ve.id.to_string()),
        ("name", ve.name.clone()),
        ("state", state),
        ("template", human::stack(&ve.template, ve.revision, &[])),
        ("applications", ve.applications.join(", ")),
        ("options", options.collect::<Vec<_>>().join(", ")),
        ("addresses", ve.addresses.join(", ")),
        ("hostname", ve.hostname.clone()),
        ("dns", ve.dns.join(", ")),
        ("owner", optional(ve.owner.clone())),
        ("description", optional(ve.description.clone())),
        ("labels", labels.collect::<Vec<_>>().join(", ")),
        ("created", human::time(ve.created)),
        ("started", optional(ve.started.map(human::time))),
        (
            "autostart",
            ve.autostart
                .map_or_else(|| "no".to_owned(), |place| place.to_string()),
        ),
        ("protected", yes(ve.protected)),
        ("nesting", yes(ve.nesting)),
        (
            "memory.merge",
            if ve.memory_merge {
                yes(true)
            } else {
                String::new()
            },
        ),
        ("pid", optional(ve.pid.map(|pid| pid.to_string()))),
        ("uid base", ve.uid_base.to_string()),
        ("interface", ve.interface.clone()),
        ("pending restart", ve.pending.join(", ")),
    ];
    for (key, value) in limits(&ve.limits) {
        all.push((key, optional(value)));
    }
    if let Some(given) = ve.memory_given_bytes {
        all.push(("memory given", human::bytes(given)));
    }
    if let Some(usage) = &ve.usage {
        all.push(("cpu used", human::seconds(usage.cpu_seconds)));
        all.push(("memory used", human::bytes(usage.memory_bytes)));
        all.push(("processes", usage.processes.to_string()));
        all.push(("disk used", human::bytes(usage.disk_bytes)));
    }
    pairs(&all)
}

fn yes(flag: bool) -> String {
    if flag { "yes" } else { "no" }.to_owned()
}
