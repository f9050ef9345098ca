//! job's consumer on real Kafka: where a group starts, how a partition changes hands, what an outage and a gap look
//! like, and a whole job over it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use e2e::kafka::Kafka;
use job::comet::Comet;
use job::comet::memory::MemoryComet;
use job::comet::queue::Limits;
use job::consumer::kafka::KafkaSource;
use job::consumer::{Assignment, Event, Source};
use job::fleet::Dial;
use job::room::Batching;
use prost::Message as _;
use proto::kafka::KafkaConfig;
use proto::log::Record;
use proto::logic::PushMsg;
use proto::logic::push_msg::Type;
use proto::peers::Peer;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, TopicPartitionList};
use runtime::Process;

const SOON: Duration = Duration::from_secs(90);
const GROUP: &str = "g";

#[derive(Parser)]
struct Program {
    #[command(flatten)]
    kafka: KafkaConfig,
}

fn source(kafka: &Kafka, topic: &str) -> Box<dyn Source> {
    let argv = ["test", "--kafka-brokers", &kafka.brokers(), "--kafka-topic", topic].map(str::to_owned);
    Box::new(KafkaSource::start(&Program::parse_from(argv).kafka, GROUP).unwrap())
}

async fn produce(kafka: &Kafka, topic: &str, partition: i32, bodies: &[&str]) {
    let producer: FutureProducer =
        kafka.client().set("enable.idempotence", "true").set("message.timeout.ms", "60000").create().unwrap();
    for body in bodies {
        let record = FutureRecord::<str, str>::to(topic).partition(partition).payload(body);
        producer.send(record, Duration::ZERO).await.map_err(|(error, _)| error).unwrap();
    }
}

async fn next(source: &mut Box<dyn Source>) -> Event {
    tokio::time::timeout(SOON, source.next()).await.expect("an event in time")
}

/// Waits for an assignment.
async fn assigned(source: &mut Box<dyn Source>) -> Vec<Assignment> {
    loop {
        if let Event::Assigned(partitions) = next(source).await {
            return partitions;
        }
    }
}

/// Waits for so many records.
async fn records(source: &mut Box<dyn Source>, count: usize) -> Vec<Record> {
    let mut found = Vec::new();
    while found.len() < count {
        if let Event::Records(records) = next(source).await {
            found.extend(records);
        }
    }
    found
}

fn bodies(records: &[Record]) -> Vec<&str> {
    records.iter().map(|record| std::str::from_utf8(&record.value).unwrap()).collect()
}

fn starts(partitions: &[Assignment]) -> BTreeMap<u32, u64> {
    partitions.iter().map(|assignment| (assignment.partition, assignment.start)).collect()
}

/// What the group has committed, by partition.
async fn committed(kafka: &Kafka, topic: &str, partitions: i32) -> BTreeMap<u32, u64> {
    let consumer: BaseConsumer = kafka.client().set("group.id", GROUP).create().unwrap();
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition(topic, partition);
    }
    let ask = move || consumer.committed_offsets(list, Duration::from_secs(10)).unwrap();
    let answer = tokio::task::spawn_blocking(ask).await.unwrap();
    let elements = answer.elements();
    let found = elements.iter().filter_map(|element| match element.offset() {
        Offset::Offset(offset) => Some((element.partition() as u32, offset as u64)),
        _ => None,
    });
    found.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_starts_at_the_end_commits_it_first_and_goes_on_where_it_committed() {
    let kafka = Kafka::start().await.unwrap();
    kafka.create_topic("t", 3).await.unwrap();
    kafka.create_topic("u", 1).await.unwrap();
    produce(&kafka, "t", 0, &["before", "before"]).await;
    let mut first = source(&kafka, "t");
    let ours = assigned(&mut first).await;
    let ends = BTreeMap::from([(0, 2), (1, 0), (2, 0)]);
    assert_eq!(starts(&ours), ends);
    assert_eq!(committed(&kafka, "t", 3).await, ends);
    assert!(ours.iter().all(|assignment| assignment.generation >= 1 && !assignment.out_of_range));
    let epoch = first.epoch();
    assert_ne!(epoch, 0);
    assert_eq!(first.partitions(), 3);

    produce(&kafka, "t", 0, &["a", "b", "c"]).await;
    let got = records(&mut first, 3).await;
    assert_eq!((bodies(&got), got[0].offset), (vec!["a", "b", "c"], 2));
    assert_eq!(first.end(0), Some(5));
    // Killed instead of closed: nothing it did not commit is forgotten.
    first.commit(&[(0, 3)]);
    while committed(&kafka, "t", 1).await != BTreeMap::from([(0, 3)]) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    drop(first);
    let mut second = source(&kafka, "t");
    assert_eq!(starts(&assigned(&mut second).await)[&0], 3);
    assert_eq!(bodies(&records(&mut second, 2).await), ["b", "c"]);
    assert_eq!(second.epoch(), epoch);
    second.close(vec![(0, 5)]).await.unwrap();
    assert_eq!(committed(&kafka, "t", 1).await, BTreeMap::from([(0, 5)]));

    let mut other = source(&kafka, "u");
    assigned(&mut other).await;
    assert_ne!(other.epoch(), epoch);
    other.close(vec![]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_changes_hands_after_its_owner_committed_in_a_later_generation() {
    let kafka = Kafka::start().await.unwrap();
    kafka.create_topic("t", 2).await.unwrap();
    let mut first = source(&kafka, "t");
    let ours = assigned(&mut first).await;
    assert_eq!(ours.len(), 2);
    produce(&kafka, "t", 0, &["a"]).await;
    produce(&kafka, "t", 1, &["b"]).await;
    records(&mut first, 2).await;

    let mut second = source(&kafka, "t");
    let moving = tokio::spawn(async move { (assigned(&mut second).await, second) });
    let moved = loop {
        if let Event::Revoked(revocation) = next(&mut first).await {
            assert!(!revocation.lost);
            let moved = revocation.partitions.clone();
            revocation.done.send(moved.iter().map(|partition| (*partition, 1)).collect()).unwrap();
            break moved;
        }
    };
    assert_eq!(moved.len(), 1, "the other partition stays where it is");
    let (mut theirs, mut second) = moving.await.unwrap();
    if theirs.is_empty() {
        theirs = assigned(&mut second).await;
    }
    assert_eq!(starts(&theirs), BTreeMap::from([(moved[0], 1)]));
    assert!(theirs[0].generation > ours[0].generation, "{theirs:?} after {ours:?}");

    // Its owner leaves: the partition comes back, later still.
    let generation = theirs[0].generation;
    second.close(vec![(moved[0], 1)]).await.unwrap();
    let back = assigned(&mut first).await;
    assert_eq!(starts(&back), BTreeMap::from([(moved[0], 1)]));
    assert!(back[0].generation > generation);
    first.close(vec![]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_went_away_paused_comes_back_paused_and_goes_on_when_told() {
    let kafka = Kafka::start().await.unwrap();
    kafka.create_topic("t", 2).await.unwrap();
    let mut first = source(&kafka, "t");
    assert_eq!(assigned(&mut first).await.len(), 2);
    (0..2).for_each(|partition| first.pause(partition));
    let mut second = source(&kafka, "t");
    let moving = tokio::spawn(async move { (assigned(&mut second).await, second) });
    let moved = loop {
        if let Event::Revoked(revocation) = next(&mut first).await {
            revocation.done.send(vec![]).unwrap();
            break revocation.partitions[0];
        }
    };
    let (_, second) = moving.await.unwrap();
    second.close(vec![]).await.unwrap();
    assert_eq!(assigned(&mut first).await[0].partition, moved);
    produce(&kafka, "t", moved as i32, &["a"]).await;
    let early = tokio::time::timeout(Duration::from_secs(3), records(&mut first, 1)).await;
    assert!(early.is_err(), "{early:?}");
    first.resume(moved);
    assert_eq!(bodies(&records(&mut first, 1).await), ["a"]);
    first.close(vec![]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_is_taken_over_starts_anew_where_it_was_committed() {
    let kafka = Kafka::start().await.unwrap();
    kafka.create_topic("t", 2).await.unwrap();
    let mut source = source(&kafka, "t");
    assert_eq!(assigned(&mut source).await.len(), 2);
    produce(&kafka, "t", 0, &["a", "b", "c"]).await;
    records(&mut source, 3).await;
    source.commit(&[(0, 1)]);
    e2e::eventually(SOON, "the commit", || async { committed(&kafka, "t", 1).await == BTreeMap::from([(0, 1)]) })
        .await
        .unwrap();
    // The last is nobody's.
    [0, 9].into_iter().for_each(|partition| source.take_over(partition));
    let again = assigned(&mut source).await;
    assert_eq!((starts(&again), again[0].takeover), (BTreeMap::from([(0, 1)]), true));
    assert_eq!(bodies(&records(&mut source, 2).await), ["b", "c"]);
    produce(&kafka, "t", 1, &["d"]).await;
    assert_eq!(bodies(&records(&mut source, 1).await), ["d"]);
    source.close(vec![(0, 3), (1, 1)]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offset_that_is_gone_starts_at_the_oldest_record_and_a_later_partition_at_its_first() {
    let kafka = Kafka::start().await.unwrap();
    kafka.create_topic("t", 1).await.unwrap();
    let mut first = source(&kafka, "t");
    assigned(&mut first).await;
    first.close(vec![(0, 0)]).await.unwrap();
    produce(&kafka, "t", 0, &["a", "b", "c", "d"]).await;

    let admin: AdminClient<DefaultClientContext> = kafka.client().create().unwrap();
    let mut until = TopicPartitionList::new();
    until.add_partition_offset("t", 0, Offset::Offset(3)).unwrap();
    admin.delete_records(&until, &AdminOptions::new()).await.unwrap();
    let mut second = source(&kafka, "t");
    let ours = assigned(&mut second).await;
    assert_eq!((ours[0].start, ours[0].out_of_range), (3, true));
    assert_eq!(bodies(&records(&mut second, 1).await), ["d"]);

    // While it runs: its next record is deleted before it is read.
    second.pause(0);
    tokio::time::sleep(Duration::from_secs(1)).await;
    produce(&kafka, "t", 0, &["e", "f", "g"]).await;
    until.set_partition_offset("t", 0, Offset::Offset(6)).unwrap();
    admin.delete_records(&until, &AdminOptions::new()).await.unwrap();
    second.resume(0);
    let again = assigned(&mut second).await;
    assert_eq!((again[0].start, again[0].out_of_range), (6, true));
    assert_eq!(bodies(&records(&mut second, 1).await), ["g"]);

    admin.create_partitions(&[NewPartitions::new("t", 2)], &AdminOptions::new()).await.unwrap();
    produce(&kafka, "t", 1, &["first"]).await;
    let later = assigned(&mut second).await;
    let new: Vec<_> = later.iter().filter(|assignment| assignment.partition == 1).collect();
    assert_eq!((new[0].start, new[0].out_of_range), (0, false));
    assert_eq!(bodies(&records(&mut second, 1).await), ["first"]);
    second.close(vec![]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn large_records_come_few_at_a_time() {
    const SIZE: usize = 100_000;
    let kafka = Kafka::start().await.unwrap();
    kafka.create_topic("t", 1).await.unwrap();
    let mut source = source(&kafka, "t");
    assigned(&mut source).await;
    source.pause(0);
    let body = "x".repeat(SIZE);
    produce(&kafka, "t", 0, &[body.as_str(); 30]).await;
    source.resume(0);
    let mut count = 0;
    while count < 30 {
        if let Event::Records(records) = next(&mut source).await {
            assert!(records.len() * SIZE < 256 * 1024 + SIZE, "{} at once", records.len());
            count += records.len();
        }
    }
    source.close(vec![(0, 30)]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_said_and_survived() {
    let kafka = Kafka::start().await.unwrap();
    kafka.create_topic("t", 1).await.unwrap();
    let mut source = source(&kafka, "t");
    assigned(&mut source).await;
    kafka.kill();
    while !matches!(next(&mut source).await, Event::Down(_)) {}
    kafka.restart().await.unwrap();
    while !matches!(next(&mut source).await, Event::Up) {}
    produce(&kafka, "t", 0, &["after"]).await;
    assert_eq!(bodies(&records(&mut source, 1).await), ["after"]);
    source.close(vec![(0, 1)]).await.unwrap();
    assert_eq!(committed(&kafka, "t", 1).await, BTreeMap::from([(0, 1)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_does_not_exist_is_named_and_found_when_it_appears() {
    let kafka = Kafka::start().await.unwrap();
    let mut source = source(&kafka, "later");
    let why = loop {
        if let Event::Down(why) = next(&mut source).await {
            break why;
        }
    };
    assert!(why.contains("topic later does not exist"), "{why}");
    kafka.create_topic("later", 1).await.unwrap();
    assert_eq!(assigned(&mut source).await.len(), 1);
    source.close(vec![]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_job_delivers_in_order_claims_its_partitions_and_commits_when_it_stops() {
    let kafka = Kafka::start().await.unwrap();
    kafka.create_topic("t", 3).await.unwrap();
    let comet = MemoryComet::new("c1");
    let dial: Dial = {
        let comet = comet.clone();
        Arc::new(move |_| Ok(Arc::new(comet.clone()) as Arc<dyn Comet>))
    };
    let batching = Batching { count: 20, bytes: 65_536, window: Duration::from_millis(20) };
    let limits = Limits { batching, backlog: 64 << 20, stall: Duration::from_secs(10) };
    let settings = job::Settings { group: GROUP.into(), limits, flush: Duration::from_secs(10), webhook: None };
    let process = Process::quiet();
    let (_peers, peers) = tokio::sync::watch::channel(Arc::from([Peer::at("127.0.0.1:3109")]));
    let running = tokio::spawn(job::serve(settings, source(&kafka, "t"), peers, dial, None, process.clone()));
    e2e::eventually(SOON, "every partition to be claimed", || async {
        (0..3).all(|partition| comet.claimed(GROUP, partition).is_some())
    })
    .await
    .unwrap();

    let producer: FutureProducer = kafka.client().set("partitioner", "fnv1a").create().unwrap();
    for number in 0..200 {
        let room = format!("test://{}", number % 5);
        let msg = format!("{number:03}").into();
        let push = PushMsg { r#type: Type::Room.into(), operation: 1000, room, msg, ..Default::default() };
        let (key, value) = (proto::push::record_key(&push).into_owned(), push.encode_to_vec());
        let record = FutureRecord::to("t").key(&key).payload(&value);
        producer.send(record, Duration::ZERO).await.map_err(|(error, _)| error).unwrap();
    }
    let heard = || {
        let mut rooms: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for call in comet.calls() {
            let job::comet::Call::Room(request) = call else { panic!("{call:?}") };
            let raw = request.proto.unwrap().body;
            let packets = proto::packet::packets(&raw).map(|packet| packet.unwrap().body.to_vec());
            let packets = packets.map(|body| String::from_utf8(body).unwrap());
            rooms.entry(request.room_id).or_default().extend(packets);
        }
        rooms
    };
    e2e::eventually(SOON, "every message", || async { heard().values().map(Vec::len).sum::<usize>() == 200 })
        .await
        .unwrap();
    assert!(heard().values().all(|room| room.len() == 40 && room.is_sorted()));
    process.shutdown.begin();
    tokio::time::timeout(SOON, running).await.unwrap().unwrap().unwrap();
    assert_eq!(committed(&kafka, "t", 3).await.values().sum::<u64>(), 200);
}
