//! `vessel init`.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use api::latest::{ApiError, ErrorCode, InitReply, InitRequest};
use client::ClientError;

use crate::Context;
use crate::arguments::InitArguments;
use crate::follow;
use crate::output::{Outcome, Stop, failed};

pub(crate) async fn run(context: &Context, arguments: InitArguments) -> Outcome {
    let request = InitRequest {
        pool_size: arguments.pool_size.clone(),
        device: arguments.device.as_deref().map(absolute).transpose()?,
        pool: arguments.pool.as_deref().map(absolute).transpose()?,
        network: arguments.network.clone(),
        first_id: arguments.first_id,
    };
    let bar = follow::spinner(context.out, "prepare the node");
    let reply = context.client.init(&request).await;
    bar.finish_and_clear();
    match reply {
        Ok(reply) => write(context, &reply),
        Err(ClientError::NoDaemon { .. }) => by_program(context, &request).await,
        Err(error) => Err(error.into()),
    }
}

/// The daemon's program: the one beside this program, else the one in PATH.
pub(super) fn daemon() -> PathBuf {
    let beside = std::env::current_exe()
        .ok()
        .map(|own| own.with_file_name("vesseld"));
    beside
        .filter(|path| path.exists())
        .unwrap_or_else(|| PathBuf::from("vesseld"))
}

/// Lets the daemon's program prepare the node without running as a daemon.
async fn by_program(context: &Context, request: &InitRequest) -> Outcome {
    let mut command = tokio::process::Command::new(daemon());
    command.arg("--root").arg(&context.root).arg("--init-only");
    let options = [
        ("--pool-size", request.pool_size.clone()),
        ("--device", request.device.clone()),
        ("--pool", request.pool.clone()),
        ("--network", request.network.clone()),
        ("--first-id", request.first_id.map(|id| id.to_string())),
    ];
    for (option, value) in options {
        if let Some(value) = value {
            command.arg(option).arg(value);
        }
    }
    // Its refusals are written as ours are, so they pass as they are.
    // Not `output`, which would keep them.
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn();
    let output = match child {
        Ok(child) => child.wait_with_output().await,
        Err(error) => Err(error),
    };
    let output = output.map_err(|error| {
        let message = format!(
            "no daemon answers, and `{}` cannot be run: {error}",
            daemon().display()
        );
        ApiError::new(ErrorCode::Unreachable, message)
            .with_hint("install it beside `vessel`, or in a folder of PATH")
    })?;
    if !output.status.success() {
        let code = output
            .status
            .code()
            .and_then(|code| u8::try_from(code).ok());
        return Err(Stop::Said(code.unwrap_or(1)));
    }
    match serde_json::from_slice::<InitReply>(&output.stdout) {
        Ok(reply) => {
            write(context, &reply)?;
            let root = context.root.display();
            context
                .out
                .note(&format!("start its daemon next: `vesseld --root {root}`"));
            Ok(())
        }
        Err(_) => context.out.raw(&output.stdout),
    }
}

fn write(context: &Context, reply: &InitReply) -> Outcome {
    if context.out.json {
        return context.out.json(reply);
    }
    if context.out.quiet {
        return Ok(());
    }
    let what = if reply.changed {
        "prepared"
    } else {
        "was prepared already"
    };
    let node = &reply.node;
    context.out.line(&format!(
        "node in {} {what}: network {}",
        node.root,
        node.networks.join(", ")
    ))
}

fn absolute(path: &Path) -> Result<String, ApiError> {
    let absolute = std::path::absolute(path)
        .map_err(|error| failed(format!("`{}`: {error}", path.display())))?;
    absolute
        .into_os_string()
        .into_string()
        .map_err(|path| failed(format!("`{}` is not UTF-8", path.display())))
}
