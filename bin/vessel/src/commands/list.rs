//! `vessel list`.

use api::latest::{ApiError, ErrorCode, Limits, Ve, VeState};
use client::Filter;

use crate::Context;
use crate::arguments::ListArguments;
use crate::human;
use crate::output::{Outcome, Output, usage};
use crate::table::{Align, Table};

const COLUMNS_DEFAULT: [&str; 5] = ["id", "name", "state", "address", "template"];
const COLUMNS_PLAIN: [&str; 7] = [
    "id", "name", "state", "address", "template", "created", "labels",
];

pub(crate) async fn run(context: &Context, arguments: ListArguments) -> Outcome {
    let columns = columns(&arguments.columns)?;
    let states = arguments
        .state
        .iter()
        .map(|word| state(word))
        .collect::<Result<_, _>>()?;
    let filter = Filter {
        labels: arguments.label.clone(),
        ves: arguments.names.clone(),
        states,
    };
    let mut list = context.client.list(&filter).await?;
    if filter.labels.is_empty() && filter.states.is_empty() {
        missing(&arguments.names, &list)?;
    }
    if let Some(column) = &arguments.sort {
        sort(&mut list, column)?;
    }
    if context.out.json {
        return context.out.json(&list);
    }
    if context.out.quiet {
        return list.iter().try_for_each(|ve| context.out.line(&ve.name));
    }
    let mut table = Table::new(columns.iter().map(|c| (title(c), align(c))));
    for ve in &list {
        table.row(columns.iter().map(|column| cell(ve, column)));
    }
    let lines = table.lines(!arguments.no_header);
    for (index, line) in lines.iter().enumerate() {
        let ve = index
            .checked_sub(lines.len() - list.len())
            .and_then(|i| list.get(i));
        context.out.line(&painted(context.out, line, ve))?;
    }
    if list.is_empty() {
        context
            .out
            .note("no VE; `vessel create NAME --template T` makes one");
    }
    Ok(())
}

/// Refuses names that the answer does not hold.
fn missing(names: &[String], found: &[Ve]) -> Result<(), ApiError> {
    let is_there = |name: &&String| {
        found
            .iter()
            .any(|ve| ve.name == **name || ve.id.to_string() == **name)
    };
    match names.iter().find(|name| !is_there(name)) {
        None => Ok(()),
        Some(name) => Err(ApiError::new(
            ErrorCode::NotFound,
            format!("VE `{name}`: there is none"),
        )
        .with_hint("`vessel list` shows all")),
    }
}

fn state(word: &str) -> Result<VeState, ApiError> {
    VeState::from_word(word).ok_or_else(|| {
        let known: Vec<&str> = VeState::ALL.iter().map(|state| state.as_str()).collect();
        usage(format!("state `{word}` is not known"))
            .with_hint(format!("states are {}", known.join(", ")))
    })
}

fn columns(asked: &[String]) -> Result<Vec<String>, ApiError> {
    if asked.is_empty() {
        return Ok(COLUMNS_DEFAULT.map(str::to_owned).to_vec());
    }
    asked
        .iter()
        .map(|column| known_column(column).map(|()| column.clone()))
        .collect()
}

fn known_column(column: &str) -> Result<(), ApiError> {
    if COLUMNS_PLAIN.contains(&column) || limit_keys().any(|key| key == column) {
        return Ok(());
    }
    let keys: Vec<&str> = COLUMNS_PLAIN.into_iter().chain(limit_keys()).collect();
    Err(usage(format!("column `{column}` is not known"))
        .with_hint(format!("columns are {}", keys.join(", "))))
}

/// Keys of limits with their values as people read them.
pub(super) fn limits(limits: &Limits) -> Vec<(&'static str, Option<String>)> {
    let size = |value: Option<u64>| value.map(human::bytes);
    let rate = |value: Option<u64>| value.map(human::bits_per_second);
    let number = |value: Option<u64>| value.map(|value| value.to_string());
    let weight = |value: Option<u32>| value.map(|value| value.to_string());
    let part = |value: Option<u32>| value.map(|percent| format!("{percent}%"));
    let span = |value: Option<u64>| value.map(|seconds| format!("{seconds}s"));
    vec![
        ("cpu.guarantee", limits.cpu_guarantee.map(human::cores)),
        ("cpu.limit", limits.cpu_limit.map(human::cores)),
        ("cpu.share", weight(limits.cpu_share)),
        ("cpu.burst", limits.cpu_burst.map(human::cores)),
        ("cpu.set", limits.cpu_set.clone()),
        ("memory.guarantee", size(limits.memory_guarantee)),
        ("memory.limit", size(limits.memory_limit)),
        ("memory.burst", size(limits.memory_burst)),
        ("memory.grow.ceiling", size(limits.memory_grow_ceiling)),
        ("memory.grow.step", size(limits.memory_grow_step)),
        ("memory.grow.threshold", part(limits.memory_grow_threshold)),
        ("memory.grow.cooldown", span(limits.memory_grow_cooldown)),
        ("memory.grow.give-back", span(limits.memory_grow_give_back)),
        ("memory.swap", size(limits.memory_swap)),
        ("processes.limit", number(limits.processes_limit)),
        ("files.limit", number(limits.files_limit)),
        ("disk.guarantee", size(limits.disk_guarantee)),
        ("disk.limit", size(limits.disk_limit)),
        ("io.share", weight(limits.io_share)),
        ("io.read.limit", size(limits.io_read_limit)),
        ("io.write.limit", size(limits.io_write_limit)),
        ("io.read.ops", number(limits.io_read_ops)),
        ("io.write.ops", number(limits.io_write_ops)),
        ("network.guarantee", rate(limits.network_guarantee)),
        ("network.limit", rate(limits.network_limit)),
        ("network.burst", rate(limits.network_burst)),
    ]
}

fn limit_keys() -> impl Iterator<Item = &'static str> {
    limits(&Limits::default()).into_iter().map(|(key, _)| key)
}

fn title(column: &str) -> String {
    column.to_uppercase()
}

fn align(column: &str) -> Align {
    let is_word = [
        "name", "state", "address", "template", "created", "labels", "cpu.set",
    ];
    if is_word.contains(&column) {
        Align::Left
    } else {
        Align::Right
    }
}

fn cell(ve: &Ve, column: &str) -> String {
    match column {
        "id" => ve.id.to_string(),
        "name" => ve.name.clone(),
        "state" => ve.state.to_string(),
        "address" => addresses(&ve.addresses),
        "template" => human::stack(&ve.template, ve.revision, &ve.applications),
        "created" => human::time(ve.created),
        "labels" => labels(ve),
        key => {
            let found = limits(&ve.limits)
                .into_iter()
                .find(|(known, _)| *known == key);
            found.and_then(|(_, value)| value).unwrap_or_default()
        }
    }
}

/// The first address, and how many more there are: an IPv6 address for each would not fit a line.
fn addresses(addresses: &[String]) -> String {
    match addresses {
        [] => String::new(),
        [one] => one.clone(),
        [first, rest @ ..] => format!("{first} +{}", rest.len()),
    }
}

fn labels(ve: &Ve) -> String {
    let labels = ve
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"));
    labels.collect::<Vec<_>>().join(",")
}

fn sort(list: &mut [Ve], column: &str) -> Result<(), ApiError> {
    known_column(column)?;
    match column {
        "id" => list.sort_by_key(|ve| ve.id),
        "created" => list.sort_by_key(|ve| ve.created),
        "name" | "state" | "address" | "template" | "labels" | "cpu.set" => {
            list.sort_by_cached_key(|ve| natural(&cell(ve, column)));
        }
        key => list.sort_by(|a, b| number(&b.limits, key).total_cmp(&number(&a.limits, key))),
    }
    Ok(())
}

/// A key that puts `web-9` before `web-10`.
fn natural(text: &str) -> Vec<(String, u64)> {
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let words = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        let (word, tail) = rest.split_at(words);
        let digits = tail
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(tail.len());
        let (number, tail) = tail.split_at(digits);
        parts.push((word.to_owned(), number.parse().unwrap_or(0)));
        rest = tail;
    }
    parts
}

/// The number of a limit, none counting as the smallest.
fn number(limits: &Limits, key: &str) -> f64 {
    let value = serde_json::to_value(limits).ok();
    value
        .and_then(|value| value.get(key)?.as_f64())
        .unwrap_or(-1.0)
}

/// A line with the colour of its VE's state.
fn painted(out: Output, line: &str, ve: Option<&Ve>) -> String {
    let Some(ve) = ve.filter(|_| out.colors()) else {
        return line.to_owned();
    };
    let style = match ve.state {
        VeState::Running => "32",
        VeState::Broken => "31",
        VeState::Stopped => return line.to_owned(),
        _ => "33",
    };
    let word = format!(" {} ", ve.state);
    line.replacen(&word, &format!(" \x1b[{style}m{}\x1b[0m ", ve.state), 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_names_count() {
        assert!(natural("web-9") < natural("web-10"));
        assert!(natural("10.99.0.9") < natural("10.99.0.10"));
        assert!(natural("a") < natural("b"));
    }

    #[test]
    fn every_limit_is_a_column() {
        let all = serde_json::json!({
            "cpu.guarantee": 1.0, "cpu.limit": 1.0, "cpu.share": 1, "cpu.burst": 1.0,
            "cpu.set": "0", "memory.guarantee": 1, "memory.limit": 1, "memory.burst": 1,
            "memory.grow.ceiling": 1, "memory.grow.step": 1, "memory.grow.threshold": 1,
            "memory.grow.cooldown": 1, "memory.grow.give-back": 1,
            "memory.swap": 1, "processes.limit": 1, "files.limit": 1, "disk.guarantee": 1, "disk.limit": 1,
            "io.share": 1,
            "io.read.limit": 1, "io.write.limit": 1, "io.read.ops": 1, "io.write.ops": 1,
            "network.guarantee": 1, "network.limit": 1, "network.burst": 1,
        });
        let read: Limits = serde_json::from_value(all.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), all);
        assert!(
            limits(&read)
                .iter()
                .all(|(key, value)| value.is_some() && all.get(key).is_some())
        );
        assert_eq!(limits(&read).len(), all.as_object().unwrap().len());
    }
}
