//! Configuration samples: documents of the registry, as the wire has them.
//!
//! What a sample says is checked when it is made, as far as that can be known without a VE; whether its template
//! and applications are there counts when a VE is created.

use api::latest::{ApiError, CreateRequest, ErrorCode, Sample};
use registry::{DocumentChange, Registry, RegistryError};
use server::Samples;
use server::node::Reply;
use ve::Name;

use super::{NodeDoor, ves};
use crate::daemon::Up;

/// Kinds of documents: samples by name, and that a node was given its first ones.
const SAMPLE: &str = "sample";
const FACT: &str = "sample-fact";
const DEFAULTS_KEY: &str = "defaults";

/// Most samples of a node.
const SAMPLES_MAX: usize = 1_000;

/// What a new node has: name, purpose, settings.
const DEFAULTS: [(&str, &str, &[&str]); 3] = [
    (
        "small",
        "a small server: half a processor, 512 MB",
        &[
            "cpu.limit=0.5",
            "memory.limit=512M",
            "disk.limit=4G",
            "processes.limit=300",
        ],
    ),
    (
        "medium",
        "a server: one processor, 2 GB",
        &[
            "cpu.limit=1",
            "memory.limit=2G",
            "disk.limit=20G",
            "processes.limit=1000",
        ],
    ),
    (
        "large",
        "a large server: two processors, 8 GB",
        &[
            "cpu.limit=2",
            "memory.limit=8G",
            "disk.limit=80G",
            "processes.limit=4000",
        ],
    ),
];

/// Gives a node its first samples. Those that are deleted later stay so.
pub(crate) fn prepare(registry: &Registry) -> Result<(), RegistryError> {
    if registry.document(FACT, DEFAULTS_KEY)?.is_some() {
        return Ok(());
    }
    let own = registry.documents(SAMPLE)?;
    let mut changes = vec![put(FACT, DEFAULTS_KEY, "1".to_owned())];
    for (name, description, settings) in DEFAULTS {
        let sample = Sample {
            name: name.to_owned(),
            description: description.to_owned(),
            settings: settings.iter().map(|text| (*text).to_owned()).collect(),
            ..Sample::default()
        };
        if own.iter().all(|(taken, _)| taken != name) {
            changes.push(put(SAMPLE, name, body(&sample)));
        }
    }
    registry.documents_change(&changes, &[], 0)
}

fn put(kind: &'static str, key: &str, body: String) -> DocumentChange {
    DocumentChange {
        kind,
        key: key.to_owned(),
        body: Some(body),
    }
}

fn body(sample: &Sample) -> String {
    serde_json::to_string(sample).unwrap_or_default()
}

impl Samples for NodeDoor {
    fn samples(&self) -> Reply<'_, Vec<Sample>> {
        Box::pin(self.with_up(|up| list(up)))
    }

    fn create_sample(&self, sample: Sample) -> Reply<'_, Sample> {
        Box::pin(self.with_up(move |up| create(up, sample)))
    }

    fn delete_sample(&self, name: String) -> Reply<'_, ()> {
        Box::pin(self.with_up(move |up| {
            find(up, &name)?;
            let change = DocumentChange {
                kind: SAMPLE,
                key: name,
                body: None,
            };
            write(up, &change)
        }))
    }
}

fn list(up: &Up) -> Result<Vec<Sample>, ApiError> {
    let documents = up
        .engine
        .registry()
        .documents(SAMPLE)
        .map_err(|e| failed(&e))?;
    let read = |(name, body): (String, String)| match serde_json::from_str(&body) {
        Ok(sample) => Some(sample),
        Err(error) => {
            tracing::warn!("the sample `{name}` cannot be read: {error}");
            None
        }
    };
    Ok(documents.into_iter().filter_map(read).collect())
}

fn find(up: &Up, name: &str) -> Result<Sample, ApiError> {
    let found = list(up)?.into_iter().find(|sample| sample.name == name);
    found.ok_or_else(|| {
        ApiError::new(ErrorCode::NotFound, format!("there is no sample `{name}`"))
            .with_hint("`vessel sample list` shows those of this node")
    })
}

fn create(up: &Up, sample: Sample) -> Result<Sample, ApiError> {
    let usage = |error: &dyn std::error::Error| ApiError::new(ErrorCode::Usage, error.to_string());
    Name::new(&sample.name).map_err(|error| usage(&error))?;
    if let Some(template) = &sample.template {
        ves::template(template)?;
    }
    ves::parse_settings(&sample.settings)?;
    ves::check_labels(&sample.labels)?;
    ves::applications(&sample.applications, &sample.options)?;
    let there = list(up)?;
    if there.iter().any(|other| other.name == sample.name) {
        let message = format!("there is a sample `{}` already", sample.name);
        return Err(ApiError::new(ErrorCode::Conflict, message)
            .with_hint("choose another name, or delete that one first"));
    }
    if there.len() >= SAMPLES_MAX {
        let message = format!("the node has {SAMPLES_MAX} samples already");
        return Err(ApiError::new(ErrorCode::NoResources, message)
            .with_hint("delete those that nobody needs"));
    }
    write(up, &put(SAMPLE, &sample.name, body(&sample)))?;
    Ok(sample)
}

fn write(up: &Up, change: &DocumentChange) -> Result<(), ApiError> {
    let changes = std::slice::from_ref(change);
    let changed = up.engine.registry().documents_change(changes, &[], 0);
    changed.map_err(|error| failed(&error))
}

fn failed(error: &(dyn std::error::Error + 'static)) -> ApiError {
    ApiError::new(ErrorCode::Failed, engine::Fault::from_error(error).message).with_hint(
        "see that the disk of the node's root has room and is healthy; nothing was changed",
    )
}

/// A request with what its sample says wherever the request itself says nothing.
pub(super) fn filled(up: &Up, request: CreateRequest) -> Result<CreateRequest, ApiError> {
    let sample = match &request.sample {
        Some(name) => find(up, name)?,
        None => Sample::default(),
    };
    let template = match (request.template.is_empty(), sample.template) {
        (false, _) => request.template,
        (true, Some(template)) => template,
        (true, None) => {
            let message = "a VE needs a template, and none was named";
            return Err(ApiError::new(ErrorCode::Usage, message).with_hint(
                "give `--template`, as `--template debian-12`, or a sample that names one",
            ));
        }
    };
    let mut applications = sample.applications;
    applications.extend(request.applications);
    let mut labels = sample.labels;
    labels.extend(request.labels);
    Ok(CreateRequest {
        template,
        applications,
        // Of settings and options that are given twice, the later wins.
        options: [sample.options, request.options].concat(),
        settings: later_wins(sample.settings, request.settings),
        labels,
        sample: None,
        ..request
    })
}

/// The settings of a sample but for those that are given anew, and those.
fn later_wins(sample: Vec<String>, given: Vec<String>) -> Vec<String> {
    let key = |text: &str| text.split('=').next().unwrap_or_default().trim().to_owned();
    let anew: Vec<_> = given.iter().map(|text| key(text)).collect();
    let kept = sample.into_iter().filter(|text| !anew.contains(&key(text)));
    kept.chain(given).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn what_is_given_wins_over_the_sample() {
        let sample = texts(&["memory.limit=512M", "cpu.limit=0.5"]);
        let settings = later_wins(sample, texts(&["memory.limit=1G"]));
        assert_eq!(settings, texts(&["cpu.limit=0.5", "memory.limit=1G"]));
    }

    #[test]
    fn the_samples_of_a_new_node_can_be_used_and_stay_deleted() {
        for (name, _, settings) in DEFAULTS {
            Name::new(name).unwrap();
            ves::parse_settings(&texts(settings)).unwrap();
        }
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::open(&folder.path().join("registry.db")).unwrap();
        prepare(&registry).unwrap();
        assert_eq!(registry.documents(SAMPLE).unwrap().len(), DEFAULTS.len());
        let gone = DocumentChange {
            kind: SAMPLE,
            key: "small".to_owned(),
            body: None,
        };
        registry.documents_change(&[gone], &[], 0).unwrap();
        prepare(&registry).unwrap();
        assert_eq!(
            registry.documents(SAMPLE).unwrap().len(),
            DEFAULTS.len() - 1
        );
    }
}
