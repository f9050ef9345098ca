//! Clients that only stay connected: what getting in costs, what each keeps, and what their heartbeats cost.

use std::time::Duration;

use super::{Gateway, Suite, Table};
use crate::bench::cost;
use crate::bench::measure::Meter;
use crate::load::{Farm, Plan};

/// As many as one comet holds under 20 000 open files.
const CLIENTS: u32 = 18_000;
const HEARTBEAT: Duration = Duration::from_secs(30);

pub(super) async fn measure(suite: &Suite, scheme: &str, table: &mut Table) -> anyhow::Result<()> {
    let gateway = Gateway::start().await?;
    let (watched, clients) = ([gateway.watched()], suite.connections(CLIENTS));
    let plan = Plan { heartbeat: Some(HEARTBEAT), ..gateway.plan(scheme, clients, 100, 1)? };

    let (memory, meter) = (cost::rss(watched[0].pid)?, Meter::start(&watched)?);
    let farm = Farm::connect(plan).await?;
    let (_, cpu) = meter.stop(&watched)?;
    let micros = cpu[0] * 1e6 / f64::from(clients);
    table.add(&format!("connect and auth, {scheme}"), "µs CPU/connect", micros);
    table.add(&format!("connect and auth, {scheme}"), "connects/s per core", 1e6 / micros);

    let gained = cost::rss(watched[0].pid)?.saturating_sub(memory) as f64;
    table.add(&format!("{clients} idle clients, {scheme}"), "KiB/connection", gained / 1024.0 / f64::from(clients));

    let meter = Meter::start(&watched)?;
    tokio::time::sleep(suite.window(30)).await;
    let (seconds, cpu) = meter.stop(&watched)?;
    let percent = cpu[0] * 100.0 / seconds * 10_000.0 / f64::from(clients);
    table.add(&format!("10 000 idle clients, {scheme}, 30 s heartbeats"), "% of a core", percent);
    let harvest = farm.finish().await?;
    anyhow::ensure!(harvest.closed == 0, "comet closed {} idle clients", harvest.closed);
    if harvest.retries > 0 {
        // Each cost the comet a connect more than was counted above.
        table.add(&format!("connect and auth, {scheme}"), "connects retried", harvest.retries as f64);
    }
    Ok(())
}
