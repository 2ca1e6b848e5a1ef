//! Whether a request can be granted at all, before anything is journalled or done.

use std::collections::BTreeSet;
use std::net::IpAddr;

use policy::Action;
use registry::{CreateConflict, NewOperation, Registry, VeRecord};
use ve::{Revision, Setting, Spec, State, VeId};

use crate::error::{Failure, FailureKind};
use crate::mechanisms::{Mechanisms, Support};
use crate::request::{CreateRequest, NodeFacts, StopManner, VeRequest};

/// The VE that a name or number refers to.
pub(crate) fn find(registry: &Registry, reference: &str) -> Result<VeRecord, Failure> {
    let record = match reference.parse::<VeId>() {
        Ok(id) => registry.ve(id)?,
        Err(_) => match ve::Name::new(reference) {
            Ok(name) => registry.ve_by_name(&name)?,
            Err(_) => None,
        },
    };
    record
        .filter(|record| !record.stage.is_hidden())
        .ok_or_else(|| Failure::no_such_ve(reference))
}

/// Whether the state of the VE allows the request.
pub(crate) fn permit(record: &VeRecord, request: &VeRequest) -> Result<(), Failure> {
    let action = match request {
        VeRequest::Start => Action::Start,
        VeRequest::Stop(StopManner::Kill) if record.state == State::Checkpointed => Action::Discard,
        VeRequest::Stop(_) => Action::Stop,
        VeRequest::Restart(_) => Action::Restart,
        VeRequest::Pause => Action::Pause,
        VeRequest::Suspend => Action::Suspend,
        VeRequest::Resume => Action::Resume,
        VeRequest::Compact => Action::Compact,
        VeRequest::Applications { .. } => Action::Applications,
        VeRequest::Update(_) => Action::Update,
        VeRequest::Delete { force } => Action::Delete { force: *force },
        VeRequest::Set { .. } | VeRequest::Grow { .. } => Action::Set,
    };
    policy::permit(action, record.state, record.spec.protected)
        .map_err(|denied| Failure::about(&record.spec.name, denied.into()))
}

/// Chooses number and addresses of a new VE.
pub(crate) fn specification(
    request: &CreateRequest,
    (revision, template_version): (Revision, &str),
    facts: &NodeFacts,
    now: u64,
    taken: (&BTreeSet<VeId>, &BTreeSet<IpAddr>),
) -> Result<(Spec, NewOperation), AdmissionError> {
    let (taken_ids, taken_addresses) = taken;
    let id = policy::first_free_id(facts.first_id, facts.last_id, taken_ids).ok_or_else(|| {
        Failure::new(
            FailureKind::Resources,
            format!(
                "every number from {} to {} has a VE",
                facts.first_id, facts.last_id
            ),
        )
        .with_hint("delete VEs that are not needed any more")
    })?;
    let mut spec = Spec {
        revision,
        applications: request.applications.clone(),
        template_version: template_version.to_owned(),
        labels: request.labels.clone(),
        ..Spec::new(id, request.name.clone(), request.template.clone(), now)
    };
    let given = request
        .settings
        .iter()
        .any(|setting| matches!(setting, Setting::Addresses(_)));
    if !given {
        spec.addresses = automatic_addresses(facts, taken_addresses)?;
    }
    for setting in &request.settings {
        spec.apply(setting);
    }
    policy::limits::consistent(&spec.limits)
        .map_err(|denied| Failure::about(&spec.name, denied.into()))?;
    policy::limits::grant(&spec.limits, &policy::InUse::default(), facts.machine)
        .map_err(|denied| Failure::about(&spec.name, denied.into()))?;
    let operation = NewOperation {
        kind: "create",
        ve: Some(id),
        subject: request.name.to_string(),
        request: format!("template {}", spec.stack()),
    };
    Ok((spec, operation))
}

/// One free address out of every range of the node.
pub(crate) fn automatic_addresses(
    facts: &NodeFacts,
    taken: &BTreeSet<IpAddr>,
) -> Result<Vec<IpAddr>, Failure> {
    let choose = |range: &ipnet::IpNet| {
        policy::first_free_address(*range, taken).ok_or_else(|| {
            Failure::new(
                FailureKind::Resources,
                format!("every address of {range} is taken"),
            )
            .with_hint("delete VEs that are not needed, or give one with `address=ADDRESS`")
        })
    };
    facts.ranges.iter().map(choose).collect()
}

/// Whether the node can do what these settings ask for, and route to the addresses among them.
pub(crate) fn check_settings(
    mechanisms: &dyn Mechanisms,
    settings: &[Setting],
) -> Result<(), Failure> {
    for setting in settings {
        let key = setting.key();
        if setting.asks()
            && let Support::None(reason) = mechanisms.support(key)
        {
            let message = format!("{key}: this host cannot do it: {reason}");
            return Err(Failure::new(FailureKind::Resources, message)
                .with_hint("`vessel doctor` lists what this host cannot do; nothing was changed"));
        }
        if let Setting::Addresses(addresses) = setting {
            for address in addresses {
                mechanisms.address_check(*address)?;
            }
        }
    }
    Ok(())
}

/// A refusal of the engine's or a conflict that the registry found, in one transaction.
#[derive(Debug)]
pub(crate) struct AdmissionError(pub(crate) Failure);

impl From<Failure> for AdmissionError {
    fn from(failure: Failure) -> Self {
        Self(failure)
    }
}

impl From<CreateConflict> for AdmissionError {
    fn from(conflict: CreateConflict) -> Self {
        Self(conflict.into())
    }
}
