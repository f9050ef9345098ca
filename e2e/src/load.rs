//! Many clients at little cost, since they share the machine with what they measure.
//!
//! A [`Farm`] is a few threads, each a current-thread runtime with one task per connection. An idle connection costs
//! its socket and its task: reads go through one 64 KiB buffer per thread, packets are judged in place, and only the
//! beginning of an unfinished packet is kept. Nothing is allocated per message. One ticker per thread sends
//! everybody's heartbeats, evenly spread.

mod connection;

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::checker::{Receiver, Tally};
use crate::client::Target;
use crate::os;
use connection::{Connection, NotIn};

/// Connections that one thread opens at the same time.
const OPENING: usize = 32;
/// How long one connection may take to open and authenticate.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a client tries to get in, and how long it waits after the first try; twice as long after each further one.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(100);
/// How often the ticker looks who is due for a heartbeat.
const TICK: Duration = Duration::from_millis(20);

/// One client of the farm.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its auth body.
    pub token: String,
    /// The streams it must see.
    pub streams: Vec<u32>,
}

/// What to connect.
#[derive(Clone)]
pub struct Plan {
    /// The comet; plain TCP or WebSocket.
    pub target: Target,
    /// How many clients.
    pub connections: usize,
    /// How many of them, the last ones, read nothing once they are in.
    pub stalled: usize,
    /// How many addresses they come from: 127.0.1.1 and up, at most 250.
    pub sources: usize,
    /// How many threads they live on.
    pub threads: usize,
    /// The core these threads stay on.
    pub core: Option<usize>,
    /// How often each sends op 2.
    pub heartbeat: Option<Duration>,
    /// Which pushes count: those stamped with this run.
    pub run: u32,
    /// Who the client with this index is.
    pub member: Arc<dyn Fn(usize) -> Member + Send + Sync>,
}

/// Connected clients. Dropped, they all disconnect.
pub struct Farm {
    shared: Arc<Shared>,
    threads: Vec<std::thread::JoinHandle<Harvest>>,
}

/// What the clients saw in the end.
#[derive(Debug)]
pub struct Harvest {
    /// Every client's view, in no particular order; of stalled ones an empty one.
    pub receivers: Vec<Receiver>,
    /// What they saw together.
    pub tally: Tally,
    /// Heartbeat replies.
    pub heartbeats: u64,
    /// Connections that the server closed.
    pub closed: u64,
    /// How often clients were refused or closed on their way in, and came again.
    pub retries: u64,
}

#[derive(Default)]
struct Shared {
    delivered: AtomicU64,
    retries: AtomicU64,
    closed: AtomicU64,
    wanted: AtomicU64,
    reached: Notify,
    stop: CancellationToken,
}

/// What the connections of one thread share.
struct Local {
    shared: Arc<Shared>,
    buffer: RefCell<Vec<u8>>,
    tally: RefCell<Tally>,
    receivers: RefCell<Vec<Receiver>>,
    heartbeats: Cell<u64>,
}

impl Farm {
    /// Connects and authenticates everybody. Whoever is refused or closed meanwhile comes again, as a real client does.
    ///
    /// # Errors
    /// When one of them cannot get in in five tries, or is answered with what no gateway says.
    pub async fn connect(plan: Plan) -> anyhow::Result<Self> {
        anyhow::ensure!(!plan.target.tls, "{}: load runs over tcp:// or ws://", plan.target);
        let shared = Arc::new(Shared::default());
        shared.wanted.store(u64::MAX, Ordering::SeqCst);
        let (opened, mut openings) = mpsc::unbounded_channel();
        let threads = (0..plan.threads.max(1)).map(|thread| {
            let (plan, shared, opened) = (plan.clone(), shared.clone(), opened.clone());
            std::thread::Builder::new()
                .name(format!("load-{thread}"))
                .spawn(move || work(thread, plan, shared, &opened))
        });
        let farm = Self { threads: threads.collect::<Result<_, _>>()?, shared };
        drop(opened);
        for index in 0..plan.connections {
            let answer: anyhow::Result<()> = openings.recv().await.ok_or_else(|| anyhow!("a load thread ended"))?;
            answer.with_context(|| format!("after {index} of {} connections", plan.connections))?;
        }
        Ok(farm)
    }

    /// First arrivals so far.
    pub fn delivered(&self) -> u64 {
        self.shared.delivered.load(Ordering::SeqCst)
    }

    /// Connections that the server has closed so far.
    pub fn closed(&self) -> u64 {
        self.shared.closed.load(Ordering::SeqCst)
    }

    /// Waits until `wanted` first arrivals were seen; false when `patience` ends first.
    pub async fn until(&self, wanted: u64, patience: Duration) -> bool {
        let reached = async {
            loop {
                let mut notified = std::pin::pin!(self.shared.reached.notified());
                notified.as_mut().enable();
                self.shared.wanted.store(wanted, Ordering::SeqCst);
                if self.delivered() >= wanted {
                    return;
                }
                notified.await;
            }
        };
        tokio::time::timeout(patience, reached).await.is_ok()
    }

    /// Waits until `wanted` first arrivals were seen, or nothing new has come for `silence`.
    pub async fn settle(&self, wanted: u64, silence: Duration) {
        let mut before = self.delivered();
        while !self.until(wanted, silence).await {
            if self.delivered() == before {
                return;
            }
            before = self.delivered();
        }
    }

    /// Disconnects everybody and hands over what they saw.
    ///
    /// # Errors
    /// When a thread panicked.
    pub async fn finish(mut self) -> anyhow::Result<Harvest> {
        self.shared.stop.cancel();
        let threads = std::mem::take(&mut self.threads);
        let join = move || threads.into_iter().map(std::thread::JoinHandle::join).collect::<Result<Vec<_>, _>>();
        let harvests = tokio::task::spawn_blocking(join).await?.map_err(|_| anyhow!("a load thread panicked"))?;
        let all = harvests.into_iter().reduce(|mut all, one| {
            all.receivers.extend(one.receivers);
            all.tally.merge(&one.tally);
            all.heartbeats += one.heartbeats;
            all
        });
        let all = all.context("a farm has at least one thread")?;
        Ok(Harvest { closed: self.closed(), retries: self.shared.retries.load(Ordering::SeqCst), ..all })
    }
}

impl Drop for Farm {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

impl Shared {
    fn count(&self, arrivals: u64) {
        let before = self.delivered.fetch_add(arrivals, Ordering::SeqCst);
        let wanted = self.wanted.load(Ordering::SeqCst);
        if before < wanted && wanted <= before + arrivals {
            self.reached.notify_waiters();
        }
    }
}

type Opened = mpsc::UnboundedSender<anyhow::Result<()>>;

/// One thread, from its first connection to its harvest.
fn work(thread: usize, plan: Plan, shared: Arc<Shared>, opened: &Opened) -> Harvest {
    if let Some(core) = plan.core
        && let Err(error) = os::pin(0, core)
    {
        tracing::warn!(core, %error, "load thread is not pinned");
    }
    let stop = shared.stop.clone();
    let local = Rc::new(Local {
        shared,
        buffer: RefCell::new(vec![0; 64 * 1024]),
        tally: RefCell::new(Tally::new(plan.run)),
        receivers: RefCell::default(),
        heartbeats: Cell::new(0),
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => {
            let tasks = tokio::task::LocalSet::new();
            tasks.spawn_local(open_all(thread, plan, local.clone(), opened.clone()));
            tasks.block_on(&runtime, stop.cancelled());
        }
        Err(error) => drop(opened.send(Err(error.into()))),
    }
    Harvest {
        receivers: local.receivers.take(),
        tally: local.tally.replace(Tally::new(0)),
        heartbeats: local.heartbeats.get(),
        closed: 0,
        retries: 0,
    }
}

/// Opens this thread's share of the connections, several at a time, and starts the ticker.
async fn open_all(thread: usize, plan: Plan, local: Rc<Local>, opened: Opened) {
    let threads = plan.threads.max(1);
    let (heartbeat, framing) = (plan.heartbeat, plan.target.framing);
    let (plan, next, writers) = (Rc::new(plan), Rc::new(Cell::new(thread)), Rc::<RefCell<Vec<_>>>::default());
    for _ in 0..OPENING {
        let (plan, next, local, opened) = (plan.clone(), next.clone(), local.clone(), opened.clone());
        let writers = writers.clone();
        tokio::task::spawn_local(async move {
            while next.get() < plan.connections {
                let index = next.replace(next.get() + threads);
                let answer = open(&plan, index, &local).await.map(|connection| {
                    writers.borrow_mut().push(connection.socket());
                    if index + plan.stalled < plan.connections {
                        let local = local.clone();
                        tokio::task::spawn_local(async move { connection.read(&local).await });
                    }
                });
                // Nobody listens any more once one has failed: the farm is about to end.
                let _ = opened.send(answer.with_context(|| format!("client {index}")));
            }
        });
    }
    if let Some(every) = heartbeat {
        connection::heartbeats(&writers, framing, every).await;
    }
    // Stalled connections stay open because somebody holds them: this task, until the thread stops.
    std::future::pending::<()>().await;
}

/// Brings one client in, in several tries if need be.
async fn open(plan: &Plan, index: usize, local: &Rc<Local>) -> anyhow::Result<Connection> {
    let source = 1 + index % plan.sources.clamp(1, 250);
    let source = IpAddr::V4(Ipv4Addr::new(127, 0, 1, source as u8));
    let stalled = index + plan.stalled >= plan.connections;
    let member = (plan.member)(index);
    let streams: &[u32] = if stalled { &[] } else { &member.streams };
    let receiver = {
        let mut receivers = local.receivers.borrow_mut();
        receivers.push(Receiver::new(streams));
        receivers.len() - 1
    };
    let attempt = async || {
        let mut connection = Connection::open(&plan.target, source, stalled, receiver).await?;
        connection.enter(&plan.target, &member.token, local).await?;
        Ok::<_, NotIn>(connection)
    };
    let (mut tries, mut pause) = (1, PAUSE);
    loop {
        let answer = tokio::time::timeout(PATIENCE, attempt()).await;
        match answer.unwrap_or_else(|_| Err(NotIn::Wrong(anyhow!("not in within {PATIENCE:?}")))) {
            Ok(connection) => return Ok(connection),
            Err(NotIn::Wrong(error)) => return Err(error),
            Err(NotIn::Closed(error)) if tries == TRIES => return Err(error.context(format!("tried {TRIES} times"))),
            Err(NotIn::Closed(_)) => {}
        }
        local.shared.retries.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.5))).await;
        (tries, pause) = (tries + 1, pause * 2);
    }
}

#[cfg(test)]
mod tests;
