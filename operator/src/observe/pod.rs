//! A pod as it was seen, pruned to what is decided by.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use runtime::pod::{CONFIG_ANNOTATION, Component, DRAIN_ANNOTATION, RESTART_ANNOTATION};

use super::Report;
use crate::crd::ImCluster;

/// On a comet pod beside the drain lease: when this drain began, in Unix seconds.
pub const DRAIN_BEGAN: &str = "imcluster.dev/drain-began";
/// The same: who was there then, as [`Clients`] writes it.
pub const DRAIN_CLIENTS: &str = "imcluster.dev/drain-clients";

/// Kubernetes' word for a container that ends again and again.
pub const CRASHES: &str = "CrashLoopBackOff";
/// What our processes end with when their settings cannot be used (`runtime::config::ConfigError::exit_code`).
const REFUSED: i32 = 64;

/// One pod of a cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Where.
    pub namespace: String,
    /// Its UID.
    pub uid: String,
    /// `app.kubernetes.io/instance`.
    pub instance: Option<String>,
    /// What runs in it; `None` for what is not ours.
    pub component: Option<Component>,
    /// The number at the end of its name, of a StatefulSet's pod.
    pub ordinal: Option<i32>,
    /// Its address.
    pub address: Option<String>,
    /// Its node.
    pub node: Option<String>,
    /// Its revision of the StatefulSet.
    pub revision: Option<String>,
    /// The restart hash of the template it was made from.
    pub restart: Option<String>,
    /// When it was made.
    pub created: Timestamp,
    /// Since when it is Ready.
    pub ready_since: Option<Timestamp>,
    /// When its grace period ends, once it is being deleted.
    pub dies: Option<Timestamp>,
    /// The number of its drain lease: the Unix second in which it was last raised.
    pub drain: Option<i64>,
    /// When its drain began, in Unix seconds.
    pub drain_began: Option<i64>,
    /// Who was there then.
    pub drain_clients: Option<Clients>,
    /// The live hash that it was told to read.
    pub config: Option<String>,
    /// ConfigMaps that its volumes name.
    pub config_maps: BTreeSet<String>,
    /// What its containers say keeps it from being ready.
    pub trouble: Option<Trouble>,
    /// The last Warning among its Events, asked for when it does not become ready.
    pub warning: Option<Trouble>,
    /// What it says of itself.
    pub report: Option<Report>,
    /// Whether its node has been gone for longer than we wait.
    pub is_node_lost: bool,
}

/// How many clients there were when a drain began. Written as `here/elsewhere`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clients {
    /// On the comet that drains.
    pub here: i64,
    /// On the others.
    pub elsewhere: i64,
}

impl std::fmt::Display for Clients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.here, self.elsewhere)
    }
}

impl Clients {
    fn read(text: &str) -> Option<Self> {
        let (here, elsewhere) = text.split_once('/')?;
        Some(Self { here: here.parse().ok()?, elsewhere: elsewhere.parse().ok()? })
    }
}

/// Something that keeps a pod from being ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Kubernetes' word for it.
    pub reason: String,
    /// In full.
    pub text: String,
    /// Whether only another spec helps: there is nothing to wait for.
    pub is_final: bool,
}

impl Trouble {
    /// Something that may pass.
    pub fn new(reason: &str, text: &str) -> Self {
        Self { reason: reason.to_owned(), text: text.trim().chars().take(300).collect(), is_final: false }
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.text.as_str() {
            "" => f.write_str(&self.reason),
            text => write!(f, "{}: {text}", self.reason),
        }
    }
}

impl Pod {
    /// What is worth knowing of a pod.
    pub fn of(pod: &core::Pod) -> Self {
        let meta = &pod.metadata;
        let name = meta.name.clone().unwrap_or_default();
        let label = |key: &str| meta.labels.as_ref().and_then(|labels| labels.get(key)).cloned();
        let note = |key: &str| meta.annotations.as_ref().and_then(|notes| notes.get(key)).cloned();
        let status = pod.status.clone().unwrap_or_default();
        let ready = status.conditions.iter().flatten().find(|condition| condition.type_ == "Ready");
        let ready = ready.filter(|condition| condition.status == "True");
        let component = label("app.kubernetes.io/component");
        let template = serde_json::json!({ "spec": pod.spec });
        Self {
            namespace: meta.namespace.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            instance: label("app.kubernetes.io/instance"),
            component: Component::ALL.into_iter().find(|one| component.as_deref() == Some(one.name())),
            ordinal: name.rsplit_once('-').and_then(|(_, number)| number.parse().ok()),
            address: status.pod_ip.clone().filter(|address| !address.is_empty()),
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
            revision: label("controller-revision-hash"),
            restart: note(RESTART_ANNOTATION),
            created: meta.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0),
            ready_since: ready.map(|ready| ready.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, time)),
            dies: meta.deletion_timestamp.as_ref().map(time),
            drain: note(DRAIN_ANNOTATION).and_then(|number| number.parse().ok()),
            drain_began: note(DRAIN_BEGAN).and_then(|number| number.parse().ok()),
            drain_clients: note(DRAIN_CLIENTS).and_then(|clients| Clients::read(&clients)),
            config: note(CONFIG_ANNOTATION),
            config_maps: super::object::config_maps(&template),
            trouble: trouble(&status),
            warning: None,
            report: None,
            is_node_lost: false,
            name,
        }
    }

    /// Whether it is this ImCluster's, and not of one that had the same name and was deleted: its pods take their time
    /// to leave, and say nothing of the new one.
    pub fn came_with(&self, cluster: &ImCluster) -> bool {
        cluster.metadata.creation_timestamp.as_ref().is_none_or(|since| since.0 <= self.created)
    }

    /// Whether it is Ready and stays.
    pub fn is_ready(&self) -> bool {
        self.ready_since.is_some() && self.dies.is_none()
    }

    /// For how many seconds it has been Ready.
    pub fn ready_for(&self, now: Timestamp) -> i64 {
        self.ready_since.map_or(0, |since| now.as_second() - since.as_second())
    }

    /// Clients on it, as far as is known.
    pub fn connections(&self) -> i64 {
        self.report.as_ref().and_then(|report| report.connections).unwrap_or(0)
    }

    /// What keeps it from being ready, best first: its containers, then its Events.
    pub fn cause(&self) -> Option<&Trouble> {
        self.trouble.as_ref().or(self.warning.as_ref())
    }
}

fn time(time: &Time) -> Timestamp {
    time.0
}

/// Waiting and crashing containers, a container that died, a scheduler that found no node.
fn trouble(status: &core::PodStatus) -> Option<Trouble> {
    let containers = status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    if let Some(trouble) = containers.filter_map(of_container).next() {
        return Some(trouble);
    }
    let scheduled = status.conditions.iter().flatten().find(|condition| condition.type_ == "PodScheduled");
    let unscheduled = scheduled.filter(|condition| condition.status == "False");
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    unscheduled.map(|condition| {
        Trouble::new(condition.reason.as_deref().unwrap_or("Unschedulable"), &text(&condition.message))
    })
}

fn of_container(container: &core::ContainerStatus) -> Option<Trouble> {
    let state = container.state.as_ref()?;
    let ended = state.terminated.as_ref();
    let before = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    if let Some(waiting) = &state.waiting {
        let said = waiting.message.as_deref().unwrap_or_default();
        return match (waiting.reason.as_deref().unwrap_or("Waiting"), before) {
            ("ContainerCreating" | "PodInitializing", _) => None,
            ("ErrImagePull" | "ImagePullBackOff", _) => Some(no_image(said)),
            (CRASHES, Some(ended)) => Some(ended_with(ended)),
            (reason, _) => Some(Trouble::new(reason, said)),
        };
    }
    // One that runs again may be well now, unless it has shown that it will not be.
    let is_again = |ended: &&core::ContainerStateTerminated| {
        !container.ready && (ended.exit_code == REFUSED || container.restart_count > 1)
    };
    let ended = ended.or(before.filter(is_again));
    ended.filter(|ended| ended.exit_code != 0).map(ended_with)
}

/// While a container that ends is started again and again, Kubernetes says so in turns in three ways: ended, waiting,
/// running. Here it is one, with what the program said last.
fn ended_with(ended: &core::ContainerStateTerminated) -> Trouble {
    let reason = ended.reason.as_deref().filter(|reason| !matches!(*reason, "Error" | "Completed"));
    let said = ended.message.as_deref().unwrap_or_default();
    let said = said.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
    let Trouble { reason, text, .. } = Trouble::new(reason.unwrap_or(CRASHES), said);
    let code = format!("exit code {}", ended.exit_code);
    let text = if text.is_empty() { code } else { format!("{text} ({code})") };
    Trouble { reason, text, is_final: ended.exit_code == REFUSED }
}

/// The kubelet says the same in turns in two ways: while it tries, and while it waits to try again.
fn no_image(text: &str) -> Trouble {
    let text = text.split_once("ErrImagePull: ").map_or(text, |(_, text)| text);
    Trouble::new("ImagePullBackOff", text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(status: serde_json::Value) -> Pod {
        let labels = json!({ "app.kubernetes.io/component": "comet", "app.kubernetes.io/instance": "prod" });
        let pod = json!({ "metadata": { "name": "prod-comet-12", "labels": labels }, "status": status });
        Pod::of(&serde_json::from_value(pod).unwrap())
    }

    fn waiting(reason: &str, message: &str) -> Option<Trouble> {
        let state = json!({ "waiting": { "reason": reason, "message": message } });
        let container =
            json!({ "name": "comet", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state });
        pod(json!({ "containerStatuses": [container] })).trouble
    }

    #[test]
    fn an_image_that_cannot_be_pulled_is_one_trouble_whether_the_kubelet_tries_or_waits() {
        let tries = waiting("ErrImagePull", "failed to pull: not found");
        let waits =
            waiting("ImagePullBackOff", "Back-off pulling image \"a:1\": ErrImagePull: failed to pull: not found");
        assert_eq!(tries, waits);
        assert_eq!(tries.unwrap().to_string(), "ImagePullBackOff: failed to pull: not found");
    }

    /// A container in one state, whose last one may have ended.
    fn container(state: serde_json::Value, last: serde_json::Value, restarts: i32) -> Option<Trouble> {
        let container = json!({
            "name": "comet", "image": "", "imageID": "", "ready": false, "restartCount": restarts, "state": state,
            "lastState": last,
        });
        pod(json!({ "containerStatuses": [container] })).trouble
    }

    fn ended(code: i32, message: &str) -> serde_json::Value {
        json!({ "terminated": { "exitCode": code, "reason": "Error", "message": message } })
    }

    #[test]
    fn a_program_that_refuses_its_settings_is_one_final_trouble_with_its_last_line_whatever_the_kubelet_does() {
        let refuses = ended(64, "imcluster: job.toml: imcluster.what is not a setting of job\n");
        let back_off = "back-off 10s restarting failed container=job pod=prod-job-1_im(f00)";
        let waits = json!({ "waiting": { "reason": "CrashLoopBackOff", "message": back_off } });
        let runs = json!({ "running": { "startedAt": "2026-01-01T00:00:00Z" } });
        let first = container(refuses.clone(), json!({}), 0).unwrap();
        let text = "CrashLoopBackOff: imcluster: job.toml: imcluster.what is not a setting of job (exit code 64)";
        assert_eq!((first.to_string().as_str(), first.is_final), (text, true));
        assert_eq!(container(waits, refuses.clone(), 1).as_ref(), Some(&first));
        assert_eq!(container(runs, refuses.clone(), 1).as_ref(), Some(&first));
        assert_eq!(container(refuses.clone(), refuses, 1), Some(first));
    }

    #[test]
    fn a_container_that_crashes_has_its_last_words_for_a_cause_and_one_that_runs_again_may_be_well() {
        let crashed = ended(1, "INFO starts\nimcluster: cannot bind\n\n");
        let runs = json!({ "running": { "startedAt": "2026-01-01T00:00:00Z" } });
        let first = container(crashed.clone(), json!({}), 0).unwrap();
        assert_eq!(first.to_string(), "CrashLoopBackOff: imcluster: cannot bind (exit code 1)");
        assert!(!first.is_final);
        assert_eq!(container(runs.clone(), crashed.clone(), 1), None);
        assert_eq!(container(runs.clone(), crashed, 2), Some(first), "twice is a habit");
        let killed = json!({ "terminated": { "exitCode": 137, "reason": "OOMKilled" } });
        let waits = json!({ "waiting": { "reason": "CrashLoopBackOff", "message": "back-off 10s" } });
        assert_eq!(container(waits, killed, 1).unwrap().to_string(), "OOMKilled: exit code 137");
        assert_eq!(container(json!({ "terminated": { "exitCode": 0 } }), json!({}), 0), None);
        assert_eq!(container(runs, json!({}), 0), None);
    }

    #[test]
    fn a_pod_that_starts_has_no_trouble_and_one_without_a_node_has() {
        assert_eq!(waiting("ContainerCreating", ""), None);
        let condition =
            json!({ "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes" });
        let pod = pod(json!({ "conditions": [condition] }));
        assert_eq!(pod.trouble.unwrap().to_string(), "Unschedulable: 0/2 nodes");
        assert_eq!((pod.ordinal, pod.component), (Some(12), Some(Component::Comet)));
    }

    #[test]
    fn who_was_there_when_a_drain_began_is_read_as_it_was_written() {
        let clients = Clients { here: 100, elsewhere: 2900 };
        assert_eq!(Clients::read(&clients.to_string()), Some(clients));
        assert_eq!((Clients::read("100"), Clients::read("a/b"), Clients::read("")), (None, None, None));
    }

    #[test]
    fn a_pod_that_was_there_before_the_cluster_belongs_to_another_of_that_name() {
        let born = |second: &str| {
            let mut cluster = crate::plan::tests::world::World::new(json!({})).cluster;
            cluster.metadata.creation_timestamp = Some(Time(second.parse().unwrap()));
            cluster
        };
        let mut pod = pod(json!({}));
        pod.created = "2026-01-01T00:00:10Z".parse().unwrap();
        assert!(pod.came_with(&born("2026-01-01T00:00:10Z")) && pod.came_with(&born("2026-01-01T00:00:09Z")));
        assert!(!pod.came_with(&born("2026-01-01T00:00:11Z")));
    }
}
