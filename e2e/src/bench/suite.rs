//! `imcluster bench suite`, what `make bench` runs: every service its own process, the gateway on one core and the
//! clients on the other, several runs interleaved, and the kernel's floor beside them in every run.

mod backends;
mod fanout;
mod idle;
mod table;

use std::time::Duration;

use super::logic::StandInLogic;
use super::measure::Watched;
use super::{cost, floor, stream};
use crate::client::Target;
use crate::load::Plan;
use crate::ports::Port;
use crate::program::{Program, Stack, flags};
use table::Table;

/// The core of the process that is measured.
const GATEWAY: usize = 0;
/// The core of everything else.
const CLIENTS: usize = 1;
/// Loopback addresses that clients come from.
const SOURCES: usize = 32;

/// Measures everything that the README quotes.
#[derive(Clone, Debug, clap::Args)]
pub struct Suite {
    /// Only this part.
    #[arg(long)]
    only: Option<Part>,
    /// How many runs; figures are their medians.
    #[arg(long, value_name = "COUNT", default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..))]
    runs: u8,
    /// One run with short windows: whether it works, not what it costs.
    #[arg(long)]
    quick: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// A part of the suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// CPU per delivery in rooms of 1 000 and 10 000, one at a time and beyond capacity.
    Fanout,
    /// Memory, heartbeats and handshakes of 18 000 idle clients, WebSocket and TCP.
    Idle,
    /// Pushes per second of logic, records per second of job, through real Kafka and Redis.
    Backends,
    /// HTTP to client through real Kafka, into rooms that were silent, beside a bare produce and consume.
    Lone,
}

impl Suite {
    /// Does it.
    ///
    /// # Errors
    /// When a service does not start or a figure cannot be had; nothing is left out.
    pub async fn run(self) -> anyhow::Result<()> {
        let pinned = cost::cores() > 1;
        if pinned {
            // Whoever we start inherits this; what is measured is then put on the other core.
            cost::pin_process(std::process::id(), CLIENTS)?;
        }
        let runs = if self.quick { 1 } else { self.runs };
        let mut table = Table::new(pinned)?;
        let stack = match self.wants(Part::Backends) || self.wants(Part::Lone) {
            true => Some(Stack::start(crate::program::Options::default()).await?),
            false => None,
        };
        for run in 1..=runs {
            self.once(run, runs, stack.as_ref(), &mut table).await?;
        }
        table.print(self.json)
    }

    async fn once(&self, run: u8, runs: u8, stack: Option<&Stack>, table: &mut Table) -> anyhow::Result<()> {
        let say = |what: &str| eprintln!("run {run} of {runs}: {what}");
        for connections in [1000, 10_000] {
            say(&format!("the floor, {connections} connections"));
            let window = self.window(5);
            let cost = tokio::task::spawn_blocking(move || floor::measure(connections, window)).await??;
            table.floor(connections, cost);
        }
        if self.wants(Part::Fanout) {
            for members in [1000, 10_000] {
                say(&format!("a room of {members}"));
                fanout::measure(self, members, table).await?;
            }
        }
        if self.wants(Part::Idle) {
            for scheme in ["ws", "tcp"] {
                say(&format!("idle clients, {scheme}"));
                idle::measure(self, scheme, table).await?;
            }
        }
        if let Some(stack) = stack {
            if self.wants(Part::Backends) {
                say("logic and job");
                backends::throughput(self, stack, table).await?;
            }
            if self.wants(Part::Lone) && run == 1 {
                say("lone messages, 10 a second");
                backends::lone(self, stack, table).await?;
            }
        }
        Ok(())
    }

    fn wants(&self, part: Part) -> bool {
        self.only.is_none_or(|only| only == part)
    }

    /// A window of so many seconds, or of one.
    fn window(&self, seconds: u64) -> Duration {
        Duration::from_secs(if self.quick { 1 } else { seconds })
    }

    /// So many connections, or a tenth.
    fn connections(&self, count: u32) -> u32 {
        if self.quick { count / 10 } else { count }
    }
}

/// A comet of its own process, with a stand-in for logic.
struct Gateway {
    program: Program,
    _logic: StandInLogic,
    tcp: Port,
    websocket: Port,
    grpc: Port,
}

impl Gateway {
    async fn start() -> anyhow::Result<Self> {
        let logic = StandInLogic::start().await?;
        let (tcp, websocket, grpc) = (Port::free()?, Port::free()?, Port::free()?);
        let wiring = flags::comet("bench", &tcp, &websocket, &grpc, &logic.port().address().to_string());
        let program = Program::start("comet", &[wiring, flags::no_job()].concat()).await?;
        let gateway = Self { program, _logic: logic, tcp, websocket, grpc };
        on_its_core(gateway.watched().pid)?;
        Ok(gateway)
    }

    fn watched(&self) -> Watched {
        Watched { name: "comet".to_owned(), pid: self.program.process().pid() }
    }

    fn target(&self, scheme: &str) -> anyhow::Result<Target> {
        let port = if scheme == "ws" { &self.websocket } else { &self.tcp };
        format!("{scheme}://{}", port.address()).parse()
    }

    /// Clients of this comet, in this many rooms.
    fn plan(&self, scheme: &str, connections: u32, rooms: u32, run: u32) -> anyhow::Result<Plan> {
        Ok(plan(self.target(scheme)?, connections, rooms, run))
    }
}

fn plan(target: Target, connections: u32, rooms: u32, run: u32) -> Plan {
    Plan {
        target,
        connections: connections as usize,
        stalled: 0,
        sources: SOURCES,
        threads: 1,
        core: (cost::cores() > 1).then_some(CLIENTS),
        heartbeat: None,
        run,
        member: stream::members(rooms),
    }
}

fn on_its_core(pid: u32) -> anyhow::Result<()> {
    match cost::cores() > 1 {
        true => cost::pin_process(pid, GATEWAY),
        false => Ok(()),
    }
}
