//! Tells a backend what could not be delivered to which key, so that it can keep it or send it another way.
//!
//! One POST for what has come together, a JSON list. Nothing waits for it: what finds the queue full, or is not taken in
//! two calls, is counted.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use prometheus_client::metrics::counter::Counter;
use runtime::web;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use url::Url;
use uuid::Uuid;

use crate::push::Push;

/// How many keys may wait to be told.
const QUEUE: usize = 4096;
/// At most so many keys in one call.
const TOGETHER: usize = 500;
/// How long a call may take.
const DEADLINE: Duration = Duration::from_secs(2);
/// The most of an answer that is read, so that its connection can be used again.
const ANSWER: usize = 64 * 1024;
/// How long what waits at the end is worth waiting for: one call, and once more.
pub const LAST: Duration = Duration::from_secs(4);

/// One key that did not get a push.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Lost {
    key: String,
    /// Where it was sent last.
    server: String,
    partition: u32,
    offset: u64,
    /// The push's own id; absent when logic gave it none.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    op: i32,
    reason: &'static str,
    created_ms: u64,
}

/// Takes what is to be told and never waits.
#[derive(Clone, Debug)]
pub struct Outbox {
    queue: mpsc::Sender<Lost>,
    untold: Counter,
}

impl Outbox {
    /// This push will not reach this key.
    pub fn put(&self, push: &Push, key: &str, reason: &'static str) {
        let lost = Lost {
            key: key.to_owned(),
            server: push.server.to_string(),
            partition: push.id.partition,
            offset: push.id.offset,
            id: Uuid::from_slice(&push.name).ok().map(|id| id.to_string()),
            op: push.operation,
            reason,
            created_ms: push.id.created_ms,
        };
        if self.queue.try_send(lost).is_err() {
            self.untold.inc();
        }
    }
}

/// Begins to tell; the task ends when all outboxes are gone and what they held is told.
pub fn start(url: &Url, untold: Counter) -> (Outbox, JoinHandle<()>) {
    let (queue, waiting) = mpsc::channel(QUEUE);
    let task = tokio::spawn(tell(url.to_string(), waiting, untold.clone()));
    (Outbox { queue, untold }, task)
}

async fn tell(url: String, mut waiting: mpsc::Receiver<Lost>, untold: Counter) {
    let client = web::client();
    let mut lost = Vec::new();
    while waiting.recv_many(&mut lost, TOGETHER).await > 0 {
        let body = Bytes::from(serde_json::to_vec(&lost).expect("text and numbers are always JSON"));
        let mut is_told = false;
        for _ in 0..2 {
            match tokio::time::timeout(DEADLINE, post(&client, &url, body.clone())).await {
                Ok(Ok(())) => {
                    is_told = true;
                    break;
                }
                Ok(Err(error)) => tracing::debug!(%error, "webhook does not take what could not be delivered"),
                Err(_) => tracing::debug!("webhook does not answer"),
            }
        }
        if !is_told {
            untold.inc_by(lost.len() as u64);
        }
        lost.clear();
    }
}

async fn post(client: &web::Client, url: &str, body: Bytes) -> Result<(), String> {
    let request = http::Request::post(url)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(Full::new(body))
        .expect("a URL is a request target");
    let response = client.request(request).await.map_err(|error| error.to_string())?;
    let status = response.status();
    // Read only to use the connection again; what it says does not matter.
    drop(Limited::new(response.into_body(), ANSWER).collect().await);
    if status.is_success() { Ok(()) } else { Err(status.to_string()) }
}

#[cfg(test)]
mod tests;
