//! The real neighbours do what tests rely on: they start, they keep or forget what they should, they refuse, they fail over.

use std::time::Duration;

use anyhow::Context;
use e2e::eventually;
use e2e::kafka::Kafka;
use e2e::redis::{Cluster, Redis, Sentinel};
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{ClientConfig, Message};

const SOON: Duration = Duration::from_secs(60);
const TOPIC: &str = "things";

async fn produce(mut config: ClientConfig, body: &str) -> anyhow::Result<()> {
    config.set("acks", "all").set("enable.idempotence", "true").set("message.timeout.ms", "60000");
    let producer: FutureProducer = config.create()?;
    let record = FutureRecord::to(TOPIC).key("key").payload(body);
    producer.send(record, Duration::ZERO).await.map_err(|(error, _)| error).context("produce")?;
    Ok(())
}

/// Reads until this many have come.
async fn consume(mut config: ClientConfig, count: usize) -> anyhow::Result<Vec<String>> {
    config.set("group.id", "readers").set("auto.offset.reset", "earliest").set("enable.auto.commit", "false");
    let consumer: StreamConsumer = config.create()?;
    consumer.subscribe(&[TOPIC])?;
    let mut bodies = Vec::new();
    let read = async {
        while bodies.len() < count {
            // Errors such as a broker that just went are transient: librdkafka goes on by itself.
            if let Ok(message) = consumer.recv().await {
                bodies.push(String::from_utf8(message.payload().unwrap_or_default().to_vec())?);
            }
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(SOON, read).await.context("consume")??;
    Ok(bodies)
}

async fn metadata(config: ClientConfig) -> anyhow::Result<usize> {
    let consumer: StreamConsumer = config.create()?;
    let ask = move || consumer.fetch_metadata(None, Duration::from_secs(5)).map(|metadata| metadata.brokers().len());
    Ok(tokio::task::spawn_blocking(ask).await??)
}

#[tokio::test]
async fn kafka_keeps_what_it_acknowledged_through_a_kill() -> anyhow::Result<()> {
    let kafka = Kafka::start().await?;
    kafka.create_topic(TOPIC, 3).await?;
    produce(kafka.client(), "before").await?;
    let first = kafka.pid();
    kafka.kill();
    kafka.restart().await?;
    assert_ne!(kafka.pid(), first);
    produce(kafka.client(), "after").await?;
    assert_eq!(consume(kafka.client(), 2).await?, ["before", "after"]);
    Ok(())
}

#[tokio::test]
async fn a_frozen_kafka_acknowledges_nothing_until_it_is_let_go() -> anyhow::Result<()> {
    let kafka = Kafka::start().await?;
    kafka.create_topic(TOPIC, 1).await?;
    kafka.stop();
    let config = kafka.client();
    let sent = tokio::spawn(async move { produce(config, "late").await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!sent.is_finished());
    kafka.cont();
    sent.await??;
    assert_eq!(consume(kafka.client(), 1).await?, ["late"]);
    Ok(())
}

#[tokio::test]
async fn three_brokers_go_on_without_one_and_take_it_back() -> anyhow::Result<()> {
    let kafka = Kafka::cluster(3).await?;
    kafka.create_topic(TOPIC, 3).await?;
    produce(kafka.client(), "three").await?;
    kafka.node(0).kill();
    produce(kafka.client(), "two").await?;
    kafka.node(0).restart()?;
    kafka.ready().await?;
    assert_eq!(consume(kafka.client(), 2).await?, ["three", "two"]);
    Ok(())
}

#[tokio::test]
async fn a_secured_kafka_takes_the_right_password_or_certificate_and_no_other() -> anyhow::Result<()> {
    let kafka = Kafka::with_sasl_tls().await?;
    kafka.create_topic(TOPIC, 1).await?;
    let secure = kafka.secure();
    let logins = [secure.plain(), secure.scram()];
    for login in logins {
        assert_eq!(std::fs::read_to_string(&login.user_file)?, login.user);
        let password = std::fs::read_to_string(&login.password_file)?;
        produce(secure.sasl_client(login, password.trim()), login.mechanism).await?;
        assert!(metadata(secure.sasl_client(login, "wrong")).await.is_err(), "{}", login.mechanism);
    }
    produce(secure.mtls_client(Some(secure.client())), "certificate").await?;
    assert!(metadata(secure.mtls_client(None)).await.is_err());
    assert_eq!(consume(kafka.client(), 3).await?, ["PLAIN", "SCRAM-SHA-512", "certificate"]);
    Ok(())
}

#[tokio::test]
async fn redis_forgets_at_a_restart_and_waits_while_frozen() -> anyhow::Result<()> {
    let redis = Redis::start().await?;
    redis.cli(&["set", "key", "value"]).await?;
    assert_eq!(redis.cli(&["get", "key"]).await?, "value");
    redis.stop();
    let frozen = tokio::time::timeout(Duration::from_millis(500), redis.cli(&["get", "key"])).await;
    assert!(frozen.is_err());
    redis.cont();
    assert_eq!(redis.cli(&["get", "key"]).await?, "value");
    redis.kill();
    assert!(redis.cli(&["get", "key"]).await.is_err());
    redis.restart().await?;
    assert_eq!(redis.cli(&["get", "key"]).await?, "");
    Ok(())
}

#[tokio::test]
async fn a_secured_redis_wants_tls_the_user_and_the_password() -> anyhow::Result<()> {
    let redis = Redis::with_tls_and_acl().await?;
    let secure = redis.secure().clone();
    assert_eq!(redis.cli(&["acl", "whoami"]).await?, secure.user);
    assert_eq!(std::fs::read_to_string(&secure.user_file)?, secure.user);
    let port = redis.address().replace("127.0.0.1:", "");
    let ca = secure.ca.to_string_lossy().into_owned();
    let cli = |arguments: &[&str]| {
        let mut command = std::process::Command::new("redis-cli");
        command.args(["-e", "-p", &port]).args(arguments).arg("ping");
        e2e::child::run("apt-get install redis-server", command)
    };
    let tls = ["--tls", "--cacert", ca.as_str()];
    assert!(cli(&[]).await.is_err(), "without TLS");
    assert!(cli(&tls).await.is_err(), "without a user");
    let login = ["--no-auth-warning", "--user", &secure.user, "--pass"];
    assert!(cli(&[&tls[..], &login[..], &["wrong"]].concat()).await.is_err(), "with the wrong password");
    let password = std::fs::read_to_string(&secure.password_file)?;
    assert_eq!(cli(&[&tls[..], &login[..], &[password.trim()]].concat()).await?, "PONG\n");
    Ok(())
}

#[tokio::test]
async fn sentinels_make_the_replica_the_primary() -> anyhow::Result<()> {
    let sentinel = Sentinel::start().await?;
    assert_eq!(sentinel.primary().await?, sentinel.first().address());
    sentinel.first().cli(&["set", "key", "value"]).await?;
    eventually(SOON, "the replica has it", || async {
        sentinel.second().cli(&["get", "key"]).await.is_ok_and(|value| value == "value")
    })
    .await?;
    sentinel.first().kill();
    let second = sentinel.second().address();
    eventually(SOON, "the failover", || async { sentinel.primary().await.is_ok_and(|primary| primary == second) })
        .await?;
    assert_eq!(sentinel.second().cli(&["set", "key", "other"]).await?, "OK");
    Ok(())
}

#[tokio::test]
async fn a_cluster_sends_clients_to_the_node_of_the_slot() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let mut owners = Vec::new();
    for (index, address) in cluster.addresses().iter().enumerate() {
        match cluster.node(index).cli(&["set", "key", "value"]).await {
            Ok(answer) => {
                assert_eq!(answer, "OK");
                owners.push(address.clone());
            }
            Err(error) => {
                let text = format!("{error:#}");
                assert!(text.contains("MOVED 12539"), "{text}");
            }
        }
    }
    assert_eq!(owners, [cluster.addresses()[2].clone()]);
    Ok(())
}

#[tokio::test]
async fn a_missing_neighbour_says_what_to_install() {
    let error = e2e::child::run("apt-get install redis-server", std::process::Command::new("no-redis-here")).await;
    assert_eq!(error.unwrap_err().to_string(), "`no-redis-here` is not there: apt-get install redis-server");
}

/// Every process whose parent this is.
fn children(parent: u32) -> Vec<u32> {
    let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| parent_of(*pid) == Some(parent)).collect()
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(") ").next()?.split(' ').nth(1)?.parse().ok()
}

#[tokio::test]
async fn neighbours_runs_a_command_between_them_and_ends_with_it() -> anyhow::Result<()> {
    let script = "redis-cli -p $(echo {redis} | sed s/.*://) ping; echo kafka={kafka}; exit 7";
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_neighbours"));
    command.args(["sh", "-c", script]);
    let output = tokio::process::Command::from(command).kill_on_drop(true).output().await?;
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(7), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("PONG\nkafka=127.0.0.1:"), "{text}");
    Ok(())
}

#[tokio::test]
async fn neighbours_die_with_the_process_that_started_them() -> anyhow::Result<()> {
    // What a killed process leaves on the disk goes with this folder.
    let scratch = tempfile::tempdir()?;
    let folder = scratch.path().to_owned();
    let run = e2e::child::Child::start("neighbours", "it is built with this test", move || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_neighbours"));
        command.args(["sh", "-c", "echo running; exec sleep 600"]).env("TMPDIR", &folder);
        command
    })?;
    eventually(SOON * 2, "the command to run", || async { run.output().contains("running") }).await?;
    let started = children(run.pid());
    assert_eq!(started.len(), 3, "Kafka, Redis and the command");
    run.kill();
    eventually(SOON, "all of them to be gone", || async { started.iter().all(|pid| parent_of(*pid).is_none()) }).await
}

#[tokio::test]
async fn a_program_that_ends_before_it_is_ready_is_an_error_at_once() {
    let started = e2e::program::Program::start("comet", &["--no-such-flag".to_owned()]).await;
    let text = format!("{:#}", started.unwrap_err());
    assert!(text.contains("it ended with"), "{text}");
}
