//! The push queue on real Kafka: the suite that memory passes too, what a record looks like to a Go job, and outages.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use e2e::eventually;
use e2e::kafka::{Kafka, Login};
use logic::queue::kafka::{KafkaQueue, TopicConfig};
use logic::queue::{NewRecord, PushQueue, QueueError, suite};
use proto::kafka::KafkaConfig;
use rdkafka::Message;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::message::Headers;
use runtime::Process;

const SOON: Duration = Duration::from_secs(60);

#[derive(Parser)]
struct Program {
    #[command(flatten)]
    kafka: KafkaConfig,
    #[command(flatten)]
    topic: TopicConfig,
}

fn start(flags: &[&str], process: &Process) -> KafkaQueue {
    let program = Program::parse_from(std::iter::once("test").chain(flags.iter().copied()));
    KafkaQueue::start(&program.kafka, &program.topic, process).unwrap()
}

async fn ready(process: &Process) {
    let ready = || async { process.readiness.is_ready().then_some(()).ok_or_else(|| process.readiness.report()) };
    eventually(SOON, "the queue", ready).await.unwrap();
}

/// A queue that answers.
async fn queue(flags: &[&str]) -> Arc<KafkaQueue> {
    let process = Process::quiet();
    let queue = start(flags, &process);
    ready(&process).await;
    Arc::new(queue)
}

fn record(key: &'static str, value: &'static str) -> NewRecord {
    NewRecord::new(key.into(), value.into(), None).unwrap()
}

#[tokio::test]
async fn kafka_passes_the_suite_and_a_record_is_what_goims_is() {
    let kafka = Kafka::start().await.unwrap();
    kafka.create_topic("goim-push-topic", 9).await.unwrap();
    let queue = queue(&["--kafka-brokers", &kafka.brokers()]).await;
    suite::run(queue.clone()).await;

    kafka.create_topic("looked-at", 9).await.unwrap();
    let queue = self::queue(&["--kafka-brokers", &kafka.brokers(), "--kafka-topic", "looked-at"]).await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned();
    queue.send(record("plain", "v")).await.unwrap();
    let record = NewRecord::new("plain".into(), "traced".into(), Some(trace.clone())).unwrap();
    queue.send(record).await.unwrap();
    let consumer: StreamConsumer =
        kafka.client().set("group.id", "looker").set("auto.offset.reset", "earliest").create().unwrap();
    consumer.subscribe(&["looked-at"]).unwrap();
    let plain = tokio::time::timeout(SOON, consumer.recv()).await.unwrap().unwrap();
    assert_eq!((plain.key(), plain.payload()), (Some(&b"plain"[..]), Some(&b"v"[..])));
    assert!(plain.headers().is_none(), "goim writes none");
    let traced = tokio::time::timeout(SOON, consumer.recv()).await.unwrap().unwrap();
    let header = traced.headers().unwrap().get(0);
    assert_eq!((header.key, header.value), ("traceparent", Some(trace.as_bytes())));
    assert!(traced.timestamp().to_millis().unwrap() > 1_700_000_000_000);
}

#[tokio::test]
async fn a_missing_topic_is_named_and_found_when_it_appears() {
    let kafka = Kafka::start().await.unwrap();
    let process = Process::quiet();
    let queue = start(&["--kafka-brokers", &kafka.brokers(), "--kafka-topic", "later"], &process);
    eventually(SOON, "the topic to be missed", || async {
        process
            .readiness
            .report()
            .contains("topic `later` does not exist: create it, have it created with --kafka-create-topic")
    })
    .await
    .unwrap();
    assert_eq!(queue.partitions(), 0, "nothing is split by a number that nobody has said");
    assert_eq!(process.status.report()["topic"]["ok"], false);
    kafka.create_topic("later", 3).await.unwrap();
    ready(&process).await;
    assert_eq!(queue.partitions(), 3);
    assert_eq!(process.status.report()["topic"], serde_json::json!({"ok": true}));
    queue.send(record("k", "v")).await.unwrap();
}

#[tokio::test]
async fn a_missing_topic_is_created_when_told_to_and_one_that_is_other_than_expected_is_used_and_named() {
    let kafka = Kafka::start().await.unwrap();
    let brokers = kafka.brokers();
    let flags = ["--kafka-brokers", &brokers, "--kafka-topic", "ours", "--kafka-partitions", "5"];
    let create = [&flags[..], &["--kafka-create-topic", "--kafka-replication", "1"]].concat();
    let processes = [Process::quiet(), Process::quiet()];
    // Both at once, as two logics of a new cluster.
    let queues = processes.each_ref().map(|process| start(&create, process));
    for (process, queue) in processes.iter().zip(&queues) {
        ready(process).await;
        assert_eq!(queue.partitions(), 5);
        assert_eq!(process.status.report()["topic"], serde_json::json!({"ok": true}));
        queue.send(record("k", "v")).await.unwrap();
    }

    let process = Process::quiet();
    let other =
        ["--kafka-brokers", &brokers, "--kafka-topic", "ours", "--kafka-partitions", "9", "--kafka-replication", "3"];
    let queue = start(&other, &process);
    ready(&process).await;
    queue.send(record("k", "v")).await.unwrap();
    let status = process.status.report();
    assert_eq!(status["topic"]["ok"], false);
    let error = status["topic"]["error"].as_str().unwrap();
    assert!(error.starts_with("topic `ours` has 5 partitions, not 9 and 1 replicas, not 3: "), "{error}");

    let process = Process::quiet();
    let too_many =
        ["--kafka-brokers", &brokers, "--kafka-topic", "wide", "--kafka-create-topic", "--kafka-replication", "3"];
    let _queue = start(&too_many, &process);
    let why = eventually(SOON, "the refusal to show", || async {
        let status = process.status.report();
        let why = status["topic"]["error"].as_str().map(str::to_owned);
        why.filter(|why| why.contains("cannot be created")).ok_or(status)
    });
    assert!(why.await.unwrap().contains("eplication"), "it says why");
    assert!(!process.readiness.is_ready());
}

/// goim blocks its handlers through ten retries (D22).
#[tokio::test]
async fn a_broker_that_is_away_is_unavailable_in_time_and_back_by_itself() {
    let kafka = Kafka::start().await.unwrap();
    kafka.create_topic("goim-push-topic", 9).await.unwrap();
    let process = Process::quiet();
    let queue = start(&["--kafka-brokers", &kafka.brokers()], &process);
    ready(&process).await;
    let (_, before) = queue.send(record("k", "before")).await.unwrap();

    kafka.stop();
    let refused = tokio::time::timeout(SOON, queue.send(record("k", "during"))).await.unwrap().unwrap_err();
    assert!(matches!(refused, QueueError::Unavailable(_)), "{refused}");
    kafka.cont();
    eventually(SOON, "Kafka after the freeze", || queue.send(record("k", "after"))).await.unwrap();

    kafka.kill();
    let refused = tokio::time::timeout(SOON, queue.send(record("k", "dead"))).await.unwrap().unwrap_err();
    assert!(matches!(refused, QueueError::Unavailable(_)), "{refused}");
    eventually(SOON, "the outage to show", || async { process.readiness.report().contains("kafka: down") })
        .await
        .unwrap();
    assert!(process.readiness.is_ready());
    kafka.restart().await.unwrap();
    let (_, after) = eventually(SOON, "Kafka after the crash", || queue.send(record("k", "again"))).await.unwrap();
    assert!(after > before);
    eventually(SOON, "the outage to be over", || async { process.readiness.report() == "kafka: ok\n" }).await.unwrap();
}

#[tokio::test]
async fn tls_with_plain_and_scram_and_client_certificates_are_let_in_and_a_wrong_password_is_not() {
    let kafka = Kafka::with_sasl_tls().await.unwrap();
    kafka.create_topic("goim-push-topic", 9).await.unwrap();
    let secure = kafka.secure();
    let file = |path: &Path| path.display().to_string();
    let ca = file(secure.ca());
    let sasl = |login: &Login, password: &Path| {
        let brokers = secure.sasl_brokers();
        ["--kafka-brokers", &brokers, "--kafka-ca-file", &ca, "--kafka-sasl", login.mechanism]
            .map(str::to_owned)
            .into_iter()
            .chain(["--kafka-username-file".to_owned(), file(&login.user_file)])
            .chain(["--kafka-password-file".to_owned(), file(password)])
            .collect::<Vec<String>>()
    };
    for login in [secure.plain(), secure.scram()] {
        let flags = sasl(login, &login.password_file);
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        queue(&flags).await.send(record("k", login.mechanism)).await.unwrap();
    }
    let client = secure.client();
    let flags = ["--kafka-brokers", &secure.mtls_brokers(), "--kafka-ca-file", &ca];
    let certificate = ["--kafka-cert-file", &file(&client.cert), "--kafka-key-file", &file(&client.key)];
    queue(&[&flags[..], &certificate[..]].concat()).await.send(record("k", "mtls")).await.unwrap();

    let process = Process::quiet();
    let flags = sasl(secure.plain(), &secure.plain().user_file);
    let _queue = start(&flags.iter().map(String::as_str).collect::<Vec<_>>(), &process);
    eventually(SOON, "the refusal to show", || async {
        let report = process.readiness.report();
        if report.contains("uthentication") { Ok(()) } else { Err(report) }
    })
    .await
    .unwrap();
    assert!(!process.readiness.is_ready());
}
