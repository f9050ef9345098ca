//! How every watch fares, and whether one is beyond help from inside.
//!
//! A watch is well when the API server takes it up, which it does anew every five minutes, and when it brings something.
//! One that only fails, or of which nothing is heard, while a plain question is answered all the time, is what only a
//! restart can cure: then `/live` says so. While the API server is away, nothing is the watches' fault.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use kube::runtime::watcher;
use parking_lot::Mutex;
use runtime::Liveness;
use tokio::time::Instant;

/// For how long a watch may be in trouble while the API server answers.
const STALE: Duration = Duration::from_secs(300);
/// After how long without a word a watch is in trouble: a quiet one is taken up anew before that.
const SILENT: Duration = Duration::from_secs(310);
/// How often to look.
const LOOK: Duration = Duration::from_secs(15);
/// How long the plain question may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Every kind that is watched. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Watches {
    kinds: Arc<Mutex<BTreeMap<String, Watch>>>,
}

#[derive(Clone, Copy, Debug)]
struct Watch {
    /// Whether the operator is of no use without it.
    is_required: bool,
    heard: Instant,
    failing: Option<Instant>,
    /// The kind is not there to be watched: that is waited for.
    is_absent: bool,
}

impl Watches {
    /// `kind` is watched from now on, by one more if it was already.
    pub fn begin(&self, kind: &str, is_required: bool) {
        let new = Watch { is_required, heard: Instant::now(), failing: None, is_absent: false };
        self.kinds.lock().entry(kind.to_owned()).or_insert(new);
    }

    /// `kind` is watched no more.
    pub fn end(&self, kind: &str) {
        self.kinds.lock().remove(kind);
    }

    /// The API server took the watch of `kind` up, or it brought something.
    pub fn well(&self, kind: &str) {
        if let Some(watch) = self.kinds.lock().get_mut(kind) {
            *watch = Watch { heard: Instant::now(), failing: None, is_absent: false, ..*watch };
        }
    }

    /// The watch of `kind` failed.
    pub fn failed(&self, kind: &str, error: &watcher::Error) {
        if let Some(watch) = self.kinds.lock().get_mut(kind) {
            watch.failing.get_or_insert_with(Instant::now);
            watch.is_absent = is_absent(error);
        }
    }

    /// Each kind, and for how long its watch has been failing.
    pub fn ages(&self) -> Vec<(String, Duration)> {
        let age = |watch: &Watch| watch.failing.map_or(Duration::ZERO, |since| since.elapsed());
        self.kinds.lock().iter().map(|(kind, watch)| (kind.clone(), age(watch))).collect()
    }

    /// The required watch that has been in trouble longest, and since when.
    fn in_trouble(&self) -> Option<(String, Instant)> {
        let silent = |watch: &Watch| Some(watch.heard + SILENT).filter(|since| *since <= Instant::now());
        let kinds = self.kinds.lock();
        let needed = kinds.iter().filter(|(_, watch)| watch.is_required && !watch.is_absent);
        let troubled = needed.filter_map(|(kind, watch)| Some((kind, watch.failing.or_else(|| silent(watch))?)));
        troubled.min_by_key(|(_, since)| *since).map(|(kind, since)| (kind.clone(), since))
    }
}

fn is_absent(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code == 404,
        _ => false,
    }
}

/// Tells `liveness` of a watch that does not recover although the API server answers.
pub async fn guard(client: Client, watches: Watches, liveness: Liveness) {
    let mut answers_since = None;
    loop {
        tokio::time::sleep(LOOK).await;
        let stuck = match watches.in_trouble() {
            None => {
                answers_since = None;
                None
            }
            Some((kind, since)) => {
                let answered = tokio::time::timeout(PATIENCE, client.apiserver_version()).await;
                let answers = answered.is_ok_and(|answer| answer.is_ok());
                answers_since = answers.then(|| answers_since.unwrap_or_else(Instant::now));
                answers_since.filter(|answers| answers.max(&since).elapsed() >= STALE).map(|_| kind)
            }
        };
        let text = stuck.map(|kind| format!("the watch of {kind} is stuck though the API server answers"));
        if let Some(text) = text.as_ref().filter(|_| liveness.stuck().is_none()) {
            tracing::error!(text, "only a restart can help, asking for it");
        }
        liveness.set(text);
    }
}

#[cfg(test)]
mod tests;
