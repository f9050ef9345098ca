//! `imcluster bench load`: clients against a comet that is running already.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use anyhow::Context;

use super::measure::{self, Report, Watched};
use super::push::{Entry, Schedule};
use super::stream::{self, Kind};
use super::{cost, seconds};
use crate::client::Target;
use crate::load::{Farm, Plan};

/// Connects clients, pushes, and reports.
#[derive(Clone, Debug, clap::Args)]
#[group(id = "entry-of-pushes")]
pub struct Load {
    /// Where clients connect: tcp://host:port or ws://host:port/sub.
    #[arg(long, value_name = "URL")]
    comet: Target,
    /// Push through this logic: http://host:port.
    #[arg(long, value_name = "URL", value_parser = http, required_unless_present = "grpc", conflicts_with = "grpc")]
    logic: Option<SocketAddr>,
    /// Push straight into this comet, as job would: host:port of its gRPC.
    #[arg(long, value_name = "HOST:PORT", value_parser = resolve)]
    grpc: Option<SocketAddr>,
    /// With --grpc: pushes merged into one call.
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    merge: u16,
    /// How many clients, at most about 19 000 under 20 000 open files.
    #[arg(long, value_name = "COUNT", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// How many rooms they are spread over.
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..1 << 24))]
    rooms: u32,
    /// Calls per second, such as 100/s; 0 = as fast as they are answered.
    #[arg(long, value_name = "RATE", default_value = "10/s", value_parser = rate)]
    rate: f64,
    /// Body size in bytes; the stamp takes 24.
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    body: usize,
    /// For how long to push.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    duration: Duration,
    /// What pushes go to.
    #[arg(long, default_value = "room")]
    kind: Kind,
    /// How many loopback addresses clients come from: 127.0.1.1 and up.
    #[arg(long, value_name = "COUNT", default_value_t = 16)]
    sources: usize,
    /// The last so many clients read nothing once they are in.
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    stalled: usize,
    /// Seconds between a client's heartbeats.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    heartbeat: Duration,
    /// Calls in flight at most; the order within a room or key is kept.
    #[arg(long, value_name = "COUNT", default_value_t = 16)]
    in_flight: usize,
    /// Bearer token of the push API.
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// Server processes whose cost to report, such as comet=123,logic=456.
    #[arg(long, value_name = "NAME=PID", value_delimiter = ',', value_parser = watched)]
    pids: Vec<Watched>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Load {
    /// Does it.
    ///
    /// # Errors
    /// When a server cannot be reached or a watched process is gone.
    pub async fn run(self) -> anyhow::Result<()> {
        let run = std::process::id();
        let memory = self.memory()?;
        eprintln!("connecting {} clients to {} …", self.connections, self.comet);
        let farm = Farm::connect(self.plan(run)).await?;
        let gained: Vec<f64> = self.memory()?.iter().zip(&memory).map(|(now, before)| now - before).collect();
        eprintln!("pushing for {} s …", self.duration.as_secs_f64());
        let entry = match (self.logic, self.grpc) {
            (_, Some(address)) => Entry::Grpc { address, merge: usize::from(self.merge) },
            (Some(address), None) => Entry::Http { address, token: self.token.clone() },
            (None, None) => anyhow::bail!("--logic or --grpc: expected one of them"),
        };
        let schedule = Schedule {
            run,
            streams: self.kind.streams(self.connections, self.rooms),
            rate: self.rate,
            duration: self.duration,
            body: self.body,
            workers: self.in_flight,
        };
        let mut report = measure::open_loop(farm, &entry, &schedule, &self.pids).await?;
        for (process, bytes) in report.processes.iter_mut().zip(gained) {
            process.bytes_per_connection = bytes / f64::from(self.connections);
        }
        match self.json {
            true => println!("{}", serde_json::to_string(&report)?),
            false => show(&report)?,
        }
        Ok(())
    }

    fn plan(&self, run: u32) -> Plan {
        Plan {
            target: self.comet.clone(),
            connections: self.connections as usize,
            stalled: self.stalled,
            sources: self.sources,
            threads: 1,
            core: None,
            heartbeat: Some(self.heartbeat),
            run,
            member: stream::members(self.rooms),
        }
    }

    fn memory(&self) -> anyhow::Result<Vec<f64>> {
        self.pids.iter().map(|process| Ok(cost::rss(process.pid)? as f64)).collect()
    }
}

fn show(report: &Report) -> anyhow::Result<()> {
    let (verdict, latency) = (&report.verdict, &report.verdict.latency);
    println!("{}", cost::machine()?);
    println!("pushes      {:>12.0} /s accepted, {} refused", report.pushes_per_s, verdict.refused);
    println!("deliveries  {:>12.0} /s", report.deliveries_per_s);
    println!("delivered   {:>12} of {} expected, {} lost", verdict.delivered, verdict.expected, verdict.lost);
    println!(
        "faults      {:>12} repeats, {} inversions, {} strays",
        verdict.repeats, verdict.inversions, verdict.strays
    );
    println!("closed      {:>12} connections by the server, {} retried on the way in", report.closed, report.retries);
    let [p50, p99, p999, max] =
        [latency.p50_us, latency.p99_us, latency.p999_us, latency.max_us].map(|micros| micros as f64 / 1000.0);
    println!("latency     {p50:>12.2} ms p50, {p99:.2} p99, {p999:.2} p99.9, {max:.2} max, from when a push was due");
    for process in &report.processes {
        println!(
            "{:<11} {:>12.2} µs CPU per delivery, {:.2} per push, {:.1} % of a core, {:.1} KiB per connection",
            process.name,
            process.cpu_us_per_delivery,
            process.cpu_us_per_push,
            process.cpu_percent,
            process.bytes_per_connection / 1024.0
        );
    }
    if report.seconds < 5.0 {
        println!("(CPU times come in steps of 10 ms: push for 5 s or more)");
    }
    Ok(())
}

fn http(text: &str) -> anyhow::Result<SocketAddr> {
    let rest = text.strip_prefix("http://").with_context(|| format!("{text}: expected http://host:port"))?;
    resolve(rest.trim_end_matches('/'))
}

fn resolve(text: &str) -> anyhow::Result<SocketAddr> {
    let mut addresses = text.to_socket_addrs().with_context(|| format!("{text}: expected host:port"))?;
    addresses.next().with_context(|| format!("{text} has no address"))
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.trim_end_matches("/s").parse().ok().filter(|rate: &f64| rate.is_finite() && *rate >= 0.0);
    rate.ok_or_else(|| "expected calls per second, such as 100/s".to_owned())
}

fn watched(text: &str) -> Result<Watched, String> {
    let parts = text.split_once('=').and_then(|(name, pid)| Some((name, pid.parse().ok()?)));
    let (name, pid) = parts.ok_or_else(|| "expected name=pid".to_owned())?;
    Ok(Watched { name: name.to_owned(), pid })
}
