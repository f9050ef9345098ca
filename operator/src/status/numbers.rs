//! How many there are, and of what.

use runtime::pod::Component;

use super::Facts;
use crate::build::{Stage, selector};
use crate::crd::{CometStatus, JobStatus, LogicStatus};
use crate::observe::Pod;

/// Connections and lag are not written more often, in seconds.
const QUIET: i64 = 60;

pub(super) fn comet(facts: &Facts<'_>, before: Option<&CometStatus>) -> CometStatus {
    let restart = &facts.desired.comet_restart;
    let pods = || of(facts, Component::Comet);
    let all_new = pods().all(|pod| pod.restart.as_ref() == Some(restart)) && pods().next().is_some();
    let reported: Vec<i64> = pods().filter_map(|pod| pod.report.as_ref()?.connections).collect();
    let connections = (!reported.is_empty()).then(|| reported.iter().sum());
    let labels = selector(facts.cluster, Component::Comet);
    let selector: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    CometStatus {
        replicas: count(pods()),
        ready_replicas: count(pods().filter(|pod| pod.is_ready())),
        updated_replicas: count(pods().filter(|pod| pod.restart.as_ref() == Some(restart))),
        draining_replicas: facts.step.draining,
        connections: steady(facts, before.and_then(|before| before.connections), connections),
        selector: Some(selector.join(",")),
        current_hash: if all_new {
            Some(restart.clone())
        } else {
            before.and_then(|before| before.current_hash.clone())
        },
        target_hash: Some(restart.clone()),
    }
}

pub(super) fn logic(facts: &Facts<'_>) -> LogicStatus {
    let (replicas, ready_replicas, updated_replicas) = deployment(facts, Component::Logic, Stage::Logic);
    LogicStatus { replicas, ready_replicas, updated_replicas }
}

pub(super) fn job(facts: &Facts<'_>, before: Option<&JobStatus>) -> JobStatus {
    let (replicas, ready_replicas, updated_replicas) = deployment(facts, Component::Job, Stage::Job);
    let reported: Vec<i64> = of(facts, Component::Job).filter_map(|pod| pod.report.as_ref()?.lag).collect();
    let lag = (!reported.is_empty()).then(|| reported.iter().sum());
    let lag = steady(facts, before.and_then(|before| before.lag), lag);
    JobStatus { replicas, ready_replicas, updated_replicas, lag }
}

/// How many there are, are ready, and run what they should.
fn deployment(facts: &Facts<'_>, component: Component, stage: Stage) -> (i32, i32, i32) {
    let wanted: Vec<_> = facts.desired.workloads(stage).filter_map(|key| facts.desired.restart(&key)).collect();
    let pods = || of(facts, component).filter(|pod| pod.dies.is_none());
    let is_new = |pod: &&Pod| pod.restart.as_ref().is_some_and(|restart| wanted.contains(restart));
    (count(pods()), count(pods().filter(|pod| pod.is_ready())), count(pods().filter(is_new)))
}

pub(super) fn of<'a>(facts: &Facts<'a>, component: Component) -> impl Iterator<Item = &'a Pod> {
    facts.observed.pods.iter().filter(move |pod| pod.component == Some(component))
}

/// A number that moves all the time: as it was, unless it moved by a tenth and was not written just now.
fn steady(facts: &Facts<'_>, before: Option<i64>, now: Option<i64>) -> Option<i64> {
    let (Some(before), Some(now)) = (before, now) else { return now.or(before) };
    let moved = (now - before).abs().saturating_mul(10) > before;
    let is_due = facts.observed.counted.is_none_or(|second| facts.now.as_second() - second >= QUIET);
    Some(if moved && is_due { now } else { before })
}

fn count<T>(items: impl Iterator<Item = T>) -> i32 {
    i32::try_from(items.count()).unwrap_or(i32::MAX)
}
