//! `imcluster`: one program with a sub-command per process of the gateway. Parses, starts, waits.

#![cfg_attr(test, allow(clippy::unwrap_used))]

#[cfg(test)]
mod rendered;
mod smoke;
mod standalone;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use runtime::config::{ConfigError, FileKeys};
use runtime::{CannotListen, Process};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What `imcluster --help` prints.
const HELP: &str = "\
imcluster: a gateway that keeps TCP and WebSocket connections and pushes messages to members, rooms and everyone

Usage: imcluster [COMMAND] [OPTIONS]

Commands:
  standalone  comet, logic and job in one process, in memory unless told otherwise (the default)
  comet       holds the connections
  logic       decides who gets a push; the HTTP API
  job         carries pushes from Kafka to the comets
  operator    keeps the ImClusters of a Kubernetes cluster true
  crd         prints the CustomResourceDefinition of ImCluster, or its reference page (--reference)
  bench       loads a gateway and reports what it did
  smoke       makes an ImCluster, pushes one message through it and removes it (what `helm test` runs)

`imcluster COMMAND --help` is the reference of a command. Options can also come from the environment and from a TOML
file (`--config`), goim's included; a flag wins over the environment, the environment over the file.";

fn main() -> ExitCode {
    rustls::crypto::ring::default_provider().install_default().expect("nobody chose a TLS provider before main");
    let mut argv: Vec<OsString> = std::env::args_os().skip(1).collect();
    let command = match argv.first().and_then(|first| first.to_str()) {
        Some("--help" | "-h" | "help") => return shown(HELP),
        Some("--version" | "-V") => return shown(&format!("imcluster {}", runtime::VERSION)),
        Some(name) if !name.starts_with('-') => argv.remove(0),
        _ => OsString::from("standalone"),
    };
    match command.to_str() {
        Some("standalone") => start("standalone", "comet, logic and job in one process", argv, standalone::run),
        Some("comet") => start("comet", "holds the connections", argv, comet),
        Some("logic") => start("logic", "decides who gets a push; the HTTP API", argv, logic),
        Some("job") => start("job", "carries pushes from Kafka to the comets", argv, job),
        Some("operator") => start("operator", "keeps the ImClusters of a Kubernetes cluster true", argv, operator::run),
        Some("crd") => crd(&argv),
        Some("bench") => tool(argv, |bench: Bench| e2e::bench::run(bench.config)),
        Some("smoke") => tool(argv, smoke::run),
        _ => failed(&ConfigError::Invalid(format!(
            "unknown command `{}`: expected standalone, comet, logic, job, operator, crd, bench or smoke",
            command.to_string_lossy()
        ))),
    }
}

async fn comet(config: comet::Config, process: Process) -> anyhow::Result<()> {
    let listeners = comet::Listeners::bind(&config)?;
    let tls = config.internal_tls.open()?;
    let logic = comet::LogicClient::lazy(&config.logic, config.server(), config.incarnation, tls.clone())?;
    comet::run(config, listeners, Arc::new(logic), tls, process).await
}

async fn logic(config: logic::Config, process: Process) -> anyhow::Result<()> {
    let listeners = logic::Listeners::bind(&config).await?;
    let store = logic::store::redis::RedisStore::start(&config.redis, &process)?;
    let queue = logic::queue::kafka::KafkaQueue::start(&config.kafka, &config.topic, &process)?;
    logic::run(config, listeners, Arc::new(store), Arc::new(queue), process).await
}

async fn job(config: job::Config, process: Process) -> anyhow::Result<()> {
    let source = job::consumer::kafka::KafkaSource::start(&config.kafka, &config.group)?;
    job::run(config, Box::new(source), process).await
}

/// Reads the settings of a service, starts the process around it and runs it to its end.
fn start<C: FileKeys>(
    name: &'static str,
    about: &'static str,
    argv: Vec<OsString>,
    service: impl AsyncFnOnce(C, Process) -> anyhow::Result<()>,
) -> ExitCode {
    let loaded = match runtime::config::load::<C>(name, about, argv, &|name| std::env::var_os(name)) {
        Ok(loaded) => loaded,
        Err(error) => return failed(&error),
    };
    finish(async {
        let process = Process::start(&loaded.process).await?;
        process.status.part("component", move || name.into());
        loaded.notices.iter().for_each(runtime::config::Notice::log);
        let ended = service(loaded.service, process.clone()).await;
        process.end().await;
        ended
    })
}

/// `imcluster crd`.
fn crd(argv: &[OsString]) -> ExitCode {
    match argv.iter().map(|arg| arg.to_str()).collect::<Vec<_>>().as_slice() {
        [] => shown(operator::crd::yaml().trim_end()),
        [Some("--reference")] => shown(operator::reference::page().trim_end()),
        [Some("--help" | "-h")] => shown(
            "imcluster crd: prints the CustomResourceDefinition of ImCluster\n\nUsage: imcluster crd [--reference]\n\n\
             Options:\n      --reference  print the reference page of its fields instead",
        ),
        _ => failed(&ConfigError::Invalid("crd: expected nothing or --reference".to_owned())),
    }
}

/// `imcluster bench`.
#[derive(clap::Parser)]
#[command(name = "imcluster bench", version)]
struct Bench {
    #[command(flatten)]
    config: e2e::bench::Config,
}

/// Reads the arguments of a command that is no service and runs it to its end.
fn tool<P: clap::Parser, F>(argv: Vec<OsString>, run: impl FnOnce(P) -> F) -> ExitCode
where
    F: Future<Output = anyhow::Result<()>>,
{
    let named = std::iter::once(OsString::from(P::command().get_name())).chain(argv);
    match P::try_parse_from(named) {
        Ok(parsed) => finish(run(parsed)),
        Err(error) => {
            let shown = !error.use_stderr();
            // Nobody is left to tell when the terminal is gone.
            let _gone = error.print();
            if shown { ExitCode::SUCCESS } else { ExitCode::from(64) }
        }
    }
}

fn finish(work: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads");
    match runtime.and_then(|runtime| runtime.block_on(work)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => match error.downcast_ref::<ConfigError>() {
            Some(error) => failed(error),
            None => {
                eprintln!("imcluster: {error:#}");
                ExitCode::from(error.downcast_ref::<CannotListen>().map_or(1, CannotListen::exit_code))
            }
        },
    }
}

fn failed(error: &ConfigError) -> ExitCode {
    match error {
        ConfigError::Shown(text) => return shown(text.trim_end()),
        ConfigError::Invalid(text) => eprintln!("imcluster: {text}"),
    }
    ExitCode::from(error.exit_code())
}

fn shown(text: &str) -> ExitCode {
    println!("{text}");
    ExitCode::SUCCESS
}
