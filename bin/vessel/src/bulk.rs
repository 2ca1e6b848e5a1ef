//! One verb for many VEs: which, side by side, and what came of each.

use std::collections::HashSet;
use std::future::Future;

use api::latest::{ApiError, ErrorCode, Operation, SettingChange, SubjectKind, VeState};
use client::Filter;
use indicatif::ProgressBar;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::Context;
use crate::arguments::Targets;
use crate::follow;
use crate::output::{Outcome, Stop};

/// VEs that one command works on at once. More gain nothing: the daemon does as much of it side by
/// side as its machine has processors, and a bulk must leave room for others.
pub(crate) const PARALLEL: usize = 16;

/// What came of one VE.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Done {
    /// Its name, or what was given for it.
    pub(crate) name: String,
    /// Its number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<u32>,
    /// What it is now: a state, `deleted`, or `failed`.
    pub(crate) state: String,
    /// The operation that did it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) operation: Option<u64>,
    /// What became of each setting, where settings were changed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) changes: Vec<SettingChange>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<ApiError>,
}

impl Done {
    /// A VE that is in a state by an operation.
    pub(crate) fn by(operation: &Operation, given: &str, state: &str) -> Self {
        let subject = operation
            .subjects
            .iter()
            .find(|subject| subject.kind == SubjectKind::Ve);
        Self {
            name: subject
                .map_or(given, |subject| subject.name.as_str())
                .to_owned(),
            id: subject.and_then(|subject| subject.id),
            state: state.to_owned(),
            operation: Some(operation.id),
            changes: Vec::new(),
            error: None,
        }
    }

    fn failed(given: &str, error: ApiError) -> Self {
        Self {
            name: given.to_owned(),
            id: None,
            state: "failed".to_owned(),
            operation: None,
            changes: Vec::new(),
            error: Some(error),
        }
    }
}

/// VEs of a verb, and whether they are one that was named (which decides the shape of JSON).
#[derive(Clone, Debug)]
pub(crate) struct Chosen {
    pub(crate) names: Vec<String>,
    pub(crate) one: bool,
}

impl Targets {
    /// Finds the VEs: those that were named as they are, so that each that does not exist is its own
    /// failure; else those of the node that are in one of `states` and have the labels.
    ///
    /// # Errors
    /// The node cannot be asked.
    pub(crate) async fn choose(&self, context: &Context, states: &[VeState]) -> Outcome<Chosen> {
        if !self.names.is_empty() {
            let mut names = Vec::new();
            for name in &self.names {
                if !names.contains(name) {
                    names.push(name.clone());
                }
            }
            let one = names.len() == 1;
            return Ok(Chosen { names, one });
        }
        let filter = Filter {
            labels: self.label.clone(),
            states: states.to_vec(),
            ..Filter::default()
        };
        let found = context.client.list(&filter).await?;
        if found.is_empty() {
            context.out.note("no VE to do it with");
        }
        Ok(Chosen {
            names: found.into_iter().map(|ve| ve.name).collect(),
            one: false,
        })
    }
}

/// Does `work` for each VE, at most [`PARALLEL`] at once, with a bar on a terminal; writes a line for each as it ends.
///
/// # Errors
/// With the code of the failures if all VEs failed with one, else with that of a part.
pub(crate) async fn run<W, F>(
    context: &Context,
    title: &str,
    chosen: Chosen,
    line: fn(&Done) -> String,
    work: W,
) -> Outcome
where
    W: Fn(String, ProgressBar) -> F,
    F: Future<Output = Result<Done, ApiError>> + Send + 'static,
{
    let count = chosen.names.len();
    let single = count == 1;
    let bar = match chosen.names.as_slice() {
        [name] => follow::spinner(context.out, &format!("{title} {name}")),
        names => follow::bar(context.out, title, names.len()),
    };
    let mut waiting = chosen.names.into_iter().enumerate();
    let mut running = JoinSet::new();
    let mut results: Vec<Option<Done>> = vec![None; count];
    let mut told = HashSet::new();
    loop {
        while running.len() < PARALLEL
            && let Some((index, name)) = waiting.next()
        {
            let own = if single {
                bar.clone()
            } else {
                ProgressBar::hidden()
            };
            let work = work(name.clone(), own);
            running.spawn(async move { (index, name, work.await) });
        }
        let Some(ended) = running.join_next().await else {
            break;
        };
        let (index, name, result) = ended.map_err(|error| {
            crate::output::failed(format!("a part of `{title}` broke: {error}"))
        })?;
        let done = result.unwrap_or_else(|error| Done::failed(&name, error));
        if single {
            bar.finish_and_clear();
        }
        bar.suspend(|| tell(context, &done, line, &mut told))?;
        if !single {
            bar.inc(1);
            bar.set_message(done.name.clone());
        }
        if let Some(slot) = results.get_mut(index) {
            *slot = Some(done);
        }
    }
    bar.finish_and_clear();
    let results: Vec<Done> = results.into_iter().flatten().collect();
    finish(context, &results, chosen.one)
}

/// Writes what came of a VE. A failure that names no VE, as that of an unreachable daemon, is said once.
fn tell(
    context: &Context,
    done: &Done,
    line: fn(&Done) -> String,
    told: &mut HashSet<String>,
) -> Outcome {
    match &done.error {
        Some(error) if told.insert(error.message.clone()) => context.out.error(error),
        None if !context.out.json && !context.out.quiet => context.out.line(&line(done))?,
        Some(_) | None => {}
    }
    Ok(())
}

fn finish(context: &Context, results: &[Done], one: bool) -> Outcome {
    let code = exit_code(results);
    // A refusal of the one thing that was named leaves nothing to write.
    if context.out.json && !(one && code != 0) {
        context.out.json_of(results, one)?;
    }
    let failures = results.iter().filter(|done| done.error.is_some()).count();
    if failures > 0 && results.len() > 1 {
        context
            .out
            .note(&format!("{failures} of {} failed", results.len()));
    }
    if code == 0 {
        Ok(())
    } else {
        Err(Stop::Said(code))
    }
}

/// The code of a bulk: that of its failures if nothing else happened, else that of a part.
fn exit_code(results: &[Done]) -> u8 {
    code_of_all(
        results
            .iter()
            .map(|done| done.error.as_ref().map_or(0, |e| e.code.exit_code())),
    )
}

/// The code of several that ended with these: the one that they have in common, else that of a part.
pub(crate) fn code_of_all(codes: impl Iterator<Item = u8>) -> u8 {
    let mut codes: Vec<u8> = codes.collect();
    codes.sort_unstable();
    codes.dedup();
    match codes.as_slice() {
        [] => 0,
        [code] => *code,
        _ => ErrorCode::Partial.exit_code(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Done {
        fn by_nobody() -> Self {
            Self::failed("x", ApiError::new(ErrorCode::Failed, "x"))
        }
    }

    fn result(code: Option<ErrorCode>) -> Done {
        Done {
            error: code.map(|code| ApiError::new(code, "x")),
            ..Done::by_nobody()
        }
    }

    #[test]
    fn a_part_that_fails_has_its_own_code() {
        for (codes, expected) in [
            (&[][..], 0),
            (&[None, None], 0),
            (&[Some(ErrorCode::NotFound)], 3),
            (&[Some(ErrorCode::NotFound), Some(ErrorCode::NotFound)], 3),
            (&[Some(ErrorCode::NotFound), Some(ErrorCode::WrongState)], 9),
            (&[Some(ErrorCode::NotFound), None], 9),
        ] {
            let results: Vec<Done> = codes.iter().map(|code| result(*code)).collect();
            assert_eq!(exit_code(&results), expected);
        }
    }
}
