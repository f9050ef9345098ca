//! One push, end to end: a WebSocket client connects, a backend pushes to its key, the client receives it.

use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;

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
    let id: u64 = rand::random();
    let (key, body) = (format!("smoke-{id:016x}"), Bytes::from(format!("one push, {id:016x}")));
    let auth = serde_json::json!({ "mid": 1, "key": key, "room_id": "", "platform": "web", "accepts": [OPERATION] });

    let mut client = eventually(patience, "a client to be let in", || async {
        let mut target = Target::from_str(&route.clients)?;
        target.host = route.host.clone().unwrap_or(target.host);
        let mut client = Client::connect(&target, &Dial::default()).await?;
        client.auth(auth.to_string()).await?;
        anyhow::Ok(client)
    })
    .await?;
    let (address, mut logic) = eventually(patience, "logic to be reached", || async {
        let address = resolve(&route.backends)?;
        anyhow::Ok((address, push::http(address).await?))
    })
    .await?;

    let host = route.host.clone().unwrap_or_else(|| address.to_string());
    let began = Instant::now();
    let path = format!("/goim/push/keys?operation={OPERATION}&keys={key}");
    let pushed = push::post(&mut logic, &host, Some(&route.token), &path, body.clone());
    let pushed = tokio::time::timeout(patience, pushed).await.context("no answer to the push").flatten();
    pushed.with_context(|| format!("pushing through {}", route.backends))?;
    let received = client.push_within(patience).await.context("the push was taken")?;
    ensure!(received == (OPERATION, body.clone()), "pushed {body:?}, but {received:?} arrived");
    Ok(began.elapsed())
}

fn resolve(name: &str) -> anyhow::Result<SocketAddr> {
    name.to_socket_addrs().with_context(|| name.to_owned())?.next().with_context(|| format!("{name} has no address"))
}
