//! `vessel inventory`.

use api::latest::{ErrorCode, InstalledPackage, InventoryEntry};
use client::{Filter, InventoryQuery};

use crate::Context;
use crate::arguments::InventoryArguments;
use crate::output::{Outcome, Stop, one_line};
use crate::table::{Align, Table};

/// The columns of CSV.
const COLUMNS: [&str; 16] = [
    "kind",
    "id",
    "name",
    "state",
    "template",
    "owner",
    "description",
    "labels",
    "addresses",
    "system",
    "manager",
    "package",
    "version",
    "architecture",
    "source",
    "problem",
];

pub(crate) async fn run(context: &Context, arguments: InventoryArguments) -> Outcome {
    let searches = !arguments.package.is_empty();
    let query = InventoryQuery {
        ves: Filter {
            ves: arguments.names,
            labels: arguments.label,
            ..Filter::default()
        },
        templates: arguments.template,
        all_templates: arguments.templates,
        packages: arguments.package,
        older_than: arguments.older_than,
        brief: !searches && !arguments.csv && !context.out.json,
    };
    let entries = context.client.inventory(&query).await?;
    if arguments.csv {
        context.out.raw(csv(&entries).as_bytes())?;
    } else if context.out.json {
        context.out.json(&entries)?;
    } else {
        let table = if searches {
            found(&entries)
        } else {
            all(&entries)
        };
        for line in table.lines(true) {
            context.out.line(&line)?;
        }
    }
    let unknown: Vec<_> = entries.iter().filter(|e| e.problem.is_some()).collect();
    for entry in &unknown {
        let problem = entry.problem.as_deref().unwrap_or_default();
        let (kind, name) = (entry.kind, &entry.name);
        context
            .out
            .note(&one_line(&format!("warning: {kind} `{name}`: {problem}")));
    }
    match unknown.is_empty() {
        true => Ok(()),
        false => Err(Stop::Said(ErrorCode::Partial.exit_code())),
    }
}

/// A row for each package that was asked for.
fn found(entries: &[InventoryEntry]) -> Table {
    let columns = ["NAME", "PACKAGE", "VERSION", "SOURCE", "OWNER", "SYSTEM"];
    let mut table = Table::new(columns.map(|name| (name, Align::Left)));
    for entry in entries {
        for package in &entry.packages {
            table.row([
                entry.name.clone(),
                package.name.clone(),
                package.version.clone(),
                package.source.clone().unwrap_or_default(),
                entry.owner.clone().unwrap_or_default(),
                entry.system.clone(),
            ]);
        }
    }
    table
}

/// A row for each VE or template.
fn all(entries: &[InventoryEntry]) -> Table {
    let mut table = Table::new([
        ("ID", Align::Right),
        ("NAME", Align::Left),
        ("SYSTEM", Align::Left),
        ("PACKAGES", Align::Right),
        ("OWNER", Align::Left),
        ("DESCRIPTION", Align::Left),
    ]);
    for entry in entries {
        let packages = match entry.manager.as_str() {
            "" => String::new(),
            manager => format!("{} {manager}", entry.packages_count),
        };
        table.row([
            entry.id.map(|id| id.to_string()).unwrap_or_default(),
            entry.name.clone(),
            entry.system.clone(),
            packages,
            entry.owner.clone().unwrap_or_default(),
            entry.description.clone().unwrap_or_default(),
        ]);
    }
    table
}

/// RFC 4180, with a header; a line for each package, and one for whoever has none.
fn csv(entries: &[InventoryEntry]) -> String {
    let mut text = COLUMNS.join(",") + "\r\n";
    for entry in entries {
        let none = InstalledPackage {
            name: String::new(),
            version: String::new(),
            architecture: String::new(),
            source: None,
        };
        let packages: Vec<_> = match entry.packages.as_slice() {
            [] => vec![&none],
            packages => packages.iter().collect(),
        };
        for package in packages {
            let cells = row(entry, package).map(|text| cell(&text));
            text.push_str(&(cells.join(",") + "\r\n"));
        }
    }
    text
}

fn row(entry: &InventoryEntry, package: &InstalledPackage) -> [String; 16] {
    let optional = |text: &Option<String>| text.clone().unwrap_or_default();
    let labels = entry
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"));
    [
        entry.kind.to_string(),
        entry.id.map(|id| id.to_string()).unwrap_or_default(),
        entry.name.clone(),
        entry
            .state
            .map(|state| state.to_string())
            .unwrap_or_default(),
        optional(&entry.template),
        optional(&entry.owner),
        optional(&entry.description),
        labels.collect::<Vec<_>>().join(" "),
        entry.addresses.join(" "),
        entry.system.clone(),
        entry.manager.clone(),
        package.name.clone(),
        package.version.clone(),
        package.architecture.clone(),
        optional(&package.source),
        optional(&entry.problem),
    ]
}

/// A cell, quoted where it must be. What a spreadsheet would take for a formula is text: names of packages
/// come from inside of VEs.
fn cell(text: &str) -> String {
    let text = one_line(text).replace('\n', " ");
    let text = match text.starts_with(['=', '+', '-', '@']) {
        true => format!("'{text}"),
        false => text,
    };
    match text.contains([',', '"', '\'', ';']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::cell;

    #[test]
    fn cells_are_quoted_and_compute_nothing() {
        for (text, expected) in [
            ("plain", "plain"),
            ("a,b", "\"a,b\""),
            ("say \"x\"", "\"say \"\"x\"\"\""),
            ("=1+1", "\"'=1+1\""),
            ("-1", "\"'-1\""),
            ("a\nb\x1b", "a b\u{fffd}"),
        ] {
            assert_eq!(cell(text), expected);
        }
    }
}
