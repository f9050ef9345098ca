//! A backend of yours that says who a client is: asked with one POST, remembered for as long as it says.
//!
//! Posted is `{"token":"…","cookie":"…","address":"…"}`. Status 200 lets the client in, as `{"mid":7}` and, as it likes,
//! `key`, `rooms`, `connections`, `exp` (seconds since 1970) and `ttl` (seconds that the answer may be remembered); 401
//! and 403 refuse it; anything else, and no answer in time, means: try again.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt, Full, Limited};
use parking_lot::Mutex;
use proto::Mid;
use proto::log::now_ms;
use runtime::duration;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use url::Url;

use super::{AuthError, AuthMetrics, Away, Denied, Grant, Presented};
use runtime::web;

/// The longest answer, in bytes.
const ANSWER: usize = 64 * 1024;
/// How many rooms an answer may name, and how long their keys may be together: comet keeps them with the connection.
const ROOMS: usize = 512;
const ROOMS_BYTES: usize = 16 * 1024;
/// How many calls may run at a time; further clients wait their turn within the same deadline.
const CALLS: usize = 256;
/// The longest that an answer is remembered.
const LONGEST: Duration = Duration::from_secs(3600);

/// Whom to ask.
#[derive(Clone, Debug, clap::Args)]
pub struct WebhookConfig {
    /// With --auth webhook: where to ask who a client is. One POST of JSON with token, cookie and address per client.
    #[arg(long, value_name = "URL", env = "IMCLUSTER_AUTH_WEBHOOK_URL", value_parser = web::url)]
    pub auth_webhook_url: Option<Url>,
    /// How long an answer may take, at most 4s; then the client is told to try again.
    #[arg(long, value_name = "DURATION", env = "IMCLUSTER_AUTH_WEBHOOK_TIMEOUT", value_parser = deadline, default_value = "2s")]
    pub auth_webhook_timeout: Duration,
    /// How many answers are remembered for as long as they say; 0 = none.
    #[arg(long, value_name = "COUNT", env = "IMCLUSTER_AUTH_WEBHOOK_CACHE", default_value_t = 10_000)]
    pub auth_webhook_cache: usize,
}

/// Tells members by asking. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Webhook {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    url: Url,
    timeout: Duration,
    client: web::Client,
    calls: Semaphore,
    memory: Mutex<Memory>,
    metrics: AuthMetrics,
}

#[derive(Serialize)]
struct Asked<'a> {
    token: &'a str,
    cookie: &'a str,
    address: &'a str,
}

#[derive(Deserialize)]
struct Answer {
    mid: i64,
    key: Option<String>,
    rooms: Option<Vec<String>>,
    connections: Option<usize>,
    exp: Option<f64>,
    #[serde(default)]
    ttl: f64,
}

/// What became of a call.
enum Called {
    Yes(Grant, Duration),
    No,
    /// In one word.
    Failed(&'static str),
}

impl Webhook {
    /// Asks there.
    pub fn new(config: &WebhookConfig, url: Url, client: web::Client, metrics: AuthMetrics) -> Self {
        let memory = Mutex::new(Memory { most: config.auth_webhook_cache, ..Memory::default() });
        let (calls, timeout) = (Semaphore::new(CALLS), config.auth_webhook_timeout);
        Self { shared: Arc::new(Shared { url, timeout, client, calls, memory, metrics }) }
    }

    /// What the client that brings this token may be.
    ///
    /// # Errors
    /// When the webhook says no, or does not say.
    pub async fn ask(&self, token: &str, presented: Presented<'_>) -> Result<Grant, AuthError> {
        let asked = Asked { token, cookie: presented.cookie, address: presented.address };
        let name = name(&asked);
        let remembered = self.shared.memory.lock().find(&name);
        if let Some(grant) = remembered {
            self.shared.metrics.asked("remembered");
            return lasting(grant);
        }
        let called = timeout(self.shared.timeout, self.call(&asked)).await.unwrap_or(Called::Failed("timeout"));
        match called {
            Called::Yes(grant, ttl) => {
                self.shared.metrics.asked("ok");
                if !ttl.is_zero() {
                    self.shared.memory.lock().keep(name, grant.clone(), Instant::now() + ttl);
                }
                lasting(grant)
            }
            Called::No => {
                self.shared.metrics.asked("refused");
                Err(Denied::Webhook.into())
            }
            Called::Failed(why) => {
                self.shared.metrics.asked(why);
                tracing::debug!(why, host = self.shared.url.host_str(), "the webhook did not say who a client is");
                Err(Away("who clients are cannot be asked for right now").into())
            }
        }
    }

    async fn call(&self, asked: &Asked<'_>) -> Called {
        let _turn = self.shared.calls.acquire().await.expect("nobody closes the permits");
        let json = serde_json::to_vec(asked).expect("text is always JSON");
        let request = http::Request::post(self.shared.url.as_str())
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(json)))
            .expect("a URL is a request target");
        let Ok(response) = self.shared.client.request(request).await else {
            return Called::Failed("unreachable");
        };
        let status = response.status();
        // Read whatever it is, to use the connection again.
        let body = Limited::new(response.into_body(), ANSWER).collect().await;
        match status {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Called::No,
            _ => return Called::Failed("status"),
        }
        let answer = body.ok().and_then(|body| serde_json::from_slice::<Answer>(&body.to_bytes()).ok());
        let granted = answer.and_then(granted);
        granted.map_or(Called::Failed("invalid"), |(grant, ttl)| Called::Yes(grant, ttl))
    }
}

/// An answer that makes no sense is none.
fn granted(answer: Answer) -> Option<(Grant, Duration)> {
    let Answer { mid, key, rooms, connections, exp, ttl } = answer;
    let fits =
        |rooms: &Vec<String>| rooms.len() <= ROOMS && rooms.iter().map(String::len).sum::<usize>() <= ROOMS_BYTES;
    if key.as_deref() == Some("") || connections == Some(0) || exp.is_some_and(|exp| exp < 0.0) {
        return None;
    }
    if !rooms.as_ref().is_none_or(fits) {
        return None;
    }
    let ttl = Duration::try_from_secs_f64(ttl).ok()?.min(LONGEST);
    // 0 would be never.
    let expires_ms = exp.map_or(0, |exp| ((exp * 1000.0) as u64).max(1));
    Some((Grant { mid: Mid(mid), key, rooms, connections, expires_ms }, ttl))
}

fn lasting(grant: Grant) -> Result<Grant, AuthError> {
    if grant.expires_ms != 0 && grant.expires_ms <= now_ms() { Err(Denied::Expired.into()) } else { Ok(grant) }
}

/// What an answer is remembered by: no token is kept.
type Name = [u8; 32];

fn name(asked: &Asked<'_>) -> Name {
    let mut hash = Sha256::new();
    for part in [asked.token, asked.cookie, asked.address] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// Answers, the oldest of which goes when there are too many.
#[derive(Debug, Default)]
struct Memory {
    most: usize,
    answers: HashMap<Name, (Grant, Instant)>,
    order: VecDeque<Name>,
}

impl Memory {
    fn find(&self, name: &Name) -> Option<Grant> {
        self.answers.get(name).filter(|(_, until)| *until > Instant::now()).map(|(grant, _)| grant.clone())
    }

    fn keep(&mut self, name: Name, grant: Grant, until: Instant) {
        if self.most == 0 {
            return;
        }
        if self.answers.insert(name, (grant, until)).is_some() {
            return;
        }
        self.order.push_back(name);
        if self.order.len() > self.most {
            let oldest = self.order.pop_front().expect("it holds at least one");
            self.answers.remove(&oldest);
        }
    }
}

fn deadline(text: &str) -> Result<Duration, String> {
    match duration::parse(text)? {
        zero if zero.is_zero() => Err("expected more than 0s".to_owned()),
        long if long > Duration::from_secs(4) => Err("expected at most 4s: comet waits 5s for logic".to_owned()),
        deadline => Ok(deadline),
    }
}

#[cfg(test)]
mod tests;
