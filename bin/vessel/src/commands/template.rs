//! `vessel template`.

use std::io::Read as _;
use std::path::Path;

use api::latest::{
    ApiError, BuildRequest, ErrorCode, ImportRequest, Operation, Template, TemplateDetails,
};
use client::{Client, ClientError};

use super::life::finish;
use super::versions;
use crate::Context;
use crate::arguments::TemplateVerb;
use crate::bulk::{self, Chosen, Done};
use crate::follow;
use crate::human;
use crate::output::{Outcome, failed};
use crate::table::{Align, Table, pairs};

pub(crate) async fn run(context: &Context, verb: TemplateVerb) -> Outcome {
    match verb {
        TemplateVerb::Build {
            recipe,
            name,
            on,
            file,
            package,
            mirror,
            no_wait,
        } => {
            let title = format!("build {}", name.as_ref().unwrap_or(&recipe));
            let request = BuildRequest {
                recipe,
                on,
                recipe_text: file.as_deref().map(read_recipe).transpose()?,
                name,
                packages: package,
                mirror,
            };
            let begun = context.client.build_template(&request).await?;
            made(context, begun, &title, no_wait).await
        }
        TemplateVerb::Import {
            source,
            name,
            no_wait,
        } => {
            let title = format!("import {name}");
            let request = ImportRequest {
                source: absolute(&source)?,
                name,
            };
            let begun = context.client.import_template(&request).await?;
            made(context, begun, &title, no_wait).await
        }
        TemplateVerb::Update {
            name,
            mirror,
            no_wait,
        } => versions::update(context, &name, mirror, no_wait).await,
        TemplateVerb::Diff { from, to } => versions::difference(context, &from, &to).await,
        TemplateVerb::List => list(context).await,
        TemplateVerb::Show { name, packages } => show(context, &name, packages).await,
        TemplateVerb::Remove { names, no_wait } => {
            let ask =
                |client: Client, name: String| async move { client.remove_template(&name).await };
            let words = ["remove", "removing", "removed"];
            each(context, words, names, no_wait, ask).await
        }
        TemplateVerb::Verify { names, no_wait } => {
            let ask =
                |client: Client, name: String| async move { client.verify_template(&name).await };
            let words = ["verify", "verifying", "verified"];
            each(context, words, names, no_wait, ask).await
        }
    }
}

/// Longest recipe that is sent; the node has a bound of its own.
const RECIPE_BYTES_MAX: u64 = 1 << 20;

fn read_recipe(path: &Path) -> Result<String, ApiError> {
    let mut text = String::new();
    let file = std::fs::File::open(path);
    let read = file.and_then(|file| file.take(RECIPE_BYTES_MAX).read_to_string(&mut text));
    match read {
        Ok(_) => Ok(text),
        Err(error) => {
            let code = match error.kind() {
                std::io::ErrorKind::NotFound => ErrorCode::NotFound,
                _ => ErrorCode::Failed,
            };
            let message = format!("the recipe `{}` cannot be read: {error}", path.display());
            Err(ApiError::new(code, message))
        }
    }
}

/// A path as the daemon needs it, which has another working folder; a reference as it is.
fn absolute(source: &str) -> Result<String, ApiError> {
    if source.starts_with("oci:") {
        return Ok(source.to_owned());
    }
    let path = std::path::absolute(Path::new(source));
    let path = path.map_err(|error| failed(format!("`{source}`: {error}")))?;
    if let Err(error) = path.symlink_metadata() {
        let code = match error.kind() {
            std::io::ErrorKind::NotFound => ErrorCode::NotFound,
            _ => ErrorCode::Failed,
        };
        return Err(
            ApiError::new(code, format!("`{source}` cannot be imported: {error}"))
                .with_hint("give a file, a folder, or oci:REF"),
        );
    }
    path.into_os_string()
        .into_string()
        .map_err(|path| failed(format!("`{}` is not UTF-8", path.display())))
}

async fn made(context: &Context, begun: Operation, title: &str, no_wait: bool) -> Outcome {
    let ended = if no_wait {
        begun
    } else {
        let bar = follow::spinner(context.out, title);
        let ended = follow::operation(&context.client, begun, &bar).await;
        bar.finish_and_clear();
        ended?
    };
    if context.out.json {
        return context.out.json(&ended);
    }
    let name = ended
        .subjects
        .first()
        .map_or("", |subject| subject.name.as_str());
    if context.out.quiet {
        Ok(())
    } else {
        context.out.line(name)
    }
}

async fn each<F, W>(
    context: &Context,
    [title, doing, done]: [&'static str; 3],
    names: Vec<String>,
    no_wait: bool,
    ask: W,
) -> Outcome
where
    F: Future<Output = client::Result<Operation>> + Send + 'static,
    W: Fn(Client, String) -> F,
{
    let one = names.len() == 1;
    let chosen = Chosen { names, one };
    let line = |done: &Done| format!("{} {}", done.name, done.state);
    bulk::run(context, title, chosen, line, |name, bar| {
        let client = context.client.clone();
        let asked = ask(client.clone(), name.clone());
        async move {
            let begun = asked.await.map_err(ClientError::into_api_error)?;
            finish(&client, begun, &name, no_wait, [doing, done], &bar).await
        }
    })
    .await
}

async fn list(context: &Context) -> Outcome {
    let templates = context.client.templates().await?;
    if context.out.json {
        return context.out.json(&templates);
    }
    if context.out.quiet {
        return templates
            .iter()
            .try_for_each(|template| context.out.line(&name(template, &templates)));
    }
    let mut table = Table::new([
        ("NAME", Align::Left),
        ("SYSTEM", Align::Left),
        ("ARCH", Align::Left),
        ("SIZE", Align::Right),
        ("UNIQUE", Align::Right),
        ("VES", Align::Right),
        ("CREATED", Align::Left),
    ]);
    for template in &templates {
        table.row(cells(template, &templates));
    }
    for line in table.lines(true) {
        context.out.line(&line)?;
    }
    if templates.is_empty() {
        context
            .out
            .note("no template; `vessel template build debian-12` makes one");
    }
    Ok(())
}

/// What a template is called: a first revision by its number where there is a newer one, which the bare name means.
fn name(template: &Template, all: &[Template]) -> String {
    let (bare, applications) = match template.name.split_once('+') {
        Some((bare, applications)) => (bare, format!("+{applications}")),
        None => (template.name.as_str(), String::new()),
    };
    let prefix = format!("{bare}@");
    let newer = |other: &Template| {
        let behind = other.name.strip_prefix(&prefix);
        behind.is_some_and(|behind| behind.trim_start_matches(char::is_numeric) == applications)
    };
    match template.revision == 1 && all.iter().any(newer) {
        true => format!("{bare}@1{applications}"),
        false => template.name.clone(),
    }
}

fn cells(template: &Template, all: &[Template]) -> [String; 7] {
    [
        name(template, all),
        format!("{} {}", template.distribution, template.version)
            .trim()
            .to_owned(),
        template.architecture.clone(),
        human::bytes(template.size_bytes),
        human::bytes(template.unique_bytes),
        template.ves.to_string(),
        human::time(template.created),
    ]
}

async fn show(context: &Context, name: &str, packages: bool) -> Outcome {
    let template = context.client.template(name, packages).await?;
    if context.out.json {
        return context.out.json(&template);
    }
    for line in lines(&template) {
        context.out.line(&line)?;
    }
    if !template.settings.is_empty() {
        let mut table = Table::new([
            ("SETTING", Align::Left),
            ("KIND", Align::Left),
            ("DEFAULT", Align::Left),
            ("MEANING", Align::Left),
        ]);
        for setting in &template.settings {
            let kind = match setting.choices.is_empty() {
                true => setting.kind.clone(),
                false => setting.choices.join("|"),
            };
            let setting = setting.clone();
            table.row([setting.key, kind, setting.default, setting.description]);
        }
        context.out.line("")?;
        for line in table.lines(true) {
            context.out.line(&line)?;
        }
    }
    if packages {
        let mut table = Table::new([
            ("PACKAGE", Align::Left),
            ("VERSION", Align::Left),
            ("ARCH", Align::Left),
        ]);
        for package in &template.packages {
            let package = package.clone();
            table.row([package.name, package.version, package.architecture]);
        }
        context.out.line("")?;
        for line in table.lines(true) {
            context.out.line(&line)?;
        }
    }
    Ok(())
}

fn lines(template: &TemplateDetails) -> Vec<String> {
    let count = template.packages_count.map(|count| count.to_string());
    pairs(&[
        ("name", template.name.clone()),
        ("system", template.description.clone()),
        ("revision", template.revision.to_string()),
        ("distribution", template.distribution.clone()),
        ("version", template.version.clone()),
        ("architecture", template.architecture.clone()),
        ("made", template.kind.to_string()),
        ("from", template.source.clone()),
        (
            "updated from",
            template.updated_from.clone().unwrap_or_default(),
        ),
        ("created", human::time(template.created)),
        ("files", template.files.to_string()),
        ("size", human::bytes(template.size_bytes)),
        ("unique", human::bytes(template.unique_bytes)),
        ("on", template.on.clone().unwrap_or_default()),
        ("applications", template.applications.join(", ")),
        ("packages", count.unwrap_or_default()),
        ("ves", template.ves.to_string()),
        ("digest", template.digest.clone()),
    ])
}
