//! Requests about templates.

use std::path::Path;
use std::sync::Arc;

use api::latest::{
    ApiError, BuildRequest, ErrorCode, ImportRequest, Operation, Package, Template,
    TemplateDetails, TemplateKind,
};
use engine::{Request, TemplateRequest};
use registry::VeRecord;
use server::node::Peer;
use template::Manifest;
use template::manifest::Source;
use ve::Name;

use super::status;
use crate::convert::{api_error, timestamp};
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
    let name = parse_name(name)?;
    if !up.host.catalogue.contains(&name) {
        return Err(ApiError::new(
            ErrorCode::NotFound,
            format!("there is no template `{name}`"),
        )
        .with_hint("`vessel template list` shows those of this node"));
    }
    let manifest = up
        .host
        .catalogue
        .get(&name)
        .map_err(|error| failed(&error))?;
    let records = up.engine.list().map_err(api_error)?;
    let Template {
        name,
        kind,
        distribution,
        version,
        architecture,
        size_bytes,
        unique_bytes,
        ves,
        created,
    } = brief(&manifest, &records);
    let list = &manifest.packages.list;
    let packages = if packages { list.as_slice() } else { &[] };
    Ok(TemplateDetails {
        name,
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
        files: manifest.sizes.inodes,
        digest: format!("sha256:{}", manifest.image.sha256),
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
            name: parse_name(name)?,
        },
    )
}

pub(super) fn verify(up: &Arc<Up>, name: &str) -> Result<Operation, ApiError> {
    submit(
        up,
        TemplateRequest::Verify {
            name: parse_name(name)?,
        },
    )
}

fn submit(up: &Arc<Up>, request: TemplateRequest) -> Result<Operation, ApiError> {
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
    let used = records
        .iter()
        .filter(|r| r.spec.template.as_str() == manifest.name)
        .count();
    Template {
        name: manifest.name.clone(),
        kind: match manifest.source {
            Source::Packages { .. } => TemplateKind::Built,
            _ => TemplateKind::Imported,
        },
        distribution: manifest.distribution.id.clone().unwrap_or_default(),
        version: manifest.distribution.version.clone().unwrap_or_default(),
        architecture: manifest.architecture.clone(),
        size_bytes: manifest.sizes.content_bytes,
        unique_bytes: manifest.sizes.new_bytes,
        ves: u32::try_from(used).unwrap_or(u32::MAX),
        created: timestamp(manifest.created_unix_seconds),
    }
}

fn source(source: &Source) -> String {
    match source {
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

fn failed(error: &(dyn std::error::Error + 'static)) -> ApiError {
    ApiError::new(ErrorCode::Failed, engine::Fault::from_error(error).message)
}
