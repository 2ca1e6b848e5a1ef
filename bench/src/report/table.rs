//! The results as tables: one for each section, subjects down and measures across, or the other way round where
//! that would be too wide, then the promises.

use std::fmt::Write as _;

use super::{Bound, Measurement, Results, Unit};

/// Columns of a terminal that a table has to fit in.
const WIDTH_MAX: usize = 100;

/// All tables.
pub(super) fn text(results: &Results) -> String {
    let machine = &results.machine;
    let mut text = format!(
        "\n{} x {}, {} MiB, Linux {}, load before {:.1}\n",
        machine.processors,
        machine.processor,
        machine.memory_mebibytes,
        machine.kernel,
        machine.load_before,
    );
    let mut sections: Vec<&str> = results.measurements.iter().map(|m| m.section).collect();
    sections.dedup();
    for section in sections {
        let _ = write!(text, "\n{section}\n{}", of_section(results, section));
    }
    for absent in &results.absent {
        let _ = writeln!(text, "{}: {}", absent.subject, absent.reason);
    }
    for note in &results.notes {
        let _ = writeln!(text, "note: {note}");
    }
    if !results.targets.is_empty() {
        let _ = write!(text, "\n{}", promises(results));
    }
    text
}

fn of_section(results: &Results, section: &str) -> String {
    let all = results.measurements.iter().filter(|m| m.section == section);
    let measurements: Vec<&Measurement> = all.collect();
    let mut columns: Vec<(&str, Unit)> = Vec::new();
    let mut subjects: Vec<&str> = Vec::new();
    for measurement in &measurements {
        if !columns.iter().any(|(what, _)| *what == measurement.what) {
            columns.push((&measurement.what, measurement.unit));
        }
        if !subjects.contains(&measurement.subject.as_str()) {
            subjects.push(&measurement.subject);
        }
    }
    let titles = columns
        .iter()
        .map(|(what, unit)| format!("{what} {}", unit.word()).trim_end().to_owned());
    let mut rows = vec![
        std::iter::once(String::new())
            .chain(titles)
            .collect::<Vec<_>>(),
    ];
    for subject in subjects {
        let mut row = vec![subject.to_owned()];
        for (what, _) in &columns {
            let found = measurements
                .iter()
                .find(|m| m.subject == subject && m.what == *what);
            row.push(found.map_or("-".to_owned(), |m| number(m.median)));
        }
        rows.push(row);
    }
    let text = aligned(&rows);
    let is_wide = text.lines().any(|line| line.chars().count() > WIDTH_MAX);
    // Many things of one subject read better one below the other.
    if !is_wide && rows.len() > 2 {
        return text;
    }
    rows = (0..=columns.len())
        .map(|at| rows.iter().map(|row| row[at].clone()).collect())
        .collect();
    aligned(&rows)
}

fn promises(results: &Results) -> String {
    let titles = ["promised", "measured", "target", ""].map(str::to_owned);
    let mut rows = vec![titles.to_vec()];
    for target in &results.targets {
        let sign = match target.bound {
            Bound::AtMost => "<=",
            Bound::AtLeast => ">=",
        };
        let unit = target.unit.word();
        let verdict = if target.met { "met" } else { "NOT MET" };
        rows.push(vec![
            format!("{}: {}", target.section, target.what),
            format!("{} {unit}", number(target.measured)),
            format!("{sign} {} {unit}", number(target.target)),
            verdict.to_owned(),
        ]);
    }
    aligned(&rows)
}

/// As many digits as say something.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1_000.0 => format!("{value:.0}"),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Columns of one width: the first to the left, others to the right.
fn aligned(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
            if at == 0 {
                let _ = write!(line, "  {cell:<width$}");
            } else {
                let _ = write!(line, "  {cell:>width$}");
            }
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Effort;

    #[test]
    fn subjects_stand_down_and_measures_across() {
        let mut results = Results::begin(Effort::Quick);
        results.add("life", "floor", "start", Unit::Milliseconds, vec![8.0]);
        results.add("life", "floor", "stop", Unit::Milliseconds, vec![1.25]);
        results.add("life", "vessel", "start", Unit::Milliseconds, vec![123.4]);
        assert_eq!(
            of_section(&results, "life"),
            "          start ms  stop ms\n  floor       8.00     1.25\n  vessel       123        -\n"
        );
    }

    #[test]
    fn many_measures_stand_down_and_subjects_across() {
        let mut results = Results::begin(Effort::Quick);
        for subject in ["300 Debian", "1000 light"] {
            for at in 0..13 {
                let what = format!("the thing numbered {at}");
                results.add("density", subject, &what, Unit::Mebibytes, vec![8.0]);
            }
        }
        let text = of_section(&results, "density");
        let mut lines = text.lines();
        let head = "                             300 Debian  1000 light";
        assert_eq!(lines.next(), Some(head));
        let first = "  the thing numbered 0 MiB         8.00        8.00";
        assert_eq!(lines.next(), Some(first));
        assert_eq!(lines.count(), 12);
    }

    #[test]
    fn a_promise_says_what_was_measured() {
        let mut results = Results::begin(Effort::Quick);
        results.promise("life", "cycle", Unit::Ratio, 3.5, (Bound::AtMost, 3.0));
        let text = promises(&results);
        assert!(
            text.contains("life: cycle    3.50 x  <= 3.00 x  NOT MET"),
            "{text}"
        );
    }
}
