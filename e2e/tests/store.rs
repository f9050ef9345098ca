//! The session store on real Redis: the suite that memory passes too, and what lies under goim's keys to the byte.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use e2e::eventually;
use e2e::redis::{Cluster, Redis, Sentinel};
use logic::store::redis::{RedisConfig, RedisStore};
use logic::store::{Held, Session, SessionStore, suite};
use proto::logic::CometInfo;
use proto::{Mid, RoomId, ServerId};
use runtime::Process;

const SOON: Duration = Duration::from_secs(60);
const HALF_AN_HOUR: Duration = Duration::from_secs(1800);

#[derive(Parser)]
struct Program {
    #[command(flatten)]
    redis: RedisConfig,
}

fn start(flags: &[&str], process: &Process) -> RedisStore {
    let argv = std::iter::once("test").chain(flags.iter().copied());
    RedisStore::start(&Program::parse_from(argv).redis, process).unwrap()
}

/// A store that answers.
async fn store(flags: &[&str]) -> RedisStore {
    let process = Process::quiet();
    let store = start(flags, &process);
    let ready = || async { process.readiness.is_ready().then_some(()).ok_or_else(|| process.readiness.report()) };
    eventually(SOON, "the store", ready).await.unwrap();
    store
}

fn session(mid: i64, key: &str, server: &str) -> Session {
    Session { mid: Mid(mid), key: key.into(), server: server.into(), incarnation: 9 }
}

fn rooms(rooms: &[(&str, i32)]) -> BTreeMap<RoomId, i32> {
    rooms.iter().map(|(room, count)| ((*room).into(), *count)).collect()
}

fn sorted(lines: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = lines.lines().collect();
    lines.sort_unstable();
    lines
}

#[tokio::test]
async fn one_redis_passes_the_suite() {
    let redis = Redis::start().await.unwrap();
    suite::run(Arc::new(store(&["--redis-addr", &redis.address()]).await)).await;
}

#[tokio::test]
async fn a_prefix_and_a_database_of_its_own_pass_the_suite() {
    let redis = Redis::start().await.unwrap();
    let flags = ["--redis-addr", &redis.address(), "--redis-prefix", "blue:", "--redis-db", "3"];
    suite::run(Arc::new(store(&flags).await)).await;
    assert_eq!(redis.cli(&["-n", "0", "dbsize"]).await.unwrap(), "0");
    let keys = redis.cli(&["-n", "3", "keys", "*"]).await.unwrap();
    assert!(!keys.is_empty() && keys.lines().all(|key| key.starts_with("blue:")), "{keys}");
}

#[tokio::test]
async fn redis_over_tls_with_a_user_passes_the_suite() {
    let redis = Redis::with_tls_and_acl().await.unwrap();
    let secure = redis.secure().clone();
    let user = secure.password_file.with_file_name("user");
    std::fs::write(&user, format!("{}\n", secure.user)).unwrap();
    let file = |path: &std::path::Path| path.display().to_string();
    let flags = [
        "--redis-addr",
        &redis.address(),
        "--redis-ca-file",
        &file(&secure.ca),
        "--redis-cert-file",
        &file(&secure.client.cert),
        "--redis-key-file",
        &file(&secure.client.key),
        "--redis-username-file",
        &file(&user),
        "--redis-password-file",
        &file(&secure.password_file),
    ];
    suite::run(Arc::new(store(&flags).await)).await;
}

#[tokio::test]
async fn a_redis_cluster_passes_the_suite() {
    let cluster = Cluster::start().await.unwrap();
    let flags = ["--redis-cluster", "--redis-addr", &cluster.addresses().join(",")];
    suite::run(Arc::new(store(&flags).await)).await;
}

#[tokio::test]
async fn sentinels_lead_to_the_primary_and_to_its_heir() {
    let sentinel = Sentinel::start().await.unwrap();
    let flags = ["--redis-sentinel-master", sentinel.name(), "--redis-addr", &sentinel.addresses().join(",")];
    let store = Arc::new(store(&flags).await);
    suite::run(store.clone()).await;
    let kept = session(1, "kept", "h1");
    store.connect(&kept, HALF_AN_HOUR).await.unwrap();
    eventually(SOON, "the replica to have it", || async {
        Ok::<_, anyhow::Error>(sentinel.second().cli(&["get", "key_kept"]).await? == "h1")
            .and_then(|has| anyhow::Context::context(has.then_some(()), "not yet"))
    })
    .await
    .unwrap();
    sentinel.first().kill();
    eventually(SOON, "the heir to take a session", || async {
        store.connect(&session(1, "new", "h1"), HALF_AN_HOUR).await
    })
    .await
    .unwrap();
    assert_eq!(store.locate_keys(&[kept.key]).await.unwrap(), [Some("h1".into())]);
}

#[tokio::test]
async fn what_lies_in_redis_is_goims_to_the_byte() {
    let redis = Redis::start().await.unwrap();
    let store = store(&["--redis-addr", &redis.address()]).await;
    let cli = async |command: &[&str]| redis.cli(command).await.unwrap();

    store.connect(&session(7, "phone", "h1"), HALF_AN_HOUR).await.unwrap();
    store.connect(&session(0, "guest", "h1"), HALF_AN_HOUR).await.unwrap();
    assert_eq!(cli(&["type", "mid_7"]).await, "hash");
    assert_eq!(cli(&["hgetall", "mid_7"]).await, "phone\nh1");
    assert_eq!(cli(&["type", "key_phone"]).await, "string");
    assert_eq!(cli(&["get", "key_phone"]).await, "h1");
    assert_eq!(cli(&["get", "key_guest"]).await, "h1");
    for key in ["mid_7", "key_phone", "key_guest"] {
        let ttl: u64 = cli(&["ttl", key]).await.parse().unwrap();
        assert!((1790..=1800).contains(&ttl), "{key} lives {ttl} s");
    }

    // The room's shards are goim-compat's vectors; two rooms share shard 53.
    let counts = rooms(&[("live://1234567890123456789012", 3), ("live", 2), ("test://1", 1)]);
    store.renew_online(&"h1".into(), &counts, None, HALF_AN_HOUR).await.unwrap();
    assert_eq!(sorted(&cli(&["hkeys", "ol_h1"]).await), ["28", "53"]);
    let shard = cli(&["hget", "ol_h1", "53"]).await;
    let (head, updated) = shard.rsplit_once(':').unwrap();
    let expected = r#"{"server":"h1","room_count":{"live":2,"live://1234567890123456789012":3},"updated""#;
    assert_eq!(head, expected);
    assert!(updated.trim_end_matches('}').parse::<u64>().unwrap() > 1_700_000_000, "{shard}");
    let ttl: u64 = cli(&["ttl", "ol_h1"]).await.parse().unwrap();
    assert!((1790..=1800).contains(&ttl), "ol_h1 lives {ttl} s");

    let beside = ["guest", "phone"].map(|key| format!("{} {key}", if key == "phone" { 7 } else { 0 }));
    assert_eq!(sorted(&cli(&["smembers", "imc_srv_h1/9"]).await), beside.each_ref().map(String::as_str));
    assert_eq!(cli(&["zrange", "imc_mid_7", "0", "-1"]).await, "phone");
    let epoch = format!("{:016x} ", store.epoch().await.unwrap());
    assert!(cli(&["get", "imc_epoch"]).await.starts_with(&epoch));
    let all = ["imc_comets", "imc_epoch", "imc_mid_7", "imc_srv_h1/9", "key_guest", "key_phone", "mid_7", "ol_h1"];
    assert_eq!(sorted(&cli(&["keys", "*"]).await), all);

    assert!(store.disconnect(&session(7, "phone", "h1")).await.unwrap());
    assert_eq!(cli(&["exists", "mid_7", "key_phone", "imc_mid_7"]).await, "0");
}

#[tokio::test]
async fn what_a_go_logic_wrote_is_read_and_refreshed() {
    let redis = Redis::start().await.unwrap();
    let store = store(&["--redis-addr", &redis.address()]).await;
    let cli = async |command: &[&str]| redis.cli(command).await.unwrap();
    cli(&["hset", "mid_7", "phone", "go1"]).await;
    cli(&["expire", "mid_7", "1800"]).await;
    cli(&["setex", "key_phone", "1800", "go1"]).await;
    let shard = r#"{"server":"go1","room_count":{"test://1":4},"updated":1700000000}"#;
    cli(&["hset", "ol_go1", "28", shard]).await;

    assert_eq!(store.locate_keys(&["phone".into()]).await.unwrap(), [Some("go1".into())]);
    assert_eq!(store.locate_mids(&[Mid(7)]).await.unwrap(), [("phone".into(), "go1".into())]);
    let online = store.online(&"go1".into()).await.unwrap().unwrap();
    assert_eq!((online.updated, online.rooms[&RoomId::from("test://1")]), (1_700_000_000, 4));
    let next = store.connect(&session(7, "web", "h1"), HALF_AN_HOUR).await.unwrap();
    assert_eq!(next.others, [("phone".into(), "go1".into())]);

    cli(&["expire", "key_phone", "5"]).await;
    let go = Session { incarnation: 0, ..session(7, "phone", "go1") };
    store.heartbeat(&Held { session: go.clone(), since_ms: 0 }, HALF_AN_HOUR).await.unwrap();
    assert!(cli(&["ttl", "key_phone"]).await.parse::<u64>().unwrap() > 1700);
    assert!(store.disconnect(&go).await.unwrap());
    assert_eq!(cli(&["hgetall", "mid_7"]).await, "web\nh1");
}

/// goim's D29 and D20: a read that fails is an error, and counts another logic has just written stay.
#[tokio::test]
async fn an_outage_is_an_error_and_ends_by_itself() {
    let redis = Redis::start().await.unwrap();
    let process = Process::quiet();
    let store = start(&["--redis-addr", &redis.address(), "--redis-timeout", "500ms"], &process);
    eventually(SOON, "the first answer", || async { process.readiness.is_ready() }).await.unwrap();
    let server = ServerId::from("h1");
    let info = CometInfo { incarnation: 9, ..CometInfo::default() };
    store.renew_online(&server, &rooms(&[("test://1", 1)]), Some(&info), HALF_AN_HOUR).await.unwrap();

    redis.stop();
    assert!(store.online(&server).await.is_err());
    assert!(store.comets().await.is_err());
    assert!(store.servers().await.is_err());
    assert!(store.connect(&session(1, "k", "h1"), HALF_AN_HOUR).await.is_err());
    eventually(SOON, "the outage to show", || async { process.readiness.report().contains("redis: down") })
        .await
        .unwrap();
    assert!(process.readiness.is_ready());
    redis.cont();
    eventually(SOON, "Redis again", || async { store.online(&server).await }).await.unwrap();
    assert_eq!(store.comets().await.unwrap(), [(server.clone(), info)]);

    redis.kill();
    redis.restart().await.unwrap();
    eventually(SOON, "a session after the restart", || async {
        store.connect(&session(1, "k", "h1"), HALF_AN_HOUR).await
    })
    .await
    .unwrap();
    eventually(SOON, "the outage to be over", || async { process.readiness.report() == "redis: ok\n" }).await.unwrap();
}

#[tokio::test]
async fn the_epoch_changes_when_redis_is_emptied_or_started_again_and_for_all_logics_alike() {
    let redis = Redis::start().await.unwrap();
    let flags = ["--redis-addr", &redis.address()];
    let (one, other) = (store(&flags).await, store(&flags).await);
    let first = one.epoch().await.unwrap();
    assert_eq!((other.epoch().await.unwrap(), one.epoch().await.unwrap()), (first, first));
    redis.cli(&["flushall"]).await.unwrap();
    let second = one.epoch().await.unwrap();
    assert_ne!(second, first);
    assert_eq!(other.epoch().await.unwrap(), second);
    // What a Redis that kept everything on disk has in the end: the number, but written on another process.
    let kept = redis.cli(&["get", "imc_epoch"]).await.unwrap();
    redis.kill();
    redis.restart().await.unwrap();
    redis.cli(&["set", "imc_epoch", &kept]).await.unwrap();
    let third = eventually(SOON, "Redis again", || async { one.epoch().await }).await.unwrap();
    assert_ne!(third, second);
    assert_eq!(eventually(SOON, "Redis again", || async { other.epoch().await }).await.unwrap(), third);
}

#[tokio::test]
async fn a_user_who_may_not_ask_for_info_still_has_an_epoch() {
    let redis = Redis::start().await.unwrap();
    redis.cli(&["acl", "setuser", "default", "-@dangerous"]).await.unwrap();
    let store = store(&["--redis-addr", &redis.address()]).await;
    let first = store.epoch().await.unwrap();
    assert_eq!(store.epoch().await.unwrap(), first);
}

/// Each primary of a cluster may fall to an heir alone.
#[tokio::test]
async fn an_epoch_of_any_part_of_a_cluster_changes_the_whole() {
    let cluster = Cluster::start().await.unwrap();
    let store = store(&["--redis-cluster", "--redis-addr", &cluster.addresses().join(",")]).await;
    let mut before = store.epoch().await.unwrap();
    assert_eq!(store.epoch().await.unwrap(), before);
    for index in 0..cluster.addresses().len() {
        cluster.node(index).cli(&["flushall"]).await.unwrap();
        let now = store.epoch().await.unwrap();
        assert_ne!(now, before, "node {index}");
        before = now;
    }
}

/// A comet that was silent and renews while its sessions are being removed keeps them.
#[tokio::test]
async fn a_purge_of_one_who_comes_back_meanwhile_takes_nothing() {
    let redis = Redis::start().await.unwrap();
    let store = Arc::new(store(&["--redis-addr", &redis.address()]).await);
    let server = ServerId::from("h1");
    let info = CometInfo { incarnation: 9, ..CometInfo::default() };
    let held: Vec<_> =
        (0..5000).map(|n| Held { session: session(0, &format!("k{n}"), "h1"), since_ms: 1000 }).collect();
    store.renew_online(&server, &rooms(&[]), Some(&info), HALF_AN_HOUR).await.unwrap();
    store.register(&held, HALF_AN_HOUR).await.unwrap();
    let purge = tokio::spawn({
        let (store, server) = (store.clone(), server.clone());
        async move { store.purge_server(&server, 9).await }
    });
    eventually(SOON, "the purge to have begun", || async {
        redis.cli(&["scard", "imc_srv_h1/9"]).await.unwrap() != "5000"
    })
    .await
    .unwrap();
    store.renew_online(&server, &rooms(&[]), Some(&info), HALF_AN_HOUR).await.unwrap();
    store.register(&held, HALF_AN_HOUR).await.unwrap();
    let purged = purge.await.unwrap().unwrap();
    let keys: Vec<_> = held.iter().map(|held| held.session.key.clone()).collect();
    let found = store.locate_keys(&keys).await.unwrap();
    assert!(found.iter().all(|at| at.as_ref() == Some(&server)), "purged {purged}");
    assert!(store.servers().await.unwrap().iter().any(|seen| seen.server == server));
}

/// The same server id with a new incarnation, as of a container that was restarted in its pod.
#[tokio::test]
async fn a_purge_spares_an_incarnation_that_is_heard_of_for_the_first_time_meanwhile() {
    let redis = Redis::start().await.unwrap();
    let store = Arc::new(store(&["--redis-addr", &redis.address()]).await);
    let server = ServerId::from("h1");
    let held = |incarnation| -> Vec<_> {
        let session = |n| Session { incarnation, ..session(0, &format!("k{n}"), "h1") };
        (0..5000).map(|n| Held { session: session(n), since_ms: 1000 }).collect()
    };
    let info = |incarnation| CometInfo { incarnation, ..CometInfo::default() };
    store.renew_online(&server, &rooms(&[]), Some(&info(9)), HALF_AN_HOUR).await.unwrap();
    store.register(&held(9), HALF_AN_HOUR).await.unwrap();
    let purge = tokio::spawn({
        let (store, server) = (store.clone(), server.clone());
        async move { store.purge_server(&server, 9).await }
    });
    eventually(SOON, "the purge to have begun", || async {
        redis.cli(&["scard", "imc_srv_h1/9"]).await.unwrap() != "5000"
    })
    .await
    .unwrap();
    store.renew_online(&server, &rooms(&[]), Some(&info(10)), HALF_AN_HOUR).await.unwrap();
    store.register(&held(10), HALF_AN_HOUR).await.unwrap();
    let purged = purge.await.unwrap().unwrap();
    let keys: Vec<_> = held(10).iter().map(|held| held.session.key.clone()).collect();
    let found = store.locate_keys(&keys).await.unwrap();
    let lost = found.iter().filter(|at| at.is_none()).count();
    assert_eq!(lost, 0, "purged {purged}");
}

/// What waits for a Redis that is away stays in a buffer until it is back, answered or not: a full one takes no more.
#[tokio::test]
async fn so_much_may_wait_for_a_redis_that_is_away_and_no_more() {
    let redis = Redis::start().await.unwrap();
    let store = store(&["--redis-addr", &redis.address(), "--redis-connections", "1"]).await;
    redis.kill();
    eventually(SOON, "the connection to be gone", || async { store.ping().await.is_err() }).await.unwrap();
    let keys = ["k".into()];
    let asked = (0..12_000).map(|_| store.locate_keys(&keys));
    let mut refusals: BTreeMap<String, usize> = BTreeMap::new();
    for answer in futures::future::join_all(asked).await {
        *refusals.entry(answer.unwrap_err().0).or_default() += 1;
    }
    let full: usize = refusals.iter().filter(|(why, _)| why.contains("in-flight")).map(|(_, count)| count).sum();
    assert!((1500..12_000).contains(&full), "{refusals:?}");
    redis.restart().await.unwrap();
    eventually(SOON, "an answer", || async { store.locate_keys(&keys).await }).await.unwrap();
}
