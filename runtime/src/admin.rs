//! The admin port: GET `/live`, `/ready`, `/metrics` and `/status`, nothing that changes anything.
//!
//! | path | status | body |
//! |---|---|---|
//! | `/live` | 200 or 503 | `ok`: the runtime turns; or what only a restart can cure ([`crate::Liveness`]) |
//! | `/ready` | 200 or 503 | a line per dependency ([`crate::Readiness::report`]) |
//! | `/metrics` | 200 | OpenMetrics text |
//! | `/status` | 200 | JSON: version, uptime, readiness, dependencies, and what each service adds ([`Status`]) |

mod collect;

pub use collect::max_fds;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::Process;

/// How long one connection may last: it carries one request.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many connections are served at a time; more wait to be accepted.
const CONNECTIONS: usize = 128;
/// How long to wait when accepting fails, as when no file descriptor is left.
const BACK_OFF: Duration = Duration::from_millis(100);
/// What [`crate::Metrics::encode`] writes.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Report = Box<dyn Fn() -> serde_json::Value + Send + Sync>;

/// What `GET /status` shows: one JSON object, a field per part that reports. Cheap to clone.
#[derive(Clone, Default)]
pub struct Status {
    parts: Arc<Mutex<Vec<(&'static str, Report)>>>,
}

impl std::fmt::Debug for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.parts.lock().iter().map(|(name, _)| name)).finish()
    }
}

impl Status {
    /// Adds a field whose value is asked for at every request. `report` must not call this `Status`.
    pub fn part(&self, name: &'static str, report: impl Fn() -> serde_json::Value + Send + Sync + 'static) {
        self.parts.lock().push((name, Box::new(report)));
    }

    /// Every part's answer, without those that have nothing to say (`null`).
    pub fn report(&self) -> serde_json::Value {
        let parts = self.parts.lock();
        let answers = parts.iter().map(|(name, report)| ((*name).to_owned(), report()));
        answers.filter(|(_, answer)| !answer.is_null()).collect::<serde_json::Map<_, _>>().into()
    }
}

/// Binds the port and serves it until the process ends. Returns the address it got.
///
/// # Errors
/// [`crate::CannotListen`] when the port cannot be bound.
pub(crate) async fn serve(address: SocketAddr, process: Arc<Process>) -> anyhow::Result<SocketAddr> {
    let cannot = |error| crate::CannotListen::new("admin", address, error);
    let listener = TcpListener::bind(address).await.map_err(cannot)?;
    let bound = listener.local_addr()?;
    process.metrics.collect(collect::Ours::new(process.readiness.clone(), process.live.clone()));
    process.metrics.collect_unprefixed(collect::Proc);
    tokio::spawn(accept(listener, router(process), PATIENCE));
    Ok(bound)
}

async fn accept(listener: TcpListener, router: Router, patience: Duration) {
    let free = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let permit = free.clone().acquire_owned().await.expect("the semaphore is never closed");
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "admin port cannot accept");
                tokio::time::sleep(BACK_OFF).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let _permit = permit;
            let connection = hyper::server::conn::http1::Builder::new()
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            match tokio::time::timeout(patience, connection).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "admin connection broke"),
                Err(_) => tracing::debug!("admin connection took too long"),
            }
        });
    }
}

#[derive(Clone)]
struct Shared {
    process: Arc<Process>,
    started: Instant,
}

fn router(process: Arc<Process>) -> Router {
    Router::new()
        .route("/live", get(live))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .with_state(Shared { process, started: Instant::now() })
}

async fn live(State(shared): State<Shared>) -> impl IntoResponse {
    match shared.process.liveness.stuck() {
        None => (StatusCode::OK, "ok".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
    }
}

async fn ready(State(shared): State<Shared>) -> impl IntoResponse {
    let readiness = &shared.process.readiness;
    let code = if readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, readiness.report())
}

async fn metrics(State(shared): State<Shared>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, OPEN_METRICS)], shared.process.metrics.encode())
}

async fn status(State(shared): State<Shared>) -> impl IntoResponse {
    let process = &shared.process;
    let mut status = process.status.report();
    status["version"] = crate::VERSION.into();
    status["uptimeSeconds"] = shared.started.elapsed().as_secs().into();
    status["ready"] = process.readiness.is_ready().into();
    status["dependencies"] = serde_json::json!(process.readiness.dependencies());
    Json(status)
}

#[cfg(test)]
mod tests;
