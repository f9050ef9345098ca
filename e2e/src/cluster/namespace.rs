//! The cluster's network namespaces, and how a part of a test gets into one.

use std::fs::File;
use std::process::Command;
use std::sync::Arc;

use anyhow::Context;
use tokio::runtime::{Builder, Runtime};

use crate::os;

/// A network of its own, with no way out of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// Node 1 and the control plane: everything of the cluster can be reached from here, pods and Services too.
    Cluster,
    /// Node 2.
    Node2,
    /// A client's: it has a route to the nodes' addresses and to nothing else.
    Client,
}

impl Namespace {
    /// What `ip netns` calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cluster => "imk8s",
            Self::Node2 => "imk8s-n2",
            Self::Client => "imk8s-client",
        }
    }

    /// A command that runs inside it.
    pub fn command(self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name())).arg(program);
        command
    }

    /// Moves the calling thread into it for good: its sockets, and every thread and process that it starts.
    ///
    /// # Errors
    /// When no cluster is up, or we are not root.
    pub fn enter(self) -> anyhow::Result<()> {
        os::enter_network(&self.open()?).with_context(|| format!("enter {}: it takes root", self.name()))
    }

    /// Threads that live inside it, for code of ours that has to run there, such as a client.
    ///
    /// # Errors
    /// As [`enter`](Self::enter).
    pub fn inside(self) -> anyhow::Result<Inside> {
        Inside::of(self.open()?.into()).with_context(|| format!("enter {}", self.name()))
    }

    fn open(self) -> anyhow::Result<File> {
        let path = format!("/run/netns/{}", self.name());
        File::open(&path).with_context(|| format!("open {path}: no cluster is up"))
    }
}

/// A runtime all of whose threads are in one namespace. What still runs is stopped when this is dropped.
#[derive(Debug)]
pub struct Inside {
    threads: Option<Runtime>,
}

impl Inside {
    /// Threads that live in this one.
    ///
    /// # Errors
    /// When we are not root.
    pub(crate) fn of(network: Arc<File>) -> anyhow::Result<Self> {
        let tried = std::thread::scope(|scope| scope.spawn(|| os::enter_network(&network)).join());
        tried.expect("it only asks the system").context("enter a network namespace: it takes root")?;
        let threads = Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .on_thread_start(move || os::enter_network(&network).expect("it could be entered before"))
            .build()?;
        Ok(Self { threads: Some(threads) })
    }

    /// Runs a task there and waits for what it returns.
    ///
    /// # Errors
    /// When the task panicked.
    pub async fn run<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> anyhow::Result<T> {
        self.threads().spawn(task).await.context("a task inside a network namespace")
    }

    /// Where to spawn tasks that run there.
    pub fn threads(&self) -> &tokio::runtime::Handle {
        self.threads.as_ref().expect("only dropping takes it").handle()
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        // A runtime may not be waited for in a task of another one.
        if let Some(threads) = self.threads.take() {
            threads.shutdown_background();
        }
    }
}
