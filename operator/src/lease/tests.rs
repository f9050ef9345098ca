use std::sync::atomic::{AtomicBool, Ordering};

use http::Method;
use kube::Client;
use serde_json::Value;

use super::*;
use crate::scripted::{refusal, scripted};

/// One Lease, as the API server keeps it, and whether the server answers at all.
#[derive(Clone, Default)]
struct Server {
    lease: Arc<Mutex<Option<Value>>>,
    is_down: Arc<AtomicBool>,
}

impl Server {
    fn client(&self) -> Client {
        let server = self.clone();
        let answer = move |asked: &crate::scripted::Asked| {
            if server.is_down.load(Ordering::SeqCst) {
                return refusal(500, "InternalError");
            }
            let mut lease = server.lease.lock();
            let version = lease.as_ref().map(|lease| lease["metadata"]["resourceVersion"].clone());
            match (&asked.method, version) {
                (&Method::GET, None) => refusal(404, "NotFound"),
                (&Method::POST, Some(_)) => refusal(409, "AlreadyExists"),
                (&Method::PUT, version) if version.as_ref() != Some(&asked.body["metadata"]["resourceVersion"]) => {
                    refusal(409, "Conflict")
                }
                (&Method::POST | &Method::PUT, version) => {
                    let last: u64 = version.and_then(|version| version.as_str()?.parse().ok()).unwrap_or(0);
                    let mut body = asked.body.clone();
                    body["metadata"]["resourceVersion"] = (last + 1).to_string().into();
                    *lease = Some(body.clone());
                    (200, body)
                }
                _ => (200, lease.clone().unwrap()),
            }
        };
        scripted(answer).0
    }

    fn election(&self, identity: &str) -> Election {
        let api = Api::namespaced(self.client(), "ops");
        Election::new(api, "imcluster-operator", identity.to_owned(), Default::default())
    }
}

/// How long it takes until `holds` is as wanted.
async fn until(leadership: &Leadership, wanted: bool) -> Duration {
    let began = Instant::now();
    while leadership.holds() != wanted {
        assert!(began.elapsed() < Duration::from_secs(300), "never");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn one_leads_and_another_takes_over_within_twenty_seconds_of_its_death() {
    let server = Server::default();
    let (first, second) = (server.election("first"), server.election("second"));
    let (leads, follows) = (first.leadership(), second.leadership());
    let running = tokio::spawn(first.run(runtime::Shutdown::new()));
    until(&leads, true).await;
    tokio::spawn(second.run(runtime::Shutdown::new()));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(leads.holds() && !follows.holds());
    running.abort();
    let took = until(&follows, true).await;
    assert!(took <= Duration::from_secs(20), "{took:?}");
    assert!(!leads.holds(), "the dead one had stopped acting before");
    let spec = server.lease.lock().clone().unwrap()["spec"].clone();
    assert_eq!((spec["holderIdentity"].as_str(), spec["leaseTransitions"].as_i64()), (Some("second"), Some(1)));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_renew_stops_acting_and_goes_on_when_it_can() {
    let server = Server::default();
    let election = server.election("only");
    let leadership = election.leadership();
    tokio::spawn(election.run(runtime::Shutdown::new()));
    until(&leadership, true).await;
    server.is_down.store(true, Ordering::SeqCst);
    let took = until(&leadership, false).await;
    assert!(took < DURATION, "{took:?}: others may take over after {DURATION:?}");
    server.is_down.store(false, Ordering::SeqCst);
    until(&leadership, true).await;
    assert_eq!(*leadership.gained().borrow(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_ends_gives_the_lease_back() {
    let server = Server::default();
    let (first, second) = (server.election("first"), server.election("second"));
    let (leads, follows) = (first.leadership(), second.leadership());
    let shutdown = runtime::Shutdown::new();
    let running = tokio::spawn(first.run(shutdown.clone()));
    until(&leads, true).await;
    tokio::spawn(second.run(runtime::Shutdown::new()));
    tokio::time::sleep(Duration::from_secs(10)).await;
    shutdown.begin();
    running.await.unwrap();
    assert!(!leads.holds());
    let took = until(&follows, true).await;
    assert!(took <= Duration::from_secs(5), "{took:?}");
}
