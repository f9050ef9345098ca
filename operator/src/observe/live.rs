//! What is asked of the API server just now: before anything disruptive, and about what does not become ready.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};
use kube::{Api, Client};
use parking_lot::Mutex;
use runtime::pod::Component;
use tokio::time::Instant;

use super::pod::Trouble;
use super::{Observed, Pod, Seen};

/// A pod that is not ready for this long is asked about, in seconds.
const PATIENCE: i64 = 15;
/// How long an answer about a pod stands.
const FRESH: Duration = Duration::from_secs(15);

/// The kind of comet's workload.
pub fn stateful_sets() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("apps", "v1", "StatefulSet"))
}

/// Puts comet's StatefulSet and pods, as they are now, in the place of what the caches said.
///
/// # Errors
/// When the API server does not answer. Nothing disruptive may follow.
pub async fn refresh(client: &Client, observed: &mut Observed) -> kube::Result<()> {
    let (namespace, name) = (observed.namespace().to_owned(), observed.name().to_owned());
    let cluster = observed.cluster.clone();
    let kind = stateful_sets();
    let sets: Api<DynamicObject> = Api::namespaced_with(client.clone(), &namespace, &kind);
    let set_name = Component::Comet.of(&name);
    let set = sets.get_opt(&set_name).await?.map(|set| Seen::of(&set, &kind));
    observed.children.retain(|child| (child.key.kind.as_str(), &child.key.name) != ("StatefulSet", &set_name));
    observed.children.extend(set);
    let comets = format!(
        "app.kubernetes.io/name=imcluster,app.kubernetes.io/instance={name},app.kubernetes.io/component={}",
        Component::Comet.name()
    );
    let pods: Api<core::Pod> = Api::namespaced(client.clone(), &namespace);
    let pods = pods.list(&ListParams::default().labels(&comets)).await?;
    let mut known: HashMap<String, Pod> = observed.pods.drain(..).map(|pod| (pod.uid.clone(), pod)).collect();
    let found: Vec<Pod> = pods.items.iter().map(Pod::of).collect();
    for mut pod in found.into_iter().filter(|pod| pod.came_with(&cluster)) {
        if let Some(old) = known.remove(&pod.uid) {
            pod = Pod { report: old.report, warning: old.warning, is_node_lost: old.is_node_lost, ..pod };
        }
        observed.pods.push(pod);
    }
    observed.pods.extend(known.into_values().filter(|pod| pod.component != Some(Component::Comet)));
    Ok(())
}

/// A pod's UID → when it was asked about, and its last Warning.
type Asked = HashMap<String, (Instant, Option<Trouble>)>;

/// What Events say of pods that do not become ready.
#[derive(Default)]
pub struct Warnings {
    asked: Mutex<Asked>,
}

impl Warnings {
    /// Gives each pod that has not been ready for a while the last Warning about it.
    pub async fn fill(&self, client: &Client, pods: &mut [Pod], now: Timestamp) {
        self.asked.lock().retain(|_, (at, _)| at.elapsed() < FRESH);
        for pod in pods.iter_mut() {
            let age = now.as_second() - pod.created.as_second();
            if pod.is_ready() || pod.dies.is_some() || age < PATIENCE {
                continue;
            }
            let known = self.asked.lock().get(&pod.uid).cloned();
            pod.warning = match known {
                Some((_, warning)) => warning,
                None => {
                    let warning = last_warning(client, pod).await;
                    self.asked.lock().insert(pod.uid.clone(), (Instant::now(), warning.clone()));
                    warning
                }
            };
        }
    }
}

async fn last_warning(client: &Client, pod: &Pod) -> Option<Trouble> {
    let events: Api<core::Event> = Api::namespaced(client.clone(), &pod.namespace);
    let about = ListParams::default().fields(&format!("involvedObject.uid={},type=Warning", pod.uid)).limit(50);
    let found = match events.list(&about).await {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(%error, pod = pod.name, "cannot list the events of a pod");
            return None;
        }
    };
    let when = |event: &core::Event| {
        let last = event.last_timestamp.as_ref().map(|time| time.0);
        last.or_else(|| event.event_time.as_ref().map(|time| time.0))
    };
    // That a probe fails is known already; why is not among the Events.
    let causes = found.items.into_iter().filter(|event| event.reason.as_deref() != Some("Unhealthy"));
    let last = causes.max_by_key(when)?;
    let text = last.message.unwrap_or_default();
    Some(Trouble::new(&last.reason.unwrap_or_default(), &text))
}

/// Marks pods that should be gone but are on a node that has not been ready for `after`.
pub async fn mark_lost(client: &Client, pods: &mut [Pod], now: Timestamp, after: Duration) {
    let after = i64::try_from(after.as_secs()).unwrap_or(i64::MAX);
    let nodes: Api<core::Node> = Api::all(client.clone());
    for pod in pods.iter_mut().filter(|pod| pod.dies.is_some_and(|dies| dies < now)) {
        let Some(name) = &pod.node else { continue };
        let since = match nodes.get_opt(name).await {
            Ok(Some(node)) => not_ready_since(&node),
            Ok(None) => Some(Timestamp::UNIX_EPOCH),
            Err(error) => {
                tracing::warn!(%error, node = name, "cannot read a node");
                None
            }
        };
        pod.is_node_lost = since.is_some_and(|since| now.as_second() - since.as_second() >= after);
    }
}

fn not_ready_since(node: &core::Node) -> Option<Timestamp> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready")?;
    (ready.status != "True").then(|| ready.last_transition_time.as_ref().map(|time| time.0))?
}
