//! One thread with its own reactor: the connections that live on it, their timers, their rooms, and the fan-out.
//!
//! Everything in here is touched by that thread alone. Others send commands through the inbox.

mod deliver;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use proto::envelope::Gap;
use proto::{Key, Mid, RoomId};
use slab::Slab;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::bucket::Bucket;
use crate::channel::Channel;
use crate::close::Close;
use crate::fanout::Round;
use crate::listen::{self, Sockets};
use crate::logic::Held;
use crate::message::Push;
use crate::moving::{self, Moving};
use crate::pace;
use crate::register;
use crate::repeats::{Repeats, Sender};
use crate::session::{self, Newcomer};
use crate::shared::Shared;
use crate::sweep;
use crate::wheel::{Entry, TICK, Wheel};

/// Bytes read from a socket in one call.
const SCRATCH: usize = 64 * 1024;

/// Whose turn it is to tell logic of one key's session.
pub type Turn = tokio::sync::Mutex<()>;

/// What others ask of a shard.
#[derive(Debug)]
pub enum Command {
    /// Deliver a push.
    Push(Order),
    /// Take over a connection whose key belongs here.
    Adopt(Box<Newcomer>),
    /// End the session of a key at logic: nobody waits for it any more.
    Depart(Mid, Key),
    /// Close the connection of this key, unless it was made after this, in Unix milliseconds; 0 = whenever.
    Kick(Key, u64),
    /// Logic has noted this key elsewhere and sends nothing more here for its connection, unless that was made after this.
    Elsewhere(Key, u64),
    /// Accept clients from these sockets until told to stop.
    Accept(Sockets, CancellationToken),
    /// How many are in each room here?
    Counts(oneshot::Sender<Vec<(RoomId, i32)>>),
    /// Which connections are here?
    List(oneshot::Sender<Vec<Entry>>),
    /// Who are these connections, those of them that are still here?
    Held(Vec<Entry>, oneshot::Sender<Vec<Held>>),
    /// Logic was told of these: those that are not here any more are signed off.
    Registered(Vec<Held>),
    /// Logic has noted these for this comet: those that are not here are signed off.
    Noted(Vec<(Mid, Key)>),
    /// Close these connections, those of them that are still here.
    Close(Vec<Entry>, Close),
    /// Every comet has answered what is below these offsets of a group's partitions.
    Settle {
        /// The consumer group.
        group: Arc<str>,
        /// The topic's epoch.
        epoch: u32,
        /// Partition and floor.
        floors: Arc<[(u32, u64)]>,
    },
    /// Say so once every push that was sent before this is written, as far as sockets take it.
    Flush(oneshot::Sender<()>),
    /// Tell clients with capabilities of this gap; who are the others?
    Missed(Arc<Gap>, oneshot::Sender<Vec<Entry>>),
}

/// A push and whom it is for.
#[derive(Debug)]
pub struct Order {
    /// What to deliver.
    pub push: Arc<Push>,
    /// To whom.
    pub target: Target,
    /// Who sent it, for the repeat filter.
    pub sender: Sender,
    /// Room in the inboxes, or among the broadcasts with a speed, given back when every shard is done with it.
    pub budget: Arc<OwnedSemaphorePermit>,
    /// Answered when the push is in a fan-out round, with the keys that go without. Whoever waits for it sends as
    /// fast as this shard writes: its inbox never holds more than was in flight.
    pub taken: oneshot::Sender<Without>,
}

/// The keys of a push that were not given it.
#[derive(Debug, Default)]
pub struct Without {
    /// They are not here.
    pub missing: Vec<Key>,
    /// They had something later meanwhile, and were told.
    pub overtaken: Vec<Key>,
}

/// Whom a push is for.
#[derive(Debug)]
pub enum Target {
    /// Everyone in its room.
    Room,
    /// Everyone who accepts the operation.
    All(i32),
    /// The same, so many connections a second.
    Paced(i32, f64),
    /// These keys, if they accept the operation; late = unless they have had a later record.
    Keys { keys: Vec<Key>, op: i32 },
}

/// The way into a shard. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    inbox: mpsc::UnboundedSender<Command>,
    connections: Arc<AtomicUsize>,
}

/// The other end of a [`Handle`].
#[derive(Debug)]
pub struct Inbox {
    commands: mpsc::UnboundedReceiver<Command>,
    connections: Arc<AtomicUsize>,
}

/// A handle and its other end.
pub fn handle() -> (Handle, Inbox) {
    let (inbox, commands) = mpsc::unbounded_channel();
    let connections = Arc::new(AtomicUsize::new(0));
    (Handle { inbox, connections: connections.clone() }, Inbox { commands, connections })
}

impl Handle {
    /// Sends a command. A shard that is gone drops it, and the connections it was for are gone as well.
    pub fn send(&self, command: Command) {
        // The receiver lives as long as its thread, which ends only with the process.
        let _gone = self.inbox.send(command);
    }

    /// Connections here now.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

/// The state of one shard.
#[derive(Debug)]
pub struct Shard {
    /// Which one of the comet's shards it is.
    pub index: usize,
    /// What all shards share.
    pub shared: Arc<Shared>,
    /// The channels and rooms here.
    pub bucket: Rc<Bucket>,
    /// Buffer every read goes through first.
    pub scratch: RefCell<Box<[u8]>>,
    /// Keys whose session was removed at logic a short while ago, and when.
    pub departed: RefCell<AHashMap<Key, Instant>>,
    /// How long logic said last that a session lives.
    pub session_ttl: Cell<Duration>,
    turns: RefCell<AHashMap<Key, Weak<Turn>>>,
    began: Instant,
    connections: RefCell<Slab<Rc<Channel>>>,
    count: Arc<AtomicUsize>,
    wheel: RefCell<Wheel>,
    serial: Cell<u32>,
    /// The broadcasts that are sent here at a speed.
    pub pacer: pace::Pacer,
}

/// A channel's place in its shard. Dropping it gives the place, the key and the count back.
#[derive(Debug)]
pub struct Registration {
    shard: Rc<Shard>,
    index: usize,
    channel: Rc<Channel>,
}

impl Shard {
    /// An empty shard on this thread.
    pub fn new(index: usize, shared: Arc<Shared>, count: Arc<AtomicUsize>) -> Rc<Self> {
        let pacer = pace::Pacer::start(shared.metrics.clone());
        let bucket = Rc::new(Bucket::new(shared.interest.clone()));
        Rc::new(Self {
            index,
            shared,
            began: Instant::now(),
            bucket,
            scratch: RefCell::new(vec![0; SCRATCH].into()),
            departed: RefCell::default(),
            session_ttl: Cell::new(session::GOIM_TTL),
            turns: RefCell::default(),
            connections: RefCell::default(),
            count,
            wheel: RefCell::new(Wheel::new(Instant::now())),
            serial: Cell::new(0),
            pacer,
        })
    }

    /// A number that no connection here has had for the last four billion.
    pub fn next_serial(&self) -> u32 {
        self.serial.replace(self.serial.get().wrapping_add(1))
    }

    /// Puts a channel in; another with the same key is closed. One that was told to move has moved, if only to here again.
    pub fn register(self: &Rc<Self>, channel: Rc<Channel>) -> Registration {
        if let Some(old) = self.bucket.insert(&channel) {
            old.close(if old.moving.get() == Moving::Told { Close::Moved } else { Close::Replaced });
        }
        let index = self.connections.borrow_mut().insert(channel.clone());
        self.count.fetch_add(1, Ordering::Relaxed);
        self.shared.metrics.connections.inc();
        self.wheel.borrow_mut().insert((index, channel.serial), channel.due());
        Registration { shard: self.clone(), index, channel }
    }

    /// Milliseconds since this shard began.
    pub fn now_ms(&self) -> u32 {
        self.began.elapsed().as_millis() as u32
    }

    /// The tick that lies `after` from now.
    pub fn tick_after(&self, after: Duration) -> u32 {
        self.wheel.borrow().after(Instant::now(), after)
    }

    /// Serves the inbox until nobody can send to it any more.
    pub async fn run(self: Rc<Self>, mut inbox: mpsc::UnboundedReceiver<Command>) {
        let mut repeats = Repeats::default();
        let mut number = 1;
        while let Some(first) = inbox.recv().await {
            let mut round = Round::new(number, self.shared.queue.connection.load(Ordering::Relaxed) / 2);
            let (mut budgets, mut flushed) = (Vec::new(), Vec::new());
            let mut next = Some(first);
            while let Some(command) = next {
                // Who comes in is not among those that this round has gathered already, and must not miss what follows.
                let ends = matches!(command, Command::Adopt(_));
                match command {
                    Command::Push(order) => budgets.extend(self.take(order, &mut repeats, &mut round)),
                    Command::Settle { group, epoch, floors } => {
                        floors.iter().for_each(|(partition, floor)| repeats.settle(&group, epoch, *partition, *floor));
                    }
                    Command::Flush(done) => flushed.push(done),
                    other => self.obey(other),
                }
                next = if ends || round.is_full() { None } else { inbox.try_recv().ok() };
            }
            round.write(&self.shared.metrics).await;
            drop(budgets);
            for done in flushed {
                let _asker_left = done.send(());
            }
            number += 1;
        }
    }

    /// Moves the timers on, for ever.
    pub async fn tick(self: Rc<Self>) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            let mut refresh = Vec::new();
            self.wheel.borrow_mut().advance(Instant::now(), |entry, now| {
                let channel = self.get(entry)?;
                if channel.deadline.get() <= now {
                    channel.close(Close::HeartbeatTimeout);
                    return None;
                }
                if channel.expires.get() <= now {
                    channel.close(Close::Expired);
                    return None;
                }
                if channel.refresh.get() <= now {
                    // Set again when logic answers; until then its entry comes up as if it did not.
                    let again = session::REFRESH_AGAIN.min(channel.refresh_every.get()).div_duration_f64(TICK);
                    channel.refresh.set(now.saturating_add(again.ceil() as u32).max(now + 1));
                    refresh.push(channel.clone());
                }
                Some(channel.due())
            });
            for channel in refresh {
                tokio::task::spawn_local(session::refresh(self.clone(), channel));
            }
            let kept = self.shared.live.load().handshake_timeout * 2;
            self.departed.borrow_mut().retain(|_, when| when.elapsed() < kept);
            self.turns.borrow_mut().retain(|_, turn| turn.strong_count() > 0);
        }
    }

    /// Held while logic is told of this key's session.
    pub fn turn(&self, key: &Key) -> Rc<Turn> {
        let mut turns = self.turns.borrow_mut();
        let turn = turns.get(key).and_then(Weak::upgrade).unwrap_or_default();
        turns.insert(key.clone(), Rc::downgrade(&turn));
        turn
    }

    /// Whether logic is being told of this key's session, or is about to be.
    pub fn has_turn(&self, key: &Key) -> bool {
        self.turns.borrow().get(key).is_some_and(|turn| turn.strong_count() > 0)
    }

    /// Whether logic was, or is about to be, told to forget this key since then.
    pub fn is_departing(&self, key: &Key, since: Instant) -> bool {
        self.has_turn(key) || self.departed.borrow().get(key).is_some_and(|when| *when >= since)
    }

    /// The connection of that entry, if it is still here.
    pub fn get(&self, (index, serial): Entry) -> Option<Rc<Channel>> {
        self.connections.borrow().get(index).filter(|channel| channel.serial == serial).cloned()
    }

    /// The connection of this key, unless it was made after this, in Unix milliseconds; 0 = whenever. A key that has come
    /// back since is another connection than the one that was meant.
    fn made_before(&self, key: &Key, before: u64) -> Option<Rc<Channel>> {
        self.bucket.get(key).filter(|found| before == 0 || found.connected_ms.get() <= before)
    }

    fn obey(self: &Rc<Self>, command: Command) {
        match command {
            Command::Push(_) | Command::Settle { .. } | Command::Flush(_) => unreachable!("they belong to a round"),
            Command::Adopt(newcomer) => session::adopt(self, *newcomer),
            Command::Depart(mid, key) => drop(tokio::task::spawn_local(session::depart(self.clone(), mid, key))),
            Command::Kick(key, before) => {
                if let Some(channel) = self.made_before(&key, before) {
                    channel.close(Close::Kicked);
                }
            }
            Command::Elsewhere(key, before) => {
                if let Some(channel) = self.made_before(&key, before) {
                    channel.is_noted_elsewhere();
                }
            }
            Command::Accept(sockets, accepting) => self.accept(sockets, &accepting),
            // Whoever asked may be gone: a comet that is ending does not wait for the answer.
            Command::Counts(answer) => drop(answer.send(self.bucket.counts())),
            Command::List(answer) => {
                let connections = self.connections.borrow();
                drop(answer.send(connections.iter().map(|(index, channel)| (index, channel.serial)).collect()));
            }
            // Whoever asked is gone only when this comet is ending.
            Command::Missed(gap, others) => drop(others.send(self.missed(&gap))),
            Command::Held(entries, answer) => drop(answer.send(register::held(self, entries))),
            Command::Registered(held) => register::sign_off(self, held),
            Command::Noted(sessions) => sweep::sign_off(self, sessions),
            Command::Close(entries, reason) => moving::close(self, entries, reason),
        }
    }
}

impl Shard {
    /// Accepts from these sockets until told to stop.
    fn accept(self: &Rc<Self>, sockets: Sockets, accepting: &CancellationToken) {
        for (socket, kind) in sockets {
            let port = tokio::net::TcpListener::from_std(socket).expect("the port was bound non-blocking");
            let (shard, stop) = (self.clone(), accepting.clone());
            tokio::task::spawn_local(async move {
                listen::accept(port, &shard.shared.limits, stop.cancelled_owned(), |socket, peer, place| {
                    tokio::task::spawn_local(session::open(shard.clone(), socket, peer, kind, place));
                })
                .await;
            });
        }
    }
}

impl Registration {
    /// The channel that is registered.
    pub fn channel(&self) -> &Rc<Channel> {
        &self.channel
    }

    /// The shard it is registered with.
    pub fn shard(&self) -> &Rc<Shard> {
        &self.shard
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.shard.bucket.remove(&self.channel);
        self.shard.connections.borrow_mut().remove(self.index);
        self.shard.count.fetch_sub(1, Ordering::Relaxed);
        self.shard.shared.metrics.connections.dec();
        let reason =
            if std::thread::panicking() { Close::Panic } else { self.channel.closing().unwrap_or(Close::Gone) };
        self.shard.shared.metrics.closed(reason);
    }
}

/// Adds up what the shards answered.
pub fn merged(counts: impl IntoIterator<Item = Vec<(RoomId, i32)>>) -> HashMap<String, i32> {
    let mut merged = HashMap::new();
    for (room, count) in counts.into_iter().flatten() {
        *merged.entry(room.to_string()).or_insert(0) += count;
    }
    merged
}

impl Inbox {
    /// Splits it into what [`Shard::new`] and [`Shard::run`] take.
    pub fn into_parts(self) -> (mpsc::UnboundedReceiver<Command>, Arc<AtomicUsize>) {
        (self.commands, self.connections)
    }
}
