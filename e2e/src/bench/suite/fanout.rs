//! One room, many WebSocket members, bodies of 64 bytes: one push at a time, and far more than can be delivered.

use super::{Gateway, Suite, Table};
use crate::bench::measure;
use crate::bench::push::{Entry, Schedule};
use crate::bench::stream;
use crate::load::Farm;

/// Pushers to the room beyond capacity, each with one call in flight.
const PUSHERS: u32 = 4;
const BODY: usize = 64;

pub(super) async fn measure(suite: &Suite, members: u32, table: &mut Table) -> anyhow::Result<()> {
    let gateway = Gateway::start().await?;
    let watched = [gateway.watched()];
    let schedule = |run, pushers| Schedule {
        run,
        streams: stream::lanes(0, pushers),
        rate: 0.0,
        duration: suite.window(8),
        body: BODY,
        workers: pushers as usize,
    };
    let clients = suite.connections(members);
    let name = format!("room of {clients}");

    let farm = Farm::connect(gateway.plan("ws", clients, 1, 1)?).await?;
    let comet = gateway.grpc.address();
    let report = measure::one_at_a_time(farm, comet, &schedule(1, 1), u64::from(clients), &watched).await?;
    let floor = if members < 5000 { 1000 } else { 10_000 };
    table.beside(&format!("{name}, one at a time"), "µs CPU/delivery", report.processes[0].cpu_us_per_delivery, floor);
    table.clean(&format!("{name}, one at a time"), &report);

    let farm = Farm::connect(gateway.plan("ws", clients, 1, 2)?).await?;
    let entry = Entry::Grpc { address: comet, merge: 1 };
    let report = measure::open_loop(farm, &entry, &schedule(2, PUSHERS), &watched).await?;
    let name = format!("{name}, beyond capacity");
    table.add(&name, "deliveries/s", report.deliveries_per_s);
    table.beside(&name, "µs CPU/delivery", report.processes[0].cpu_us_per_delivery, floor);
    table.add(&name, "% lost", 100.0 * report.verdict.lost as f64 / report.verdict.expected.max(1) as f64);
    table.add(&name, "ms p99", report.verdict.latency.p99_us as f64 / 1000.0);
    table.clean(&name, &report);
    Ok(())
}
