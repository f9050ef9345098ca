//! The keys in force, and how they are kept fresh: a file that is looked at every second, or a URL that is asked now and
//! then and once more for a `kid` that nobody knows. Whatever goes wrong, the last good keys stay in force.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use parking_lot::Mutex;
use runtime::watched::Watched;
use tokio::time::{Instant, timeout};
use url::Url;

use super::keys::{self, Form, Key};
use super::{AuthMetrics, Away};
use runtime::web;

/// How often a file is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How long asking a URL may take: a client that waits for it is given up after five seconds.
const FETCH: Duration = Duration::from_secs(3);
/// How long to wait after asking in vain.
const AGAIN: Duration = Duration::from_secs(5);
/// How soon a `kid` that nobody knows may have the URL asked again.
const UNKNOWN: Duration = Duration::from_secs(10);
/// The longest answer of a URL, in bytes.
const ANSWER: usize = 1024 * 1024;

/// The keys in force. Cheap to clone.
#[derive(Clone, Debug)]
pub struct KeyRing {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    keys: ArcSwap<Vec<Key>>,
    origin: Origin,
    metrics: AuthMetrics,
}

#[derive(Debug)]
enum Origin {
    File(Mutex<Watched>, Form),
    Url(Box<Published>),
}

/// Keys behind a URL.
#[derive(Debug)]
struct Published {
    url: Url,
    every: Duration,
    client: web::Client,
    /// How soon a `kid` that nobody knows may have it asked again.
    again: Duration,
    /// Held while it is asked: whoever comes meanwhile waits for the answer.
    asked: tokio::sync::Mutex<Asked>,
}

/// How it went.
#[derive(Debug, Default)]
struct Asked {
    /// The last time there was no answer of use.
    in_vain: bool,
    /// When it was asked last because of a `kid`.
    for_kid: Option<Instant>,
}

impl KeyRing {
    /// The keys of a file.
    ///
    /// # Errors
    /// When it cannot be read or used.
    pub fn file(path: PathBuf, form: Form, metrics: AuthMetrics) -> Result<Self, String> {
        let mut file = Watched::new(path);
        let text = file.read().map_err(|error| format!("expected a file that can be read ({error})"))?;
        let keys = keys::read(&text, form)?;
        Ok(Self::new(keys, Origin::File(Mutex::new(file), form), metrics))
    }

    /// The keys behind a URL; none until [`follow`](Self::follow) has asked for them.
    pub fn url(url: Url, every: Duration, client: web::Client, metrics: AuthMetrics) -> Self {
        Self::asking(url, every, UNKNOWN, client, metrics)
    }

    fn asking(url: Url, every: Duration, again: Duration, client: web::Client, metrics: AuthMetrics) -> Self {
        let published = Published { url, every, client, again, asked: tokio::sync::Mutex::default() };
        Self::new(Vec::new(), Origin::Url(Box::new(published)), metrics)
    }

    fn new(keys: Vec<Key>, origin: Origin, metrics: AuthMetrics) -> Self {
        Self { shared: Arc::new(Shared { keys: ArcSwap::from_pointee(keys), origin, metrics }) }
    }

    /// These keys, for ever.
    #[cfg(test)]
    pub fn fixed(keys: Vec<Key>) -> Self {
        Self::new(keys, Origin::File(Mutex::new(Watched::new("/nowhere")), Form::File), AuthMetrics::default())
    }

    /// The keys in force; empty = none were found yet.
    pub fn keys(&self) -> Arc<Vec<Key>> {
        self.shared.keys.load_full()
    }

    /// Keeps them fresh, for as long as it is polled.
    pub async fn follow(self) {
        loop {
            let wait = match &self.shared.origin {
                Origin::File(file, form) => {
                    self.look(file, *form);
                    LOOK
                }
                Origin::Url(published) => {
                    let mut asked = published.asked.lock().await;
                    if self.ask(published, &mut asked).await { published.every } else { AGAIN.min(published.every) }
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// Newer keys than these, for a token whose `kid` is not among them.
    ///
    /// # Errors
    /// When the URL did not answer the last time it was asked, or may not be asked yet: the key may be there.
    pub async fn newer(&self, than: &Arc<Vec<Key>>) -> Result<Arc<Vec<Key>>, Away> {
        if let Origin::Url(published) = &self.shared.origin {
            let mut asked = published.asked.lock().await;
            let is_due = asked.for_kid.is_none_or(|when| when.elapsed() >= published.again);
            // Somebody else may have asked while we waited.
            if Arc::ptr_eq(than, &self.keys()) {
                if !is_due {
                    return Err(Away(
                        "the keys that sign tokens were asked for just now, and will be again in a moment",
                    ));
                }
                asked.for_kid = Some(Instant::now());
                self.ask(published, &mut asked).await;
            }
            if asked.in_vain {
                return Err(Away("the keys that sign tokens cannot be asked for right now"));
            }
        }
        Ok(self.keys())
    }

    fn look(&self, file: &Mutex<Watched>, form: Form) {
        let mut file = file.lock();
        let text = match file.news() {
            Ok(None) => return,
            Ok(Some(text)) => Ok(text),
            Err(error) => Err(error.to_string()),
        };
        let path = file.path().display();
        match text.and_then(|text| keys::read(&text, form)) {
            Ok(keys) => {
                tracing::info!(file = %path, keys = keys.len(), "keys that sign tokens read again");
                self.shared.metrics.read("ok");
                self.shared.keys.store(Arc::new(keys));
            }
            Err(error) => {
                tracing::error!(file = %path, %error, "keys that sign tokens are bad, the old ones stay in force");
                self.shared.metrics.read("error");
            }
        }
    }

    async fn ask(&self, published: &Published, asked: &mut Asked) -> bool {
        let answer = timeout(FETCH, published.fetch()).await.unwrap_or_else(|_| Err(format!("no answer in {FETCH:?}")));
        let answered = match answer.and_then(|text| keys::read(&text, Form::Published)) {
            Ok(keys) => {
                tracing::debug!(keys = keys.len(), "keys that sign tokens asked for");
                self.shared.keys.store(Arc::new(keys));
                true
            }
            Err(error) => {
                tracing::warn!(host = published.url.host_str(), %error, "no keys that sign tokens, the old ones stay");
                false
            }
        };
        self.shared.metrics.read(if answered { "ok" } else { "error" });
        asked.in_vain = !answered;
        answered
    }
}

impl Published {
    async fn fetch(&self) -> Result<Bytes, String> {
        let request = http::Request::get(self.url.as_str()).header(http::header::ACCEPT, "application/json");
        let request = request.body(Full::default()).map_err(|error| error.to_string())?;
        let response = self.client.request(request).await.map_err(|error| cause(&error))?;
        if response.status() != http::StatusCode::OK {
            return Err(format!("expected status 200, not {}", response.status().as_u16()));
        }
        let body = Limited::new(response.into_body(), ANSWER).collect().await;
        Ok(body.map_err(|error| error.to_string())?.to_bytes())
    }
}

/// The innermost reason: what is around it only says that connecting failed.
fn cause(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests;
