//! One push, end to end: a WebSocket client connects, a backend pushes to its key, the client receives it.

use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::SendRequest;

use crate::bench::push;
use crate::client::{Client, Dial, Target};
use crate::eventually;

/// The operation that is pushed: the first that is free for users.
const OPERATION: i32 = 1000;

/// Where one push goes in and where it comes out, as names: they are looked up when they are needed.
#[derive(Clone, Debug)]
pub struct Route {
    /// A comet's client port: `ws://host:port/sub`, or what else [`Target`] takes.
    pub clients: String,
    /// logic's HTTP API: `host:port`.
    pub backends: String,
    /// The name that both are asked for, where an Ingress tells hosts apart and is reached by its address.
    pub host: Option<String>,
    /// The bearer token of the push.
    pub token: String,
}

/// Pushes one message once and returns how long it took to arrive. Only connecting is tried again, for as long as
/// `patience`: a new name may not be known everywhere at once, but a push that is taken has to arrive.
///
/// # Errors
/// When nobody can be reached, the push is refused, or it does not arrive, or not as it was sent.
pub async fn one_push(route: &Route, patience: Duration) -> anyhow::Result<Duration> {
    let key = fresh_key();
    let client = eventually(patience, "a client to be let in", || connect(route, &key)).await?;
    let logic = eventually(patience, "logic to be reached", || Logic::reach(route)).await?;
    travel(client, logic, &key, patience).await
}

/// The same with nothing tried again: what says that it is ready has to be.
///
/// # Errors
/// As [`one_push`], and when connecting fails.
pub async fn one_push_at_once(route: &Route, patience: Duration) -> anyhow::Result<Duration> {
    let key = fresh_key();
    let both = async { anyhow::Ok((connect(route, &key).await?, Logic::reach(route).await?)) };
    let (client, logic) = tokio::time::timeout(patience, both).await.context("no connection")??;
    travel(client, logic, &key, patience).await
}

/// A client that is let in under this key.
///
/// # Errors
/// When it cannot connect, or is not let in.
pub async fn connect(route: &Route, key: &str) -> anyhow::Result<Client> {
    let mut target = Target::from_str(&route.clients)?;
    target.host = route.host.clone().unwrap_or(target.host);
    let auth = serde_json::json!({ "mid": 1, "key": key, "room_id": "", "platform": "web", "accepts": [OPERATION] });
    let mut client = Client::connect(&target, &Dial::default()).await?;
    client.auth(auth.to_string()).await?;
    Ok(client)
}

/// Pushes once: `to` is `keys?keys=…`, `all` or what else follows `/goim/push/`, without the operation.
///
/// # Errors
/// When logic cannot be reached or does not take it within `patience`.
pub async fn push(route: &Route, to: &str, body: Bytes, patience: Duration) -> anyhow::Result<()> {
    let taken = async { Logic::reach(route).await?.push(to, body).await };
    tokio::time::timeout(patience, taken).await.context("no answer to the push")?
}

fn fresh_key() -> String {
    format!("smoke-{:016x}", rand::random::<u64>())
}

/// Pushes to a client what nobody else pushes, and waits for it to arrive.
async fn travel(mut client: Client, mut logic: Logic<'_>, key: &str, patience: Duration) -> anyhow::Result<Duration> {
    let body = Bytes::from(format!("one push, {key}"));
    let began = Instant::now();
    let pushed = tokio::time::timeout(patience, logic.push(&format!("keys?keys={key}"), body.clone())).await;
    pushed.context("no answer to the push")??;
    let received = client.push_within(patience).await.context("the push was taken")?;
    ensure!(received == (OPERATION, body.clone()), "pushed {body:?}, but {received:?} arrived");
    Ok(began.elapsed())
}

/// A connection to logic's HTTP API.
struct Logic<'a> {
    route: &'a Route,
    host: String,
    sender: SendRequest<Full<Bytes>>,
}

impl<'a> Logic<'a> {
    async fn reach(route: &'a Route) -> anyhow::Result<Self> {
        let address = resolve(&route.backends)?;
        let host = route.host.clone().unwrap_or_else(|| address.to_string());
        Ok(Self { route, host, sender: push::http(address).await? })
    }

    async fn push(&mut self, to: &str, body: Bytes) -> anyhow::Result<()> {
        let joint = if to.contains('?') { '&' } else { '?' };
        let path = format!("/goim/push/{to}{joint}operation={OPERATION}");
        let pushed = push::post(&mut self.sender, &self.host, Some(&self.route.token), &path, body).await;
        pushed.with_context(|| format!("pushing through {}", self.route.backends)).map(drop)
    }
}

fn resolve(name: &str) -> anyhow::Result<SocketAddr> {
    name.to_socket_addrs().with_context(|| name.to_owned())?.next().with_context(|| format!("{name} has no address"))
}
