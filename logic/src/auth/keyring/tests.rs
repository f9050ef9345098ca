use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use serde_json::json;
use tokio::net::TcpListener;

use super::super::signer::Signer;
use super::*;

const SOON: Duration = Duration::from_secs(30);
const NEVER: Duration = Duration::from_secs(3600);

/// An issuer that publishes what a test says and counts how often it is asked.
#[derive(Clone, Default)]
struct Issuer {
    answer: Arc<Mutex<(u16, String)>>,
    asked: Arc<AtomicUsize>,
}

impl Issuer {
    async fn start(kids: &[&str]) -> (Self, Url) {
        let issuer = Self::default();
        issuer.publish(kids);
        let served = issuer.clone();
        let answer = move || async move {
            served.asked.fetch_add(1, Ordering::Relaxed);
            let (status, text) = served.answer.lock().clone();
            (StatusCode::from_u16(status).unwrap(), text)
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}/keys", listener.local_addr().unwrap())).unwrap();
        tokio::spawn(axum::serve(listener, Router::new().route("/keys", get(answer))).into_future());
        (issuer, url)
    }

    fn publish(&self, kids: &[&str]) {
        let keys: Vec<_> = kids.iter().map(|kid| Signer::ed().jwk(kid)).collect();
        self.say(200, &json!({"keys": keys}).to_string());
    }

    fn say(&self, status: u16, text: &str) {
        *self.answer.lock() = (status, text.to_owned());
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

fn kids(keys: &[Key]) -> Vec<&str> {
    keys.iter().map(|key| key.kid.as_deref().unwrap()).collect()
}

async fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let wait = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, wait).await.unwrap_or_else(|_| panic!("not within {SOON:?}: {what}"));
}

/// A ring that has asked once.
async fn following(url: Url, every: Duration, again: Duration) -> KeyRing {
    let ring = KeyRing::asking(url, every, again, web::client(), AuthMetrics::default());
    tokio::spawn(ring.clone().follow());
    let metrics = ring.shared.metrics.clone();
    eventually("the first answer", || metrics.reads("ok") + metrics.reads("error") > 0).await;
    ring
}

#[tokio::test]
async fn keys_are_asked_for_at_the_start_and_then_now_and_then() {
    let (issuer, url) = Issuer::start(&["1"]).await;
    let ring = following(url, Duration::from_millis(20), NEVER).await;
    assert_eq!(kids(&ring.keys()), ["1"]);
    issuer.publish(&["2", "3"]);
    eventually("the new keys", || kids(&ring.keys()) == ["2", "3"]).await;
}

#[tokio::test]
async fn a_kid_that_nobody_knows_has_the_issuer_asked_once_and_who_comes_soon_after_is_to_try_again() {
    let (issuer, url) = Issuer::start(&["1"]).await;
    let ring = following(url, NEVER, NEVER).await;
    issuer.publish(&["1", "2"]);
    let seen = ring.keys();
    let many = futures::future::join_all((0..50).map(|_| ring.newer(&seen))).await;
    for keys in many {
        assert_eq!(kids(&keys.unwrap()), ["1", "2"]);
    }
    assert_eq!(issuer.asked(), 2, "the start, and one for all fifty");
    // Of a key that is published meanwhile nobody may say yet that there is none.
    issuer.publish(&["1", "2", "3"]);
    for _ in 0..50 {
        ring.newer(&ring.keys()).await.unwrap_err();
    }
    assert_eq!(issuer.asked(), 2);
}

#[tokio::test]
async fn after_that_while_it_is_asked_again() {
    let (issuer, url) = Issuer::start(&["1"]).await;
    let ring = following(url, NEVER, Duration::ZERO).await;
    for times in 2..5 {
        ring.newer(&ring.keys()).await.unwrap();
        assert_eq!(issuer.asked(), times);
    }
}

#[tokio::test]
async fn an_issuer_that_is_away_or_talks_nonsense_leaves_the_last_good_keys() {
    let (issuer, url) = Issuer::start(&["1"]).await;
    let ring = following(url, NEVER, Duration::ZERO).await;
    let long = format!("{{\"keys\":[]}}{}", " ".repeat(ANSWER));
    for (status, text) in [(500, "{}"), (200, "hush"), (200, r#"{"keys":[]}"#), (302, ""), (200, &long)] {
        issuer.say(status, text);
        assert!(ring.newer(&ring.keys()).await.is_err(), "the key may be there: try again");
        assert_eq!(kids(&ring.keys()), ["1"]);
    }
    issuer.publish(&["2"]);
    assert_eq!(kids(&ring.newer(&ring.keys()).await.unwrap()), ["2"]);
}

#[tokio::test]
async fn without_a_first_answer_nobody_can_be_told() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("http://{}/keys", port.local_addr().unwrap())).unwrap();
    drop(port);
    let ring = following(url, NEVER, NEVER).await;
    assert!(ring.keys().is_empty());
    assert!(ring.newer(&ring.keys()).await.is_err());
}

#[tokio::test]
async fn a_file_is_read_again_when_it_changes_and_a_bad_one_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys");
    let write = |kid: &str| std::fs::write(&path, json!({"keys": [Signer::ed().jwk(kid)]}).to_string()).unwrap();
    write("1");
    let ring = KeyRing::file(path.clone(), Form::File, AuthMetrics::default()).unwrap();
    assert_eq!(kids(&ring.keys()), ["1"]);
    tokio::spawn(ring.clone().follow());
    let metrics = ring.shared.metrics.clone();
    std::fs::write(&path, "hush").unwrap();
    eventually("the bad file", || metrics.reads("error") == 1).await;
    assert_eq!(kids(&ring.keys()), ["1"]);
    write("second");
    eventually("the good file", || kids(&ring.keys()) == ["second"]).await;
    std::fs::remove_file(&path).unwrap();
    ring.newer(&ring.keys()).await.unwrap();
    assert_eq!(kids(&ring.keys()), ["second"]);
}
