//! The conditions: each with a reason to look up in the manual, and a text that names the pod and the cause.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use runtime::pod::Component;

use super::{Facts, numbers};
use crate::observe::pod::CRASHES;
use crate::observe::{Observed, Pod};
use crate::validate::Invalid;

/// A pod that has a cause to be unready, one that may pass, is given this long, in seconds.
const KNOWN_CAUSE: i64 = 20;
/// One that has none, this long.
const NO_CAUSE: i64 = 300;
/// For so long, in seconds, the addresses of a pod that has just become ready are on their way to the nodes.
const SPREAD: i64 = 5;
/// Why an ImCluster is not Ready meanwhile.
pub(super) const SPREADING: &str = "AddressesSpreading";
/// A condition's message is cut off here.
const LONGEST: usize = 1000;

/// Conditions under construction: what was held before says since when.
pub struct Conditions {
    /// What holds.
    pub held: Vec<Condition>,
    before: Vec<Condition>,
    generation: Option<i64>,
    now: Timestamp,
}

/// Status, reason and message.
type Verdict = (&'static str, &'static str, String);

fn yes(reason: &'static str, text: impl Into<String>) -> Verdict {
    ("True", reason, text.into())
}

fn no(reason: &'static str, text: impl Into<String>) -> Verdict {
    ("False", reason, text.into())
}

fn unknown(reason: &'static str, text: impl Into<String>) -> Verdict {
    ("Unknown", reason, text.into())
}

impl Conditions {
    fn new(observed: &Observed, before: &[Condition], now: Timestamp) -> Self {
        Self { held: Vec::new(), before: before.to_vec(), generation: observed.cluster.metadata.generation, now }
    }

    /// Of a cluster.
    pub(super) fn of(facts: &Facts<'_>, before: &[Condition]) -> Self {
        let mut conditions = Self::new(facts.observed, before, facts.now);
        let dependencies = dependencies(facts);
        let was_ready = before.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
        let ready = ready(facts, &dependencies, was_ready);
        conditions.set("Degraded", degraded(facts, &dependencies));
        conditions.set("Ready", ready);
        conditions.set("Progressing", progressing(facts));
        conditions.set("DependenciesReady", dependencies);
        if let Some(route) = route(facts) {
            conditions.set("RouteReady", route);
        }
        conditions.set("Draining", draining(facts));
        conditions.set("ReconciliationPaused", paused(facts.cluster.paused));
        conditions.set("VersionSupported", yes("Supported", format!("{} can be run", facts.cluster.version)));
        conditions.set("ConfigInSync", in_sync(facts));
        conditions.set("NonProduction", non_production(facts));
        conditions.held.sort_by(|one, other| one.type_.cmp(&other.type_));
        conditions
    }

    /// Of a spec that cannot be followed. What is not said of the spec stays as it was.
    pub(super) fn of_invalid(observed: &Observed, invalid: &Invalid, before: &[Condition], now: Timestamp) -> Self {
        let mut conditions = Self::new(observed, before, now);
        let text = invalid.to_string();
        let (is_version, reason) = match invalid {
            Invalid::Version { .. } => (true, "VersionNotSupported"),
            Invalid::Spec { .. } => (false, "InvalidSpec"),
        };
        conditions.set("Ready", no(reason, text.clone()));
        conditions.set("Progressing", no(reason, text.clone()));
        if is_version {
            conditions.set("VersionSupported", no(reason, text));
        } else {
            let wanted = &observed.cluster.spec.version;
            conditions.set("VersionSupported", yes("Supported", format!("{wanted} can be run")));
        }
        conditions.set("ReconciliationPaused", paused(observed.cluster.spec.paused));
        let kept: Vec<Condition> =
            before.iter().filter(|old| !conditions.held.iter().any(|new| new.type_ == old.type_)).cloned().collect();
        conditions.held.extend(kept);
        conditions.held.sort_by(|one, other| one.type_.cmp(&other.type_));
        conditions
    }

    fn set(&mut self, kind: &str, (status, reason, text): Verdict) {
        let since = self.before.iter().find(|old| old.type_ == kind && old.status == status);
        let last_transition_time = since.map_or(Time(whole_second(self.now)), |old| old.last_transition_time.clone());
        let text = match since.filter(|old| old.reason == reason && is_same_cause(reason, &old.message, &text)) {
            Some(old) => old.message.clone(),
            None => text,
        };
        self.held.push(Condition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: text.chars().take(LONGEST).collect(),
            observed_generation: self.generation,
            last_transition_time,
        });
    }
}

/// Whether two texts speak of the same pod and the same of Kubernetes' words. What follows the word counts tries and
/// names ports: no reason to write it anew each time. Only the last words of a program that crashes say what to change.
fn is_same_cause(reason: &str, old: &str, new: &str) -> bool {
    let of_pods = ["Stalled", "PodsNotReady", "CometNotReady", "LogicNotReady", "JobNotReady"];
    let cause = |text: &str| {
        let mut parts = text.splitn(3, ": ").map(str::to_owned);
        let (pod, word) = (parts.next(), parts.next());
        let said = parts.next().filter(|_| word.as_deref() == Some(CRASHES));
        (pod, word, said.map(|said| said.replace(|letter: char| letter.is_ascii_digit(), "")))
    };
    of_pods.contains(&reason) && cause(old) == cause(new)
}

/// What the API server keeps of a time.
fn whole_second(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

fn of<'a>(facts: &Facts<'a>, component: Component) -> impl Iterator<Item = &'a Pod> {
    numbers::of(facts, component)
}

/// An accepted push reaches connected clients.
fn ready(facts: &Facts<'_>, dependencies: &Verdict, was_ready: bool) -> Verdict {
    if let Some(foreign) = foreign(facts) {
        return foreign;
    }
    for (component, reason) in [(Component::Logic, "LogicNotReady"), (Component::Job, "JobNotReady")] {
        if !of(facts, component).any(Pod::is_ready) {
            return no(reason, format!("no {} is ready{}", component.name(), causes(of(facts, component))));
        }
    }
    let wanted = facts.cluster.comet.workload.replicas;
    let is_counted = |pod: &&Pod| pod.ordinal.is_some_and(|ordinal| ordinal < wanted);
    let comets: Vec<&Pod> = of(facts, Component::Comet).filter(is_counted).collect();
    let up = comets.iter().filter(|pod| pod.is_ready()).count();
    if usize::try_from(wanted).is_ok_and(|wanted| up < wanted) {
        return no("CometNotReady", format!("{up} of {wanted} comets are ready{}", causes(comets.into_iter())));
    }
    if dependencies.0 == "False" {
        return (dependencies.0, dependencies.1, dependencies.2.clone());
    }
    let flow = |pod: &&&Pod| pod.report.as_ref().and_then(|report| report.flow.clone());
    if let Some(pod) = comets.iter().find(|pod| flow(pod).is_some_and(|flow| flow != "proven")) {
        return no("FlowUnproven", format!("{}: no push has reached it yet", pod.name));
    }
    if !was_ready && let Some(pod) = comets.iter().find(|pod| flow(pod).is_none()) {
        return unknown("NoReport", format!("{} does not answer on its admin port", pod.name));
    }
    let is_known = |pod: &Pod| pod.is_ready() && pod.ready_for(facts.now) >= SPREAD;
    let are_known = comets.iter().all(|pod| is_known(pod)) && of(facts, Component::Logic).any(is_known);
    if !was_ready && !are_known {
        return no(SPREADING, "the pods are ready, and every node is being told their addresses");
    }
    yes("PushesFlow", "an accepted push reaches connected clients")
}

/// Pods that are not ready, and why.
fn causes<'a>(pods: impl Iterator<Item = &'a Pod>) -> String {
    let mut causes: Vec<String> =
        pods.filter(|pod| !pod.is_ready()).filter_map(|pod| Some(format!("{}: {}", pod.name, pod.cause()?))).collect();
    causes.sort();
    causes.into_iter().next().map(|cause| format!("; {cause}")).unwrap_or_default()
}

fn foreign(facts: &Facts<'_>) -> Option<Verdict> {
    let key = facts.observed.foreign.first()?;
    let text =
        format!("{key} is not this ImCluster's: it was left alone; delete or rename it, or rename the ImCluster");
    Some(no("ForeignObject", text))
}

/// The newest spec is on its way, has arrived, or cannot.
fn progressing(facts: &Facts<'_>) -> Verdict {
    if facts.cluster.paused {
        return no("Paused", "spec.paused is true");
    }
    if let Some(foreign) = foreign(facts) {
        return foreign;
    }
    if let Some((key, said)) = facts.observed.refused.first() {
        return no("Refused", format!("{key}: the API server says: {said}"));
    }
    if facts.is_done() {
        return no("RolloutComplete", format!("{} runs", facts.cluster.version));
    }
    if let Some(text) = stalled(facts) {
        return no("Stalled", text);
    }
    if let Some(text) = &facts.step.waits {
        return yes("WaitingForCapacity", text.clone());
    }
    let (reason, text) = if !facts.children.logic_settled {
        ("RollingLogic", "logic is on its way".to_owned())
    } else if !facts.children.job_settled {
        ("RollingJob", "job is on its way".to_owned())
    } else if facts.step.old > 0 {
        ("RollingComet", format!("{} comets are to be replaced", facts.step.old))
    } else {
        ("ScalingComet", format!("to {} comets", facts.cluster.comet.workload.replicas))
    };
    yes(reason, text)
}

/// A pod that should long be ready, and why it is not.
fn stalled(facts: &Facts<'_>) -> Option<String> {
    let services = facts.observed.pods.iter().filter(|pod| pod.component.is_some() && pod.dies.is_none());
    let mut stuck: Vec<&Pod> = services
        .filter(|pod| {
            let age = facts.now.as_second() - pod.created.as_second();
            let patience = match pod.cause() {
                Some(cause) if cause.is_final => 0,
                Some(_) => KNOWN_CAUSE,
                None => NO_CAUSE,
            };
            // A pod that moves its clients away is not ready because it was asked to.
            let is_asked = pod.report.as_ref().is_some_and(|report| report.draining == Some(true));
            !pod.is_ready() && !is_asked && age >= patience
        })
        .collect();
    stuck.sort_by_key(|pod| (pod.cause().is_none_or(|cause| !cause.is_final), pod.cause().is_none(), pod.name.clone()));
    let pod = stuck.first()?;
    Some(match pod.cause() {
        Some(cause) => format!("{}: {cause}", pod.name),
        None => format!("{} has not become ready", pod.name),
    })
}

/// Serving, but with less than was asked for.
fn degraded(facts: &Facts<'_>, dependencies: &Verdict) -> Verdict {
    if dependencies.0 == "False" {
        return yes("DependencyFailing", dependencies.2.clone());
    }
    match stalled(facts) {
        Some(text) => yes("PodsNotReady", text),
        None => no("AsExpected", ""),
    }
}

/// Kafka, Redis, Secrets.
fn dependencies(facts: &Facts<'_>) -> Verdict {
    for pod in facts.observed.pods.iter().filter(|pod| !pod.is_ready() && pod.dies.is_none()) {
        let Some(cause) = pod.cause() else { continue };
        let text = format!("{}: {cause}", pod.name);
        if cause.text.contains("secret") && cause.text.contains("not found") {
            return no("SecretNotFound", text);
        }
    }
    let (mut answers, mut waiting) = (0, None);
    let services = || facts.observed.pods.iter().filter(|pod| pod.dies.is_none());
    for (pod, report) in services().filter_map(|pod| Some((pod, pod.report.as_ref()?))) {
        for (name, dependency) in &report.dependencies {
            answers += 1;
            let error = dependency.error.clone().unwrap_or_else(|| "does not answer".to_owned());
            let reason = match (name.as_str(), dependency.up) {
                (_, true) => continue,
                ("kafka", _) if speaks_of_login(&error) => "KafkaAuthFailed",
                ("kafka", _) => "KafkaUnreachable",
                ("redis", _) if speaks_of_login(&error) => "RedisAuthFailed",
                ("redis", _) => "RedisUnreachable",
                _ => continue,
            };
            let text = format!("{}: {name}: {error}", pod.name);
            let age = facts.now.as_second() - pod.created.as_second();
            // A pod can be ready already when its last report is from before.
            if age < KNOWN_CAUSE && !matches!(reason, "KafkaAuthFailed" | "RedisAuthFailed") {
                waiting = Some(text);
                continue;
            }
            return no(reason, text);
        }
        if report.push_tokens.as_deref() == Some("missing") {
            let secret = &facts.cluster.push_token.secret;
            return no("SecretNotFound", format!("{}: no push token in the secret {secret} yet", pod.name));
        }
        if let Some(topic) = report.topic.as_ref().filter(|topic| !topic.ok) {
            let error = topic.error.clone().unwrap_or_else(|| "is not as spec.kafka.topic says".to_owned());
            return no("TopicMismatch", format!("{}: {error}", facts.cluster.kafka.topic.name));
        }
    }
    match (waiting, answers) {
        (Some(text), _) => unknown("Waiting", text),
        (None, 0) => unknown("NoReport", "no pod has said yet whether it reaches Kafka and Redis"),
        (None, _) => yes("Reachable", "the pods reach Kafka and Redis"),
    }
}

fn speaks_of_login(error: &str) -> bool {
    let error = error.to_ascii_lowercase();
    ["authentication", "sasl", "noauth", "wrongpass", "auth fail"].iter().any(|word| error.contains(word))
}

fn route(facts: &Facts<'_>) -> Option<Verdict> {
    let logic = &facts.cluster.logic;
    if logic.ingress.is_none() && logic.http_route.is_none() {
        return None;
    }
    let kinds = ["Ingress", "HTTPRoute"];
    let routes = facts.observed.children.iter().filter(|child| kinds.contains(&child.key.kind.as_str()));
    let ours: Vec<_> = routes.filter(|child| child.owner.as_deref() == Some(facts.observed.uid())).collect();
    Some(if !ours.is_empty() && ours.iter().all(|route| route.has_address) {
        yes("HasAddress", "")
    } else {
        no("NoAddress", "no controller has taken up the Ingress or HTTPRoute; some never say so")
    })
}

fn draining(facts: &Facts<'_>) -> Verdict {
    match facts.step.rollout.as_ref().filter(|rollout| rollout.step.as_deref() == Some("Draining")) {
        Some(rollout) => yes("PodDrains", rollout.pod_name.clone().unwrap_or_default()),
        None => no("Idle", ""),
    }
}

fn paused(is_paused: bool) -> Verdict {
    if is_paused { yes("Paused", "spec.paused is true: nothing is changed") } else { no("NotPaused", "") }
}

/// Every pod runs the newest reloadable settings.
fn in_sync(facts: &Facts<'_>) -> Verdict {
    let mut behind = None;
    for pod in facts.observed.pods.iter().filter(|pod| pod.dies.is_none()) {
        let Some(report) = &pod.report else { continue };
        if let Some(error) = &report.reload_error {
            return no("ReloadFailed", format!("{}: {error}", pod.name));
        }
        let wanted = pod.component.and_then(|component| facts.desired.live.get(component.name()));
        if report.config_hash.is_some() && report.config_hash.as_ref() != wanted {
            behind = Some(pod.name.clone());
        }
    }
    match behind {
        Some(name) => no("Reloading", format!("{name} has not read the newest settings yet")),
        None => yes("InSync", ""),
    }
}

fn non_production(facts: &Facts<'_>) -> Verdict {
    let (kafka, redis) = (facts.cluster.kafka.dev.is_some(), facts.cluster.redis.dev.is_some());
    let what = match (kafka, redis) {
        (true, true) => "spec.kafka.dev and spec.redis.dev keep",
        (true, false) => "spec.kafka.dev keeps",
        (false, true) => "spec.redis.dev keeps",
        (false, false) => return no("External", ""),
    };
    yes("DevDependencies", format!("{what} everything in one pod's memory: a restart of it loses all of it"))
}
