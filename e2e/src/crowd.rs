//! A crowd of clients that lives through deploys, plain goim ones and such that can move, and its judge.
//!
//! [`Crowd::connect`] brings in as many clients as its [`Plan`] says, each a task on threads of the caller's choice,
//! which may be in a network namespace. Whoever is closed pauses, comes back with the same key and goes on; who can move
//! goes elsewhere first when it is asked to. Nothing that befalls a client ends the test. Each keeps its [`Life`]. A
//! [`Pusher`] pushes to them meanwhile and keeps when; the caller says with [`Crowd::mark`] what he does to the servers.
//! In the end all of it is one [`Record`], which [`judge()`] holds against [`Limits`]: the [`Report`] is a table per
//! phase and the faults that were found.

mod given;
mod judge;
mod life;
mod member;
mod pusher;
mod report;
mod silence;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::bench::push::Pushed;
use crate::bench::stream;
use crate::client::{Dial, Target};
use crate::load::Member;
use crate::{eventually, os};
pub use judge::{Limits, Loss, Moves, Pushes, Spread, Twist, judge};
pub use life::{Arrival, End, Gap, Life, Stay, Told};
pub use pusher::{Pusher, half_to_keys, to_all_kinds};
pub use report::{Phase, Report, Wire};
pub use silence::silences;

/// Who they are and what they do.
#[derive(Clone)]
pub struct Plan {
    /// Where they connect: client n begins with the n-th, over and over; who comes from one goes to any other; each takes
    /// the next one at each further try.
    pub targets: Vec<Target>,
    /// Which of them everybody tries before all that.
    pub first: Option<usize>,
    /// How to get there.
    pub dial: Dial,
    /// How many addresses they come from, 127.0.1.1 and up, at most 250; 0 = what `dial` says. Where there are many
    /// clients one address has not enough ports.
    pub sources: usize,
    /// How many clients.
    pub clients: usize,
    /// How many of them are on their first way in at the same time.
    pub opening: usize,
    /// How long it may take until every one of them has been in.
    pub patience: Duration,
    /// How often each sends op 2.
    pub heartbeat: Duration,
    /// For how long each stays before it leaves by itself, to come back soon; `None` = until it is closed.
    pub stay: Option<Range<Duration>>,
    /// Which pushes count: those stamped with this run.
    pub run: u32,
    /// Who the client with this index is.
    pub member: Arc<dyn Fn(usize) -> Member + Send + Sync>,
    /// Whether it can move (ops 18, 23 and 25); else it is a plain goim client.
    pub movable: fn(usize) -> bool,
}

/// For [`Plan::movable`]: every other fifty, so that each target and each room has some who can move and some who cannot.
pub fn half(index: usize) -> bool {
    index / 50 % 2 == 1
}

impl Plan {
    /// So many plain clients in so many rooms, as [`stream::members`] has them, that stay.
    pub fn new(targets: Vec<Target>, clients: usize, rooms: u32) -> Self {
        Self {
            targets,
            first: None,
            dial: Dial::default(),
            sources: 0,
            clients,
            opening: 32,
            patience: Duration::from_secs(120),
            heartbeat: Duration::from_secs(30),
            stay: None,
            run: 1,
            member: stream::members(rooms),
            movable: |_| false,
        }
    }
}

/// Clients that live until this is dropped.
pub struct Crowd {
    shared: Arc<Shared>,
    lives: Vec<JoinHandle<Life>>,
    marks: Mutex<Vec<Mark>>,
    began: Duration,
}

/// What the caller did, and when.
#[derive(Clone, Debug)]
pub struct Mark {
    /// By [`os::monotonic`].
    pub at: Duration,
    /// What begins here.
    pub name: String,
}

/// Everything that was noted; times are those of [`os::monotonic`].
#[derive(Clone, Debug)]
pub struct Record {
    /// When every client had been in once.
    pub began: Duration,
    /// When clients were told to end.
    pub ended: Duration,
    /// The phases' beginnings, in order; what is before the first one belongs to it.
    pub marks: Vec<Mark>,
    /// Every client's.
    pub lives: Vec<Life>,
    /// Every push.
    pub pushed: Vec<Pushed>,
    /// Why clients were not let in, or lost their connection, and how often.
    pub reasons: BTreeMap<String, u64>,
}

struct Shared {
    plan: Plan,
    opening: Semaphore,
    stop: CancellationToken,
    entered: AtomicUsize,
    /// Client → which of the targets.
    inside: Mutex<BTreeMap<usize, usize>>,
    arrivals: AtomicU64,
    reasons: Mutex<BTreeMap<String, u64>>,
}

impl Crowd {
    /// Starts them all on `threads`, and waits until each has been in.
    ///
    /// # Errors
    /// When the plan cannot be, or one is not in within its patience; the text holds why they were refused.
    pub async fn connect(plan: Plan, threads: &Handle) -> anyhow::Result<Self> {
        anyhow::ensure!(!plan.targets.is_empty(), "targets: a crowd needs one at least");
        anyhow::ensure!(
            plan.first.is_none_or(|first| first < plan.targets.len()),
            "first: expected one of the targets"
        );
        anyhow::ensure!(!plan.heartbeat.is_zero(), "heartbeat: expected more than no time");
        let stays = plan.stay.as_ref().is_none_or(|stay| stay.start <= stay.end);
        anyhow::ensure!(stays, "stay {:?}: expected the shorter time first", plan.stay);
        let (clients, patience) = (plan.clients, plan.patience);
        let shared = Arc::new(Shared {
            opening: Semaphore::new(plan.opening.max(1)),
            plan,
            stop: CancellationToken::new(),
            entered: AtomicUsize::new(0),
            inside: Mutex::default(),
            arrivals: AtomicU64::new(0),
            reasons: Mutex::default(),
        });
        let lives = (0..clients).map(|index| threads.spawn(member::live(index, shared.clone()))).collect();
        let mut crowd = Self { shared, lives, marks: Mutex::default(), began: Duration::ZERO };
        let what = format!("{clients} clients to have been in");
        let all = eventually(patience, &what, || async {
            let entered = crowd.shared.entered.load(Ordering::SeqCst);
            if entered == clients { Ok(()) } else { Err(format!("{entered} have; {:?}", *crowd.shared.reasons.lock())) }
        });
        all.await?;
        crowd.began = os::monotonic();
        Ok(crowd)
    }

    /// Begins a phase: what happens from now on is told apart from what was before.
    pub fn mark(&self, name: &str) {
        self.marks.lock().push(Mark { at: os::monotonic(), name: name.to_owned() });
    }

    /// How many are in right now.
    pub fn inside(&self) -> usize {
        self.shared.inside.lock().len()
    }

    /// Who is in right now, and where: client → which of the plan's targets.
    pub fn whereabouts(&self) -> BTreeMap<usize, usize> {
        self.shared.inside.lock().clone()
    }

    /// When every client had been in once.
    pub fn began(&self) -> Duration {
        self.began
    }

    /// Pushes of this run that arrived so far, at all clients together.
    pub fn arrivals(&self) -> u64 {
        self.shared.arrivals.load(Ordering::SeqCst)
    }

    /// Waits until nothing has arrived for `silence`.
    pub async fn settle(&self, silence: Duration) {
        let mut before = None;
        while before != Some(self.arrivals()) {
            before = Some(self.arrivals());
            tokio::time::sleep(silence).await;
        }
    }

    /// Ends everybody, and puts what they noted beside what was pushed. Let it [`settle`](Self::settle) first: what
    /// still is on its way would be lost.
    ///
    /// # Errors
    /// When a client's task was ended by somebody else.
    pub async fn finish(mut self, pushed: Vec<Pushed>) -> anyhow::Result<Record> {
        let ended = os::monotonic();
        self.shared.stop.cancel();
        let mut lives = Vec::with_capacity(self.lives.len());
        for life in std::mem::take(&mut self.lives) {
            lives.push(life.await.with_context(|| format!("the life of client {}", lives.len()))?);
        }
        let (marks, reasons) = (std::mem::take(&mut *self.marks.lock()), self.shared.reasons.lock().clone());
        Ok(Record { began: self.began, ended, marks, lives, pushed, reasons })
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

impl Shared {
    /// Counts why a client is not in, or not any more.
    fn say(&self, reason: String) {
        *self.reasons.lock().entry(reason).or_default() += 1;
    }
}

#[cfg(test)]
mod tests;
