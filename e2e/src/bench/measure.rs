//! One measurement: connected clients, offered pushes, and what both cost the servers.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::cost;
use super::push::{Entry, Schedule, Sender};
use crate::checker::{Offered, Verdict, judge};
use crate::load::{Farm, Harvest};
use crate::os;
use crate::stamp::Stamp;

/// How long nothing may arrive before we stop waiting.
const SILENCE: Duration = Duration::from_secs(3);

/// A server process to watch.
#[derive(Clone, Debug)]
pub struct Watched {
    /// What to call it.
    pub name: String,
    /// Its process id.
    pub pid: u32,
}

/// What one measurement found.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Report {
    /// Connected clients.
    pub connections: usize,
    /// Seconds during which pushes were offered.
    pub seconds: f64,
    /// Accepted pushes per second.
    pub pushes_per_s: f64,
    /// First arrivals per second.
    pub deliveries_per_s: f64,
    /// Connections that the server closed meanwhile.
    pub closed: u64,
    /// How often clients were refused or closed on their way in, and came again.
    pub retries: u64,
    /// Loss, repeats, order, latency.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// What the watched processes cost.
    pub processes: Vec<Cost>,
}

/// What one process cost.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Cost {
    /// What it is called.
    pub name: String,
    /// CPU microseconds per first arrival.
    pub cpu_us_per_delivery: f64,
    /// CPU microseconds per accepted push.
    pub cpu_us_per_push: f64,
    /// Per cent of one core.
    pub cpu_percent: f64,
    /// Memory gained per connection, in bytes; 0 unless `bench load` connected the clients.
    pub bytes_per_connection: f64,
}

/// CPU times of watched processes at one moment.
pub struct Meter {
    start: Instant,
    cpu: Vec<Duration>,
}

impl Meter {
    /// Looks at the processes now.
    ///
    /// # Errors
    /// When one of them is gone.
    pub fn start(watched: &[Watched]) -> anyhow::Result<Self> {
        let cpu = watched.iter().map(|process| cost::cpu(process.pid)).collect::<Result<_, _>>()?;
        Ok(Self { start: Instant::now(), cpu })
    }

    /// Seconds passed, and CPU seconds of each process.
    ///
    /// # Errors
    /// When one of them is gone.
    pub fn stop(&self, watched: &[Watched]) -> anyhow::Result<(f64, Vec<f64>)> {
        let spent = watched.iter().zip(&self.cpu);
        let spent = spent.map(|(process, before)| Ok((cost::cpu(process.pid)? - *before).as_secs_f64()));
        Ok((self.start.elapsed().as_secs_f64(), spent.collect::<anyhow::Result<_>>()?))
    }
}

/// Offers the schedule to connected clients and judges what they saw.
///
/// # Errors
/// When the entry cannot be reached or a watched process ends.
pub async fn open_loop(farm: Farm, entry: &Entry, schedule: &Schedule, watched: &[Watched]) -> anyhow::Result<Report> {
    let meter = Meter::start(watched)?;
    let before = farm.delivered();
    let offered = schedule.offer(entry).await?;
    let (seconds, arrived) = (meter.start.elapsed().as_secs_f64(), farm.delivered() - before);
    farm.settle(u64::MAX, SILENCE).await;
    let cpu = meter.stop(watched)?;
    report(farm.finish().await?, &offered, (seconds, arrived), &cpu, watched)
}

/// Pushes to one stream, each after all `members` have the one before.
///
/// # Errors
/// When a push is refused or does not reach everybody.
pub async fn one_at_a_time(
    farm: Farm,
    comet: SocketAddr,
    schedule: &Schedule,
    members: u64,
    watched: &[Watched],
) -> anyhow::Result<Report> {
    let mut sender = Sender::connect(&Entry::Grpc { address: comet, merge: 1 }).await?;
    let stream = schedule.streams[0];
    let (mut offered, before) = (Offered::default(), farm.delivered());
    let meter = Meter::start(watched)?;
    while meter.start.elapsed() < schedule.duration {
        let number = offered.number(stream);
        let stamp = Stamp { run: schedule.run, stream, number, due: os::monotonic() };
        sender.push([stamp].into_iter(), stream, schedule.body).await?;
        let wanted = before + (u64::from(number) + 1) * members;
        anyhow::ensure!(
            farm.until(wanted, Duration::from_secs(30)).await,
            "push {number} reached {} of {members} members",
            farm.delivered() + members - wanted
        );
    }
    let cpu = meter.stop(watched)?;
    let arrived = farm.delivered() - before;
    report(farm.finish().await?, &offered, (cpu.0, arrived), &cpu, watched)
}

fn report(
    harvest: Harvest,
    offered: &Offered,
    (seconds, arrived): (f64, u64),
    (window, cpu): &(f64, Vec<f64>),
    watched: &[Watched],
) -> anyhow::Result<Report> {
    let verdict = judge(offered, &harvest.receivers, &harvest.tally);
    let processes = watched.iter().zip(cpu).map(|(process, cpu)| Cost {
        name: process.name.clone(),
        cpu_us_per_delivery: cpu * 1e6 / verdict.delivered.max(1) as f64,
        cpu_us_per_push: cpu * 1e6 / verdict.accepted.max(1) as f64,
        cpu_percent: cpu * 100.0 / window,
        bytes_per_connection: 0.0,
    });
    Ok(Report {
        connections: harvest.receivers.len(),
        seconds,
        pushes_per_s: verdict.accepted as f64 / seconds,
        deliveries_per_s: arrived as f64 / seconds,
        closed: harvest.closed,
        retries: harvest.retries,
        processes: processes.collect(),
        verdict,
    })
}

#[cfg(test)]
mod tests;
