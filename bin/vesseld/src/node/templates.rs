//! Requests about templates.

use std::path::Path;
use std::sync::Arc;

use api::latest::{
    ApiError, ApplicationSetting, BuildRequest, ErrorCode, ImportRequest, Operation, Package,
    Template, TemplateDetails, TemplateKind,
};
use engine::{BuildWork, Request, StackBuild, TemplateRequest};
use registry::VeRecord;
use server::node::Peer;
use template::manifest::Source;
use template::{Manifest, Recipe};
use ve::{Name, Revision, Stack, StackReference};

use super::status;
use crate::convert::{api_error, api_fault, timestamp};
use crate::daemon::Up;

pub(super) fn list(up: &Arc<Up>) -> Result<Vec<Template>, ApiError> {
    let records = up.engine.list().map_err(api_error)?;
    let listing = up.host.catalogue.list().map_err(|error| failed(&error))?;
    for (name, error) in &listing.broken {
        tracing::warn!("template `{name}`: {error}");
    }
    Ok(listing
        .templates
        .iter()
        .map(|manifest| brief(manifest, &records))
        .collect())
}

pub(super) fn show(up: &Arc<Up>, name: &str, packages: bool) -> Result<TemplateDetails, ApiError> {
    let name = resolve(up, name)?;
    let manifest = up
        .host
        .catalogue
        .get(&name)
        .map_err(|error| failed(&error))?;
    let records = up.engine.list().map_err(api_error)?;
    let Template {
        name,
        revision,
        kind,
        distribution,
        version,
        architecture,
        size_bytes,
        unique_bytes,
        ves,
        created,
        on,
        applications,
    } = brief(&manifest, &records);
    let list = &manifest.packages.list;
    let packages = if packages { list.as_slice() } else { &[] };
    Ok(TemplateDetails {
        name,
        revision,
        kind,
        distribution,
        version,
        architecture,
        size_bytes,
        unique_bytes,
        ves,
        created,
        description: manifest
            .distribution
            .pretty_name
            .clone()
            .unwrap_or_default(),
        source: source(&manifest.source),
        updated_from: manifest.update.map(|update| update.from),
        files: manifest.sizes.inodes,
        digest: format!("sha256:{}", manifest.image.sha256),
        on,
        applications,
        settings: settings(&manifest.source),
        packages_count: u32::try_from(list.len()).ok(),
        packages: packages
            .iter()
            .map(|package| Package {
                name: package.name.clone(),
                version: package.version.clone(),
                architecture: String::new(),
            })
            .collect(),
    })
}

pub(super) fn build(up: &Arc<Up>, request: BuildRequest) -> Result<Operation, ApiError> {
    if let Some(on) = request.on.clone() {
        return build_application(up, request, &on);
    }
    if request.recipe_text.is_some() {
        return Err(ApiError::new(
            ErrorCode::Usage,
            "a recipe is for an application, which needs a template below it",
        )
        .with_hint("name the template with `--on`, as `--on debian-12`"));
    }
    let name = parse_name(request.name.as_deref().unwrap_or(&request.recipe))?;
    let (packages, mirror) = (request.packages, request.mirror);
    submit(
        up,
        TemplateRequest::Build {
            name,
            suite: request.recipe,
            packages,
            mirror,
        },
    )
}

fn build_application(up: &Arc<Up>, request: BuildRequest, on: &str) -> Result<Operation, ApiError> {
    let on = resolve(up, on)?;
    let called = request.name.as_deref().unwrap_or(&request.recipe);
    let name = parse_name(called)?;
    if on.applications().len() > 0 {
        let below = on.template();
        let message = format!("`{on}` is no template of an operating system");
        return Err(ApiError::new(ErrorCode::Usage, message).with_hint(format!(
            "build it on `{below}`: a VE may have several applications, `--application {name}` for each"
        )));
    }
    let recipe = recipe(up, &name, &request)?;
    let stack = Stack::new(on.template().clone(), on.revision(), [name])
        .map_err(|error| ApiError::new(ErrorCode::Usage, error.to_string()))?;
    submit(
        up,
        TemplateRequest::Application(StackBuild {
            stack,
            work: BuildWork::Application {
                recipe: Some(recipe),
            },
            mirror: request.mirror,
        }),
    )
}

/// The text of the recipe that is asked for: the one given, or that of the node by its name, or one of packages alone.
fn recipe(up: &Arc<Up>, name: &Name, request: &BuildRequest) -> Result<String, ApiError> {
    let usage = |error: &(dyn std::error::Error + 'static)| {
        let message = engine::Fault::from_error(error).message;
        ApiError::new(ErrorCode::Usage, message)
    };
    let mut recipe = match &request.recipe_text {
        Some(text) => Recipe::parse(text).map_err(|error| usage(&error))?,
        None if !request.packages.is_empty() => Recipe::of_packages(name, Vec::new()),
        None => {
            let named = parse_name(&request.recipe)?;
            let found = crate::stacks::find_recipe(&up.host, &named).map_err(api_fault)?;
            let text = found.ok_or_else(|| {
                let message = format!("the node has no recipe `{named}`");
                ApiError::new(ErrorCode::NotFound, message)
                    .with_hint("give packages with `--package`, or a file with `--recipe`")
            })?;
            Recipe::parse(&text).map_err(|error| usage(&error))?
        }
    };
    recipe.name = name.to_string();
    recipe.packages.extend(request.packages.iter().cloned());
    recipe
        .packages_on
        .values_mut()
        .for_each(|packages| packages.extend(request.packages.iter().cloned()));
    let text = recipe.text().map_err(|error| usage(&error))?;
    // What was added is checked as everything else is.
    Recipe::parse(&text).map_err(|error| usage(&error))?;
    Ok(text)
}

pub(super) fn import(
    up: &Arc<Up>,
    peer: Peer,
    request: &ImportRequest,
) -> Result<Operation, ApiError> {
    let name = parse_name(&request.name)?;
    let source = seen_from_here(peer, &request.source);
    if let Err(error) = template::ImportSource::detect(&source) {
        return Err(
            ApiError::new(ErrorCode::NotFound, error.to_string()).with_hint(
                "give a tar archive, a folder, an LXC image, or oci:PATH for an OCI layout",
            ),
        );
    }
    submit(up, TemplateRequest::Import { name, source })
}

pub(super) fn remove(up: &Arc<Up>, name: &str) -> Result<Operation, ApiError> {
    submit(
        up,
        TemplateRequest::Remove {
            name: parse_reference(name)?,
        },
    )
}

pub(super) fn verify(up: &Arc<Up>, name: &str) -> Result<Operation, ApiError> {
    submit(
        up,
        TemplateRequest::Verify {
            name: resolve(up, name)?,
        },
    )
}

pub(super) fn submit(up: &Arc<Up>, request: TemplateRequest) -> Result<Operation, ApiError> {
    let submitted = up
        .engine
        .submit(Request::Template(request))
        .map_err(api_error)?;
    status::operation_of(up, submitted.operation)
}

/// A path of the caller's as the daemon can open it. The daemon has a mount namespace of its own,
/// which knows nothing of file systems mounted since it began; the caller's root shows them.
fn seen_from_here(peer: Peer, source: &str) -> String {
    let (prefix, path) = source
        .strip_prefix("oci:")
        .map_or(("", source), |path| ("oci:", path));
    let here = path.split(':').next().unwrap_or(path);
    match peer.pid {
        Some(pid) if !Path::new(here).exists() => format!("{prefix}/proc/{pid}/root{path}"),
        _ => source.to_owned(),
    }
}

fn brief(manifest: &Manifest, records: &[VeRecord]) -> Template {
    // A VE of several applications is made from the template of each of them.
    let stack = manifest.name.parse::<Stack>().ok();
    let is_made_from = |whole: &Stack| stack.as_ref().is_some_and(|part| part.is_part_of(whole));
    let used = records.iter().filter(|r| is_made_from(&r.spec.stack()));
    let used = used.count();
    let (on, applications) = match &manifest.source {
        Source::Applications {
            template,
            applications,
            ..
        } => (
            Some(template.clone()),
            applications.iter().map(|a| a.name.clone()).collect(),
        ),
        _ => (None, Vec::new()),
    };
    Template {
        name: manifest.name.clone(),
        revision: stack
            .map_or(Revision::FIRST, |stack| stack.revision())
            .get(),
        kind: match manifest.source {
            Source::Packages { .. } => TemplateKind::Built,
            Source::Applications { .. } => TemplateKind::Application,
            _ => TemplateKind::Imported,
        },
        distribution: manifest.distribution.id.clone().unwrap_or_default(),
        version: manifest.distribution.version.clone().unwrap_or_default(),
        architecture: manifest.architecture.clone(),
        size_bytes: manifest.sizes.content_bytes,
        unique_bytes: manifest.sizes.new_bytes,
        ves: u32::try_from(used).unwrap_or(u32::MAX),
        created: timestamp(manifest.created_unix_seconds),
        on,
        applications,
    }
}

/// What the applications of a template offer.
fn settings(source: &Source) -> Vec<ApplicationSetting> {
    let Source::Applications { applications, .. } = source else {
        return Vec::new();
    };
    let offered = applications.iter().flat_map(|application| {
        let settings = application.recipe.settings.iter();
        settings.map(|(setting, offered)| ApplicationSetting {
            key: format!("{}.{setting}", application.name),
            description: offered.description.clone(),
            default: offered.default.clone(),
            kind: offered.kind.to_string(),
            choices: offered.choices.clone(),
        })
    });
    offered.collect()
}

fn source(source: &Source) -> String {
    match source {
        Source::Applications {
            template,
            applications,
            ..
        } => {
            let names: Vec<_> = applications.iter().map(|a| a.name.as_str()).collect();
            format!("built of {} on {template}", names.join(", "))
        }
        Source::Packages {
            suite, packages, ..
        } if packages.is_empty() => {
            format!("built from the packages of {suite}")
        }
        Source::Packages {
            suite, packages, ..
        } => {
            format!(
                "built from the packages of {suite}, with {}",
                packages.join(", ")
            )
        }
        Source::Tar { path } => format!("imported from the archive {path}"),
        Source::Directory { path } => format!("imported from the folder {path}"),
        Source::Oci { path, .. } => format!("imported from the OCI layout {path}"),
        Source::Lxc { path, .. } => format!("imported from the LXC image {path}"),
    }
}

fn parse_name(name: &str) -> Result<Name, ApiError> {
    Name::new(name).map_err(|error| {
        ApiError::new(ErrorCode::Usage, error.to_string())
            .with_hint("give a name that is a DNS label with `--name`")
    })
}

pub(super) fn parse_reference(name: &str) -> Result<StackReference, ApiError> {
    name.parse::<StackReference>().map_err(|error| {
        ApiError::new(ErrorCode::Usage, error.to_string()).with_hint(
            "write TEMPLATE, TEMPLATE@REVISION or TEMPLATE+APPLICATION, as `vessel template list` does",
        )
    })
}

/// The template that a person means: without a revision the newest that there is.
pub(super) fn resolve(up: &Up, name: &str) -> Result<Stack, ApiError> {
    let reference = parse_reference(name)?;
    let all = up.host.catalogue.names().map_err(|error| failed(&error))?;
    let meant = all.into_iter().filter(|stack| reference.names(stack));
    meant.max_by_key(Stack::revision).ok_or_else(|| {
        let message = format!("there is no template `{reference}`");
        ApiError::new(ErrorCode::NotFound, message)
            .with_hint("`vessel template list` shows those of this node")
    })
}

fn failed(error: &(dyn std::error::Error + 'static)) -> ApiError {
    ApiError::new(ErrorCode::Failed, engine::Fault::from_error(error).message)
}
