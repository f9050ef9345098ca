use std::sync::atomic::{AtomicBool, Ordering};

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::core::Status;
use serde_json::json;

use super::*;
use crate::metrics::Metrics;
use crate::observe::cache::{Cache, follow};
use crate::scripted::{refusal, scripted};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn refused(code: u16) -> watcher::Error {
    watcher::Error::InitialListFailed(kube::Error::Api(Box::new(Status::failure("no", "no").with_code(code))))
}

/// An operator with two watches, and an API server that answers plain questions or does not.
struct Operator {
    watches: Watches,
    liveness: Liveness,
    is_up: Arc<AtomicBool>,
}

impl Operator {
    fn start() -> Self {
        let is_up = Arc::new(AtomicBool::new(true));
        let (client, _) = scripted({
            let is_up = is_up.clone();
            move |asked| match is_up.load(Ordering::SeqCst) {
                true => {
                    assert_eq!(asked.path, "/version");
                    let info = json!({
                        "major": "1", "minor": "33", "gitVersion": "v1.33.0", "gitCommit": "", "gitTreeState": "",
                        "buildDate": "", "goVersion": "", "compiler": "", "platform": "",
                    });
                    (200, info)
                }
                false => refusal(503, "ServiceUnavailable"),
            }
        });
        let (watches, liveness) = (Watches::default(), Liveness::default());
        watches.begin("pods", true);
        watches.begin("services", true);
        tokio::spawn(guard(client, watches.clone(), liveness.clone()));
        Self { watches, liveness, is_up }
    }

    /// Time passes; the watches of these kinds fail again and again, the others are well. Whether it was live throughout.
    async fn passes(&self, time: Duration, failing: &[&str]) -> bool {
        let mut is_live = true;
        for _ in 0..time.as_secs() / 10 {
            for kind in ["pods", "services"] {
                match failing.contains(&kind) {
                    true => self.watches.failed(kind, &refused(403)),
                    false => self.watches.well(kind),
                }
            }
            tokio::time::sleep(seconds(10)).await;
            is_live &= self.liveness.stuck().is_none();
        }
        is_live
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_fails_for_five_minutes_while_the_api_server_answers_is_told_and_taken_back() {
    let operator = Operator::start();
    assert!(operator.passes(seconds(3600), &[]).await);
    assert!(operator.passes(seconds(290), &["services"]).await);
    assert!(!operator.passes(seconds(60), &["services"]).await, "less than 6 minutes");
    let text = operator.liveness.stuck().unwrap();
    assert!(text.contains("services"), "{text}");
    operator.passes(seconds(20), &[]).await;
    assert_eq!(operator.liveness.stuck(), None);
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_is_away_is_no_reason_to_restart_and_its_return_neither() {
    let operator = Operator::start();
    operator.is_up.store(false, Ordering::SeqCst);
    assert!(operator.passes(seconds(1200), &["pods", "services"]).await);
    operator.is_up.store(true, Ordering::SeqCst);
    assert!(operator.passes(seconds(240), &["pods"]).await, "watches come back one after the other");
    assert!(operator.passes(seconds(600), &[]).await);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_says_nothing_at_all_is_stuck_too() {
    let operator = Operator::start();
    tokio::time::sleep(SILENT + STALE - seconds(30)).await;
    assert_eq!(operator.liveness.stuck(), None);
    tokio::time::sleep(seconds(60)).await;
    assert!(operator.liveness.stuck().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_is_not_there_or_not_required_is_waited_for() {
    let operator = Operator::start();
    operator.watches.begin("imclusters", true);
    operator.watches.begin("httproutes", false);
    operator.watches.failed("imclusters", &refused(404));
    operator.watches.failed("httproutes", &refused(403));
    assert!(operator.passes(seconds(3600), &[]).await);
    let ages: BTreeMap<String, Duration> = operator.watches.ages().into_iter().collect();
    assert_eq!(ages["imclusters"], seconds(3600), "though it shows");
    assert_eq!(ages["pods"], Duration::ZERO);
    operator.watches.end("httproutes");
    assert_eq!(operator.watches.ages().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_list_that_is_refused_again_and_again_ages_and_one_that_is_answered_is_young() {
    let is_allowed = Arc::new(AtomicBool::new(false));
    let (client, _) = scripted({
        let is_allowed = is_allowed.clone();
        move |_| match is_allowed.load(Ordering::SeqCst) {
            true => (200, json!({ "kind": "PodList", "metadata": { "resourceVersion": "1" }, "items": [] })),
            false => refusal(403, "Forbidden"),
        }
    });
    let metrics = Metrics::register(&runtime::Metrics::default());
    let watches = metrics.read.watches.clone();
    watches.begin("pods", true);
    let (tell, _told) = futures::channel::mpsc::unbounded();
    let (api, config) = (Api::<Pod>::namespaced(client, "im"), watcher::Config::default());
    let cache = Cache::<crate::observe::Pod>::default();
    tokio::spawn(follow(api, config, "pods".to_owned(), crate::observe::Pod::of, cache.clone(), tell, metrics));
    tokio::time::sleep(seconds(200)).await;
    let age = watches.ages()[0].1;
    assert!(age > seconds(190), "{age:?}");
    is_allowed.store(true, Ordering::SeqCst);
    cache.filled().await;
    assert_eq!(watches.ages()[0].1, Duration::ZERO);
}
