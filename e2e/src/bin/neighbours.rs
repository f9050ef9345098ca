//! Starts Kafka and Redis on loopback, runs a command between them, and ends all three when the command or you say so.
//!
//! `neighbours imcluster standalone --kafka {kafka} --redis {redis}`: `{kafka}` and `{redis}` become their addresses.

use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use e2e::child::Child;
use e2e::kafka::Kafka;
use e2e::program;
use e2e::redis::Redis;
use tokio::signal::unix::{SignalKind, signal};

/// Real Kafka and Redis on loopback, for as long as a command runs.
#[derive(Parser)]
struct Arguments {
    /// The topic that is made.
    #[arg(long, default_value = "goim-push-topic")]
    topic: String,
    /// Its partitions.
    #[arg(long, default_value_t = 9)]
    partitions: i32,
    /// What to run; without it they stay until Ctrl-C. `{kafka}` and `{redis}` are replaced, `imcluster` is the built one.
    #[arg(trailing_var_arg = true)]
    command: Vec<String>,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    println!("starting Kafka and Redis …");
    let started = async {
        let (kafka, redis) = tokio::try_join!(Kafka::start(), Redis::start())?;
        kafka.create_topic(&arguments.topic, arguments.partitions).await?;
        anyhow::Ok((kafka, redis))
    };
    let (kafka, redis) = tokio::select! {
        started = started => started?,
        _ = interrupt.recv() => return Ok(ExitCode::from(130)),
        _ = terminate.recv() => return Ok(ExitCode::from(143)),
    };
    println!("Kafka  {}  topic {} ({} partitions)", kafka.brokers(), arguments.topic, arguments.partitions);
    println!("Redis  {}", redis.address());
    let Some(child) = start(&arguments.command, &kafka.brokers(), &redis.address())? else {
        println!("Ctrl-C ends both.");
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        return Ok(ExitCode::SUCCESS);
    };
    // The command ends in its own time after the first signal; a second one is passed on, too.
    loop {
        tokio::select! {
            status = child.wait(Duration::MAX) => return Ok(ExitCode::from(u8::try_from(status?.code().unwrap_or(1))?)),
            _ = interrupt.recv() => child.signal(libc::SIGINT),
            _ = terminate.recv() => child.signal(libc::SIGTERM),
        }
    }
}

fn start(command: &[String], kafka: &str, redis: &str) -> anyhow::Result<Option<Child>> {
    let Some((program, arguments)) = command.split_first() else { return Ok(None) };
    let program = if program == "imcluster" { program::binary()? } else { program.into() };
    let arguments: Vec<_> = arguments.iter().map(|a| a.replace("{kafka}", kafka).replace("{redis}", redis)).collect();
    let child = Child::attached("command", "is the name right?", move || {
        let mut command = Command::new(&program);
        command.args(&arguments);
        command
    });
    child.map(Some).with_context(|| format!("run {}", command.join(" ")))
}
