//! What `vessel update` tells: a line for each VE, and what they keep of their own.

use std::collections::BTreeMap;
use std::time::Duration;

use api::latest::{ApiError, ErrorCode, Operation, UpdatePlan, UpdateReport, UpdateWay, Ve};
use serde::Serialize;

use crate::Context;
use crate::bulk;
use crate::commands::show::ask;
use crate::follow;
use crate::output::{Outcome, Stop};
use crate::table::{Align, Table};

/// Names and paths that one line tells.
const NAMES_TOLD: usize = 3;
const PATHS_TOLD: usize = 5;

/// How an update ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Ended {
    /// It has the other revision.
    Updated,
    /// It had it already.
    Unchanged,
    /// It was brought back to what it was.
    RolledBack,
    /// It failed, and nothing was changed, or what was changed is in doubt: the error tells.
    Failed,
    /// It was deleted meanwhile.
    Deleted,
    /// Too many others failed before.
    NotBegun,
}

/// What is told of one VE.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Told {
    pub(super) name: String,
    pub(super) id: u32,
    pub(super) result: Ended,
    /// The operation that did it.
    #[serde(skip_serializing_if = "Option::is_none")]
    operation: Option<u64>,
    /// How it went.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    report: Option<UpdateReport>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<ApiError>,
}

impl Ended {
    fn word(self) -> &'static str {
        match self {
            Self::Updated => "updated",
            Self::Unchanged => "unchanged",
            Self::RolledBack => "rolled back",
            Self::Failed => "failed",
            Self::Deleted => "deleted",
            Self::NotBegun => "not begun",
        }
    }
}

impl Told {
    pub(super) fn of(ve: &Ve, ended: Result<Operation, ApiError>) -> Self {
        let (operation, error) = match ended {
            Ok(operation) => {
                let error = match super::is_done(&operation) {
                    true => None,
                    false => follow::outcome(operation.clone()).err(),
                };
                (Some(operation), error)
            }
            Err(error) => (None, Some(error)),
        };
        let report = operation.as_ref().and_then(|done| done.update.clone());
        let result = match (&error, &report) {
            (Some(_), Some(report)) if report.rolled_back => Ended::RolledBack,
            (Some(_), _) => Ended::Failed,
            (None, Some(report)) if report.way == UpdateWay::None => Ended::Unchanged,
            (None, _) => Ended::Updated,
        };
        Self {
            name: ve.name.clone(),
            id: ve.id,
            result,
            operation: operation.map(|done| done.id),
            report,
            error,
        }
    }

    pub(super) fn not_begun(name: &str, id: u32) -> Self {
        Self {
            name: name.to_owned(),
            id,
            result: Ended::NotBegun,
            operation: None,
            report: None,
            error: None,
        }
    }

    /// Whether something that was named was not found.
    pub(super) fn is_missing(&self) -> bool {
        let error = self.error.as_ref();
        error.is_some_and(|error| error.code == ErrorCode::NotFound)
    }

    fn cells(&self) -> [String; 7] {
        let report = self.report.as_ref();
        let text = |of: fn(&UpdateReport) -> String| report.map(of).unwrap_or_default();
        [
            self.name.clone(),
            text(|report| report.from.clone()),
            text(|report| report.to.clone()),
            text(|report| way(report.way)),
            text(|report| report.downtime_ms.map(duration).unwrap_or_default()),
            text(|report| kept(report.conflicts_count)),
            self.result.word().to_owned(),
        ]
    }
}

/// Writes the report, of `one` that was named or of several, and ends with the code that fits.
///
/// # Errors
/// When a VE was not updated.
pub(super) fn write(context: &Context, told: &[Told], one: bool, took: Duration) -> Outcome {
    let out = context.out;
    // A refusal of the only one leaves nothing to write.
    let refused = matches!(told, [one] if one.error.is_some() && one.report.is_none());
    if out.json && !refused {
        out.json_of(told, one)?;
    } else if !out.json && !out.quiet && !told.is_empty() && !refused {
        let mut table = columns(["DOWN", "RESULT"]);
        told.iter().for_each(|one| table.row(one.cells()));
        for line in table.lines(true) {
            out.line(&line)?;
        }
    }
    let reports = told.iter().filter(|one| one.result == Ended::Updated);
    let reports = reports.filter_map(|one| Some((&one.name, one.report.as_ref()?)));
    tell_kept(
        context,
        reports.map(|(name, report)| (name, &report.conflicts, report.conflicts_count)),
    );
    if told.len() > 1 {
        out.note(&summary(told, took));
    }
    match exit_code(told) {
        0 => Ok(()),
        code => Err(Stop::Said(code)),
    }
}

fn columns(last: [&'static str; 2]) -> Table {
    let [down, result] = last;
    Table::new([
        ("NAME", Align::Left),
        ("FROM", Align::Left),
        ("TO", Align::Left),
        ("HOW", Align::Left),
        (down, Align::Right),
        ("KEPT", Align::Right),
        (result, Align::Left),
    ])
}

/// Says which VEs keep which files; those that keep the same together.
fn tell_kept<'a>(context: &Context, all: impl Iterator<Item = (&'a String, &'a Vec<String>, u64)>) {
    let mut groups: BTreeMap<(&[String], u64), Vec<&str>> = BTreeMap::new();
    for (name, paths, count) in all.filter(|(_, _, count)| *count > 0) {
        groups.entry((paths, count)).or_default().push(name);
    }
    for ((paths, count), names) in groups {
        let whose = some(&names, names.len(), NAMES_TOLD);
        let keep = match names.len() {
            1 => "keeps its",
            _ => "keep their",
        };
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let paths = some(&paths, count, PATHS_TOLD);
        context.out.note(&format!("{whose} {keep} own {paths}"));
    }
}

/// Some of several, and how many more there are.
fn some(texts: &[&str], count: usize, most: usize) -> String {
    let told = texts.iter().take(most).copied().collect::<Vec<_>>();
    match count.saturating_sub(told.len()) {
        0 => told.join(", "),
        more => format!("{} and {more} more", told.join(", ")),
    }
}

fn summary(told: &[Told], took: Duration) -> String {
    let all = [
        Ended::Updated,
        Ended::Unchanged,
        Ended::RolledBack,
        Ended::Failed,
        Ended::Deleted,
        Ended::NotBegun,
    ];
    let counts = all.into_iter().filter_map(|result| {
        let count = told.iter().filter(|one| one.result == result).count();
        (count > 0).then(|| format!("{count} {}", result.word()))
    });
    let counts = counts.collect::<Vec<_>>().join(", ");
    let downs = told
        .iter()
        .filter_map(|one| one.report.as_ref()?.downtime_ms);
    let longest = downs.max().map(duration);
    let longest = longest.map_or(String::new(), |down| format!(", {down} down at most"));
    format!("{counts} in {:.1} s{longest}", took.as_secs_f64())
}

/// The code of all: that of the failures if nothing else happened, else that of a part.
fn exit_code(told: &[Told]) -> u8 {
    bulk::code_of_all(told.iter().map(|one| match (&one.error, one.result) {
        (Some(error), _) => error.code.exit_code(),
        (None, Ended::NotBegun) => ErrorCode::Partial.exit_code(),
        (None, _) => 0,
    }))
}

fn way(way: UpdateWay) -> String {
    match way {
        UpdateWay::None => String::new(),
        way => way.to_string(),
    }
}

fn kept(count: u64) -> String {
    match count {
        0 => String::new(),
        count => count.to_string(),
    }
}

fn duration(milliseconds: u64) -> String {
    match milliseconds {
        0..10_000 => format!("{milliseconds} ms"),
        _ => format!("{} s", milliseconds / 1_000),
    }
}

/// An ended update in one line.
pub(crate) fn told(report: &UpdateReport) -> String {
    let mut parts = vec![format!("{} -> {}", report.from, report.to)];
    parts.extend(Some(way(report.way)).filter(|way| !way.is_empty()));
    parts.extend(report.because.clone());
    parts.extend(
        report
            .downtime_ms
            .map(|ms| format!("{} down", duration(ms))),
    );
    let paths: Vec<&str> = report.conflicts.iter().map(String::as_str).collect();
    let count = usize::try_from(report.conflicts_count).unwrap_or(usize::MAX);
    parts.extend((count > 0).then(|| format!("kept {}", some(&paths, count, PATHS_TOLD))));
    parts.extend(report.rolled_back.then(|| "rolled back".to_owned()));
    parts.join(", ")
}

/// Shows what would be done.
pub(super) async fn foresee(
    context: &Context,
    ves: Vec<Ve>,
    one: bool,
    to: Option<u32>,
) -> Outcome {
    let names = ves.iter().map(|ve| ve.id.to_string()).collect();
    let (plans, code) = ask(context, names, move |client, id| async move {
        client.update_plan(&id, to).await
    })
    .await?;
    let out = context.out;
    if out.json {
        out.json_of(&plans, one)?;
    } else if !out.quiet && !plans.is_empty() {
        let mut table = columns(["RESTART", "BECAUSE"]);
        plans.iter().for_each(|plan| table.row(foreseen(plan)));
        for line in table.lines(true) {
            out.line(&line)?;
        }
    }
    tell_kept(
        context,
        plans
            .iter()
            .map(|plan| (&plan.name, &plan.conflicts, plan.conflicts_count)),
    );
    match code {
        0 => Ok(()),
        code => Err(Stop::Said(code)),
    }
}

fn foreseen(plan: &UpdatePlan) -> [String; 7] {
    let restarts = match plan.restarts {
        true => "yes",
        false => "no",
    };
    [
        plan.name.clone(),
        plan.from.clone(),
        plan.to.clone(),
        way(plan.way),
        restarts.to_owned(),
        kept(plan.conflicts_count),
        plan.because.clone().unwrap_or_default(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_is_not_updated_has_its_own_code() {
        let told = |result, code: Option<ErrorCode>| Told {
            error: code.map(|code| ApiError::new(code, "x")),
            result,
            ..Told::not_begun("x", 1)
        };
        let updated = told(Ended::Updated, None);
        let failed = told(Ended::Failed, Some(ErrorCode::WrongState));
        let back = told(Ended::RolledBack, Some(ErrorCode::Failed));
        let not_begun = told(Ended::NotBegun, None);
        for (all, code) in [
            (vec![], 0),
            (vec![updated.clone(), told(Ended::Deleted, None)], 0),
            (vec![failed.clone()], 5),
            (vec![back.clone()], 1),
            (vec![updated, back.clone()], 9),
            (vec![back, not_begun.clone()], 9),
            (vec![not_begun], 9),
        ] {
            assert_eq!(exit_code(&all), code, "{all:?}");
        }
    }

    #[test]
    fn what_many_keep_is_told_in_one_line() {
        assert_eq!(some(&["a", "b"], 2, 3), "a, b");
        assert_eq!(some(&["a", "b", "c", "d"], 100, 3), "a, b, c and 97 more");
    }
}
