//! How any process of ours lives in a pod: started, watched, told to stop, and gone.
//!
//! [`Process`] is the one handle that every service's `run` takes.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod admin;
pub mod annotations;
pub mod config;
pub mod duration;
pub mod listen;
pub mod live;
pub mod liveness;
pub mod metrics;
pub mod pod;
pub mod proxies;
pub mod readiness;
pub mod settings;
pub mod shutdown;
pub mod telemetry;
pub mod trace;
pub mod watched;
pub mod web;

use std::net::SocketAddr;
use std::sync::Arc;

pub use listen::CannotListen;
pub use liveness::Liveness;
pub use metrics::Metrics;
pub use readiness::{Condition, Readiness};
pub use shutdown::Shutdown;

/// The version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Shutdown, readiness and metrics of one service of this process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Process {
    /// When to stop, and who is still at work.
    pub shutdown: Shutdown,
    /// Which first contacts are still missing.
    pub readiness: Readiness,
    /// What only a restart can cure.
    pub liveness: Liveness,
    /// Where metrics are registered.
    pub metrics: Metrics,
    /// What `GET /status` shows.
    pub status: admin::Status,
    /// What the pod is told through its annotations; none outside Kubernetes.
    pub annotations: annotations::Annotations,
    /// The settings that can change while the process runs.
    pub live: live::Live,
    /// Where the admin port is served, when it is.
    pub admin: Option<SocketAddr>,
    /// Where traces go.
    pub telemetry: telemetry::Telemetry,
}

impl Process {
    /// A process that nobody signals and nobody scrapes: for tests, and the start of the real one.
    pub fn quiet() -> Self {
        Self {
            shutdown: Shutdown::new(),
            readiness: Readiness::default(),
            liveness: Liveness::default(),
            metrics: Metrics::default(),
            status: admin::Status::default(),
            annotations: annotations::none(),
            live: live::Live::default(),
            admin: None,
            telemetry: telemetry::Telemetry::default(),
        }
    }

    /// The same process with a shutdown of its own: standalone stops its services one after the other. One file of live
    /// settings cannot be for several services, so it has none.
    pub fn service(&self) -> Self {
        Self { shutdown: Shutdown::new(), live: live::Live::default(), ..self.clone() }
    }

    /// Installs telemetry, listens for signals and serves the admin port.
    ///
    /// # Errors
    /// [`CannotListen`] when the admin port cannot be bound; when the exporter cannot be built.
    pub async fn start(config: &config::ProcessConfig) -> anyhow::Result<Self> {
        let telemetry = telemetry::install(config)?;
        let annotations = annotations::follow(&config.annotations);
        let live = live::Live::new(config, annotations.clone(), telemetry.clone());
        let mut process = Self { telemetry, annotations, live, ..Self::quiet() };
        shutdown::on_signals(process.shutdown.clone(), process.live.clone())?;
        process.live.describe(&process.status);
        let address = admin::serve(config.admin, Arc::new(process.clone())).await?;
        process.admin = Some(address);
        tracing::info!(%address, "admin port is served");
        Ok(process)
    }

    /// The last thing a process does: sends the traces that are still here.
    pub async fn end(&self) {
        self.telemetry.flush().await;
    }
}
