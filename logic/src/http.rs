//! The HTTP side: goim's API for backends, its description, and the page for people.
//!
//! A request is answered by what it names: a route of the API, else a file of the page, else gin's 404. The handlers are
//! in `api`; here are connections, and what holds for every request.

mod answer;
mod api;
mod client_ip;
mod json;
mod nodes_body;
mod number;
mod openapi;
mod page;
mod query;
mod room_key;
mod route;

use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::response::Response;
use futures::FutureExt;
use http::{Method, Request};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

pub use api::Api;
pub use openapi::DOCUMENT;
use route::Found;
pub use route::Route;

use crate::metrics::RequestLabels;

/// How long to wait after a failed accept, so that running out of files does not become a busy loop.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(50);
/// How often a silent HTTP/2 client is asked whether it is there.
const H2_PING: Duration = Duration::from_secs(30);

/// Serves the listener until `stop`, then lets requests in flight end, no longer than `within`.
pub async fn serve(listener: TcpListener, api: Arc<Api>, stop: impl Future<Output = ()>, within: Duration) {
    let builder = builder(api.limits.load().http_idle_timeout);
    let connections = Arc::new(Semaphore::new(api.limits.load().http_connections));
    let graceful = GracefulShutdown::new();
    let mut tasks = JoinSet::new();
    tokio::pin!(stop);
    loop {
        let (stream, peer, permit) = tokio::select! {
            () = &mut stop => break,
            Some(_ended) = tasks.join_next(), if !tasks.is_empty() => continue,
            accepted = accept(&listener, &connections) => accepted,
        };
        let service = service_fn({
            let api = api.clone();
            move |request| {
                let api = api.clone();
                async move { Ok::<_, Infallible>(respond(&api, peer.ip(), request).await) }
            }
        });
        let connection = graceful.watch(builder.serve_connection(TokioIo::new(stream), service).into_owned());
        let metrics = api.metrics.clone();
        tasks.spawn(async move {
            metrics.connections.inc();
            if let Err(error) = connection.await {
                tracing::debug!(%peer, %error, "http connection ended");
            }
            metrics.connections.dec();
            drop(permit);
        });
    }
    drop(listener);
    if tokio::time::timeout(within, graceful.shutdown()).await.is_err() {
        tracing::warn!(connections = tasks.len(), "http requests did not end in time, cutting them");
    }
    tasks.shutdown().await;
}

fn builder(idle: Duration) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    // Title-case names, as Go writes them: some backends compare text.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(idle).title_case_headers(true);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(H2_PING).max_concurrent_streams(256);
    builder
}

/// The next connection, once there is room for one. Cancel safe.
async fn accept(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
) -> (TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit) {
    let permit = connections.clone().acquire_owned().await.expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%peer, %error, "no nodelay"); // it is gone already; reading will say so
                }
                return (stream, peer, permit);
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed, trying again");
                tokio::time::sleep(ACCEPT_BACK_OFF).await;
            }
        }
    }
}

/// Answers one request; a panic is a 500 and nobody else's matter.
async fn respond(api: &Api, peer: IpAddr, request: Request<Incoming>) -> Response {
    let started = Instant::now();
    let (label, answer) = match Route::find(request.method(), request.uri().path()) {
        Found::Route(route) => {
            let answered = AssertUnwindSafe(api.answer(route, peer, request)).catch_unwind().await;
            let response = answered.unwrap_or_else(|_panic| {
                api.metrics.panics.inc();
                answer::panicked()
            });
            (route.name(), response)
        }
        Found::Redirect(path) => {
            let to = request.uri().query().map_or(path.clone(), |query| format!("{path}?{query}"));
            ("none", answer::redirect(&to, request.method() == Method::GET))
        }
        Found::Nothing if api.limits.load().no_page => ("none", answer::not_found()),
        Found::Nothing => match page::answer(request.method(), request.uri().path(), request.headers()) {
            Some(response) => ("page", response),
            None => ("none", answer::not_found()),
        },
    };
    let labels = RequestLabels { route: label, code: answer.status().as_u16() };
    api.metrics.requests.get_or_create(&labels).inc();
    api.metrics.request_seconds.observe(started.elapsed().as_secs_f64());
    answer
}

#[cfg(test)]
mod tests;
