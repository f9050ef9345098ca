//! Through real Kafka and Redis: what a push costs logic, what a record costs job, and how long a lone message takes
//! beside a bare produce and consume of the same minute.

use std::time::Duration;

use anyhow::Context;
use hdrhistogram::Histogram;
use rdkafka::Message;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, TopicPartitionList};

use super::{Suite, Table, on_its_core, plan};
use crate::bench::measure::{self, Meter, Watched};
use crate::bench::push::{Entry, Schedule};
use crate::bench::stream::Kind;
use crate::checker::Latency;
use crate::load::Farm;
use crate::os;
use crate::program::Stack;

/// Rooms that lone messages go to in turn: at 10 a second each is silent for 2.5 s.
const LONE_ROOMS: u32 = 25;
const LONE_RATE: f64 = 10.0;
const LONE_SECONDS: u64 = 100;
/// Rooms that the throughput measurement pushes to; nobody is in them.
const ROOMS: u32 = 100;
const BODY: usize = 64;
/// How long job may take to catch up.
const CATCH_UP: Duration = Duration::from_secs(2);

pub(super) async fn throughput(suite: &Suite, stack: &Stack, table: &mut Table) -> anyhow::Result<()> {
    let watched = [("logic", &stack.logic), ("job", &stack.job)];
    let watched = watched.map(|(name, program)| Watched { name: name.to_owned(), pid: program.process().pid() });
    watched.iter().try_for_each(|process| on_its_core(process.pid))?;
    let schedule = Schedule {
        run: 1,
        streams: Kind::Room.streams(0, ROOMS),
        rate: 0.0,
        duration: suite.window(8),
        body: BODY,
        workers: 32,
    };
    let meter = Meter::start(&watched)?;
    let offered = schedule.offer(&Entry::Http { address: stack.http(), token: None }).await?;
    let accepted = offered.accepted_total() as f64;
    anyhow::ensure!(accepted > 0.0, "logic accepted no push");
    table.add("pushes by HTTP, as offered", "accepted/s", accepted / meter.stop(&watched)?.0);
    tokio::time::sleep(CATCH_UP).await;
    let (_, cpu) = meter.stop(&watched)?;
    for (process, (unit, per_core), cpu) in [
        ("logic", ("µs CPU/push", "pushes/s per core"), cpu[0]),
        ("job", ("µs CPU/record", "records/s per core"), cpu[1]),
    ] {
        table.add(process, unit, cpu * 1e6 / accepted);
        table.add(process, per_core, accepted / cpu.max(0.01));
    }
    Ok(())
}

pub(super) async fn lone(suite: &Suite, stack: &Stack, table: &mut Table) -> anyhow::Result<()> {
    let target = format!("ws://{}", stack.comet(0).websocket()).parse()?;
    let farm = Farm::connect(plan(target, LONE_ROOMS, LONE_ROOMS, 3)).await?;
    let duration = suite.window(LONE_SECONDS);
    let schedule = Schedule {
        run: 3,
        streams: Kind::Room.streams(0, LONE_ROOMS),
        rate: LONE_RATE,
        duration,
        body: BODY,
        workers: 4,
    };
    let entry = Entry::Http { address: stack.http(), token: None };
    let (report, bare) = tokio::try_join!(measure::open_loop(farm, &entry, &schedule, &[]), bare(stack, duration))?;
    let latency = report.verdict.latency;
    for (unit, micros, quantile) in [("ms p50", latency.p50_us, 0.5), ("ms p99", latency.p99_us, 0.99)] {
        table.add("lone message, HTTP to client", unit, micros as f64 / 1000.0);
        table.add("bare produce to consume", unit, bare.value_at_quantile(quantile) as f64 / 1000.0);
    }
    table.clean("lone message, HTTP to client", &report);
    Ok(())
}

/// One record at a time, at the same rate, over a topic of its own; microseconds from due to consumed.
async fn bare(stack: &Stack, duration: Duration) -> anyhow::Result<Histogram<u64>> {
    const TOPIC: &str = "bench-bare";
    stack.kafka.create_topic(TOPIC, 1).await?;
    let producer: FutureProducer = stack.kafka.client().set("acks", "all").set("linger.ms", "0").create()?;
    let consumer: StreamConsumer = stack
        .kafka
        .client()
        .set("group.id", "bench-bare")
        .set("enable.auto.commit", "false")
        .set("fetch.wait.max.ms", "100")
        .create()?;
    let mut all = TopicPartitionList::new();
    all.add_partition_offset(TOPIC, 0, Offset::Beginning)?;
    consumer.assign(&all)?;
    let mut latency = Latency::histogram();
    let (start, count) = (tokio::time::Instant::now(), (duration.as_secs_f64() * LONE_RATE) as u32);
    for number in 0..count {
        tokio::time::sleep_until(start + Duration::from_secs_f64(f64::from(number) / LONE_RATE)).await;
        let (due, payload) = (os::monotonic(), number.to_be_bytes());
        let record = FutureRecord::<(), _>::to(TOPIC).payload(&payload);
        let sent = producer.send(record, Duration::from_secs(10));
        let (sent, seen) = tokio::join!(sent, consumer.recv());
        sent.map_err(|(error, _)| error).context("bare produce")?;
        anyhow::ensure!(seen?.payload() == Some(&payload), "the bare consumer saw another record");
        latency.saturating_record((os::monotonic() - due).as_micros() as u64);
    }
    Ok(latency)
}
