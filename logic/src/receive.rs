//! What clients send upstream: forwarded to a webhook when one is set (goim only logs it).
//!
//! One POST per packet, JSON: `{"mid":7,"key":"…","server":"…","op":1000,"seq":1,"body":"<base64>"}`. Any 2xx is
//! taken. Nothing is tried again and nothing waits: a comet is answered at once, and what finds the queue full, takes
//! too long or is refused is counted. Calls run beside each other; `seq` is the client's own number.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use proto::logic::ReceiveReq;
use runtime::{Metrics, Shutdown};
use serde::Serialize;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use url::Url;

use runtime::web;

/// The most of an answer that is read, so that its connection can be used again.
const ANSWER: usize = 64 * 1024;

/// Where upstream packets go.
#[derive(Clone, Debug, clap::Args)]
pub struct ReceiveConfig {
    /// POST what clients send upstream to this URL, one JSON object per packet: mid, key, server, op, seq, body (base64).
    #[arg(
        id = "receive_url",
        long = "receive-url",
        value_name = "URL",
        env = "IMCLUSTER_RECEIVE_URL",
        value_parser = web::url
    )]
    pub url: Option<Url>,
    /// How many of these calls may run at a time.
    #[arg(
        id = "receive_concurrency",
        long = "receive-concurrency",
        value_name = "COUNT",
        env = "IMCLUSTER_RECEIVE_CONCURRENCY",
        default_value_t = 16,
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    pub concurrency: u16,
    /// How many packets may wait for a call; further ones are dropped and counted.
    #[arg(
        id = "receive_queue",
        long = "receive-queue",
        value_name = "COUNT",
        env = "IMCLUSTER_RECEIVE_QUEUE",
        default_value_t = 1024,
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    pub queue: u16,
    /// How long a call may take.
    #[arg(
        id = "receive_timeout",
        long = "receive-timeout",
        value_name = "DURATION",
        env = "IMCLUSTER_RECEIVE_TIMEOUT",
        value_parser = runtime::duration::parse,
        default_value = "2s"
    )]
    pub timeout: Duration,
}

#[derive(Serialize)]
struct Posted<'a> {
    mid: i64,
    key: &'a str,
    server: &'a str,
    op: i32,
    seq: i32,
    body: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    result: &'static str,
}

/// Takes upstream packets and never waits. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Receive {
    queue: Option<mpsc::Sender<ReceiveReq>>,
    results: Family<Labels, Counter>,
}

impl Receive {
    /// Begins to forward, if there is somewhere to forward to.
    pub fn start(config: &ReceiveConfig, metrics: &Metrics, shutdown: Shutdown) -> Self {
        let results = Family::<Labels, Counter>::default();
        metrics.register("logic", |registry| {
            registry.register("received", "Packets from clients, by what became of them", results.clone());
        });
        let queue = config.url.clone().map(|url| {
            let (sender, receiver) = mpsc::channel(usize::from(config.queue));
            let webhook = Webhook { client: web::client(), url: url.as_str().into(), timeout: config.timeout };
            let permits = Arc::new(Semaphore::new(usize::from(config.concurrency)));
            tokio::spawn(forward(Arc::new(webhook), receiver, permits, results.clone(), shutdown));
            sender
        });
        Self { queue, results }
    }

    /// Takes one packet.
    pub fn offer(&self, packet: ReceiveReq) {
        let result = match self.queue.as_ref().map(|queue| queue.try_send(packet)) {
            None => "ignored",
            Some(Ok(())) => return,
            Some(Err(TrySendError::Full(_))) => "full",
            Some(Err(TrySendError::Closed(_))) => "closed",
        };
        count(&self.results, result);
    }
}

fn count(results: &Family<Labels, Counter>, result: &'static str) {
    results.get_or_create(&Labels { result }).inc();
}

/// What was taken before the shutdown is still forwarded.
async fn forward(
    webhook: Arc<Webhook>,
    mut queue: mpsc::Receiver<ReceiveReq>,
    permits: Arc<Semaphore>,
    results: Family<Labels, Counter>,
    shutdown: Shutdown,
) {
    let begun = shutdown.begun();
    tokio::pin!(begun);
    loop {
        let packet = tokio::select! {
            packet = queue.recv() => packet,
            () = &mut begun, if !queue.is_closed() => {
                queue.close();
                continue;
            }
        };
        let Some(packet) = packet else {
            return;
        };
        let permit = permits.clone().acquire_owned().await.expect("nobody closes the permits");
        let (webhook, results) = (webhook.clone(), results.clone());
        tokio::spawn(async move {
            count(&results, webhook.call(&packet).await);
            drop(permit);
        });
    }
}

struct Webhook {
    client: web::Client,
    url: Box<str>,
    timeout: Duration,
}

impl Webhook {
    async fn call(&self, packet: &ReceiveReq) -> &'static str {
        let inner = packet.proto.clone().unwrap_or_default();
        let posted = Posted {
            mid: packet.mid,
            key: &packet.key,
            server: &packet.server,
            op: inner.op,
            seq: inner.seq,
            body: STANDARD.encode(&inner.body),
        };
        let json = serde_json::to_vec(&posted).expect("text and numbers are always JSON");
        let request = http::Request::post(&*self.url)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(json)))
            .expect("a URL is a request target");
        let exchange = async {
            let response = self.client.request(request).await.map_err(|_| "unreachable")?;
            let status = response.status();
            // Read only to use the connection again; what it says does not matter.
            drop(Limited::new(response.into_body(), ANSWER).collect().await);
            if status.is_success() { Ok("ok") } else { Err("refused") }
        };
        match timeout(self.timeout, exchange).await {
            Ok(Ok(result) | Err(result)) => result,
            Err(_) => "timeout",
        }
    }
}

#[cfg(test)]
mod tests;
