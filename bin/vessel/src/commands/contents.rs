//! `vessel diff` and `vessel compact`.

use api::latest::{Change, ChangeKind, CompactReply, Difference, VeState};

use super::show::ask;
use crate::Context;
use crate::arguments::{CompactArguments, DifferenceArguments};
use crate::human;
use crate::output::{Outcome, Stop};
use crate::table::{Align, Table};

/// States in which files can be given back.
const COMPACTABLE: [VeState; 4] = [
    VeState::Stopped,
    VeState::Running,
    VeState::Starting,
    VeState::Paused,
];

pub(crate) async fn difference(context: &Context, arguments: DifferenceArguments) -> Outcome {
    let chosen = arguments.targets.choose(context, &[]).await?;
    let equal = arguments.equal;
    let (mut found, code) = ask(context, chosen.names, move |client, name| async move {
        client.difference(&name, equal).await
    })
    .await?;
    if arguments.summary {
        for difference in &mut found {
            difference.changes.clear();
        }
    }
    if context.out.json && !(found.is_empty() && code != 0) {
        context.out.json_of(&found, chosen.one)?;
    } else {
        for (index, difference) in found.iter().enumerate() {
            if index > 0 && !arguments.summary {
                context.out.line("")?;
            }
            for line in lines(difference, arguments.summary) {
                context.out.line(&line)?;
            }
        }
    }
    for difference in found.iter().filter(|d| d.truncated && !arguments.summary) {
        let name = &difference.name;
        context
            .out
            .note(&format!("note: {name}: there is more than was listed"));
    }
    ended(code)
}

fn lines(difference: &Difference, summary: bool) -> Vec<String> {
    let counts = difference.counts.iter().filter(|(_, count)| **count > 0);
    let counts: Vec<_> = counts
        .map(|(kind, count)| format!("{count} {kind}"))
        .collect();
    let size = human::bytes(difference.size_bytes);
    let told = match counts.as_slice() {
        [] => format!("as its template {}", difference.template),
        counts => format!(
            "{}; {size} against {}",
            counts.join(", "),
            difference.template
        ),
    };
    let head = format!("{}: {told}", difference.name);
    if summary {
        return vec![head];
    }
    let mut table = Table::new([
        ("", Align::Left),
        ("SIZE", Align::Right),
        ("WAS", Align::Right),
        ("PATH", Align::Left),
    ]);
    for change in &difference.changes {
        table.row(cells(change));
    }
    let rows = table.lines(true).into_iter();
    let rows = rows.filter(|_| !difference.changes.is_empty());
    [vec![head], rows.collect()].concat()
}

fn cells(change: &Change) -> [String; 4] {
    let bytes = |count| match count {
        0 => String::new(),
        count => human::bytes(count),
    };
    let note = match (&change.moved_from, change.differs.as_slice()) {
        (Some(from), _) => format!(" (was {from})"),
        (None, []) => String::new(),
        (None, differs) => format!(" ({})", differs.join(", ")),
    };
    [
        sign(change.change).to_owned(),
        bytes(change.size_bytes),
        bytes(change.template_bytes),
        format!("{}{note}", change.path),
    ]
}

fn sign(kind: ChangeKind) -> &'static str {
    match kind {
        ChangeKind::Added => "+",
        ChangeKind::Deleted => "-",
        ChangeKind::Changed => "*",
        ChangeKind::Type => "!",
        ChangeKind::Metadata => "m",
        ChangeKind::Equal => "=",
        ChangeKind::Unknown => "?",
    }
}

pub(crate) async fn compact(context: &Context, arguments: CompactArguments) -> Outcome {
    let chosen = arguments.targets.choose(context, &COMPACTABLE).await?;
    let (done, code) = ask(context, chosen.names, |client, name| async move {
        client.compact(&name).await
    })
    .await?;
    if context.out.json && !(done.is_empty() && code != 0) {
        context.out.json_of(&done, chosen.one)?;
    } else if !context.out.quiet {
        for reply in &done {
            context.out.line(&compacted(reply))?;
        }
    }
    ended(code)
}

fn compacted(reply: &CompactReply) -> String {
    let what = match (reply.whole, reply.files) {
        (_, 0) => "nothing of it is equal to its template".to_owned(),
        (true, files) => format!("{files} files are the template's again"),
        (false, files) => {
            format!("{files} files share the template's blocks (stop it for the rest)")
        }
    };
    let kept = match reply.kept_files {
        0 => String::new(),
        kept => format!(", {kept} equal ones stay"),
    };
    let (size, disk) = (
        human::bytes(reply.size_bytes),
        human::bytes(reply.disk_bytes),
    );
    let name = &reply.name;
    format!("{name}: {what}{kept}; {size} in them, {disk} of disk given back")
}

fn ended(code: u8) -> Outcome {
    match code {
        0 => Ok(()),
        code => Err(Stop::Said(code)),
    }
}
