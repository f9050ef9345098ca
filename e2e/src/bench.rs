//! `imcluster bench`: what a comet, ours or goim's, delivers and what it costs, beside what the kernel alone costs.

pub mod cost;
pub mod drive;
pub mod floor;
pub mod logic;
pub mod measure;
pub mod push;
pub mod stream;
pub mod suite;

use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Measures a running comet (load), the kernel (floor), or everything that `make bench` reports (suite).
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Command {
    /// Connects clients to a running comet, pushes at a fixed rate, and reports loss, repeats, order, latency and cost.
    Load(Box<drive::Load>),
    /// One thread, many loopback connections, a bare send() of 80 bytes to each in turn: CPU per send.
    Floor(Floor),
    /// Starts the services, each its own process, and measures them one after the other: medians of several runs.
    Suite(suite::Suite),
}

#[derive(Clone, Debug, clap::Args)]
struct Floor {
    /// How many connections; beyond 9000 the receiving ends are a process of their own.
    #[arg(long, value_name = "COUNT", default_value_t = 1000)]
    connections: usize,
    /// For how long.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    duration: Duration,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Be the receiving ends: connect there, read everything, end when the other side does.
    #[arg(long, value_name = "HOST:PORT", hide = true)]
    drain: Option<SocketAddr>,
}

/// Runs what was asked for.
///
/// # Errors
/// What could not be reached, started or read.
pub async fn run(config: Config) -> anyhow::Result<()> {
    match config.command {
        Command::Load(load) => load.run().await,
        Command::Suite(suite) => suite.run().await,
        Command::Floor(Floor { connections, drain: Some(sender), .. }) => {
            let drain = move || floor::drain(sender, connections, &AtomicBool::new(false), cost::cores() > 1);
            tokio::task::spawn_blocking(drain).await?
        }
        Command::Floor(Floor { connections, duration, json, drain: None }) => {
            let cost = tokio::task::spawn_blocking(move || floor::measure(connections, duration)).await??;
            if json {
                println!("{}", serde_json::json!({ "connections": connections, "cpu_us_per_send": cost }));
            } else {
                println!("{}\n{connections} connections: {cost:.2} µs CPU per send", cost::machine()?);
            }
            Ok(())
        }
    }
}

/// `5`, `5s` or `0.5`: seconds.
fn seconds(text: &str) -> Result<Duration, String> {
    let number: Result<f64, _> = text.trim_end_matches('s').parse();
    let seconds = number.ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.filter(|seconds| !seconds.is_zero()).ok_or_else(|| "expected seconds above 0, such as 5 or 0.5".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        config: Config,
    }

    #[test]
    fn the_command_line_is_understood() {
        let load = "bench load --comet ws://127.0.0.1:3102/sub --logic http://127.0.0.1:3111 --connections 10 \
            --rooms 2 --rate 5/s --duration 3s --kind mixed --pids comet=1,logic=2 --json";
        assert!(matches!(Line::parse_from(load.split_whitespace()).config.command, Command::Load(_)));
        for line in ["bench suite --only fanout --quick", "bench floor --connections 10"] {
            assert!(Line::try_parse_from(line.split_whitespace()).is_ok(), "{line}");
        }
        for line in ["bench load --comet ws://127.0.0.1", "bench floor --duration 0", "bench"] {
            assert!(Line::try_parse_from(line.split_whitespace()).is_err(), "{line}");
        }
    }
}
