//! The session store when the line to Redis breaks: what was refused never becomes a session, and whoever does not answer
//! is left for who has taken its place.

use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use e2e::eventually;
use e2e::redis::Redis;
use e2e::relay::Relay;
use logic::store::redis::{RedisConfig, RedisStore};
use logic::store::{Connected, Session, SessionStore};
use proto::{Key, Mid};
use runtime::Process;

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
    let made = store.connect(&session("k0", "h2"), HALF_AN_HOUR).await.unwrap();
    assert_eq!(made, Connected::default());
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
