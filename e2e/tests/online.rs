//! Who is online, and where, stays true when a comet is taken for dead and when Redis loses what it knew.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use e2e::client::{Client, Dial, Received, Target};
use e2e::eventually;
use e2e::load::{Farm, Member, Plan};
use e2e::program::{Options, Stack, flags, get, post};
use e2e::redis::{Redis, Sentinel};
use proto::op;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);
/// A comet is taken for dead 30 s after its last word.
const DEATH: Duration = Duration::from_secs(120);

fn target(stack: &Stack, comet: usize) -> Target {
    format!("tcp://{}", stack.comet(comet).tcp()).parse().unwrap()
}

/// Client n of a crowd: its key is the crowd's name and n, its member 1000 times the crowd's number plus n.
fn token(name: &'static str, number: usize, n: usize) -> String {
    let mid = number * 100_000 + n + 1;
    format!(r#"{{"mid":{mid},"key":"{name}-{n}","room_id":"test://{}","accepts":[1000]}}"#, n % 10)
}

async fn crowd(target: Target, name: &'static str, number: usize, connections: usize) -> Farm {
    let plan = Plan {
        target,
        connections,
        stalled: 0,
        sources: 20,
        threads: 1,
        core: None,
        heartbeat: None,
        run: 1,
        member: Arc::new(move |n| Member { token: token(name, number, n), streams: vec![] }),
    };
    Farm::connect(plan).await.unwrap()
}

/// What logic says: connections, and those in the ten rooms.
async fn counts(stack: &Stack) -> (u64, u64) {
    let (_, total) = get(stack.http(), "/goim/online/total").await.unwrap();
    let total: Value = serde_json::from_str(&total).unwrap();
    let rooms: Vec<String> = (0..10).map(|room| format!("rooms={room}")).collect();
    let (_, online) = get(stack.http(), &format!("/goim/online/room?type=test&{}", rooms.join("&"))).await.unwrap();
    let online: Value = serde_json::from_str(&online).unwrap();
    let rooms = online["data"].as_object().unwrap();
    (total["data"]["conn_count"].as_u64().unwrap(), rooms.values().map(|count| count.as_u64().unwrap()).sum())
}

async fn counted(stack: &Stack, wanted: u64, within: Duration) {
    eventually(within, &format!("{wanted} to be counted"), || async {
        let found = counts(stack).await;
        anyhow::ensure!(found == (wanted, wanted), "{found:?}");
        Ok(())
    })
    .await
    .unwrap();
}

/// The lines that `redis-cli` prints.
async fn lines(redis: &Redis, command: &[&str]) -> Vec<String> {
    redis.cli(command).await.unwrap().lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

async fn keys(redis: &Redis) -> BTreeMap<String, String> {
    redis.sessions().await.unwrap()
}

async fn enter(target: &Target, token: String) -> Client {
    let mut client = Client::connect(target, &Dial::default()).await.unwrap();
    client.auth(token).await.unwrap();
    client
}

async fn push(stack: &Stack, target: &str, body: &str) {
    let (status, answer) = post(stack.http(), &format!("/goim/push/{target}"), body.to_owned()).await.unwrap();
    assert!(status.is_success() && answer.contains(r#""code":0"#), "{status} {answer}");
}

/// A comet that was only away lives on: what a purge had taken by then is back, and nobody did a thing.
#[tokio::test(flavor = "multi_thread")]
async fn a_comet_that_was_taken_for_dead_registers_its_sessions_again() {
    const CLIENTS: usize = 1000;
    let stack = Stack::start(Options { comets: 2, ..Options::default() }).await.unwrap();
    let crowd = crowd(target(&stack, 0), "frozen", 1, CLIENTS).await;
    counted(&stack, CLIENTS as u64, SOON).await;
    stack.comet(0).program.stop();
    eventually(DEATH, "its sessions to be purged", || async { keys(&stack.redis).await.is_empty() }).await.unwrap();
    stack.comet(0).program.cont();
    let back = Instant::now();
    eventually(SOON, "every session again", || async { keys(&stack.redis).await.len() == CLIENTS }).await.unwrap();
    println!("every session is known again after {:?}", back.elapsed());
    counted(&stack, CLIENTS as u64, SOON).await;
    assert_eq!(lines(&stack.redis, &["keys", "mid_*"]).await.len(), CLIENTS);
    assert_eq!(crowd.closed(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_redis_forgot_is_registered_again_and_pushes_find_everybody() {
    const EACH: usize = 500;
    let stack = Stack::start(Options { comets: 2, ..Options::default() }).await.unwrap();
    let crowds = [crowd(target(&stack, 0), "one", 1, EACH).await, crowd(target(&stack, 1), "two", 2, EACH).await];
    let mut reader = enter(&target(&stack, 0), r#"{"mid":7,"key":"reader","accepts":[1000]}"#.to_owned()).await;
    let before = keys(&stack.redis).await;
    assert_eq!(before.len(), 2 * EACH + 1);
    assert_eq!(stack.redis.cli(&["flushall"]).await.unwrap(), "OK");
    let lost = Instant::now();
    eventually(SOON, "every session again", || async { keys(&stack.redis).await == before }).await.unwrap();
    println!("every session is known again after {:?}", lost.elapsed());
    for (target, body) in [("keys?operation=1000&keys=reader", "by key"), ("mids?operation=1000&mids=7", "by mid")] {
        push(&stack, target, body).await;
        assert_eq!(reader.push_within(SOON).await.unwrap(), (1000, body.into()));
    }
    // Who leaves is gone, as before.
    drop(reader);
    eventually(SOON, "the reader to be gone", || async { keys(&stack.redis).await.len() == 2 * EACH }).await.unwrap();
    counted(&stack, 2 * EACH as u64, SOON).await;
    assert!(crowds.iter().all(|crowd| crowd.closed() == 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_heir_of_redis_never_got_is_registered_again() {
    const EACH: usize = 200;
    let sentinel = Sentinel::start().await.unwrap();
    let stack = Stack::start(Options { store: flags::sentinel(&sentinel), ..Options::default() }).await.unwrap();
    let early = crowd(target(&stack, 0), "early", 1, EACH).await;
    let (first, second) = (sentinel.first(), sentinel.second());
    eventually(SOON, "the replica to have them", || async { keys(second).await.len() == EACH }).await.unwrap();
    // From here on the replica gets nothing, as if its primary were far behind with it.
    assert_eq!(second.cli(&["replicaof", "127.0.0.1", "1"]).await.unwrap(), "OK");
    let late = crowd(target(&stack, 0), "late", 2, EACH).await;
    let mut reader = enter(&target(&stack, 0), r#"{"mid":7,"key":"reader","accepts":[1000]}"#.to_owned()).await;
    assert_eq!(keys(first).await.len(), 2 * EACH + 1);
    assert_eq!(keys(second).await.len(), EACH, "the replica got what it was not to get");
    first.kill();
    let lost = Instant::now();
    eventually(DEATH, "the heir to know every session", || async { keys(second).await.len() == 2 * EACH + 1 })
        .await
        .unwrap();
    println!("the heir knows every session after {:?}", lost.elapsed());
    for (target, body) in [("keys?operation=1000&keys=reader", "by key"), ("mids?operation=1000&mids=7", "by mid")] {
        push(&stack, target, body).await;
        assert_eq!(reader.push_within(SOON).await.unwrap(), (1000, body.into()));
    }
    assert_eq!((early.closed(), late.closed()), (0, 0));
}

/// What was written to Redis while it stood still is carried out when it goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_redis_makes_when_its_client_was_refused_long_ago_is_ended() {
    let stack = Stack::start(Options::default()).await.unwrap();
    let _here = enter(&target(&stack, 0), r#"{"mid":7,"key":"here"}"#.to_owned()).await;
    let before = keys(&stack.redis).await;
    let websocket = format!("ws://{}/sub", stack.comet(0).websocket()).parse().unwrap();
    stack.redis.stop();
    for number in 0..4 {
        let mut client = Client::connect(&websocket, &Dial::default()).await.unwrap();
        client.send(op::AUTH, format!(r#"{{"mid":7,"key":"refused-{number}"}}"#).as_bytes()).await.unwrap();
        assert_eq!(client.next_within(SOON).await.unwrap(), Received::Closed(Some(1013)));
    }
    stack.redis.cont();
    eventually(SOON, "a session of who was refused", || async { keys(&stack.redis).await.len() > before.len() })
        .await
        .unwrap();
    eventually(SOON, "nobody to have one but who is in", || async {
        keys(&stack.redis).await == before && stack.redis.members().await.unwrap().len() == 1
    })
    .await
    .unwrap();
}
