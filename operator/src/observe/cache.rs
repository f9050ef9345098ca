//! What the API server told us last, kept up to date by one watch per kind.
//!
//! Each watch is a task of its own with its own back-off: one that fails slows no other.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;

use futures::StreamExt as _;
use futures::channel::mpsc::UnboundedSender;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource};
use parking_lot::RwLock;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::{Pod, Seen};
use crate::metrics::Metrics;

/// Something that is kept.
pub trait Entry: Clone + PartialEq + Send + Sync + 'static {
    /// Its namespace and its name.
    fn place(&self) -> (&str, &str);
    /// The ImCluster it belongs to, by its label.
    fn instance(&self) -> Option<&str>;
}

impl Entry for Seen {
    fn place(&self) -> (&str, &str) {
        (&self.namespace, &self.key.name)
    }

    fn instance(&self) -> Option<&str> {
        self.instance.as_deref()
    }
}

impl Entry for Pod {
    fn place(&self) -> (&str, &str) {
        (&self.namespace, &self.name)
    }

    fn instance(&self) -> Option<&str> {
        self.instance.as_deref()
    }
}

/// Namespace and name of an ImCluster that is to be looked at.
pub type Touched = (String, String);

/// Namespace and name → what is there.
type Entries<E> = HashMap<(String, String), E>;

/// All objects of one kind. Cheap to clone.
pub struct Cache<E> {
    entries: Arc<RwLock<Entries<E>>>,
    filled: Arc<watch::Sender<bool>>,
}

impl<E> Clone for Cache<E> {
    fn clone(&self) -> Self {
        Self { entries: self.entries.clone(), filled: self.filled.clone() }
    }
}

impl<E> Default for Cache<E> {
    fn default() -> Self {
        Self { entries: Arc::default(), filled: Arc::new(watch::Sender::new(false)) }
    }
}

impl<E: Entry> Cache<E> {
    /// The objects of one ImCluster.
    pub fn of(&self, namespace: &str, instance: &str) -> Vec<E> {
        let is_its = |entry: &&E| entry.place().0 == namespace && entry.instance() == Some(instance);
        self.entries.read().values().filter(is_its).cloned().collect()
    }

    /// Whether everything has been listed once.
    pub fn is_filled(&self) -> bool {
        *self.filled.borrow()
    }

    /// Waits until everything has been listed once.
    pub async fn filled(&self) {
        let mut filled = self.filled.subscribe();
        // The sender lives as long as this cache.
        let _listed = filled.wait_for(|filled| *filled).await;
    }

    /// Takes one event; the ImClusters that it concerns.
    fn take(&self, event: Event<E>, listing: &mut Entries<E>) -> Vec<Touched> {
        let key = |entry: &E| (entry.place().0.to_owned(), entry.place().1.to_owned());
        match event {
            Event::Init => listing.clear(),
            Event::InitApply(entry) => {
                listing.insert(key(&entry), entry);
            }
            Event::InitDone => {
                let new = std::mem::take(listing);
                let mut entries = self.entries.write();
                let gone = entries.iter().filter(|(key, _)| !new.contains_key(*key));
                let changed = new.iter().filter(|(key, entry)| entries.get(*key) != Some(*entry));
                let touched = gone.chain(changed).filter_map(|(_, entry)| touched(entry)).collect();
                *entries = new;
                drop(entries);
                self.filled.send_replace(true);
                return touched;
            }
            Event::Apply(entry) => {
                let before = self.entries.write().insert(key(&entry), entry.clone());
                if before.as_ref() != Some(&entry) {
                    let both = before.into_iter().chain([entry]);
                    return both.filter_map(|entry| touched(&entry)).collect();
                }
            }
            Event::Delete(entry) => {
                let before = self.entries.write().remove(&key(&entry));
                return before.iter().chain([&entry]).filter_map(touched).collect();
            }
        }
        Vec::new()
    }
}

fn touched(entry: &impl Entry) -> Option<Touched> {
    Some((entry.place().0.to_owned(), entry.instance()?.to_owned()))
}

/// Keeps `cache` up to date for as long as it is polled. Failures are counted under `kind` and tried again.
pub async fn follow<K, E>(
    api: Api<K>,
    config: watcher::Config,
    kind: String,
    read: impl Fn(&K) -> E,
    cache: Cache<E>,
    tell: UnboundedSender<Touched>,
    metrics: Metrics,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    E: Entry,
{
    let mut listing = Entries::new();
    let mut events = std::pin::pin!(watcher(api, config).default_backoff());
    while let Some(event) = events.next().await {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                tracing::warn!(%error, kind, "watch failed, trying again");
                metrics.error(&format!("watch {kind}"));
                metrics.read.watches.failed(&kind, &error);
                continue;
            }
        };
        // The first is said before anybody was asked.
        if !matches!(event, Event::Init) {
            metrics.read.watches.well(&kind);
        }
        let event = match event {
            Event::Init => Event::Init,
            Event::InitDone => Event::InitDone,
            Event::InitApply(object) => Event::InitApply(read(&object)),
            Event::Apply(object) => Event::Apply(read(&object)),
            Event::Delete(object) => Event::Delete(read(&object)),
        };
        for cluster in cache.take(event, &mut listing) {
            if tell.unbounded_send(cluster).is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    struct Thing(&'static str, u32);

    impl Entry for Thing {
        fn place(&self) -> (&str, &str) {
            ("ns", self.0)
        }

        fn instance(&self) -> Option<&str> {
            Some("prod")
        }
    }

    #[test]
    fn a_new_list_replaces_the_old_and_tells_only_of_what_differs() {
        let cache = Cache::default();
        let mut listing = Entries::new();
        let mut take = |event| cache.take(event, &mut listing).len();
        assert!(!cache.is_filled());
        assert_eq!(
            take(Event::Init) + take(Event::InitApply(Thing("a", 1))) + take(Event::InitApply(Thing("b", 1))),
            0
        );
        assert_eq!(take(Event::InitDone), 2);
        assert!(cache.is_filled());
        take(Event::Init);
        take(Event::InitApply(Thing("b", 1)));
        assert_eq!(cache.of("ns", "prod").len(), 2, "the old list stands until the new one is complete");
        assert_eq!(take(Event::InitDone), 1, "a is gone, b did not change");
        assert_eq!(take(Event::Apply(Thing("b", 1))), 0);
        assert_eq!(take(Event::Apply(Thing("b", 2))), 2);
        assert_eq!(take(Event::Delete(Thing("b", 2))), 2);
        assert!(cache.of("ns", "prod").is_empty());
    }
}
