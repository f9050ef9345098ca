//! Pushes, offered by an open loop: each has a time at which it is due, whether earlier ones were answered or not.
//!
//! A stream belongs to one worker, which sends its pushes one after the other: so their order is the servers' to keep.

mod log;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use proto::comet::comet_client::CometClient;
use proto::comet::{BroadcastReq, BroadcastRoomReq, PushMsgReq};
use proto::packet;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::stream::{self, Address, OPERATION};
use crate::checker::Offered;
use crate::client;
use crate::os;
use crate::stamp::Stamp;
pub use log::{Log, Pushed};

/// How long one push may wait for its answer.
const DEADLINE: Duration = Duration::from_secs(30);

/// Where pushes go in.
#[derive(Clone, Debug)]
pub enum Entry {
    /// Logic's HTTP API, with a bearer token if it wants one.
    Http {
        /// Where logic listens.
        address: SocketAddr,
        /// The push token.
        token: Option<String>,
    },
    /// The same behind an Ingress, which tells hosts apart.
    Ingress {
        /// Where the Ingress controller listens.
        address: SocketAddr,
        /// The name that is asked for.
        host: String,
        /// The push token.
        token: String,
    },
    /// A comet's gRPC port, as job would.
    Grpc {
        /// Where comet listens.
        address: SocketAddr,
        /// Pushes per call, packed into one op 9 body.
        merge: usize,
    },
}

/// What to offer, and when.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// The stamp's run.
    pub run: u32,
    /// The stream of each push, over and over.
    pub streams: Vec<u32>,
    /// Calls per second; 0 = each worker sends its next when the last was answered.
    pub rate: f64,
    /// For how long.
    pub duration: Duration,
    /// Body size, in bytes.
    pub body: usize,
    /// Calls in flight at most.
    pub workers: usize,
}

impl Schedule {
    /// Offers it all; ends when every push was answered or refused.
    ///
    /// # Errors
    /// When the entry cannot be reached at the start. A push that fails later is counted as refused.
    pub async fn offer(&self, entry: &Entry) -> anyhow::Result<Offered> {
        self.clone().offer_into(entry, None).await
    }

    /// The same, and keeps in `log` when each push was sent and answered; ends early when the log is ended.
    ///
    /// # Errors
    /// As [`offer`](Self::offer).
    pub async fn offer_logged(&self, entry: &Entry, log: &Log) -> anyhow::Result<Offered> {
        self.clone().offer_into(entry, Some(log.clone())).await
    }

    async fn offer_into(self, entry: &Entry, log: Option<Log>) -> anyhow::Result<Offered> {
        let workers = self.workers.max(1);
        let run = Arc::new(Run { schedule: self, log });
        let (mut tasks, mut queues) = (JoinSet::new(), Vec::new());
        for worker in 0..workers {
            let mut sender = Sender::connect(entry).await?;
            let (queue, due) = mpsc::unbounded_channel();
            queues.push(queue);
            let run = run.clone();
            tasks.spawn(async move {
                match run.schedule.rate > 0.0 {
                    true => run.as_due(&mut sender, due).await,
                    false => run.as_answered(&mut sender, worker, workers).await,
                }
            });
        }
        if run.schedule.rate > 0.0 {
            std::thread::spawn(move || run.metronome(&queues));
        }
        let mut offered = Offered::default();
        while let Some(one) = tasks.join_next().await {
            offered.merge(one?);
        }
        Ok(offered)
    }
}

/// A schedule that is being offered.
struct Run {
    schedule: Schedule,
    log: Option<Log>,
}

impl Run {
    /// Somebody has ended the log.
    fn has_ended(&self) -> bool {
        self.log.as_ref().is_some_and(Log::has_ended)
    }

    /// Hands each push to its worker when it is due: a thread, because it wakes more exactly than a timer wheel.
    fn metronome(&self, queues: &[mpsc::UnboundedSender<(u32, Duration)>]) {
        let start = os::monotonic();
        for (call, stream) in self.schedule.streams.iter().cycle().enumerate() {
            let after = Duration::from_secs_f64(call as f64 / self.schedule.rate);
            if after >= self.schedule.duration {
                return;
            }
            std::thread::sleep((start + after).saturating_sub(os::monotonic()));
            if self.has_ended() {
                return;
            }
            // A worker that is gone has failed, which `offer` reports.
            let _ = queues[stream::worker(*stream, queues.len())].send((*stream, start + after));
        }
    }

    async fn as_due(&self, sender: &mut Sender, mut due: mpsc::UnboundedReceiver<(u32, Duration)>) -> Offered {
        let mut offered = Offered::default();
        while let Some((stream, due)) = due.recv().await {
            if self.has_ended() {
                break;
            }
            self.call(sender, stream, due, &mut offered).await;
        }
        offered
    }

    async fn as_answered(&self, sender: &mut Sender, worker: usize, workers: usize) -> Offered {
        let mut offered = Offered::default();
        let end = os::monotonic().saturating_add(self.schedule.duration);
        let mine = self.schedule.streams.iter().filter(|stream| stream::worker(**stream, workers) == worker);
        for stream in mine.cycle() {
            let now = os::monotonic();
            if now >= end || self.has_ended() {
                break;
            }
            self.call(sender, *stream, now, &mut offered).await;
        }
        offered
    }

    async fn call(&self, sender: &mut Sender, stream: u32, due: Duration, offered: &mut Offered) {
        let first = offered.number(stream);
        let numbers = first..first + sender.merge as u32;
        (1..sender.merge).for_each(|_| _ = offered.number(stream));
        let stamps = numbers.clone().map(|number| Stamp { run: self.schedule.run, stream, number, due });
        let sent = os::monotonic();
        let answer = tokio::time::timeout(DEADLINE, sender.push(stamps, stream, self.schedule.body)).await;
        let answer = answer.context("no answer in time").flatten();
        let (answered, accepted, records) = (os::monotonic(), answer.is_ok(), *answer.as_ref().unwrap_or(&0));
        if let Err(error) = answer {
            tracing::debug!(error = format!("{error:#}"), "push refused");
            numbers.clone().for_each(|number| offered.refuse(stream, number));
        }
        if let Some(log) = &self.log {
            numbers.for_each(|number| log.note(Pushed { stream, number, due, sent, answered, accepted, records }));
        }
    }
}

/// One worker's connection.
pub struct Sender {
    /// Pushes per call.
    merge: usize,
    way: Way,
}

enum Way {
    Http { sender: SendRequest<Full<Bytes>>, address: SocketAddr, host: String, token: Option<String> },
    Grpc(CometClient<tonic::transport::Channel>),
}

impl Sender {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens there.
    pub async fn connect(entry: &Entry) -> anyhow::Result<Self> {
        let over_http = async |address: SocketAddr, host: String, token: Option<String>| {
            let sender = http(address).await?;
            anyhow::Ok(Self { merge: 1, way: Way::Http { sender, address, host, token } })
        };
        match entry {
            Entry::Http { address, token } => over_http(*address, address.to_string(), token.clone()).await,
            Entry::Ingress { address, host, token } => over_http(*address, host.clone(), Some(token.clone())).await,
            Entry::Grpc { address, merge } => {
                let channel = proto::grpc::channel(&address.to_string(), DEADLINE)?;
                let comet = CometClient::new(channel).max_encoding_message_size(proto::grpc::MAX_MESSAGE);
                Ok(Self { merge: *merge, way: Way::Grpc(comet) })
            }
        }
    }

    /// Pushes these stamps in one call; returns of how many records the server made it.
    ///
    /// # Errors
    /// What the server answered instead.
    pub async fn push(&mut self, stamps: impl Iterator<Item = Stamp>, stream: u32, size: usize) -> anyhow::Result<u64> {
        let mut body = Vec::with_capacity(size.max(crate::stamp::LEN) + packet::HEADER_LEN);
        let address = Address::of(stream);
        match &mut self.way {
            Way::Http { sender, address: logic, host, token } => {
                stamps.for_each(|stamp| stamp.encode(size, &mut body));
                if sender.is_closed() {
                    *sender = http(*logic).await?;
                }
                post(sender, host, token.as_deref(), &address.path(), body.into()).await
            }
            Way::Grpc(comet) => {
                let mut raw = Vec::new();
                for stamp in stamps {
                    body.clear();
                    stamp.encode(size, &mut body);
                    packet::encode(packet::VERSION, OPERATION, 0, &body, &mut raw);
                }
                let proto = packet::raw(raw.into());
                let proto = Some(proto::protocol::Proto {
                    ver: i32::from(proto.ver),
                    op: proto.op,
                    seq: proto.seq,
                    body: proto.body,
                });
                call(comet, address, proto).await.map(|()| 1)
            }
        }
    }
}

async fn call(
    comet: &mut CometClient<tonic::transport::Channel>,
    address: Address,
    proto: Option<proto::protocol::Proto>,
) -> anyhow::Result<()> {
    match address {
        Address::Room(n) => {
            comet.broadcast_room(BroadcastRoomReq { room_id: stream::room(n), proto, ..Default::default() }).await?;
        }
        Address::Key(n) => {
            let keys = vec![stream::key(n)];
            comet.push_msg(PushMsgReq { keys, proto, proto_op: OPERATION, ..Default::default() }).await?;
        }
        Address::All => {
            comet.broadcast(BroadcastReq { proto_op: OPERATION, proto, ..Default::default() }).await?;
        }
        Address::Mid(_) => bail!("a comet knows keys, not members: push to members through logic"),
    }
    Ok(())
}

/// A connection to logic's HTTP API, or to what stands before it.
///
/// # Errors
/// When nobody listens there.
pub async fn http(address: SocketAddr) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let stream = client::tcp(address, None).await.with_context(|| format!("connecting to logic at {address}"))?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        // How it ended shows in the request that it ended.
        let _ = connection.await;
    });
    Ok(sender)
}

/// One push over it; returns of how many records it became, which goim does not say: 1 then.
///
/// # Errors
/// What was answered instead of code 0.
pub async fn post(
    sender: &mut SendRequest<Full<Bytes>>,
    host: &str,
    token: Option<&str>,
    path: &str,
    body: Bytes,
) -> anyhow::Result<u64> {
    let mut request = http::Request::post(path).header("host", host);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    sender.ready().await?;
    let answer = sender.send_request(request.body(Full::new(body))?).await?;
    let status = answer.status();
    let body = answer.into_body().collect().await?.to_bytes();
    match serde_json::from_slice::<Envelope>(&body) {
        Ok(Envelope { code: 0, data }) if status == 200 => Ok(data.map_or(1, |data| data.records)),
        _ => bail!("{status}: {}", String::from_utf8_lossy(&body)),
    }
}

#[derive(serde::Deserialize)]
struct Envelope {
    code: i32,
    data: Option<Data>,
}

#[derive(serde::Deserialize)]
struct Data {
    records: u64,
}
