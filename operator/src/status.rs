//! What runs → what is reported. Pure. Texts say nothing that changes by itself, such as an age: a status that changes at
//! every look would cause the next one.

mod conditions;
mod numbers;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;

use crate::crd::{Endpoints, ImClusterStatus, VersionStatus};
use crate::events::{Note, Reason};
use crate::observe::Observed;
use crate::plan::{Children, Desired, Step};
use crate::validate::{Cluster, Invalid};

pub use conditions::Conditions;

/// Everything that a report is made from.
pub(crate) struct Facts<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) desired: &'a Desired,
    pub(crate) children: &'a Children,
    pub(crate) step: &'a Step,
    pub(crate) observed: &'a Observed,
    pub(crate) now: Timestamp,
}

impl Facts<'_> {
    /// Whether all of the newest spec runs.
    pub(crate) fn is_done(&self) -> bool {
        let is_applied = self.children.waiting.is_empty() && self.observed.foreign.is_empty();
        is_applied && self.children.logic_settled && self.children.job_settled && self.step.is_settled
    }
}

/// Whether it will be Ready by waiting alone.
pub fn is_spreading(status: &ImClusterStatus) -> bool {
    status.conditions.iter().any(|held| held.type_ == "Ready" && held.reason == conditions::SPREADING)
}

/// The report of a cluster, and what of it is news.
pub fn of(
    cluster: &Cluster,
    desired: &Desired,
    children: &Children,
    step: &Step,
    observed: &Observed,
    now: Timestamp,
) -> (ImClusterStatus, Vec<Note>) {
    let facts = Facts { cluster, desired, children, step, observed, now };
    let before = observed.cluster.status.clone().unwrap_or_default();
    let conditions = Conditions::of(&facts, &before.conditions);
    let notes = news(&before, &conditions.held);
    let is_done = facts.is_done();
    let current = before.version.as_ref().and_then(|version| version.current.clone());
    let target = Some(cluster.version.clone());
    let is_at_target = is_done && cluster.comet.rollout.partition == 0;
    let status = ImClusterStatus {
        observed_generation: observed.cluster.metadata.generation,
        version: Some(VersionStatus { current: if is_at_target { target.clone() } else { current }, target }),
        comet: Some(numbers::comet(&facts, before.comet.as_ref())),
        logic: Some(numbers::logic(&facts)),
        job: Some(numbers::job(&facts, before.job.as_ref())),
        rollout: step.rollout.clone(),
        endpoints: Some(endpoints(&facts)),
        conditions: conditions.held,
    };
    (status, notes)
}

/// The report of a spec that cannot be followed: what runs, runs on, and is reported as before.
pub fn of_invalid(observed: &Observed, invalid: &Invalid, now: Timestamp) -> (ImClusterStatus, Vec<Note>) {
    let before = observed.cluster.status.clone().unwrap_or_default();
    let conditions = Conditions::of_invalid(observed, invalid, &before.conditions, now);
    let notes = news(&before, &conditions.held);
    let observed_generation = observed.cluster.metadata.generation;
    (ImClusterStatus { observed_generation, rollout: None, conditions: conditions.held, ..before }, notes)
}

/// What the conditions say now that they did not say before.
fn news(before: &ImClusterStatus, now: &[Condition]) -> Vec<Note> {
    let mut notes = Vec::new();
    if before.observed_generation.is_none() {
        notes.push(Note::new(Reason::Created, "the objects of this cluster are made"));
    }
    let was = |kind: &str| before.conditions.iter().find(|condition| condition.type_ == kind);
    for condition in now {
        let is_new = was(&condition.type_)
            .is_none_or(|was| (&was.reason, &was.message) != (&condition.reason, &condition.message));
        let reason = match (condition.type_.as_str(), condition.status.as_str(), condition.reason.as_str()) {
            ("Progressing", _, "Stalled") => Reason::RolloutStalled,
            ("Progressing", _, "InvalidSpec" | "VersionNotSupported") => Reason::InvalidSpec,
            ("Progressing", _, "ForeignObject") => Reason::ForeignObject,
            ("DependenciesReady", "False", _) => Reason::DependencyMissing,
            ("ConfigInSync", "True", _) if was("ConfigInSync").is_some_and(|was| was.status == "False") => {
                Reason::ConfigReloaded
            }
            _ => continue,
        };
        if is_new {
            notes.push(Note::new(reason, condition.message.clone()));
        }
    }
    notes
}

/// Where to push and to connect: from outside when there is a way in, else by the names of the Services.
fn endpoints(facts: &Facts<'_>) -> Endpoints {
    let cluster = facts.cluster;
    let inside = |service: &str, port: u16| format!("{}-{service}.{}.svc:{port}", cluster.name, cluster.namespace);
    let route = cluster.logic.http_route.as_ref().and_then(|route| route.hostnames.first());
    let (http, host) = match (&cluster.logic.ingress, route) {
        (Some(ingress), _) => (if ingress.tls_secret.is_some() { "https" } else { "http" }, ingress.host.clone()),
        (None, Some(host)) => ("http", host.clone()),
        (None, None) => ("http", inside("logic", runtime::pod::LOGIC_HTTP)),
    };
    let (ws, server) = match (&cluster.comet.ingress, route) {
        (Some(ingress), _) => (if ingress.tls_secret.is_some() { "wss" } else { "ws" }, ingress.host.clone()),
        (None, Some(host)) => ("ws", host.clone()),
        (None, None) => ("ws", inside("comet-public", cluster.comet.websocket_port)),
    };
    Endpoints {
        push: Some(format!("{http}://{host}/goim/push")),
        nodes: Some(format!("{http}://{host}/goim/nodes/weighted")),
        websocket: Some(format!("{ws}://{server}{}", runtime::pod::WEBSOCKET_PATH)),
    }
}
