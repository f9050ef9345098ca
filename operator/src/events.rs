//! Events on an ImCluster: a closed set of reasons, one Event per cause, the same not more than once a minute.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::metrics::Metrics;

/// How long the same is not said again.
const QUIET: Duration = Duration::from_secs(60);

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

/// Writes Events.
pub struct Events {
    recorder: Recorder,
    said: Mutex<HashMap<(String, Note), Instant>>,
    metrics: Metrics,
}

impl Events {
    /// `instance` is this operator's name.
    pub fn new(client: Client, instance: &str, metrics: Metrics) -> Self {
        let reporter = Reporter { controller: "imcluster-operator".into(), instance: Some(instance.to_owned()) };
        Self { recorder: Recorder::new(client, reporter), said: Mutex::default(), metrics }
    }

    /// Says what has not just been said. An Event that cannot be written is counted, nothing depends on it.
    pub async fn say(&self, about: &ObjectReference, notes: &[Note]) {
        for note in notes {
            if !self.is_news(about.uid.as_deref().unwrap_or_default(), note) {
                continue;
            }
            let event = Event {
                type_: if note.reason.is_warning() { EventType::Warning } else { EventType::Normal },
                reason: note.reason.name().to_owned(),
                note: Some(note.text.chars().take(1000).collect()),
                action: "Reconcile".to_owned(),
                secondary: None,
            };
            if let Err(error) = self.recorder.publish(&event, about).await {
                tracing::warn!(%error, reason = event.reason, "cannot write an event");
                self.metrics.error("event");
            }
        }
    }

    fn is_news(&self, uid: &str, note: &Note) -> bool {
        let now = Instant::now();
        let mut said = self.said.lock();
        said.retain(|_, at| now - *at < QUIET);
        let key = (uid.to_owned(), note.clone());
        if said.contains_key(&key) {
            return false;
        }
        said.insert(key, now);
        true
    }
}
