//! What each route does: reads its parameters in goim's order, asks the domain, answers in goim's envelope.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use axum::response::Response;
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use proto::RoomId;
use proto::comet::OnFull;
use runtime::proxies::TrustedProxies;
use runtime::trace;
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::Instrument;

use super::answer::{self, BAD_REQUEST, Refusal, SERVER_ERROR};
use super::client_ip::client_ip;
use super::query::{Query, required, violation};
use super::route::Route;
use super::{nodes_body, openapi, room_key};
use crate::config::HttpConfig;
use crate::metrics::{HttpMetrics, PushLabels};
use crate::nodes::Nodes;
use crate::online::Online;
use crate::push::{Options, PushError, Pusher};
use crate::queue::QueueError;
use crate::tokens::{Denied, Tokens};

/// What the routes need.
pub struct Api {
    /// Writes pushes.
    pub pusher: Pusher,
    /// Counts.
    pub online: Online,
    /// Node lists.
    pub nodes: Nodes,
    /// Who may push; `None` = everybody.
    pub tokens: Option<Tokens>,
    /// Whose word on a client's address is taken.
    pub trusted: TrustedProxies,
    /// Limits.
    pub limits: ArcSwap<HttpConfig>,
    /// The environment that the instance list names.
    pub deploy_env: String,
    /// What is counted.
    pub metrics: HttpMetrics,
    /// One permit for each push handled at a time.
    pub slots: Arc<Semaphore>,
}

/// Whom a push is for.
#[derive(Debug)]
enum Target {
    Keys(Vec<String>),
    Mids(Vec<i64>),
    Room(RoomId),
    All { speed: i32 },
}

/// A push whose parameters are in order.
#[derive(Debug)]
struct Push {
    op: i32,
    target: Target,
    options: Options,
}

impl Api {
    /// Answers a request for a route.
    pub async fn answer(&self, route: Route, peer: IpAddr, request: Request<Incoming>) -> Response {
        let answered = match route {
            Route::PushKeys | Route::PushMids | Route::PushRoom | Route::PushAll => self.push(route, request).await,
            read => self.read(read, peer, request.headers(), request.uri().query().unwrap_or_default()),
        };
        answered.unwrap_or_else(Response::from)
    }

    fn read(&self, route: Route, peer: IpAddr, headers: &HeaderMap, query: &str) -> Result<Response, Refusal> {
        let query = Query::parse(query);
        Ok(match route {
            Route::OnlineTop => answer::ok(self.online_top(&query)?),
            Route::OnlineRoom => answer::ok(self.online_room(&query)?),
            Route::OnlineTotal => {
                let (ip_count, conn_count) = self.online.totals();
                answer::ok(BTreeMap::from([("conn_count", conn_count), ("ip_count", ip_count)]))
            }
            Route::OnlineServers => answer::ok(self.online_servers()),
            Route::NodesWeighted => {
                let client = client_ip(peer, headers, &self.trusted);
                answer::ok(nodes_body::NodesBody::from(self.nodes.weighted(&query.text("platform"), client)))
            }
            Route::NodesInstances => answer::ok(self.nodes.instances(&self.deploy_env)),
            Route::OpenApi => openapi::answer(),
            Route::PushKeys | Route::PushMids | Route::PushRoom | Route::PushAll => {
                unreachable!("pushes are not read from the query alone")
            }
        })
    }

    /// The fullest rooms whose key begins with that type: a prefix of text, as in goim, so `live` finds `live2://…`.
    fn online_top(&self, query: &Query) -> Result<Vec<Top>, Refusal> {
        let kind = query.text("type");
        let limit = query.int64("limit")?;
        required(&[("Type", !kind.is_empty()), ("Limit", limit != 0)])?;
        // goim panics on a negative limit.
        let limit = usize::try_from(limit).map_err(|_| Refusal::Parameter(violation("Limit", "min")))?;
        let rooms = self.online.rooms();
        let mut found: Vec<(&String, i32)> =
            rooms.iter().filter(|(key, _)| key.starts_with(&kind)).map(|(key, count)| (key, *count)).collect();
        found.sort_by(|(key, count), (other_key, other)| other.cmp(count).then(key.cmp(other_key)));
        let shown = found.into_iter().filter_map(|(key, count)| Some(Top { room_id: room_key::shown(key)?, count }));
        Ok(shown.take(limit).collect())
    }

    fn online_room(&self, query: &Query) -> Result<BTreeMap<String, i32>, Refusal> {
        let kind = query.text("type");
        let rooms = query.texts("rooms");
        required(&[("Type", !kind.is_empty()), ("Rooms", !rooms.is_empty())])?;
        let count = |room: &str| self.online.room_count(RoomId::from_parts(&kind, room).as_str());
        Ok(rooms.into_iter().map(|room| (room.clone(), count(&room))).collect())
    }

    fn online_servers(&self) -> BTreeMap<String, ServerCounts> {
        let comets = self.online.comets();
        let counts = comets.iter().map(|(server, info)| {
            let counts = ServerCounts {
                conn_count: info.conn_count,
                ip_count: info.ip_count,
                offline: info.offline,
                region: info.region.clone(),
                zone: info.zone.clone(),
            };
            (server.to_string(), counts)
        });
        counts.collect()
    }

    async fn push(&self, route: Route, request: Request<Incoming>) -> Result<Response, Refusal> {
        let started = Instant::now();
        let parent = request.headers().get(trace::HEADER).and_then(|value| value.to_str().ok());
        let span = trace::push_span("push", parent);
        self.admit(route, request.headers())?;
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let push = self.parameters(route, &query)?;
        let msg = self.body(request.into_body()).await?;
        // Taken only now: a body that trickles in occupies its connection and nothing else.
        let Ok(_slot) = self.slots.try_acquire() else {
            self.metrics.refuse("in_flight");
            return Err(away(&push.target, "too many pushes at a time, try again".to_owned()));
        };
        self.metrics.in_flight.inc();
        let _leave = Leave(&self.metrics);
        let within = self.limits.load().push_deadline;
        let stored = timeout(within, self.store(&push, msg).instrument(span)).await;
        let kind = push.target.kind();
        let count = |result| self.metrics.pushes.get_or_create(&PushLabels { kind, result }).inc();
        let error = match stored {
            Ok(Ok(records)) => {
                count("ok");
                self.metrics.records.inc_by(records as u64);
                self.metrics.push_ack_seconds.observe(started.elapsed().as_secs_f64());
                return Ok(answer::ok(Stored { records }));
            }
            Ok(Err(error)) => error,
            Err(_) => {
                count("deadline");
                return Err(away(&push.target, "not acknowledged in time, it may be stored all the same".to_owned()));
            }
        };
        tracing::debug!(%error, kind, "push failed");
        let refusal = match &error {
            PushError::NoKeys => {
                count("invalid");
                failed(&push.target, error.to_string())
            }
            PushError::Queue(QueueError::TooLarge) => {
                count("too_large");
                failed(&push.target, error.to_string())
            }
            PushError::Queue(QueueError::Unavailable(_)) => {
                count("queue_away");
                away(&push.target, error.to_string())
            }
            PushError::Store(_) => {
                count("store_away");
                away(&push.target, error.to_string())
            }
        };
        Err(refusal)
    }

    async fn store(&self, push: &Push, msg: Bytes) -> Result<usize, PushError> {
        match &push.target {
            Target::Keys(keys) => self.pusher.keys(push.op, keys.clone(), msg, &push.options).await,
            Target::Mids(mids) => self.pusher.mids(push.op, mids, msg, &push.options).await,
            Target::Room(room) => self.pusher.room(push.op, room, msg, &push.options).await,
            Target::All { speed } => self.pusher.all(push.op, *speed, msg, &push.options).await,
        }
    }

    fn admit(&self, route: Route, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(tokens) = &self.tokens else { return Ok(()) };
        let header = headers.get(AUTHORIZATION).map(http::HeaderValue::as_bytes);
        tokens.admit(header, route).map_err(|denied| match denied {
            Denied::Unknown => {
                self.metrics.refuse("unauthorized");
                Refusal::Unauthorized
            }
            Denied::Missing => {
                self.metrics.refuse("no_tokens");
                Refusal::Away(-503, "the tokens that may push are not there yet".to_owned())
            }
            Denied::Route(name) => {
                self.metrics.refuse("forbidden");
                Refusal::Forbidden(format!("the token `{name}` may not use {}", route.name()))
            }
            Denied::Rate(seconds) => {
                self.metrics.refuse("rate");
                Refusal::TooMany(seconds)
            }
        })
    }

    /// Reads what the route takes, goim's parameters first: of several wrong ones, the answer names goim's.
    fn parameters(&self, route: Route, query: &Query) -> Result<Push, Refusal> {
        let op = query.int32("operation")?;
        let target = match route {
            Route::PushKeys => Target::Keys(query.texts("keys")),
            Route::PushMids => Target::Mids(query.int64s("mids")?),
            Route::PushRoom => {
                let (kind, room) = (query.text("type"), query.text("room"));
                required(&[("Op", op != 0), ("Type", !kind.is_empty()), ("Room", !room.is_empty())])?;
                Target::Room(RoomId::from_parts(&kind, &room))
            }
            _ => {
                let speed = query.int32("speed")?;
                required(&[("Op", op != 0)])?;
                Target::All { speed }
            }
        };
        let named = match &target {
            Target::Keys(keys) => keys.len(),
            Target::Mids(mids) => mids.len(),
            Target::Room(_) | Target::All { .. } => 0,
        };
        let most = self.limits.load().max_push_keys;
        if named > most {
            self.metrics.refuse("keys");
            return Err(Refusal::TooLarge(format!("{named} keys or members, at most {most} in one push")));
        }
        Ok(Push { op, target, options: options(query)? })
    }

    async fn body(&self, body: Incoming) -> Result<Bytes, Refusal> {
        let most = self.limits.load().max_push_body;
        let too_large = || {
            self.metrics.refuse("body");
            Refusal::TooLarge(format!("the message is longer than {most} bytes"))
        };
        if body.size_hint().lower() > most as u64 {
            return Err(too_large());
        }
        let within = self.limits.load().http_body_timeout;
        match timeout(within, Limited::new(body, most).collect()).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
            Ok(Err(error)) => Err(Refusal::Failed(BAD_REQUEST, error.to_string())), // the client went away
            Err(_) => {
                self.metrics.refuse("slow_body");
                Err(Refusal::Slow)
            }
        }
    }
}

impl Target {
    fn kind(&self) -> &'static str {
        match self {
            Self::Keys(_) => "keys",
            Self::Mids(_) => "mids",
            Self::Room(_) => "room",
            Self::All { .. } => "all",
        }
    }

    /// Code and message of a failure: goim answers −400 and no text for keys, −500 and the text for the others.
    fn failure(&self, message: String) -> (i32, String) {
        if let Self::Keys(_) = self { (BAD_REQUEST, String::new()) } else { (SERVER_ERROR, message) }
    }
}

fn failed(target: &Target, message: String) -> Refusal {
    let (code, message) = target.failure(message);
    Refusal::Failed(code, message)
}

fn away(target: &Target, message: String) -> Refusal {
    let (code, message) = target.failure(message);
    Refusal::Away(code, message)
}

/// Ours: `ttl` (a Go duration, or seconds), `onFull` (`drop` or `close`), `priority`.
fn options(query: &Query) -> Result<Options, Refusal> {
    let ttl = query.text("ttl");
    let ttl = match ttl.parse::<u64>() {
        _ if ttl.is_empty() => Duration::ZERO,
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            runtime::duration::parse(&ttl).map_err(|why| Refusal::Parameter(format!("ttl: {why}, or seconds")))?
        }
    };
    let on_full = match query.text("onFull").as_str() {
        "" => OnFull::Default,
        "drop" => OnFull::Drop,
        "close" => OnFull::Close,
        other => return Err(Refusal::Parameter(format!("onFull: expected drop or close, not `{other}`"))),
    };
    let priority = u32::try_from(query.int32("priority")?)
        .map_err(|_| Refusal::Parameter("priority: expected 0 or more".to_owned()))?;
    Ok(Options { ttl: (!ttl.is_zero()).then_some(ttl), on_full, priority })
}

/// Takes a push off the gauge when it is over, however it ends.
struct Leave<'a>(&'a HttpMetrics);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.in_flight.dec();
    }
}

/// What an accepted push is told: how many records were stored.
#[derive(Serialize)]
struct Stored {
    records: usize,
}

#[derive(Serialize)]
struct Top {
    room_id: String,
    count: i32,
}

#[derive(Serialize)]
struct ServerCounts {
    conn_count: i32,
    ip_count: i32,
    offline: bool,
    region: String,
    zone: String,
}
