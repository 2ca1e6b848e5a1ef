//! `vessel delete`.

use std::io::{BufRead, IsTerminal, Write};

use api::latest::DeleteRequest;
use client::ClientError;

use super::life::{finish, line};
use crate::Context;
use crate::arguments::DeleteArguments;
use crate::bulk;
use crate::output::{Outcome, Stop};

/// Names that a question shows before it counts the rest.
const NAMES_SHOWN: usize = 8;

pub(crate) async fn run(context: &Context, arguments: DeleteArguments) -> Outcome {
    let chosen = arguments.targets.choose(context, &[]).await?;
    let silent = arguments.yes || arguments.force || chosen.names.is_empty();
    if !silent && !confirm(&format!("delete {} with all files?", short(&chosen.names)))? {
        context.out.note("nothing was deleted");
        return Err(Stop::Said(1));
    }
    let request = DeleteRequest {
        force: arguments.force,
    };
    let client = context.client.clone();
    bulk::run(context, "delete", chosen, line, move |name, bar| {
        let (client, request) = (client.clone(), request.clone());
        async move {
            let begun = client.delete(&name, &request).await;
            let begun = begun.map_err(ClientError::into_api_error)?;
            let states = ["deleting", "deleted"];
            finish(&client, begun, &name, arguments.no_wait, states, &bar).await
        }
    })
    .await
}

fn short(names: &[String]) -> String {
    let shown = names
        .iter()
        .take(NAMES_SHOWN)
        .map(|name| format!("`{name}`"));
    let shown = shown.collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMES_SHOWN) {
        0 => shown,
        rest => format!("{shown} and {rest} more"),
    }
}

/// Asks on a terminal; where nobody can answer, the command itself is the answer.
pub(super) fn confirm(question: &str) -> Outcome<bool> {
    if !std::io::stdin().is_terminal() {
        return Ok(true);
    }
    let mut errors = std::io::stderr().lock();
    let asked = write!(errors, "{question} [y/N] ").and_then(|()| errors.flush());
    let mut answer = String::new();
    let read = asked.and_then(|()| std::io::stdin().lock().read_line(&mut answer));
    read.map_err(|error| crate::output::failed(format!("the question was not answered: {error}")))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
