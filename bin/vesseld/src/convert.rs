//! Between the engine's words and the wire's.

use std::collections::BTreeMap;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use api::latest::{
    ApiError, ErrorCode, Event, Limits, Operation, OperationState, Progress, Subject, SubjectKind,
    Usage, Ve, VeDetails, VeState,
};
use api::time::Timestamp;
use engine::{Failure, FailureKind, Fault, Ticket};
use registry::VeRecord;
use ve::{Autostart, Bits, Bytes, Cores, Seconds, State, VeId};

pub(crate) fn api_error(failure: Failure) -> ApiError {
    let code = match failure.kind {
        FailureKind::Failed | FailureKind::Cancelled => ErrorCode::Failed,
        FailureKind::Usage => ErrorCode::Usage,
        FailureKind::NotFound => ErrorCode::NotFound,
        FailureKind::Conflict => ErrorCode::Conflict,
        FailureKind::State => ErrorCode::WrongState,
        FailureKind::Resources => ErrorCode::NoResources,
        FailureKind::Permission => ErrorCode::Permission,
    };
    let error = ApiError::new(code, failure.message);
    match failure.hint {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

pub(crate) fn api_fault(fault: Fault) -> ApiError {
    api_error(fault.into())
}

pub(crate) fn timestamp(seconds: u64) -> Timestamp {
    Timestamp::from(UNIX_EPOCH + Duration::from_secs(seconds))
}

pub(crate) fn now() -> Timestamp {
    Timestamp::from(SystemTime::now())
}

pub(crate) fn state(state: State) -> VeState {
    VeState::from_word(state.as_str()).unwrap_or(VeState::Broken)
}

pub(crate) fn limits(limits: &ve::Limits) -> Limits {
    let growth = &limits.memory_growth;
    Limits {
        cpu_guarantee: limits.cpu_guarantee.map(cores),
        cpu_limit: limits.cpu.map(cores),
        cpu_burst: limits.cpu_burst.map(cores),
        cpu_share: limits.cpu_share,
        cpu_set: limits.cpu_set.as_ref().map(ToString::to_string),
        memory_guarantee: limits.memory_guarantee.map(Bytes::get),
        memory_limit: limits.memory.map(Bytes::get),
        memory_burst: limits.memory_burst.map(Bytes::get),
        memory_grow_ceiling: growth.ceiling.map(Bytes::get),
        memory_grow_step: growth.step.map(Bytes::get),
        memory_grow_threshold: growth.threshold.map(|part| u32::from(part.get())),
        memory_grow_cooldown: growth.cooldown.map(Seconds::get),
        memory_grow_give_back: growth.give_back.map(Seconds::get),
        memory_swap: limits.memory_swap.map(Bytes::get),
        processes_limit: limits.processes.map(u64::from),
        files_limit: limits.files.map(u64::from),
        disk_guarantee: limits.disk_guarantee.map(Bytes::get),
        disk_limit: limits.disk.map(Bytes::get),
        io_share: limits.io_share,
        io_read_limit: limits.io_read.map(Bytes::get),
        io_write_limit: limits.io_write.map(Bytes::get),
        io_read_ops: limits.io_read_operations.map(|rate| u64::from(rate.get())),
        io_write_ops: limits.io_write_operations.map(|rate| u64::from(rate.get())),
        network_guarantee: limits.network_guarantee.map(Bits::get),
        network_limit: limits.network.map(Bits::get),
        network_burst: limits.network_burst.map(Bits::get),
    }
}

/// Processors, as the wire counts them.
pub(crate) fn cores(cores: Cores) -> f64 {
    f64::from(cores.thousandths()) / 1_000.0
}

pub(crate) fn ve(record: &VeRecord) -> Ve {
    let spec = &record.spec;
    Ve {
        id: spec.id.get(),
        name: spec.name.to_string(),
        state: state(record.state),
        template: spec.template.to_string(),
        revision: spec.revision.get(),
        applications: spec.applications.keys().map(ToString::to_string).collect(),
        addresses: spec.addresses.iter().map(ToString::to_string).collect(),
        labels: spec.labels.clone(),
        created: timestamp(spec.created),
        limits: limits(&spec.limits),
    }
}

/// What was chosen of what applications offer, as it is written for a new VE.
fn options(spec: &ve::Spec) -> BTreeMap<String, String> {
    let all = spec.applications.iter().flat_map(|(application, options)| {
        let key = move |(name, value): (&String, &String)| {
            (format!("{application}.{name}"), value.clone())
        };
        options.iter().map(key)
    });
    all.collect()
}

pub(crate) fn details(
    record: &VeRecord,
    started: Option<Timestamp>,
    usage: Option<Usage>,
) -> VeDetails {
    let Ve {
        id,
        name,
        state,
        template,
        revision,
        applications,
        addresses,
        labels,
        created,
        limits,
    } = ve(record);
    let spec = &record.spec;
    VeDetails {
        id,
        name,
        state,
        reason: record.fault.clone(),
        template,
        revision,
        applications,
        addresses,
        labels,
        created,
        started,
        limits,
        hostname: spec.hostname.clone(),
        dns: spec.dns.iter().map(ToString::to_string).collect(),
        autostart: match spec.autostart {
            Autostart::Off => None,
            Autostart::Order(order) => Some(order),
        },
        protected: spec.protected,
        nesting: spec.nesting,
        memory_merge: spec.memory_merge,
        owner: spec.owner.clone(),
        description: spec.description.clone(),
        pid: record.run.as_ref().map(|run| run.pid),
        uid_base: spec.id.uid_base().get(),
        interface: spec.id.interface_name(),
        memory_given_bytes: spec.limits.memory_growth.given.map(Bytes::get),
        usage,
        options: options(spec),
        pending: Vec::new(),
    }
}

pub(crate) fn operation(operation: registry::Operation, ticket: Option<&Ticket>) -> Operation {
    let state = match (operation.state, ticket) {
        (registry::OperationState::Done, _) => OperationState::Done,
        (registry::OperationState::Failed, _) => OperationState::Failed,
        (registry::OperationState::Cancelled, _) => OperationState::Cancelled,
        (_, Some(ticket)) if ticket.running => OperationState::Running,
        _ => OperationState::Queued,
    };
    let error = operation
        .error_code
        .as_deref()
        .zip(operation.message.as_deref());
    let progress = ticket.and_then(|ticket| ticket.progress.as_ref());
    Operation {
        id: operation.id.unsigned_abs(),
        kind: operation.kind,
        subjects: vec![subject(&operation.subject, operation.ve)],
        state,
        progress: Progress {
            fraction: progress
                .and_then(|progress| progress.fraction)
                .map(f64::from),
            message: progress
                .map(|progress| progress.message.clone())
                .unwrap_or_default(),
        },
        error: error.map(|(code, text)| api_error(Failure::from_journal(code, text))),
        created: timestamp(operation.created),
        ended: operation.ended.map(timestamp),
        cancellable: operation.ended.is_none(),
        update: None,
    }
}

pub(crate) fn event(event: registry::Event) -> Event {
    let mut subject = subject(&event.subject, event.ve);
    if subject.kind == SubjectKind::Template && event.kind.starts_with("alert-") {
        subject.kind = SubjectKind::Node;
    }
    Event {
        id: event.id.unsigned_abs(),
        time: timestamp(event.at),
        subject: Some(subject),
        kind: event.kind,
        operation: None,
        message: event.message.unwrap_or_default(),
    }
}

fn subject(name: &str, ve: Option<u32>) -> Subject {
    let kind = if ve.is_some() {
        SubjectKind::Ve
    } else {
        SubjectKind::Template
    };
    Subject {
        kind,
        name: name.to_owned(),
        id: ve,
    }
}

/// Names that the wire carries, which may be anything, to be found or refused by the engine.
pub(crate) fn reference(key: &server::node::VeKey) -> String {
    match key {
        server::node::VeKey::Id(id) => VeId::new(*id).map_or(id.to_string(), |id| id.to_string()),
        server::node::VeKey::Name(name) => name.clone(),
    }
}
