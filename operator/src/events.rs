//! Events on an ImCluster: a closed set of reasons, one Event per cause, the same not more than once a minute.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::metrics::Metrics;

/// How long the same is not said again.
const QUIET: Duration = Duration::from_secs(60);
/// What was not said again for this long would be news.
const FORGET: Duration = Duration::from_secs(1800);

/// Why there is an Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The children of a new ImCluster are made.
    Created,
    /// Comets are replaced, one by one.
    RolloutStarted,
    /// A comet's clients are asked to move.
    PodDrainStarted,
    /// A comet has no clients left.
    PodDrained,
    /// A comet still had clients when its time was over.
    DrainDeadlineExceeded,
    /// A drain moves clients faster than it was asked to, to be done in time.
    DrainRateExceeded,
    /// A new pod does not become ready.
    RolloutStalled,
    /// Comets are taken away, one by one.
    ScaleInStarted,
    /// All pods run with the new reloadable settings.
    ConfigReloaded,
    /// The spec cannot be carried out.
    InvalidSpec,
    /// Kafka, Redis or a Secret is not there.
    DependencyMissing,
    /// An object with a child's name belongs to somebody else.
    ForeignObject,
    /// A pod on a lost node was deleted without waiting for the node.
    ForcedPodDelete,
}

impl Reason {
    /// As `kubectl get events` shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "Created",
            Self::RolloutStarted => "RolloutStarted",
            Self::PodDrainStarted => "PodDrainStarted",
            Self::PodDrained => "PodDrained",
            Self::DrainDeadlineExceeded => "DrainDeadlineExceeded",
            Self::DrainRateExceeded => "DrainRateExceeded",
            Self::RolloutStalled => "RolloutStalled",
            Self::ScaleInStarted => "ScaleInStarted",
            Self::ConfigReloaded => "ConfigReloaded",
            Self::InvalidSpec => "InvalidSpec",
            Self::DependencyMissing => "DependencyMissing",
            Self::ForeignObject => "ForeignObject",
            Self::ForcedPodDelete => "ForcedPodDelete",
        }
    }

    fn is_warning(self) -> bool {
        matches!(
            self,
            Self::DrainDeadlineExceeded
                | Self::DrainRateExceeded
                | Self::RolloutStalled
                | Self::InvalidSpec
                | Self::DependencyMissing
                | Self::ForeignObject
                | Self::ForcedPodDelete
        )
    }
}

/// Something to say once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Note {
    /// Why.
    pub reason: Reason,
    /// What happened, for people.
    pub text: String,
}

impl Note {
    /// A note.
    pub fn new(reason: Reason, text: impl Into<String>) -> Self {
        Self { reason, text: text.into() }
    }
}

/// What was said: the Event's name, how often, and when last.
#[derive(Clone, Debug)]
struct Said {
    name: String,
    times: i32,
    at: Instant,
}

/// Writes Events.
pub struct Events {
    client: Client,
    instance: String,
    said: Mutex<HashMap<(String, Note), Said>>,
    metrics: Metrics,
}

impl Events {
    /// `instance` is this operator's name.
    pub fn new(client: Client, instance: &str, metrics: Metrics) -> Self {
        Self { client, instance: instance.to_owned(), said: Mutex::default(), metrics }
    }

    /// Says what has not just been said. An Event that cannot be written is counted, nothing depends on it.
    pub async fn say(&self, about: &ObjectReference, notes: &[Note]) {
        for note in notes {
            if let Err(error) = self.say_one(about, note).await {
                tracing::warn!(%error, reason = note.reason.name(), "cannot write an event");
                self.metrics.error("event");
            }
        }
    }

    async fn say_one(&self, about: &ObjectReference, note: &Note) -> kube::Result<()> {
        let namespace = about.namespace.clone().unwrap_or_default();
        let events: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        let key = (about.uid.clone().unwrap_or_default(), note.clone());
        let before = {
            let mut said = self.said.lock();
            said.retain(|_, said| said.at.elapsed() < FORGET);
            said.get(&key).cloned()
        };
        let now = MicroTime(Timestamp::now());
        let said = match before {
            Some(said) if said.at.elapsed() < QUIET => return Ok(()),
            Some(said) => {
                let times = said.times + 1;
                let series = serde_json::json!({ "series": { "count": times, "lastObservedTime": now } });
                events.patch(&said.name, &PatchParams::default(), &Patch::Merge(series)).await?;
                Said { times, at: Instant::now(), ..said }
            }
            None => {
                let event = self.event(about, note, now);
                let name = events.create(&PostParams::default(), &event).await?.metadata.name.unwrap_or_default();
                Said { name, times: 1, at: Instant::now() }
            }
        };
        self.said.lock().insert(key, said);
        Ok(())
    }

    fn event(&self, about: &ObjectReference, note: &Note, now: MicroTime) -> Event {
        Event {
            metadata: ObjectMeta {
                generate_name: Some(format!("{}-", about.name.clone().unwrap_or_default())),
                namespace: about.namespace.clone(),
                ..ObjectMeta::default()
            },
            action: Some("Reconcile".to_owned()),
            event_time: Some(now),
            note: Some(note.text.chars().take(1000).collect()),
            reason: Some(note.reason.name().to_owned()),
            regarding: Some(about.clone()),
            reporting_controller: Some("imcluster.dev/operator".to_owned()),
            reporting_instance: Some(self.instance.chars().take(128).collect()),
            type_: Some(if note.reason.is_warning() { "Warning" } else { "Normal" }.to_owned()),
            ..Event::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::json;

    use super::*;
    use crate::scripted::scripted;

    #[tokio::test(start_paused = true)]
    async fn each_cause_has_an_event_of_its_own_and_none_is_repeated_within_a_minute() {
        let (client, log) = scripted(|asked| {
            let mut body = asked.body.clone();
            body["metadata"] = json!({ "name": "prod-abc" });
            (201, body)
        });
        let events = Events::new(client, "operator-1", Metrics::register(&runtime::Metrics::default()));
        let about = ObjectReference { name: Some("prod".into()), uid: Some("uid".into()), ..Default::default() };
        let one = Note::new(Reason::PodDrained, "prod-comet-1: no clients left");
        let other = Note::new(Reason::PodDrained, "prod-comet-0: no clients left");
        for notes in [vec![one.clone(), other], vec![one.clone()]] {
            events.say(&about, &notes).await;
        }
        let methods = || log.lock().iter().map(|asked| asked.method.clone()).collect::<Vec<_>>();
        assert_eq!(methods(), [Method::POST, Method::POST]);
        tokio::time::advance(QUIET).await;
        events.say(&about, &[one]).await;
        assert_eq!(methods(), [Method::POST, Method::POST, Method::PATCH], "the third time it is a series");
        assert_eq!(log.lock()[2].body["series"]["count"], 2);
    }
}
