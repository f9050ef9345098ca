//! For tests: a whole job over the queue in memory and comets in memory.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prost::Message;
use proto::log::MemoryLog;
use proto::logic::PushMsg;
use proto::logic::push_msg::Type;
use proto::peers::Peer;
use runtime::Process;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::comet::memory::MemoryComet;
use crate::comet::queue::Limits;
use crate::comet::{Call, Comet};
use crate::consumer::Source;
use crate::consumer::memory::MemorySource;
use crate::fleet::Dial;
use crate::room::Batching;
use crate::seek::logic::{Locate, MemoryLogic};
use crate::{Settings, serve};

pub(crate) const LIMITS: Limits = Limits {
    batching: Batching { count: 20, bytes: 65_536, window: Duration::from_millis(20) },
    backlog: 16 << 20,
    stall: Duration::from_secs(10),
};

pub(crate) struct Rig {
    pub log: MemoryLog,
    pub process: Process,
    pub peers: watch::Sender<Arc<[Peer]>>,
    pub task: JoinHandle<anyhow::Result<()>>,
    addresses: Arc<Mutex<HashMap<String, MemoryComet>>>,
}

impl Rig {
    /// A job over one partition; comets at `address`, or listed as `id=address`.
    pub async fn start(comets: &[(&str, &MemoryComet)]) -> Self {
        Self::over(MemoryLog::new(1, 64 << 20), comets).await
    }

    pub async fn over(log: MemoryLog, comets: &[(&str, &MemoryComet)]) -> Self {
        let source = Box::new(MemorySource::new(log.clone()));
        Self::with(log, source, comets).await
    }

    pub async fn with(log: MemoryLog, source: Box<dyn Source>, comets: &[(&str, &MemoryComet)]) -> Self {
        Self::asking(log, source, comets, None).await
    }

    /// A job that asks this logic where keys went.
    pub async fn seeking(logic: &MemoryLogic, comets: &[(&str, &MemoryComet)]) -> Self {
        Self::seeking_over(MemoryLog::new(1, 64 << 20), logic, comets).await
    }

    pub async fn seeking_over(log: MemoryLog, logic: &MemoryLogic, comets: &[(&str, &MemoryComet)]) -> Self {
        let source = Box::new(MemorySource::new(log.clone()));
        Self::asking(log, source, comets, Some(Arc::new(logic.clone()))).await
    }

    async fn asking(
        log: MemoryLog,
        source: Box<dyn Source>,
        comets: &[(&str, &MemoryComet)],
        logic: Option<Arc<dyn Locate>>,
    ) -> Self {
        let addresses: Arc<Mutex<HashMap<String, MemoryComet>>> = Arc::default();
        let dial: Dial = {
            let addresses = addresses.clone();
            Arc::new(move |address| match addresses.lock().get(address) {
                Some(comet) => Ok(Arc::new(comet.clone()) as Arc<dyn Comet>),
                None => Err(format!("nobody at {address}")),
            })
        };
        let (peers, seen) = watch::channel(Arc::from([]));
        let process = Process::quiet();
        let settings = Settings { group: "g".into(), limits: LIMITS, flush: Duration::from_secs(10), webhook: None };
        let mut rig = Self { log, process: process.clone(), peers, task: tokio::spawn(async { Ok(()) }), addresses };
        rig.list(comets);
        rig.task = tokio::spawn(serve(settings, source, seen, dial, logic, process));
        rig.settle().await;
        rig
    }

    /// Changes the list.
    pub fn list(&self, comets: &[(&str, &MemoryComet)]) {
        let mut list = Vec::new();
        for (text, comet) in comets {
            let (id, address) = text.split_once('=').map_or((None, *text), |(id, address)| (Some(id.into()), address));
            self.addresses.lock().insert(address.to_owned(), (*comet).clone());
            list.push(Peer { id, ..Peer::at(address) });
        }
        self.peers.send_replace(list.into());
    }

    /// Lets everything that can happen now happen, and no more than a millisecond pass.
    pub async fn settle(&self) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    pub fn append(&self, message: &PushMsg) -> u64 {
        let key = proto::push::record_key(message).into_owned();
        self.log.append(key.into(), message.encode_to_vec().into(), vec![]).unwrap().1
    }

    pub fn keys(&self, server: &str, keys: &[&str], body: &str) -> u64 {
        self.append(&PushMsg {
            operation: 1000,
            server: server.into(),
            keys: keys.iter().map(|key| (*key).to_owned()).collect(),
            msg: body.to_owned().into(),
            ..Default::default()
        })
    }

    pub fn room(&self, room: &str, body: &str) -> u64 {
        self.append(&PushMsg {
            r#type: Type::Room.into(),
            operation: 1000,
            room: room.into(),
            msg: body.to_owned().into(),
            ..Default::default()
        })
    }

    /// The first offset not committed.
    pub fn committed(&self) -> u64 {
        self.log.bounds(0).0
    }

    /// Waits until everything before this offset is committed.
    pub async fn until_committed(&self, offset: u64) {
        let reached = async {
            while self.committed() < offset {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), reached)
            .await
            .unwrap_or_else(|_| panic!("committed only {}", self.committed()));
    }

    /// The value of a counter or gauge, 0 when it is not there.
    pub fn count(&self, line: &str) -> u64 {
        let text = self.process.metrics.encode();
        let value = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse::<f64>().unwrap() as u64)
    }

    /// Tells it to stop and waits until it has.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.process.shutdown.begin();
        self.task.await.unwrap()
    }
}

/// The bodies of everything a comet took, in order.
pub(crate) fn bodies(comet: &MemoryComet) -> Vec<String> {
    comet.calls().iter().flat_map(packets).collect()
}

/// The bodies in one call.
pub(crate) fn packets(call: &Call) -> Vec<String> {
    let proto = match call {
        Call::Push(request) => &request.proto,
        Call::Broadcast(request) => &request.proto,
        Call::Room(request) => &request.proto,
        Call::Kick(request) => return vec![format!("kick {}", request.keys.join(","))],
    };
    let raw = proto.as_ref().unwrap();
    assert_eq!((raw.ver, raw.op, raw.seq), (1, 9, 0));
    let inner = proto::packet::packets(&raw.body).map(Result::unwrap);
    inner.map(|packet| String::from_utf8(packet.body.to_vec()).unwrap()).collect()
}

/// Waits until a comet took so many packets.
pub(crate) async fn until(comet: &MemoryComet, count: usize) {
    let mut calls = comet.watch();
    let (mut seen, mut taken) = (0, 0);
    let enough = calls.wait_for(|calls| {
        taken += calls[seen..].iter().map(|call| packets(call).len()).sum::<usize>();
        seen = calls.len();
        taken >= count
    });
    let waited = tokio::time::timeout(Duration::from_secs(60), enough).await;
    assert!(waited.is_ok(), "took only {:?}", bodies(comet));
}
