//! The real `imcluster` as a process: one service, or all of them wired to real Kafka and Redis.

pub mod flags;
mod stack;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::child::Child;
use crate::eventually;
use crate::host::Host;
use crate::ports::Port;
pub use stack::{Comet, Options, Stack};

const BUILD: &str = "cargo build --release --bin imcluster";
const READY: Duration = Duration::from_secs(60);
/// Longer than any grace period that a test sets.
const END: Duration = Duration::from_secs(120);
/// What a program is given of our environment; the rest could change what it does.
const ENVIRONMENT: [&str; 5] = ["PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "RUST_BACKTRACE"];

/// One `imcluster` process. Its output is kept among the artefacts.
#[derive(Debug)]
pub struct Program {
    child: Child,
    admin: Port,
}

impl Program {
    /// Starts `imcluster <subcommand> <arguments>` with an admin port of its own and waits until it is ready.
    ///
    /// # Errors
    /// When it is not built, ends, or is not ready in time; the text names its log.
    pub async fn start(subcommand: &str, arguments: &[String]) -> anyhow::Result<Self> {
        let program = Self::spawn(subcommand, arguments)?;
        program.ready().await?;
        Ok(program)
    }

    /// The same without waiting.
    ///
    /// # Errors
    /// When it is not built or cannot be started.
    pub fn spawn(subcommand: &str, arguments: &[String]) -> anyhow::Result<Self> {
        Self::spawn_at(&Host::loopback(), subcommand, arguments)
    }

    /// The same at a host.
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn).
    pub fn spawn_at(host: &Host, subcommand: &str, arguments: &[String]) -> anyhow::Result<Self> {
        let (binary, admin, host) = (binary()?, host.port()?, host.clone());
        let mut line = vec![subcommand.to_owned()];
        line.extend(flags::admin(&admin));
        line.extend_from_slice(arguments);
        let child = Child::start(subcommand, BUILD, move || {
            let mut command = Command::new(&binary);
            command.args(&line).env_clear();
            command.envs(ENVIRONMENT.iter().filter_map(|name| std::env::var_os(name).map(|value| (name, value))));
            host.inside(command)
        })?;
        Ok(Self { child, admin })
    }

    /// Waits until `/ready` says yes.
    ///
    /// # Errors
    /// When it does not in time; the text holds its last answer. At once when the process has ended.
    pub async fn ready(&self) -> anyhow::Result<()> {
        let what = format!("{} to be ready", self.child.log().display());
        let asked = eventually(READY, &what, || async {
            if let Some(status) = self.child.exited() {
                return Ok(Err(anyhow::anyhow!("it ended with {status}:\n{}", self.child.output())));
            }
            match self.get("/ready").await? {
                (StatusCode::OK, _) => Ok(Ok(())),
                (status, text) => Err(anyhow::anyhow!("{status} {text}")),
            }
        });
        asked.await?.with_context(|| format!("start, see {}", self.child.log().display()))
    }

    /// Asks its admin port.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn get(&self, path: &str) -> anyhow::Result<(StatusCode, String)> {
        get(self.admin.address(), path).await
    }

    /// Where its admin port is.
    pub fn admin(&self) -> SocketAddr {
        self.admin.address()
    }

    /// The process: its id, log, signals and end.
    pub fn process(&self) -> &Child {
        &self.child
    }

    /// Asks it to end (SIGTERM) and waits for it.
    ///
    /// # Errors
    /// When it still runs after two minutes.
    pub async fn terminate(&self) -> anyhow::Result<ExitStatus> {
        self.child.terminate(END).await
    }

    /// Kills it (SIGKILL).
    pub fn kill(&self) {
        self.child.kill();
    }

    /// Freezes it (SIGSTOP).
    pub fn stop(&self) {
        self.child.stop();
    }

    /// Lets it go on (SIGCONT).
    pub fn cont(&self) {
        self.child.cont();
    }

    /// Starts it again with the same arguments, killing it first when it still runs, and waits until it is ready.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn restart(&self) -> anyhow::Result<()> {
        self.child.restart()?;
        self.ready().await
    }
}

/// The built program: `IMCLUSTER_BIN`, else beside the running test or binary.
///
/// # Errors
/// When it is not there; the text says how to build it.
pub fn binary() -> anyhow::Result<PathBuf> {
    if let Some(named) = std::env::var_os("IMCLUSTER_BIN") {
        let path = PathBuf::from(named);
        anyhow::ensure!(path.is_file(), "IMCLUSTER_BIN={} is not there: {BUILD}", path.display());
        return Ok(path);
    }
    let us = std::env::current_exe().context("where are we?")?;
    let beside = us.ancestors().skip(1).take(2).map(|folder| folder.join("imcluster")).find(|path| path.is_file());
    beside.with_context(|| format!("no imcluster beside {}: {BUILD}, or set IMCLUSTER_BIN", us.display()))
}

/// One GET over a connection of its own.
///
/// # Errors
/// When there is no answer within 5 s.
pub async fn get(address: SocketAddr, path: &str) -> anyhow::Result<(StatusCode, String)> {
    ask(address, Method::GET, path, Bytes::new()).await
}

/// One POST over a connection of its own.
///
/// # Errors
/// When there is no answer within 5 s.
pub async fn post(address: SocketAddr, path: &str, body: impl Into<Bytes>) -> anyhow::Result<(StatusCode, String)> {
    ask(address, Method::POST, path, body.into()).await
}

async fn ask(address: SocketAddr, method: Method, path: &str, body: Bytes) -> anyhow::Result<(StatusCode, String)> {
    let what = format!("{method} {address}{path}");
    let ask = async {
        let socket = TcpStream::connect(address).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
        let connection = tokio::spawn(connection);
        let request = Request::builder().method(method).uri(path).header("host", address.to_string());
        let answer = sender.send_request(request.body(Full::new(body))?).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        connection.abort();
        anyhow::Ok((status, String::from_utf8_lossy(&body).into_owned()))
    };
    tokio::time::timeout(Duration::from_secs(5), ask).await.with_context(|| what.clone())?.context(what)
}
