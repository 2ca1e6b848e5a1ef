//! `vessel doctor`.

use api::latest::{Diagnosis, DoctorReport, DoctorRow};
use client::ClientError;

use super::init::daemon;
use crate::Context;
use crate::output::{Outcome, Stop, without_numbers};
use crate::table::{Align, Table};

pub(crate) async fn run(context: &Context) -> Outcome {
    let report = match context.client.doctor().await {
        Ok(report) => report,
        Err(error @ (ClientError::NoDaemon { .. } | ClientError::Broken { .. })) => {
            without_daemon(context, error).await
        }
        Err(error) => return Err(error.into()),
    };
    write(context, &report)?;
    let is_missing = report
        .rows
        .iter()
        .any(|row| row.diagnosis == Diagnosis::Missing);
    if is_missing {
        Err(Stop::Said(1))
    } else {
        Ok(())
    }
}

/// What the daemon's program says of the host without running as a daemon.
async fn without_daemon(context: &Context, error: ClientError) -> DoctorReport {
    let error = error.into_api_error();
    let mut rows = vec![DoctorRow {
        check: "daemon".to_owned(),
        diagnosis: Diagnosis::Missing,
        found: without_numbers(&error.message),
        remedy: error.hint,
    }];
    let mut command = tokio::process::Command::new(daemon());
    command.arg("--root").arg(&context.root).arg("--doctor");
    command
        .stdin(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    match command.output().await {
        Ok(output) => {
            if let Ok(report) = serde_json::from_slice::<DoctorReport>(&output.stdout) {
                rows.extend(report.rows);
            }
        }
        Err(error) => rows.push(DoctorRow {
            check: "vesseld".to_owned(),
            diagnosis: Diagnosis::Missing,
            found: format!("`{}` cannot be run: {error}", daemon().display()),
            remedy: Some("install it beside `vessel`, or in a folder of PATH".to_owned()),
        }),
    }
    DoctorReport { rows }
}

fn write(context: &Context, report: &DoctorReport) -> Outcome {
    if context.out.json {
        return context.out.json(report);
    }
    let mut table = Table::new([
        ("CHECK", Align::Left),
        ("IS", Align::Left),
        ("FOUND", Align::Left),
    ]);
    for row in &report.rows {
        table.row([
            row.check.clone(),
            row.diagnosis.to_string(),
            row.found.clone(),
        ]);
    }
    table
        .lines(true)
        .iter()
        .try_for_each(|line| context.out.line(line))?;
    let ill = report
        .rows
        .iter()
        .filter(|row| row.diagnosis != Diagnosis::Ok);
    let remedies = ill.filter_map(|row| row.remedy.as_ref().map(|remedy| (&row.check, remedy)));
    for (index, (check, remedy)) in remedies.enumerate() {
        if index == 0 {
            context.out.line("")?;
        }
        context.out.line(&format!("{check}: {remedy}"))?;
    }
    Ok(())
}
