//! How the comets change: one at a time, each after its clients were moved away and are on the others.
//!
//! A pod is new when it was made from the template that is wanted now. The StatefulSet's partition says from which
//! ordinal on its controller may replace pods; it is lowered to a pod's ordinal when that pod has drained, so the
//! controller never finds a pod with clients that it may take. At rest it is above every ordinal.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use runtime::pod::{Component, DRAIN_LEASE, DRAIN_RENEW};

use super::{Action, Desired};
use crate::build::AT_REST;
use crate::crd::RolloutStatus;
use crate::events::{Note, Reason};
use crate::observe::pod::Clients;
use crate::observe::{Observed, Pod, Seen, Workload};
use crate::validate::Cluster;

/// The step of a drain that waits for room elsewhere.
const NO_ROOM: &str = "WaitingForCapacity";
/// The step of a drain that is done but for its clients to come back.
const AWAY: &str = "WaitingForClients";
/// How many of a hundred clients of a drained comet are to be back on the others: some leave at any time.
const BACK: i64 = 90;
/// How often to look while something is going on, in seconds.
const POLL: u64 = 5;
/// A pod that has not been ready for this long is not waited for, in seconds.
const STUCK: i64 = 60;
/// A report that is younger than this, in seconds, may be older than the drain it speaks of.
const REPORT_AGE: i64 = 3;

/// Where the comets stand and what comes next.
#[derive(Clone, Debug, Default)]
pub struct Step {
    /// The partition to write.
    pub partition: i32,
    /// What to do.
    pub action: Option<Action>,
    /// What to say when it is done.
    pub notes: Vec<Note>,
    /// For people.
    pub rollout: Option<RolloutStatus>,
    /// What a person has to do before it goes on.
    pub waits: Option<String>,
    /// Whether every comet is what it should be and nothing is on its way.
    pub is_settled: bool,
    /// Pods that are to be replaced.
    pub old: i32,
    /// Pods that drain because of us.
    pub draining: i32,
    /// When to look again, in seconds.
    pub requeue: Option<u64>,
}

/// Everything the decision is made from.
struct View<'a> {
    cluster: &'a Cluster,
    set: &'a Workload,
    resource_version: &'a str,
    restart: &'a str,
    /// Highest ordinal first.
    pods: Vec<&'a Pod>,
    budget: Option<i64>,
    max_drain: (i64, i64),
    now: Timestamp,
}

/// Why a pod is to go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cause {
    Roll,
    ScaleIn,
}

/// What comes next for the comets.
pub fn step(cluster: &Cluster, desired: &Desired, observed: &Observed, now: Timestamp) -> Step {
    let found = observed.ours("StatefulSet", &desired.comet_name);
    let Some((seen, set)) = found.and_then(|seen| Some((seen, seen.workload.as_ref()?))) else {
        return Step { partition: AT_REST, requeue: Some(POLL), ..Step::default() };
    };
    let mut pods: Vec<&Pod> = observed.pods.iter().filter(|pod| pod.component == Some(Component::Comet)).collect();
    pods.sort_by_key(|pod| std::cmp::Reverse(pod.ordinal));
    let budget =
        observed.ours("PodDisruptionBudget", &desired.comet_name).and_then(|budget| budget.disruptions_allowed);
    let drain = &observed.cluster.spec.comet.drain;
    let view = View {
        cluster,
        set,
        resource_version: resource_version(seen),
        restart: &desired.comet_restart,
        pods,
        budget,
        max_drain: (i64::from(drain.max_seconds), i64::from(drain.max_rate_per_second)),
        now,
    };
    let mut step = view.step();
    step.old = count(view.pods.iter().filter(|pod| view.is_due(pod)));
    step.draining = count(view.pods.iter().filter(|pod| view.is_leased(pod)));
    step.is_settled = view.is_settled();
    if !step.is_settled {
        step.requeue = Some(POLL);
    }
    step
}

fn resource_version(seen: &Seen) -> &str {
    &seen.resource_version
}

fn count<T>(items: impl Iterator<Item = T>) -> i32 {
    i32::try_from(items.count()).unwrap_or(i32::MAX)
}

impl View<'_> {
    fn step(&self) -> Step {
        let set = self.set;
        // A new template is written together with a partition that lets nobody through.
        if set.restart.as_deref() != Some(self.restart) {
            return Step { partition: AT_REST, ..Step::default() };
        }
        let held = set.partition.unwrap_or(AT_REST);
        let is_complete = set.current_revision == set.update_revision && !self.pods.iter().any(|pod| self.is_old(pod));
        let partition = if is_complete { AT_REST } else { held };
        let mut step = Step { partition, ..Step::default() };
        if set.observed_generation < set.generation {
            return step;
        }
        if let Some(pod) = self.pods.iter().find(|pod| pod.is_node_lost && pod.dies.is_some_and(|dies| dies < self.now))
        {
            let text = format!("{}: its node is not ready; deleted so that it can start elsewhere", pod.name);
            step.notes.push(Note::new(Reason::ForcedPodDelete, text));
            step.action = Some(Action::ForceDelete { pod: pod.name.clone(), uid: pod.uid.clone() });
            return step;
        }
        let wanted = self.cluster.comet.workload.replicas;
        if wanted > set.replicas {
            let resource_version = self.resource_version.to_owned();
            step.action = Some(Action::ScaleOut { to: wanted, resource_version });
            return step;
        }
        if wanted == set.replicas
            && let Some(to) = self.broken_next().filter(|to| *to < held)
        {
            step.action = Some(self.lower(to, None, false));
            return step;
        }
        let victim = if wanted < set.replicas {
            Some((set.replicas - 1, Cause::ScaleIn))
        } else {
            let due = self.pods.iter().find(|pod| self.is_due(pod));
            due.and_then(|pod| Some((pod.ordinal?, Cause::Roll)))
        };
        if let Some((ordinal, cause)) = victim.filter(|(ordinal, cause)| *cause == Cause::ScaleIn || *ordinal < held) {
            self.remove(ordinal, cause, &mut step);
        }
        step
    }

    /// Moves the clients of a pod away, then lets it go.
    fn remove(&self, ordinal: i32, cause: Cause, step: &mut Step) {
        let Some(pod) = self.at(ordinal).filter(|pod| pod.dies.is_none() && !self.is_broken(pod)) else {
            // Nobody is on it. A pod that leaves by itself drains by itself.
            step.action = match cause {
                Cause::ScaleIn => Some(self.scale_in(None, false)),
                Cause::Roll => None,
            };
            return;
        };
        if !self.is_leased(pod) {
            match self.gate(pod, cause) {
                Ok(()) => self.begin(pod, cause, step),
                Err(step_name) => {
                    step.rollout = Some(rollout(pod, step_name, None));
                    step.waits = (step_name == NO_ROOM).then(|| self.how_to_make_room(pod));
                }
            }
            return;
        }
        let now = self.now.as_second();
        let began = pod.drain_began.unwrap_or(now);
        let deadline = began + self.cluster.comet.workload.grace_seconds;
        let drained = pod.report.as_ref().is_some_and(|report| report.drained == Some(true));
        let is_drained = drained && now - began >= REPORT_AGE;
        let (is_late, away) = (now >= deadline, self.away(pod));
        let doing = if is_drained && away > 0 { AWAY } else { "Draining" };
        step.rollout = Some(rollout(pod, doing, Some(deadline)));
        if is_late || (is_drained && away == 0) {
            step.notes.push(if is_drained {
                let text = match away {
                    0 => format!("{}: no clients left", pod.name),
                    _ => format!("{}: no clients left, and {away} of them not back elsewhere", pod.name),
                };
                Note::new(Reason::PodDrained, text)
            } else {
                let text = format!("{}: still had {} clients after {} s", pod.name, pod.connections(), now - began);
                Note::new(Reason::DrainDeadlineExceeded, text)
            });
            step.action = Some(match cause {
                Cause::ScaleIn => self.scale_in(Some(began), !is_drained),
                Cause::Roll => self.lower(ordinal, Some(began), !is_drained),
            });
        } else if now - pod.drain.unwrap_or(0) >= seconds(DRAIN_RENEW) {
            step.action = Some(lease(pod, now, began, pod.drain_clients.unwrap_or_default()));
        }
    }

    /// How many clients of a comet that is drained are still to come back to the others, as far as these say how many they
    /// have. Where there is no other there is nothing to wait for.
    fn away(&self, pod: &Pod) -> i64 {
        let Some(Clients { here, elsewhere }) = pod.drain_clients.filter(|_| self.pods.len() > 1) else { return 0 };
        let back = self.clients(pod).elsewhere - elsewhere;
        if back * 100 >= here * BACK { 0 } else { here - back.max(0) }
    }

    /// Who is there now.
    fn clients(&self, pod: &Pod) -> Clients {
        let others = self.pods.iter().filter(|other| other.uid != pod.uid);
        Clients { here: pod.connections(), elsewhere: others.map(|other| other.connections()).sum() }
    }

    /// Starts a drain.
    fn begin(&self, pod: &Pod, cause: Cause, step: &mut Step) {
        let now = self.now.as_second();
        let deadline = now + self.cluster.comet.workload.grace_seconds;
        if cause == Cause::ScaleIn {
            let text = format!("from {} to {}", self.set.replicas, self.cluster.comet.workload.replicas);
            step.notes.push(Note::new(Reason::ScaleInStarted, text));
        }
        let text = format!("{}: {} clients", pod.name, pod.connections());
        step.notes.push(Note::new(Reason::PodDrainStarted, text));
        let (most, rate) = self.max_drain;
        if pod.connections() > most.saturating_mul(rate) {
            let text = format!(
                "{}: {} clients in {most} s are more than {rate} a second; raise spec.comet.drain.maxSeconds",
                pod.name,
                pod.connections()
            );
            step.notes.push(Note::new(Reason::DrainRateExceeded, text));
        }
        step.rollout = Some(rollout(pod, "Draining", Some(deadline)));
        step.action = Some(lease(pod, now, now, self.clients(pod)));
    }

    /// Whether a drain may start, or what it waits for.
    fn gate(&self, victim: &Pod, cause: Cause) -> Result<(), &'static str> {
        let comet = &self.cluster.comet;
        let others = || self.pods.iter().filter(|pod| pod.uid != victim.uid);
        let leaves = |pod: &&&Pod| {
            let says = pod.report.as_ref().is_some_and(|report| report.draining == Some(true));
            pod.dies.is_some() || self.is_leased(pod) || says
        };
        if others().any(|pod| leaves(&pod)) {
            return Err("WaitingForOtherPod");
        }
        let missing = (0..self.set.replicas).any(|ordinal| self.at(ordinal).is_none());
        let min_ready = i64::from(comet.rollout.min_ready_seconds);
        let is_up = |pod: &&&Pod| pod.is_ready() && pod.ready_for(self.now) >= min_ready;
        // What the last spec broke would hold up its own cure for ever.
        let is_hopeless = |pod: &&&Pod| {
            let age = self.now.as_second() - pod.created.as_second();
            !pod.is_ready() && age >= STUCK && (cause == Cause::ScaleIn || self.is_old(pod))
        };
        if missing || !others().all(|pod| is_up(&pod) || is_hopeless(&pod)) {
            return Err("WaitingForReady");
        }
        let pause = i64::from(comet.rollout.pause_seconds);
        let is_fresh = |pod: &&&Pod| !self.is_old(pod) && pod.is_ready() && pod.ready_for(self.now) < pause;
        if cause == Cause::Roll && others().any(|pod| is_fresh(&pod)) {
            return Err("Pausing");
        }
        let all_up = others().all(|pod| is_up(&pod));
        if self.budget == Some(0) && all_up && self.set.replicas > 1 {
            return Err("WaitingForDisruptionBudget");
        }
        if !self.have_room(victim) {
            return Err(NO_ROOM);
        }
        Ok(())
    }

    /// Whether the other comets can take the clients of this one, as far as they say how many they have. What does not
    /// serve anyway is not kept for its clients, and where there is no other there is nothing to wait for.
    fn have_room(&self, victim: &Pod) -> bool {
        let Some(most) = self.cluster.comet.max_connections.filter(|_| victim.is_ready()) else { return true };
        let others = || self.pods.iter().filter(|pod| pod.uid != victim.uid);
        let room: i64 = others().filter(|pod| pod.is_ready()).map(|pod| (most - pod.connections()).max(0)).sum();
        others().next().is_none() || victim.connections() <= room
    }

    /// Without a number that changes by itself.
    fn how_to_make_room(&self, victim: &Pod) -> String {
        let most = self.cluster.comet.max_connections.unwrap_or_default();
        format!(
            "{} is not drained: with maxConnections {most} the other comets cannot take its clients; raise \
             spec.comet.config.maxConnections or spec.comet.replicas",
            victim.name
        )
    }

    /// The ordinal whose turn it is, when nobody would lose a client if the pod were replaced at once: it is gone, or
    /// old and broken. Only while no new pod is broken: what is no better need not spread. And only this one: the next
    /// may have clients by the time it is its turn.
    fn broken_next(&self) -> Option<i32> {
        let is_rolling = self.pods.iter().any(|pod| self.is_due(pod));
        if !is_rolling || !self.pods.iter().filter(|pod| !self.is_old(pod)).all(|pod| pod.is_ready()) {
            return None;
        }
        let mut ordinals = (self.cluster.comet.rollout.partition.max(0)..self.set.replicas).rev();
        let next = ordinals.find(|ordinal| self.at(*ordinal).is_none_or(|pod| self.is_old(pod)))?;
        self.at(next).is_none_or(|pod| pod.dies.is_some() || self.is_broken(pod)).then_some(next)
    }

    fn lower(&self, to: i32, drained_since: Option<i64>, is_forced: bool) -> Action {
        let resource_version = self.resource_version.to_owned();
        Action::LowerPartition { to, resource_version, drained_since, is_forced }
    }

    fn scale_in(&self, drained_since: Option<i64>, is_forced: bool) -> Action {
        let resource_version = self.resource_version.to_owned();
        Action::ScaleIn { to: self.set.replicas - 1, resource_version, drained_since, is_forced }
    }

    fn at(&self, ordinal: i32) -> Option<&Pod> {
        self.pods.iter().copied().find(|pod| pod.ordinal == Some(ordinal))
    }

    fn is_old(&self, pod: &Pod) -> bool {
        pod.restart.as_deref() != Some(self.restart)
    }

    /// Whether it is to be replaced: old, and not kept so by the spec's partition.
    fn is_due(&self, pod: &Pod) -> bool {
        self.is_old(pod) && pod.ordinal.is_some_and(|ordinal| ordinal >= self.cluster.comet.rollout.partition)
    }

    /// Whether it drains because of us, or would if it could.
    fn is_leased(&self, pod: &Pod) -> bool {
        pod.drain.is_some_and(|raised| self.now.as_second() - raised < seconds(DRAIN_LEASE))
    }

    /// Not ready, not because it drains, and nobody is on it.
    fn is_broken(&self, pod: &Pod) -> bool {
        !pod.is_ready() && !self.is_leased(pod) && pod.connections() == 0
    }

    fn is_settled(&self) -> bool {
        let set = self.set;
        set.restart.as_deref() == Some(self.restart)
            && set.observed_generation >= set.generation
            && set.replicas == self.cluster.comet.workload.replicas
            && count(self.pods.iter()) == set.replicas
            && self.pods.iter().all(|pod| pod.is_ready() && !self.is_due(pod))
    }
}

fn lease(pod: &Pod, now: i64, began: i64, clients: Clients) -> Action {
    let n = pod.drain.map_or(now, |last| now.max(last + 1));
    Action::DrainLease { pod: pod.name.clone(), uid: pod.uid.clone(), n, began, clients }
}

fn seconds(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

fn rollout(pod: &Pod, step: &str, deadline: Option<i64>) -> RolloutStatus {
    RolloutStatus {
        pod_name: Some(pod.name.clone()),
        pod_uid: Some(pod.uid.clone()),
        step: Some(step.to_owned()),
        deadline: deadline.and_then(|second| Timestamp::from_second(second).ok()).map(Time),
    }
}
