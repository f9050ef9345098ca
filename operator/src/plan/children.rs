//! Which objects are applied now, which wait for their turn, and which nothing needs any more.

use std::collections::BTreeSet;

use runtime::pod::Component;
use serde_json::{Value, json};

use super::desired::key;
use super::{Apply, Delete, Desired, Step};
use crate::build::Stage;
use crate::observe::{Key, Observed, Seen};

/// How the workloads of each stage stand.
#[derive(Clone, Debug)]
pub struct Children {
    /// Workloads whose change waits until those before them run it.
    pub waiting: BTreeSet<Key>,
    /// Whether every pod of logic runs what it should.
    pub logic_settled: bool,
    /// The same for job.
    pub job_settled: bool,
    /// Components whose workload is not there yet.
    new: Vec<Stage>,
    rolling_out: bool,
}

impl Children {
    /// Looks at the workloads.
    pub fn of(desired: &Desired, observed: &Observed) -> Self {
        let seen = |key: &Key| observed.ours(&key.kind, &key.name).and_then(|seen| seen.workload.as_ref());
        let settled = |stage| {
            let mut workloads = desired.workloads(stage);
            workloads.all(|key| seen(&key).is_some_and(|found| found.is_settled(desired.restart(&key).as_deref())))
        };
        // At creation everything is applied at once; only what exists waits for its turn.
        let changes = |key: &Key| seen(key).is_some_and(|found| found.restart != desired.restart(key));
        let (logic_settled, job_settled) = (settled(Stage::Logic), settled(Stage::Job));
        let held = |stage, is_free: bool| {
            let workloads = desired.workloads(stage).filter(|key| !is_free && changes(key));
            workloads.collect::<Vec<_>>()
        };
        let mut waiting: BTreeSet<Key> = held(Stage::Job, logic_settled).into_iter().collect();
        waiting.extend(held(Stage::Comet, logic_settled && job_settled));
        let is_new = |stage: &Stage| desired.workloads(*stage).any(|key| seen(&key).is_none());
        let new = [Stage::Logic, Stage::Job, Stage::Comet].into_iter().filter(is_new).collect();
        let rolling_out = desired.workloads(Stage::Comet).any(|key| changes(&key) && !waiting.contains(&key));
        Self { waiting, logic_settled, job_settled, new, rolling_out }
    }

    /// Whether a workload of this component is not there yet.
    pub fn is_new(&self, component: Component) -> bool {
        let stage = match component {
            Component::Logic => Stage::Logic,
            Component::Job => Stage::Job,
            Component::Comet => Stage::Comet,
            Component::Kafka | Component::Redis => Stage::Shared,
        };
        self.new.contains(&stage)
    }

    /// Whether the comets get a new template now.
    pub fn is_rolling_out(&self) -> bool {
        self.rolling_out
    }

    /// What to apply, in order.
    pub fn applies(&self, desired: &Desired, partition: i32, observed: &Observed) -> Vec<Apply> {
        let due = desired.children.iter().filter(|child| !self.waiting.contains(&key(child)));
        let applies = due.map(|child| {
            let key = key(child);
            let seen = observed.ours(&key.kind, &key.name).filter(|seen| !seen.is_deleting);
            let mut object = child.object.clone();
            let is_comet = key.kind == "StatefulSet" && key.name == desired.comet_name;
            if is_comet && let Some(update) = object.data.pointer_mut("/spec/updateStrategy/rollingUpdate") {
                update["partition"] = json!(partition);
            }
            let names_replicas = object.data.pointer("/spec/replicas").and_then(Value::as_i64).is_some();
            Apply {
                stage: child.stage,
                uid: seen.map(|seen| seen.uid.clone()),
                first_replicas: (is_comet && seen.is_none()).then(|| observed.cluster.spec.comet.replicas),
                release: seen.and_then(|seen| released(seen, names_replicas)),
                key,
                object,
            }
        });
        applies.collect()
    }

    /// What is ours and no longer wanted.
    pub fn orphans(&self, desired: &Desired, step: &Step, observed: &Observed) -> Vec<Delete> {
        let wanted: BTreeSet<Key> = desired.children.iter().map(key).collect();
        let templates = observed.children.iter().flat_map(|child| &child.config_maps);
        let pods = observed.pods.iter().flat_map(|pod| &pod.config_maps);
        let named: BTreeSet<&String> = templates.chain(pods).collect();
        // A pod that is between two lives names nothing: while anything changes, every configuration stays.
        let is_quiet = self.logic_settled && self.job_settled && step.is_settled && self.waiting.is_empty();
        let orphans = observed.children.iter().filter(|child| {
            let is_ours = child.owner.as_deref() == Some(observed.uid()) && !observed.uid().is_empty();
            let is_read = child.key.kind == "ConfigMap" && (!is_quiet || named.contains(&child.key.name));
            is_ours && !child.is_deleting && !wanted.contains(&child.key) && !is_read
        });
        let delete = |child: &Seen| Delete {
            key: child.key.clone(),
            api_version: child.api_version.clone(),
            uid: child.uid.clone(),
        };
        let mut deletes: Vec<Delete> = orphans.map(delete).collect();
        deletes.sort_by(|one, other| one.key.cmp(&other.key));
        deletes
    }
}

/// The number to hand over when our body stops naming `replicas` that only we hold: dropped, it would become 1.
fn released(seen: &Seen, names_replicas: bool) -> Option<i32> {
    let workload = seen.workload.as_ref()?;
    (!names_replicas && workload.we_own_replicas && !workload.others_own_replicas).then_some(workload.replicas)
}
