//! `vessel isolation`.

use api::latest::{Isolation, IsolationEntry, IsolationVerdict, IsolationWall};

use super::show::ask;
use crate::Context;
use crate::arguments::IsolationArguments;
use crate::output::{Outcome, Stop, usage};
use crate::table::{Align, Table};

pub(crate) async fn run(context: &Context, arguments: IsolationArguments) -> Outcome {
    let chosen = arguments.targets.choose(context, &[]).await?;
    let (mut reports, code) = ask(context, chosen.names, |client, name| async move {
        client.isolation(&name).await
    })
    .await?;
    let differs = reports.iter().any(|report| report.differing > 0);
    for report in &mut reports {
        if let Some(wall) = &arguments.wall {
            keep_wall(report, wall)?;
        }
        if arguments.differing {
            keep_differing(report);
        }
    }
    if context.out.json && !(reports.is_empty() && code != 0) {
        context.out.json_of(&reports, chosen.one)?;
    } else {
        for (index, report) in reports.iter().enumerate() {
            if index > 0 {
                context.out.line("")?;
            }
            for line in lines(report) {
                context.out.line(&line)?;
            }
        }
    }
    match code {
        0 if differs => Err(Stop::Said(1)),
        0 => Ok(()),
        code => Err(Stop::Said(code)),
    }
}

fn keep_wall(report: &mut Isolation, wanted: &str) -> Outcome {
    if !report.walls.iter().any(|wall| wall.name == wanted) {
        let names: Vec<&str> = report.walls.iter().map(|wall| wall.name.as_str()).collect();
        let refusal = usage(format!("no wall is called `{wanted}`"));
        return Err(refusal
            .with_hint(format!("these are there: {}", names.join(", ")))
            .into());
    }
    report.walls.retain(|wall| wall.name == wanted);
    Ok(())
}

fn keep_differing(report: &mut Isolation) {
    for wall in &mut report.walls {
        wall.entries
            .retain(|entry| entry.verdict == IsolationVerdict::Differs);
    }
    report.walls.retain(|wall| !wall.entries.is_empty());
}

fn lines(report: &Isolation) -> Vec<String> {
    let summary = match (report.pid, report.differing) {
        (None, _) => format!("it is {}, so this is the plan", report.state),
        (Some(_), 0) => "every wall stands as planned".to_owned(),
        (Some(_), 1) => "1 part differs from its plan".to_owned(),
        (Some(_), count) => format!("{count} parts differ from their plan"),
    };
    let mut lines = vec![format!("{}: {summary}", report.name)];
    for wall in &report.walls {
        lines.push(String::new());
        lines.push(format!("{}: stops {}", wall.name, wall.stops));
        lines.extend(rows(wall));
    }
    lines
}

fn rows(wall: &IsolationWall) -> Vec<String> {
    let mut table = Table::new([
        ("", Align::Left),
        ("PLANNED", Align::Left),
        ("FOUND", Align::Left),
        ("IS", Align::Left),
        ("REASON", Align::Left),
    ]);
    for entry in &wall.entries {
        table.row(cells(entry));
    }
    let indented = |line: String| format!("  {line}");
    table.lines(true).into_iter().map(indented).collect()
}

fn cells(entry: &IsolationEntry) -> [String; 5] {
    [
        entry.name.clone(),
        entry.planned.clone(),
        entry.found.clone().unwrap_or_default(),
        entry.verdict.to_string(),
        entry.reason.clone(),
    ]
}
