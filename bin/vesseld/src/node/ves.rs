//! Requests about VEs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::latest::{
    ApiError, ApplicationsRequest, CreateRequest, ErrorCode, Operation, SetOutcome, SetReply,
    SetRequest, SettingChange, Usage, Ve, VeDetails, VeState,
};
use engine::{Notice, Request, Support, VeRequest};
use policy::Action;
use registry::{FirstBoot, VeRecord};
use server::node::{VeFilter, VeKey};
use tokio::sync::broadcast::error::RecvError;
use ve::{Key, Name, Options, Setting, Spec, StackReference, State};

use super::NodeDoor;
use super::status;
use crate::convert::{self, api_error, api_fault};
use crate::daemon::Up;
use crate::limits;
use crate::passwords;

/// Longest label, key and value each.
const LABEL_LENGTH_MAX: usize = 128;

pub(super) fn list(up: &Arc<Up>, filter: &VeFilter) -> Result<Vec<Ve>, ApiError> {
    Ok(matching(up, filter)?.iter().map(convert::ve).collect())
}

/// The records that a filter selects, by number.
pub(super) fn matching(up: &Up, filter: &VeFilter) -> Result<Vec<VeRecord>, ApiError> {
    let mut records = up.engine.list().map_err(api_error)?;
    records.retain(|record| {
        let spec = &record.spec;
        let labels = filter.labels.iter().all(|(key, value)| {
            let found = spec.labels.get(key);
            found.is_some_and(|found| value.as_ref().is_none_or(|value| value == found))
        });
        let key = filter.keys.is_empty()
            || filter.keys.iter().any(|key| match key {
                VeKey::Id(id) => *id == spec.id.get(),
                VeKey::Name(name) => name == spec.name.as_str(),
            });
        let state =
            filter.states.is_empty() || filter.states.contains(&convert::state(record.state));
        labels && key && state
    });
    Ok(records)
}

pub(super) fn find(up: &Up, key: &VeKey) -> Result<VeRecord, ApiError> {
    up.engine.find(&convert::reference(key)).map_err(api_error)
}

/// Whether something may be done in a VE, as it is now.
pub(super) fn permit(record: &VeRecord, action: Action) -> Result<(), ApiError> {
    policy::permit(action, record.state, false).map_err(|denied| {
        let failure = engine::Failure::from(denied);
        let message = format!("VE `{}`: {}", record.spec.name, failure.message);
        api_error(engine::Failure { message, ..failure })
    })
}

pub(super) fn create(up: &Arc<Up>, request: CreateRequest) -> Result<Operation, ApiError> {
    let request = super::samples::filled(up, request)?;
    let name = Name::new(&request.name)
        .map_err(|error| usage(&error).with_hint("a name is a DNS label, as `web-1`"))?;
    let template = template(&request.template)?;
    let applications = applications(&request.applications, &request.options)?;
    let settings = parse_settings(&request.settings)?;
    check_labels(&request.labels)?;
    let root_password_hash = request
        .root_password
        .as_deref()
        .map(passwords::hash)
        .transpose()?;
    let first_boot = FirstBoot {
        root_password_hash,
        ssh_keys: ssh_keys(request.ssh_keys)?,
    };
    let labels = request.labels;
    let request = engine::CreateRequest {
        name,
        template: template.template().clone(),
        revision: template.revision(),
        applications,
        settings,
        labels,
        first_boot,
    };
    let submitted = up
        .engine
        .submit(Request::Create(request))
        .map_err(api_error)?;
    status::operation_of(up, submitted.operation)
}

/// The template of a VE as a person names it, without applications: those are named beside it.
pub(super) fn template(text: &str) -> Result<StackReference, ApiError> {
    let template = super::templates::parse_reference(text)?;
    let application = template.applications().next().cloned();
    match application {
        None => Ok(template),
        Some(application) => {
            let message = format!("`{text}` names applications, too");
            Err(ApiError::new(ErrorCode::Usage, message)
                .with_hint(format!("give them by `--application {application}`")))
        }
    }
}

pub(super) fn change_applications(
    up: &Arc<Up>,
    ve: &VeKey,
    request: &ApplicationsRequest,
) -> Result<Operation, ApiError> {
    let add = applications(&request.add, &request.options)?;
    let remove = request.remove.iter().map(|name| Name::new(name));
    let remove = remove
        .collect::<Result<_, _>>()
        .map_err(|error| usage(&error))?;
    submit(up, ve, VeRequest::Applications { add, remove })
}

/// Applications by name, with what is chosen of what each offers.
pub(super) fn applications(
    names: &[String],
    options: &[String],
) -> Result<BTreeMap<Name, Options>, ApiError> {
    let mut applications = BTreeMap::new();
    for name in names {
        let name = Name::new(name).map_err(|error| usage(&error))?;
        applications.insert(name, Options::new());
    }
    for text in options {
        let parts = text.split_once('=');
        let parts = parts.and_then(|(key, value)| Some((key.split_once('.')?, value)));
        let Some(((application, setting), value)) = parts else {
            let message = format!("`{text}` is no setting of an application");
            return Err(ApiError::new(ErrorCode::Usage, message)
                .with_hint("write APPLICATION.SETTING=VALUE, as `redis.maxmemory=64mb`"));
        };
        let name = Name::new(application).map_err(|error| usage(&error))?;
        let Some(chosen) = applications.get_mut(&name) else {
            let message = format!("`{text}`: the VE gets no application `{application}`");
            return Err(ApiError::new(ErrorCode::Usage, message)
                .with_hint(format!("add `--application {application}`")));
        };
        chosen.insert(setting.to_owned(), value.to_owned());
    }
    Ok(applications)
}

pub(super) fn submit(up: &Arc<Up>, ve: &VeKey, request: VeRequest) -> Result<Operation, ApiError> {
    let reference = convert::reference(ve);
    let submitted = up
        .engine
        .submit(Request::Ve { reference, request })
        .map_err(api_error)?;
    status::operation_of(up, submitted.operation)
}

pub(super) fn show(up: &Arc<Up>, ve: &VeKey) -> Result<VeDetails, ApiError> {
    let record = find(up, ve)?;
    details(up, &record)
}

fn details(up: &Up, record: &VeRecord) -> Result<VeDetails, ApiError> {
    let id = record.spec.id;
    let disk_bytes = up
        .host
        .pool
        .private_usage(id)
        .map_err(|error| api_fault(crate::mechanisms::pool_fault(&error)))?;
    let running = record
        .run
        .as_ref()
        .and_then(|_| up.host.groups.ve(id).usage().ok());
    let usage = running.map_or(
        Usage {
            disk_bytes,
            ..Usage::default()
        },
        |running| Usage {
            cpu_seconds: seconds(running.cpu_microseconds),
            memory_bytes: running.memory_bytes,
            processes: running.processes,
            disk_bytes,
        },
    );
    let started = record.run.as_ref().and_then(super::statistics::started);
    Ok(convert::details(record, started, Some(usage)))
}

/// Microseconds as seconds.
#[expect(
    clippy::cast_precision_loss,
    reason = "2^53 microseconds are 285 years"
)]
pub(super) fn seconds(microseconds: u64) -> f64 {
    microseconds as f64 / 1e6
}

pub(super) async fn wait(
    door: &NodeDoor,
    ve: VeKey,
    state: VeState,
    timeout: Duration,
) -> Result<VeDetails, ApiError> {
    let mut notices = door.0.notices.subscribe();
    let until = tokio::time::Instant::now() + timeout;
    loop {
        let key = ve.clone();
        let record = door.with_up(move |up| find(up, &key)).await?;
        let shown = convert::state(record.state);
        let hopeless = state == VeState::Running
            && matches!(
                record.state,
                State::Stopped | State::Broken | State::Stopping
            );
        if shown == state || hopeless {
            return door.with_up(move |up| details(up, &record)).await;
        }
        let id = record.spec.id;
        let change = async {
            loop {
                match notices.recv().await {
                    Ok(Notice::Ve(changed)) if changed != id => {}
                    Ok(Notice::Ve(_)) | Err(RecvError::Lagged(_) | RecvError::Closed) => return,
                    Ok(_) => {}
                }
            }
        };
        if tokio::time::timeout_at(until, change).await.is_err() {
            return door.with_up(move |up| details(up, &record)).await;
        }
    }
}

pub(super) async fn set(
    door: &NodeDoor,
    ve: VeKey,
    request: SetRequest,
) -> Result<SetReply, ApiError> {
    let settings = parse_settings(&request.settings)?;
    check_labels(&request.labels)?;
    let mut labels: BTreeMap<String, Option<String>> = request
        .labels
        .into_iter()
        .map(|(key, value)| (key, Some(value)))
        .collect();
    labels.extend(request.labels_removed.into_iter().map(|key| (key, None)));

    let key = ve.clone();
    let before = door.with_up(move |up| find(up, &key)).await?;
    let keys: Vec<_> = settings.iter().map(Setting::key).collect();
    let change = VeRequest::Set { settings, labels };
    let operation = door.with_up(move |up| submit(up, &ve, change)).await?;
    let operation = status::wait_operation(door, operation.id, Duration::MAX).await?;
    if let Some(error) = operation.error {
        return Err(error);
    }
    let id = VeKey::Id(before.spec.id.get());
    let changes = door
        .with_up(move |up| {
            let after = find(up, &id)?;
            let change = |key| {
                let change = change_of(key, &before, &after.spec);
                let waits = change.because.is_some();
                // Merging waits for the start, and then for the machine.
                let note = if waits && key != Key::MemoryMerge {
                    None
                } else {
                    note_of(up, key, &after.spec)
                };
                SettingChange { note, ..change }
            };
            Ok(keys.into_iter().map(change).collect())
        })
        .await?;
    Ok(SetReply { operation, changes })
}

/// What became of one key, as its administrator should know it.
fn change_of(key: Key, before: &VeRecord, after: &Spec) -> SettingChange {
    let lives = before.run.is_some() || before.state == State::Checkpointed;
    let waits = match key {
        Key::Hostname | Key::Dns | Key::Nesting | Key::MemoryMerge => lives,
        Key::FilesLimit => lives && !limits::may_limit_processes(),
        _ => false,
    };
    let outcome = match key.value_in(&before.spec) == key.value_in(after) {
        true => SetOutcome::Unchanged,
        false if waits => SetOutcome::PendingRestart,
        false => SetOutcome::Applied,
    };
    let because = (outcome == SetOutcome::PendingRestart).then(|| because(key).to_owned());
    let value = key.value_in(after).unwrap_or_else(|| "none".to_owned());
    SettingChange {
        key: key.to_string(),
        value,
        outcome,
        because,
        note: None,
    }
}

/// Why a key waits for the next start.
fn because(key: Key) -> &'static str {
    match key {
        Key::FilesLimit => "without `CAP_SYS_RESOURCE` the daemon cannot change processes that run",
        _ => "it is given to the VE's init at its start",
    }
}

/// What this host does instead of what a key asks for, where it cannot do it wholly.
fn note_of(up: &Up, key: Key, spec: &Spec) -> Option<String> {
    if key == Key::MemoryMerge && !spec.memory_merge {
        return None;
    }
    match up.host.support(key) {
        Support::Partly(note) if key.value_in(spec).is_some() => Some(note),
        _ => None,
    }
}

pub(super) fn parse_settings(texts: &[String]) -> Result<Vec<Setting>, ApiError> {
    // `KEY=` takes a setting back to what it is without one.
    let texts: Vec<_> = texts
        .iter()
        .map(|text| match text.strip_suffix('=') {
            Some("address") => "address=auto".to_owned(),
            Some(key @ ("autostart" | "protected" | "nesting" | "memory.merge")) => {
                format!("{key}=no")
            }
            Some(key) => format!("{key}=none"),
            None => text.clone(),
        })
        .collect();
    Setting::parse_all(&texts).map_err(|error| {
        usage(&error).with_hint("`vessel set --help` lists the keys and their units")
    })
}

pub(super) fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), ApiError> {
    for (key, value) in labels {
        let plain = |text: &str| text.chars().all(|c| !c.is_control() && c != '=');
        if key.is_empty()
            || key.len().max(value.len()) > LABEL_LENGTH_MAX
            || !plain(key)
            || value.chars().any(char::is_control)
        {
            let message = format!("`{key}={value}` is not a label");
            return Err(ApiError::new(ErrorCode::Usage, message).with_hint(format!(
                "write KEY=VALUE, each at most {LABEL_LENGTH_MAX} characters and on one line"
            )));
        }
    }
    Ok(())
}

/// Keys as `authorized_keys` takes them (sshd(8)): one line each, comments and blanks left out.
fn ssh_keys(texts: Vec<String>) -> Result<Vec<String>, ApiError> {
    let mut keys = Vec::new();
    for text in texts {
        for line in text
            .lines()
            .map(str::trim)
            .filter(|l| !l.is_empty() && !l.starts_with('#'))
        {
            let known = ["ssh-", "ecdsa-", "sk-ssh-", "sk-ecdsa-"];
            if !line
                .split_whitespace()
                .any(|w| known.iter().any(|known| w.starts_with(known)))
            {
                let shown: String = line.chars().take(40).collect();
                let message = format!("`{shown}` is not an SSH public key");
                return Err(ApiError::new(ErrorCode::Usage, message)
                    .with_hint("give the `.pub` file of a key, as ~/.ssh/id_ed25519.pub"));
            }
            keys.push(line.to_owned());
        }
    }
    Ok(keys)
}

fn usage(error: &(dyn std::error::Error + 'static)) -> ApiError {
    ApiError::new(ErrorCode::Usage, engine::Fault::from_error(error).message)
}
