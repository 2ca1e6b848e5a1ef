//! `vessel create`.

use std::cell::Cell;
use std::io::Read;
use std::path::Path;

use api::latest::{ApiError, CreateRequest, ErrorCode, StartRequest};
use client::ClientError;
use tokio::sync::oneshot;

use super::labels;
use crate::Context;
use crate::arguments::CreateArguments;
use crate::bulk::{self, Chosen, Done};
use crate::follow;
use crate::output::{Outcome, failed, usage};

/// Largest file of a password or of keys.
const SECRET_BYTES_MAX: u64 = 1024 * 1024;

pub(crate) async fn run(context: &Context, arguments: CreateArguments) -> Outcome {
    let request = request(&arguments)?;
    let names = names(&arguments)?;
    if names.len() > 1 {
        room(context, names.len()).await?;
    }
    let chosen = Chosen {
        names,
        one: arguments.count.is_none(),
    };
    let patience = arguments.patience;
    let start = arguments.start;
    let client = context.client.clone();
    // Numbers and addresses are given in the order in which VEs are asked for: `web-1` gets the first.
    let turns = Cell::new(None);
    bulk::run(
        context,
        "create",
        chosen,
        |done| done.name.clone(),
        move |name, bar| {
            let (client, patience) = (client.clone(), patience.clone());
            let (over, next) = oneshot::channel::<()>();
            let before = turns.replace(Some(next));
            let request = CreateRequest {
                name: name.clone(),
                ..request.clone()
            };
            async move {
                if let Some(before) = before {
                    // Also over when the one before failed: its sender is gone then.
                    let _ = before.await;
                }
                let begun = client.create(&request).await;
                drop(over);
                let begun = begun.map_err(ClientError::into_api_error)?;
                if patience.no_wait && !start {
                    return Ok(Done::by(&begun, &name, "creating"));
                }
                let created = follow::operation(&client, begun, &bar).await?;
                if !start {
                    return Ok(Done::by(&created, &name, "stopped"));
                }
                let timeout = std::time::Duration::from_secs(patience.timeout.get());
                let wait = (!patience.no_wait).then_some(timeout);
                let begun = client.start(&name, &StartRequest {}).await;
                let begun = begun.map_err(ClientError::into_api_error)?;
                super::life::finish_start(&client, begun, &name, wait, &bar).await
            }
        },
    )
    .await
}

fn request(arguments: &CreateArguments) -> Outcome<CreateRequest> {
    let mut settings = arguments.set.clone();
    let mut option = |key: &str, values: &[String]| {
        if !values.is_empty() {
            settings.push(format!("{key}={}", values.join(",")));
        }
    };
    option("address", &arguments.address);
    option("hostname", arguments.hostname.as_slice());
    option("dns", &arguments.dns);
    Ok(CreateRequest {
        name: String::new(),
        template: arguments.template.clone().unwrap_or_default(),
        sample: arguments.sample.clone(),
        applications: arguments.application.clone(),
        options: arguments.option.clone(),
        settings,
        labels: labels(&arguments.label)?,
        root_password: password(arguments)?,
        ssh_keys: keys(&arguments.ssh_key)?,
    })
}

/// The names, each checked before the first VE is made: `web` with a count must not make half of them.
fn names(arguments: &CreateArguments) -> Result<Vec<String>, ApiError> {
    let names: Vec<String> = match arguments.count {
        None => vec![arguments.name.clone()],
        Some(count) => (1..=count)
            .map(|n| format!("{}-{n}", arguments.name))
            .collect(),
    };
    // The last is the longest.
    for name in names.first().into_iter().chain(names.last()) {
        ve::Name::new(name).map_err(|error| {
            usage(error.to_string()).with_hint("take a name as `web` or `web-1`")
        })?;
    }
    Ok(names)
}

/// Refuses a count that the node cannot hold before anything is made.
async fn room(context: &Context, count: usize) -> Outcome {
    let node = context.client.node().await?;
    let room = node.capacity.ves.saturating_sub(node.sold.ves);
    if node.capacity.ves > 0 && count > room as usize {
        let message = format!(
            "{count} VEs are more than the node has room for: it can hold {room} besides the {} that it has",
            node.sold.ves
        );
        let error = ApiError::new(ErrorCode::NoResources, message);
        return Err(error
            .with_hint("write a smaller --count, or use another node")
            .into());
    }
    Ok(())
}

fn password(arguments: &CreateArguments) -> Result<Option<String>, ApiError> {
    let text = match &arguments.password_file {
        Some(path) => read(path, "password")?,
        None if arguments.password_stdin => read(Path::new("-"), "password")?,
        None => return Ok(None),
    };
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(Some(line.to_owned())),
        _ => Err(usage(
            "the password is empty: the first line of its source has no characters",
        )),
    }
}

fn keys(files: &[std::path::PathBuf]) -> Result<Vec<String>, ApiError> {
    let mut keys = Vec::new();
    for file in files {
        let text = read(file, "SSH key")?;
        if text.contains("PRIVATE KEY") {
            return Err(usage(format!("`{}` is a private key", file.display()))
                .with_hint(format!("give the public one: `{}.pub`", file.display())));
        }
        let lines = text.lines().map(str::trim);
        let before = keys.len();
        keys.extend(
            lines
                .filter(|l| !l.is_empty() && !l.starts_with('#'))
                .map(str::to_owned),
        );
        if keys.len() == before {
            return Err(usage(format!("`{}` holds no public key", file.display())));
        }
    }
    Ok(keys)
}

fn read(path: &Path, what: &str) -> Result<String, ApiError> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin()
            .lock()
            .take(SECRET_BYTES_MAX)
            .read_to_string(&mut text)
    } else {
        std::fs::File::open(path)
            .and_then(|file| file.take(SECRET_BYTES_MAX).read_to_string(&mut text))
    };
    match read {
        Ok(_) => Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(ApiError::new(
            ErrorCode::NotFound,
            format!("{what} file `{}`: there is none", path.display()),
        )),
        Err(error) => Err(failed(format!("{what} file `{}`: {error}", path.display()))),
    }
}
