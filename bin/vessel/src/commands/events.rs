//! `vessel events`.

use api::latest::Event;

use crate::Context;
use crate::arguments::EventsArguments;
use crate::human;
use crate::output::{Outcome, failed, one_line};

pub(crate) async fn run(context: &Context, arguments: EventsArguments) -> Outcome {
    let mut written = Ok(());
    context
        .client
        .events(arguments.follow, arguments.after, |event| {
            written = write(context, &event);
            written.is_ok()
        })
        .await?;
    written
}

/// One line for each event, aligned without knowing those to come.
fn write(context: &Context, event: &Event) -> Outcome {
    if context.out.json {
        let line = serde_json::to_string(event).map_err(|error| failed(error.to_string()))?;
        return context.out.line(&line);
    }
    let subject = event
        .subject
        .as_ref()
        .map_or("-", |subject| subject.name.as_str());
    let time = human::time(event.time);
    let line = format!(
        "{time}  {:<20}  {subject:<16}  {}",
        event.kind, event.message
    );
    context
        .out
        .line(one_line(&line).replace('\n', " ").trim_end())
}
