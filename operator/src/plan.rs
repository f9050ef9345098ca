//! What to do next: observed + now → writes, at most one of them disruptive, and what to report. Pure: no IO, no clock, no
//! randomness. Nothing is remembered between two plans; where a roll stands is read from the pods each time.
//!
//! Configuration comes before who reads it, logic before job before comet. The target is always the newest spec, so a
//! pod that the last one broke is let go first and never waited for.

pub(crate) mod children;
mod comet;
mod desired;

use k8s_openapi::jiff::Timestamp;
use kube::api::DynamicObject;

use crate::crd::ImClusterStatus;
use crate::events::Note;
use crate::observe::pod::Clients;
use crate::observe::{Key, Observed};
use crate::status;
use crate::validate::{Cluster, validate};

pub use children::Children;
pub use comet::Step;
pub use desired::Desired;

/// What to do.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Objects to apply, in this order.
    pub applies: Vec<Apply>,
    /// Objects that nothing needs any more.
    pub deletes: Vec<Delete>,
    /// Pods to tell about new live settings, once those are applied.
    pub reloads: Vec<Reload>,
    /// Whether the push token's Secret is to be made, if it is not there.
    pub push_token: Option<Box<(Cluster, crate::build::Facts)>>,
    /// The one thing that may disturb clients.
    pub action: Option<Action>,
    /// What is said when the action is done.
    pub action_notes: Vec<Note>,
    /// What is said anyway.
    pub notes: Vec<Note>,
    /// What to report.
    pub status: ImClusterStatus,
    /// In how many seconds to look again, at the latest; 0 when nothing is going on.
    pub requeue: u64,
}

/// One object to apply.
#[derive(Clone, Debug, PartialEq)]
pub struct Apply {
    /// When: nothing of a later stage is applied while this cannot be.
    pub stage: crate::build::Stage,
    /// Which.
    pub key: Key,
    /// The whole body of what is ours.
    pub object: DynamicObject,
    /// Its UID, when it is there and ours.
    pub uid: Option<String>,
    /// `replicas` to create it with. Never applied again.
    pub first_replicas: Option<i32>,
    /// `replicas` that are to stay as they are while our body stops naming them.
    pub release: Option<i32>,
}

/// One object to delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delete {
    /// Which.
    pub key: Key,
    /// Its `apiVersion`.
    pub api_version: String,
    /// Its UID: another object of that name stays.
    pub uid: String,
}

/// A pod that is to read its live settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reload {
    /// Its name.
    pub pod: String,
    /// Its UID.
    pub uid: String,
    /// The hash of what it is to read.
    pub hash: String,
}

/// Something that may disturb clients. Each carries what it was decided on: where that is no longer so, nothing happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Raise the drain lease of a comet.
    DrainLease {
        /// Its name.
        pod: String,
        /// Its UID.
        uid: String,
        /// The new number.
        n: i64,
        /// When this drain began, in Unix seconds.
        began: i64,
        /// Who was there then.
        clients: Clients,
    },
    /// Let the StatefulSet replace the pods from this ordinal on.
    LowerPartition {
        /// The first ordinal.
        to: i32,
        /// The StatefulSet's version.
        resource_version: String,
        /// When the drain of the pod began, if it was drained.
        drained_since: Option<i64>,
        /// Whether the deadline ended the drain.
        is_forced: bool,
    },
    /// Take the last pod away.
    ScaleIn {
        /// One less than now.
        to: i32,
        /// The StatefulSet's version.
        resource_version: String,
        /// When the drain of the pod began, if it was drained.
        drained_since: Option<i64>,
        /// Whether the deadline ended the drain.
        is_forced: bool,
    },
    /// Add pods.
    ScaleOut {
        /// So many in all.
        to: i32,
        /// The StatefulSet's version.
        resource_version: String,
    },
    /// Delete a pod whose node is gone, without waiting for the node.
    ForceDelete {
        /// Its name.
        pod: String,
        /// Its UID.
        uid: String,
    },
}

/// When to look again if nothing but time has to pass, in seconds.
const SOON: u64 = 2;

/// Decides what to do next.
pub fn plan(observed: &Observed, now: Timestamp) -> Plan {
    let cluster = match validate(&observed.cluster, &observed.operand) {
        Ok(cluster) => cluster,
        Err(invalid) => {
            let (status, notes) = status::of_invalid(observed, &invalid, now);
            return Plan { status, notes, ..Plan::default() };
        }
    };
    let desired = Desired::of(&cluster, observed);
    let children = children::Children::of(&desired, observed);
    let step = comet::step(&cluster, &desired, observed, now);
    let (status, mut notes) = status::of(&cluster, &desired, &children, &step, observed, now);
    let requeue = step.requeue.or(status::is_spreading(&status).then_some(SOON)).unwrap_or(0);
    if cluster.paused {
        return Plan { status, notes, requeue, ..Plan::default() };
    }
    if children.is_rolling_out() {
        notes.push(Note::new(crate::events::Reason::RolloutStarted, format!("comet {}", desired.comet_restart)));
    }
    let token_is_missing = children.is_new(runtime::pod::Component::Logic) || desired.lacks_push_tokens(observed);
    Plan {
        push_token: (cluster.push_token.is_ours && token_is_missing)
            .then(|| Box::new((cluster.clone(), desired.facts.clone()))),
        applies: children.applies(&desired, step.partition, observed),
        deletes: children.orphans(&desired, &step, observed),
        reloads: desired.reloads(observed),
        action: step.action,
        action_notes: step.notes,
        notes,
        status,
        requeue,
    }
}

#[cfg(test)]
pub(crate) mod tests;
