//! Who may push: named bearer tokens, kept in a file as hashes, read again when the file changes.
//!
//! ```toml
//! [[token]]
//! name = "billing"
//! sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
//! routes = ["push/keys", "push/mids"]   # or ["*"]
//! rate = 100                            # pushes a second, optional
//! ```

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::http::Route;

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// A token as people carry it begins so, for scanners that look for leaked secrets.
const PREFIX: &str = "imc_";

/// The tokens of one file. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tokens {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    entries: ArcSwap<Vec<Arc<Entry>>>,
    seen: Mutex<Option<Stamp>>,
    /// Whether a file was put to use.
    used: AtomicBool,
}

/// What changes when a file does, a swapped symbolic link included.
#[derive(Debug, PartialEq, Eq)]
struct Stamp(u64, u64, i64, i64);

#[derive(Debug)]
struct Entry {
    name: String,
    hash: [u8; 32],
    /// `None` = all.
    routes: Option<HashSet<String>>,
    rate: Option<Rate>,
}

/// A bucket that fills at `per_second` and holds one second's worth, at least one.
#[derive(Debug)]
struct Rate {
    per_second: f64,
    level: Mutex<(f64, Instant)>,
}

/// Why a push is not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// No token, or none of ours.
    Unknown,
    /// A token, and no file yet to find it in.
    Missing,
    /// This token (by name) is not for this route.
    Route(String),
    /// This token's rate is used up; seconds until there is room.
    Rate(u64),
}

/// A tokens file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("push tokens file {}: {why}", path.display())]
pub struct TokensError {
    path: PathBuf,
    why: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    token: Vec<Line>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    name: String,
    sha256: String,
    routes: Vec<String>,
    rate: Option<f64>,
}

impl Tokens {
    /// Reads the file. Until it is there no push is let in: who brings a token is told to try again.
    ///
    /// # Errors
    /// When it is there and cannot be used.
    pub fn open(path: &Path) -> Result<Self, TokensError> {
        let shared =
            Shared { path: path.to_owned(), entries: ArcSwap::default(), seen: Mutex::new(None), used: false.into() };
        let tokens = Self { shared: Arc::new(shared) };
        if tokens.stamp().is_none() {
            tracing::warn!(file = %path.display(), "push tokens file is missing, every push is refused until it is there");
        }
        tokens.reload()?;
        Ok(tokens)
    }

    /// Looks at the file every second, for as long as it is polled. A bad file leaves the old tokens in force.
    pub async fn follow(self) {
        let mut ticks = tokio::time::interval(LOOK);
        loop {
            ticks.tick().await;
            match self.reload() {
                Ok(true) => tracing::info!(tokens = self.count(), "push tokens read again"),
                Ok(false) => {}
                Err(error) => tracing::error!(%error, "push tokens file is bad, the old tokens stay in force"),
            }
        }
    }

    /// How many tokens there are.
    pub fn count(&self) -> usize {
        self.shared.entries.load().len()
    }

    /// Whether a file was put to use: `present` or `missing`, for `/status`.
    pub fn status(&self) -> &'static str {
        if self.is_missing() { "missing" } else { "present" }
    }

    fn is_missing(&self) -> bool {
        !self.shared.used.load(Ordering::Relaxed)
    }

    /// Lets a push in by its `Authorization` header, and takes it off the token's rate.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn admit(&self, authorization: Option<&[u8]>, route: Route) -> Result<(), Denied> {
        let token = authorization.and_then(bearer).ok_or(Denied::Unknown)?;
        let hash: [u8; 32] = Sha256::digest(token).into();
        let entries = self.shared.entries.load();
        // Every entry is compared in full, so that the time taken tells nothing of which one came close.
        let mut found = None;
        for entry in entries.iter() {
            if bool::from(entry.hash.ct_eq(&hash)) {
                found = Some(entry);
            }
        }
        let entry = found.ok_or_else(|| if self.is_missing() { Denied::Missing } else { Denied::Unknown })?;
        if entry.routes.as_ref().is_some_and(|routes| !routes.contains(route.name())) {
            return Err(Denied::Route(entry.name.clone()));
        }
        entry.rate.as_ref().map_or(Ok(()), Rate::take)
    }

    /// Reads the file when it changed. Whether it did.
    fn reload(&self) -> Result<bool, TokensError> {
        let stamp = self.stamp();
        let mut seen = self.shared.seen.lock();
        if stamp.is_none() || *seen == stamp {
            return Ok(false); // a file that went away is one being replaced: the old tokens stay
        }
        *seen = stamp;
        // One line, whatever the parser or a name in the file says.
        let failed = |why: String| TokensError { path: self.shared.path.clone(), why: why.trim().replace('\n', " ") };
        let text = std::fs::read_to_string(&self.shared.path).map_err(|error| failed(error.to_string()))?;
        let entries = parse(&text, &self.shared.entries.load()).map_err(failed)?;
        self.shared.entries.store(Arc::new(entries));
        self.shared.used.store(true, Ordering::Relaxed);
        Ok(true)
    }

    fn stamp(&self) -> Option<Stamp> {
        let meta = std::fs::metadata(&self.shared.path).ok()?;
        Some(Stamp(meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec()))
    }
}

impl Rate {
    fn new(per_second: f64) -> Self {
        Self { per_second, level: Mutex::new((per_second.max(1.0), Instant::now())) }
    }

    fn take(&self) -> Result<(), Denied> {
        let mut level = self.level.lock();
        let now = Instant::now();
        let filled = level.0 + now.duration_since(level.1).as_secs_f64() * self.per_second;
        *level = (filled.min(self.per_second.max(1.0)), now);
        if level.0 >= 1.0 {
            level.0 -= 1.0;
            return Ok(());
        }
        Err(Denied::Rate(((1.0 - level.0) / self.per_second).ceil().max(1.0) as u64))
    }
}

/// The token of `Bearer <token>`, the scheme in any case.
fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = header.split_at_checked(7)?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty()).then_some(token)
}

fn parse(text: &str, old: &[Arc<Entry>]) -> Result<Vec<Arc<Entry>>, String> {
    let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
    let mut names = HashSet::new();
    let mut entries = Vec::new();
    for line in file.token {
        let name = &line.name;
        if name.is_empty() || !names.insert(name.clone()) {
            return Err(format!("token `{name}`: expected a name that no other token has"));
        }
        let hash = unhex(&line.sha256)
            .ok_or_else(|| format!("token `{name}`: sha256: expected 64 hex digits (printf %s TOKEN | sha256sum)"))?;
        let known = |route: &String| Route::ALL.iter().any(|known| known.pushes() && known.name() == route);
        let routes = match line.routes.iter().find(|route| *route != "*" && !known(route)) {
            Some(route) => {
                return Err(format!(
                    "token `{name}`: routes: expected push/keys, push/mids, push/room, push/all or *, not `{route}`"
                ));
            }
            None if line.routes.iter().any(|route| route == "*") => None,
            None => Some(line.routes.into_iter().collect()),
        };
        if line.rate.is_some_and(|rate| !(rate.is_finite() && rate > 0.0)) {
            return Err(format!("token `{name}`: rate: expected pushes a second, more than 0"));
        }
        // A token that did not change keeps its bucket: reading the file again gives nobody a fresh one.
        let same = |old: &&Arc<Entry>| {
            old.name == *name
                && old.hash == hash
                && old.routes == routes
                && old.rate.as_ref().map(|rate| rate.per_second) == line.rate
        };
        entries.push(old.iter().find(same).cloned().unwrap_or_else(|| {
            Arc::new(Entry { name: name.clone(), hash, routes: routes.clone(), rate: line.rate.map(Rate::new) })
        }));
    }
    Ok(entries)
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = text.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] * 16 + pair[1]).collect();
    if digits.len() == 64 { bytes.try_into().ok() } else { None }
}

/// A new token for every push route: what its holder sends, and the lines for the file.
pub fn make(name: &str) -> (String, String) {
    let random: [u8; 24] = rand::random();
    let token = random.iter().fold(PREFIX.to_owned(), |text, byte| format!("{text}{byte:02x}"));
    let hash = Sha256::digest(token.as_bytes()).iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    let lines = format!("[[token]]\nname = {name:?}\nsha256 = \"{hash}\"\nroutes = [\"*\"]\n");
    (token, lines)
}

#[cfg(test)]
mod tests;
