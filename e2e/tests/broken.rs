//! The session store when the line to Redis breaks: what was refused never becomes a session, and whoever does not answer
//! is left for who has taken its place.

use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use e2e::eventually;
use e2e::redis::{Redis, Sentinel};
use e2e::relay::Relay;
use logic::store::redis::{RedisConfig, RedisStore};
use logic::store::{Connected, Session, SessionStore};
use proto::{Key, Mid};
use runtime::Process;
use tokio::task::JoinHandle;

const SOON: Duration = Duration::from_secs(60);
const HALF_AN_HOUR: Duration = Duration::from_secs(1800);

#[derive(Parser)]
struct Program {
    #[command(flatten)]
    redis: RedisConfig,
}

/// A store that has its answer from Redis.
async fn store(flags: &[&str]) -> Arc<RedisStore> {
    let process = Process::quiet();
    let argv = std::iter::once("test").chain(flags.iter().copied());
    let store = RedisStore::start(&Program::parse_from(argv).redis, &process).unwrap();
    let ready = || async { process.readiness.is_ready().then_some(()).ok_or_else(|| process.readiness.report()) };
    eventually(SOON, "the store", ready).await.unwrap();
    Arc::new(store)
}

fn session(key: &str, server: &str) -> Session {
    Session { mid: Mid(1), key: key.into(), server: server.into(), incarnation: 9 }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_was_refused_has_no_session_when_redis_is_back() {
    let redis = Redis::start().await.unwrap();
    let store = store(&["--redis-addr", &redis.address()]).await;
    redis.kill();
    let mut refused = Vec::new();
    eventually(SOON, "a client to be refused", || {
        let key = format!("k{}", refused.len());
        refused.push(Key::from(key.as_str()));
        let store = &store;
        async move { store.connect(&session(&key, "h1"), HALF_AN_HOUR).await.is_err() }
    })
    .await
    .unwrap();
    for number in 0..40 {
        let key = format!("later{number}");
        refused.push(Key::from(key.as_str()));
        store.connect(&session(&key, "h1"), HALF_AN_HOUR).await.unwrap_err();
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    redis.restart().await.unwrap();
    // As many answers as there are connections and more: whatever waited was written before them.
    for _ in 0..20 {
        eventually(SOON, "an answer", || async { store.ping().await }).await.unwrap();
    }
    assert_eq!(store.locate_keys(&refused).await.unwrap(), vec![None; refused.len()]);
    let Connected { replaced, before_ms, others, .. } =
        store.connect(&session("k0", "h2"), HALF_AN_HOUR).await.unwrap();
    assert_eq!((replaced, before_ms, others), (None, None, vec![]));
}

/// goim's D30 again, if it were written twice: the second time the key is here already, and where it was is forgotten.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_lost_is_a_refusal_and_not_asked_for_twice() {
    let redis = Redis::start().await.unwrap();
    let relay = Relay::start(redis.address().parse().unwrap()).await.unwrap();
    let store = store(&["--redis-addr", &relay.address().to_string()]).await;
    store.connect(&session("k", "h1"), HALF_AN_HOUR).await.unwrap();
    relay.cut_answer_to("key_k");
    let answer = store.connect(&session("k", "h2"), HALF_AN_HOUR).await;
    assert_eq!(redis.cli(&["get", "key_k"]).await.unwrap(), "h2", "it was carried out");
    answer.unwrap_err();
}

/// Asks over every connection more often than any of them could seem idle, until it is dropped.
struct Traffic(Vec<JoinHandle<()>>);

impl Traffic {
    fn start(store: &Arc<RedisStore>) -> Self {
        let asking = |number: u64| {
            let (store, key) = (store.clone(), Key::from(format!("asked{number}")));
            tokio::spawn(async move {
                loop {
                    // Whether it is answered is what the test looks at.
                    let _asked = store.locate_keys(std::slice::from_ref(&key)).await;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            })
        };
        Self((0..16).map(asking).collect())
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_freezes_under_traffic_is_left_for_the_one_that_has_its_address() {
    let (old, new) = (Redis::start().await.unwrap(), Redis::start().await.unwrap());
    let relay = Relay::start(old.address().parse().unwrap()).await.unwrap();
    let store = store(&["--redis-addr", &relay.address().to_string()]).await;
    let _traffic = Traffic::start(&store);
    old.stop();
    relay.lead_to(new.address().parse().unwrap());
    eventually(SOON, "the other one to take a session", || async {
        store.connect(&session("k", "h1"), HALF_AN_HOUR).await
    })
    .await
    .unwrap();
    assert_eq!(new.cli(&["get", "key_k"]).await.unwrap(), "h1");
    eventually(SOON, "every connection to lead there", || async {
        let clients = new.cli(&["client", "list", "type", "normal"]).await?;
        // One of them asks.
        anyhow::ensure!(clients.lines().count() == 5, "{clients}");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_freezes_under_traffic_is_left_for_its_heir() {
    let sentinel = Sentinel::start().await.unwrap();
    let flags = ["--redis-sentinel-master", sentinel.name(), "--redis-addr", &sentinel.addresses().join(",")];
    let store = store(&flags).await;
    let _traffic = Traffic::start(&store);
    sentinel.first().stop();
    eventually(SOON, "the heir to take a session", || async { store.connect(&session("k", "h1"), HALF_AN_HOUR).await })
        .await
        .unwrap();
    assert_eq!(sentinel.second().cli(&["get", "key_k"]).await.unwrap(), "h1");
}
