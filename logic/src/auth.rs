//! Who a client is: believed as in goim, proven by a signed token, or told by a webhook.
//!
//! A proof says what a client may be, a [`Grant`]; its auth body says what it wants to be. What the grant does not allow
//! is refused, never left out in silence. No token, claim or key is in an error: errors are logged.

mod grant;
pub mod jwt;
mod keyring;
pub mod keys;
mod signatures;
#[cfg(test)]
pub(crate) mod signer;
pub mod webhook;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use proto::token::{Token, TokenError};
use proto::{Key, Mid, RoomId, token};
use runtime::Metrics;
use uuid::Uuid;

pub use grant::Grant;
use jwt::Jwt;
use webhook::Webhook;

/// How clients prove who they are, as `--auth` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Auth {
    /// They are whoever their auth body says, as in goim.
    Trust,
    /// A signed JSON Web Token says it.
    Jwt,
    /// A backend is asked.
    Webhook,
}

/// What a client brings.
#[derive(Clone, Copy, Debug, Default)]
pub struct Presented<'a> {
    /// The body of its auth packet.
    pub body: &'a [u8],
    /// The cookie of its WebSocket handshake.
    pub cookie: &'a str,
    /// Its address, as comet saw it.
    pub address: &'a str,
}

/// Who a client turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The member, or anonymous.
    pub mid: Mid,
    /// The connection's key, made up when nothing named one.
    pub key: Key,
    /// Its first room; empty = none.
    pub room: RoomId,
    /// The operations it wants.
    pub accepts: Vec<i32>,
    /// The rooms it may enter; `None` = any.
    pub rooms: Option<Vec<String>>,
    /// How many connections its member may have; `None` = as logic is set.
    pub connections: Option<usize>,
    /// When it must prove itself again, in Unix milliseconds; 0 = never.
    pub expires_ms: u64,
}

/// Why a client is not who it wants to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// There is no token where one was expected.
    #[error("auth body: expected a JWT, or JSON with one in `token`")]
    Malformed,
    /// The token's algorithm, or a header we must understand, is none that its key is for.
    #[error("the token's algorithm is not one that the key is for")]
    Algorithm,
    /// None of our keys has the token's `kid`.
    #[error("no key has the token's kid")]
    Kid,
    /// No key of ours made that signature.
    #[error("the token's signature is not by our key")]
    Signature,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// Its time has not come.
    #[error("the token is not valid yet")]
    NotYet,
    /// It is for others.
    #[error("the token's aud is not --jwt-audience")]
    Audience,
    /// It is by others.
    #[error("the token's iss is not --jwt-issuer")]
    Issuer,
    /// A claim is missing or is something else than it should be.
    #[error("the token's claim `{0}`: {1}")]
    Claim(String, &'static str),
    /// The webhook says no.
    #[error("the webhook refused the token")]
    Webhook,
    /// The client says another member.
    #[error("auth body: another mid than the token's")]
    Mid,
    /// The client says a key that is not its own.
    #[error("auth body: a key that the token does not allow")]
    Key,
    /// The client wants a room that is not among its own.
    #[error("auth body: a room_id that the token does not allow")]
    Room,
}

/// Why nobody can be told from anybody else right now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Away(pub &'static str);

/// What became of a proof.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The body is not goim's. Says where, but not what stands there: whoever logs this must not log a token.
    #[error("auth body: not the JSON of a token{}", place(.0))]
    Token(#[from] TokenError),
    /// No.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Not now.
    #[error(transparent)]
    Away(#[from] Away),
}

/// Tells who clients are. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Authenticator {
    /// [`Auth::Trust`].
    Trust,
    /// [`Auth::Jwt`].
    Jwt(Jwt),
    /// [`Auth::Webhook`].
    Webhook(Webhook),
}

impl Authenticator {
    /// Who is this?
    ///
    /// # Errors
    /// [`AuthError`].
    pub async fn identify(&self, presented: Presented<'_>) -> Result<Identity, AuthError> {
        match self {
            Self::Trust => Ok(trusted(Token::parse(presented.body)?)),
            Self::Jwt(jwt) => {
                let (token, said) = opened(presented.body)?;
                let token = token.ok_or(Denied::Malformed)?;
                Ok(jwt.verify(&token).await?.identity(said)?)
            }
            Self::Webhook(webhook) => {
                let (token, said) = opened(presented.body)?;
                // A body without a token is goim's, which the webhook may know how to read.
                let token = token.unwrap_or_else(|| String::from_utf8_lossy(presented.body).into_owned());
                Ok(webhook.ask(&token, presented).await?.identity(said)?)
            }
        }
    }
}

impl Authenticator {
    /// Keeps what it needs fresh, for as long as it is polled.
    pub async fn follow(self) {
        match self {
            Self::Trust | Self::Webhook(_) => {}
            Self::Jwt(jwt) => jwt.follow().await,
        }
    }
}

/// The token in an auth body, and what the client says beside it.
fn opened(body: &[u8]) -> Result<(Option<String>, Token), AuthError> {
    let body = body.trim_ascii();
    if body.starts_with(b"{") {
        return Ok((token::carried(body), Token::parse(body)?));
    }
    let bare = std::str::from_utf8(body).map_err(|_| Denied::Malformed)?;
    Ok((Some(bare.to_owned()), Token::default()))
}

/// goim's rule: the client is believed, and a connection without a key gets one.
fn trusted(said: Token) -> Identity {
    let Token { mid, key, room_id, accepts, .. } = said;
    let key = if key.is_empty() { Uuid::new_v4().to_string() } else { key };
    Identity { mid, key: key.into(), room: room_id.into(), accepts, rooms: None, connections: None, expires_ms: 0 }
}

fn place(error: &TokenError) -> String {
    let json = std::error::Error::source(error).and_then(|source| source.downcast_ref::<serde_json::Error>());
    json.map_or_else(String::new, |error| format!(" (line {}, column {})", error.line(), error.column()))
}

impl Denied {
    /// One word for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Algorithm => "algorithm",
            Self::Kid => "kid",
            Self::Signature => "signature",
            Self::Expired => "expired",
            Self::NotYet => "not_yet",
            Self::Audience => "audience",
            Self::Issuer => "issuer",
            Self::Claim(..) => "claim",
            Self::Webhook => "webhook",
            Self::Mid => "mid",
            Self::Key => "key",
            Self::Room => "room",
        }
    }
}

/// A label `reason`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// A label `result`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    result: &'static str,
}

/// What authentication counts. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct AuthMetrics {
    denied: Family<Reason, Counter>,
    fetches: Family<Outcome, Counter>,
    asked: Family<Outcome, Counter>,
}

impl AuthMetrics {
    /// Registers them under `imcluster_logic_`.
    pub fn register(metrics: &Metrics) -> Self {
        let new = Self::default();
        metrics.register("logic", |registry| {
            registry.register("denied", "Clients that are not who they want to be, by reason", new.denied.clone());
            registry.register("jwt_key_reads", "Times that signing keys were read, by result", new.fetches.clone());
            registry.register("auth_webhook", "Clients that a webhook was to tell, by result", new.asked.clone());
        });
        new
    }

    /// A client was denied.
    pub fn deny(&self, denied: &Denied) {
        self.denied.get_or_create(&Reason { reason: denied.label() }).inc();
    }

    /// Keys were read, or could not be.
    fn read(&self, result: &'static str) {
        self.fetches.get_or_create(&Outcome { result }).inc();
    }

    /// The webhook was asked, or needed not be.
    fn asked(&self, result: &'static str) {
        self.asked.get_or_create(&Outcome { result }).inc();
    }

    /// How often they were read so.
    #[cfg(test)]
    fn reads(&self, result: &'static str) -> u64 {
        self.fetches.get_or_create(&Outcome { result }).get()
    }
}

#[cfg(test)]
mod tests;
