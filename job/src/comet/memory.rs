//! A comet in memory: keeps what it is sent and misbehaves when told to.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use proto::comet::{Owner, PushMsgReq};
use proto::delivery::down::Frame;
use proto::delivery::{ClaimReply, ClaimReq, Down, HelloReply, Interest, Mark, Marks, Remark, Up};
use tokio::sync::{Notify, mpsc, watch};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Code;

use super::{Call, Comet, CometError, Link};

/// Bytes of frames that may be sent ahead of the answers.
const CREDIT: u64 = 4 << 20;

/// How it behaves from now on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Mood {
    /// Takes everything.
    #[default]
    Fine,
    /// Takes everything, and so long for each push.
    Slow(Duration),
    /// Never answers.
    Hangs,
    /// Nobody there.
    Away,
    /// Answers calls with this text, as a Go comet does with its errors.
    Refuses(String),
}

/// A comet of one process; clones are the same comet.
#[derive(Clone, Debug)]
pub struct MemoryComet {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Server id; `None` = a Go comet, which cannot be asked.
    server: Option<String>,
    streams: bool,
    incarnation: Mutex<u64>,
    mood: watch::Sender<Mood>,
    calls: watch::Sender<Vec<Call>>,
    /// Highest generation that claimed or sent for a group's partition.
    claims: Mutex<HashMap<(String, u32), i32>>,
    /// How many partitions the topic has, as the last claim said.
    in_topic: Mutex<u32>,
    /// Keys that have had something later than whatever comes for them.
    ahead: Mutex<Vec<String>>,
    /// Keys that are here; every key when empty.
    keys: Mutex<Vec<String>>,
    /// What was vouched for.
    marks: Mutex<Vec<Mark>>,
    /// The rooms that somebody is in; `None` = it does not say, so that it is sent every room.
    rooms: Mutex<Option<BTreeSet<String>>>,
    /// What of that was not said yet.
    changes: Mutex<Option<Interest>>,
    hang_up: Notify,
    busy: Mutex<HashMap<u32, usize>>,
    /// The most calls of one partition that were open at once.
    most: Mutex<usize>,
}

impl MemoryComet {
    /// One of ours.
    pub fn new(server: &str) -> Self {
        Self::make(Some(server.to_owned()), true)
    }

    /// One of ours from before there was a stream.
    pub fn older(server: &str) -> Self {
        Self::make(Some(server.to_owned()), false)
    }

    /// One of goim's: it knows goim's calls only.
    pub fn go() -> Self {
        Self::make(None, false)
    }

    fn make(server: Option<String>, streams: bool) -> Self {
        let shared = Shared {
            server,
            streams,
            incarnation: Mutex::new(1),
            mood: watch::Sender::default(),
            calls: watch::Sender::default(),
            claims: Mutex::default(),
            in_topic: Mutex::default(),
            ahead: Mutex::default(),
            keys: Mutex::default(),
            marks: Mutex::default(),
            rooms: Mutex::default(),
            changes: Mutex::default(),
            hang_up: Notify::new(),
            busy: Mutex::default(),
            most: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Changes how it behaves.
    pub fn set(&self, mood: Mood) {
        self.shared.mood.send_replace(mood);
    }

    /// Forgets claims and takes another incarnation, as a process that was started again.
    pub fn restart(&self) {
        *self.shared.incarnation.lock() += 1;
        self.shared.claims.lock().clear();
    }

    /// Ends the streams that are open, and nothing else.
    pub fn hang_up(&self) {
        self.shared.hang_up.notify_waiters();
    }

    /// From now on only these keys are here.
    pub fn holds(&self, keys: &[&str]) {
        *self.shared.keys.lock() = keys.iter().map(|key| (*key).to_owned()).collect();
    }

    /// From now on these keys go without what comes for them, as it comes too late.
    pub fn is_ahead(&self, keys: &[&str]) {
        *self.shared.ahead.lock() = keys.iter().map(|key| (*key).to_owned()).collect();
    }

    /// From now on these rooms have somebody. Who connects is told at once, who is connected with the next answer.
    pub fn has_rooms(&self, rooms: &[&str]) {
        let new: BTreeSet<String> = rooms.iter().map(|room| (*room).to_owned()).collect();
        let old = self.shared.rooms.lock().replace(new.clone()).unwrap_or_default();
        let (entered, left) = (new.difference(&old).cloned().collect(), old.difference(&new).cloned().collect());
        *self.shared.changes.lock() = Some(Interest { entered, left, complete: true });
    }

    /// Every call it took, in order.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.calls.borrow().clone()
    }

    /// What was vouched for on its streams, in order.
    pub fn marks(&self) -> Vec<Mark> {
        self.shared.marks.lock().clone()
    }

    /// Follows the calls it took.
    pub fn watch(&self) -> watch::Receiver<Vec<Call>> {
        self.shared.calls.subscribe()
    }

    /// The highest generation that claimed this partition.
    pub fn claimed(&self, group: &str, partition: u32) -> Option<i32> {
        self.shared.claims.lock().get(&(group.to_owned(), partition)).copied()
    }

    /// How many partitions the topic has, as the last claim said.
    pub fn in_topic(&self) -> u32 {
        *self.shared.in_topic.lock()
    }

    /// The most calls of one partition that were open at once.
    pub fn most_open(&self) -> usize {
        *self.shared.most.lock()
    }

    async fn answers(&self) -> Result<(), CometError> {
        let mood = self.shared.mood.subscribe().wait_for(|mood| *mood != Mood::Hangs).await.map(|mood| mood.clone());
        match mood {
            Ok(Mood::Away) | Err(_) => Err(CometError::Away("connection refused".into())),
            Ok(_) => Ok(()),
        }
    }

    /// Takes one frame of a stream.
    async fn take(&self, Down { traceparent, frame }: Down) -> Result<Remark, CometError> {
        let call = match frame.ok_or(CometError::Unimplemented)? {
            Frame::Claim(claim) => {
                return self.claim(claim).await.map(|reply| Remark { fenced: reply.fenced, ..Remark::default() });
            }
            Frame::Marks(Marks { group, epoch: _, generation, marks }) => {
                self.answers().await?;
                let owner = Owner { group, generation, floor: None };
                let mut fenced = vec![];
                for mark in marks {
                    match self.check(Some(&owner), mark.partition) {
                        Ok(()) => self.shared.marks.lock().push(mark),
                        Err(_) => fenced.push(mark.partition),
                    }
                }
                return Ok(Remark { fenced, ..Remark::default() });
            }
            Frame::Keys(request) => Call::Push(request),
            Frame::Room(request) => Call::Room(request),
            Frame::All(request) => Call::Broadcast(request),
            Frame::Kick(request) => Call::Kick(request),
        };
        if let Call::Push(PushMsgReq { keys, .. }) = &call {
            let ahead = self.shared.ahead.lock();
            let overtaken: Vec<String> = keys.iter().filter(|key| ahead.contains(key)).cloned().collect();
            if !overtaken.is_empty() {
                return Ok(Remark { overtaken, ..Remark::default() });
            }
        }
        let trace = (!traceparent.is_empty()).then_some(traceparent.as_str());
        let refused = |code: Code, text: String| Remark { code: code as i32, text, ..Remark::default() };
        match self.send(call, trace).await {
            Ok(not_here) => Ok(Remark { not_here, ..Remark::default() }),
            Err(CometError::Fenced) => Ok(refused(Code::FailedPrecondition, "fenced".to_owned())),
            Err(CometError::Refused { text, .. }) => Ok(refused(Code::Unknown, text)),
            Err(error) => Err(error),
        }
    }

    async fn answer(
        self,
        mut frames: mpsc::UnboundedReceiver<Down>,
        up: mpsc::UnboundedSender<Result<Up, CometError>>,
    ) {
        let mut taken = 0;
        while let Some(frame) = frames.recv().await {
            let remark = tokio::select! {
                // Who is not listened to any more takes nothing more.
                biased;
                () = up.closed() => return,
                remark = self.take(frame) => remark,
            };
            taken += 1;
            let answer = remark.map(|remark| {
                let is_plain = remark == Remark::default();
                let remarks = if is_plain { vec![] } else { vec![Remark { frame: taken, ..remark }] };
                // Noted before the frame was taken, so it goes first.
                Up { taken, remarks, interest: self.shared.changes.lock().take(), ..Up::default() }
            });
            if up.send(answer).is_err() {
                return;
            }
        }
    }

    fn check(&self, owner: Option<&Owner>, partition: u32) -> Result<(), CometError> {
        let Some(owner) = owner else {
            return Ok(());
        };
        let mut claims = self.shared.claims.lock();
        let highest = claims.entry((owner.group.clone(), partition)).or_insert(owner.generation);
        if *highest > owner.generation {
            return Err(CometError::Fenced);
        }
        *highest = owner.generation;
        Ok(())
    }
}

#[async_trait]
impl Comet for MemoryComet {
    async fn hello(&self) -> Result<HelloReply, CometError> {
        self.answers().await?;
        let server = self.shared.server.clone().ok_or(CometError::Unimplemented)?;
        Ok(HelloReply { server, incarnation: *self.shared.incarnation.lock() })
    }

    async fn deliver(&self) -> Result<Link, CometError> {
        self.answers().await?;
        if !self.shared.streams {
            return Err(CometError::Unimplemented);
        }
        let (down, frames) = mpsc::unbounded_channel();
        let (answers, up) = mpsc::unbounded_channel();
        if let Some(rooms) = &*self.shared.rooms.lock() {
            self.shared.changes.lock().take();
            let interest = Interest { entered: rooms.iter().cloned().collect(), left: vec![], complete: true };
            // Read later: the other end is still here.
            let _sent = answers.send(Ok(Up { interest: Some(interest), ..Up::default() }));
        }
        let comet = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = comet.shared.hang_up.notified() => {}
                () = comet.clone().answer(frames, answers) => {}
            }
        });
        Ok(Link { credit: CREDIT, down, up: Box::pin(UnboundedReceiverStream::new(up)) })
    }

    async fn claim(&self, claim: ClaimReq) -> Result<ClaimReply, CometError> {
        self.answers().await?;
        if self.shared.server.is_none() {
            return Err(CometError::Unimplemented);
        }
        *self.shared.in_topic.lock() = claim.partitions_in_topic;
        if claim.takeover {
            let mut claims = self.shared.claims.lock();
            claims.retain(|(group, number), _| *group != claim.group || !claim.partitions.contains(number));
        }
        let owner = Owner { group: claim.group, generation: claim.generation, floor: None };
        let fenced = claim.partitions.into_iter().filter(|partition| self.check(Some(&owner), *partition).is_err());
        Ok(ClaimReply { fenced: fenced.collect() })
    }

    async fn send(&self, call: Call, _traceparent: Option<&str>) -> Result<Vec<String>, CometError> {
        let (owner, ids) = match &call {
            Call::Push(request) => (&request.owner, &request.ids[..]),
            Call::Broadcast(request) => (&request.owner, &request.ids[..]),
            Call::Room(request) => (&request.owner, &request.ids[..]),
            Call::Kick(request) => (&request.owner, &[][..]),
        };
        let partition = ids.first().map_or(0, |id| id.partition);
        let _open = Open::new(&self.shared, partition);
        self.answers().await?;
        let mood = self.shared.mood.borrow().clone();
        if let Mood::Slow(each) = mood {
            tokio::time::sleep(each).await;
        }
        if let Mood::Refuses(text) = mood {
            return Err(CometError::Refused { reason: "unknown", text });
        }
        if self.shared.server.is_none() && matches!(call, Call::Kick(_)) {
            return Err(CometError::Unimplemented);
        }
        // A kick names no partition, so there is nothing to fence it by.
        if self.shared.server.is_some() && !ids.is_empty() {
            self.check(owner.as_ref(), partition)?;
        }
        let missing = match &call {
            Call::Push(request) => {
                let here = self.shared.keys.lock();
                request.keys.iter().filter(|key| !here.is_empty() && !here.contains(key)).cloned().collect()
            }
            _ => vec![],
        };
        self.shared.calls.send_modify(|calls| calls.push(call));
        tokio::task::yield_now().await;
        Ok(missing)
    }
}

/// Counts a call while it is open.
struct Open<'a> {
    shared: &'a Shared,
    partition: u32,
}

impl<'a> Open<'a> {
    fn new(shared: &'a Shared, partition: u32) -> Self {
        let mut busy = shared.busy.lock();
        let open = busy.entry(partition).or_default();
        *open += 1;
        let mut most = shared.most.lock();
        *most = (*most).max(*open);
        drop(most);
        drop(busy);
        Self { shared, partition }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if let Some(open) = self.shared.busy.lock().get_mut(&self.partition) {
            *open -= 1;
        }
    }
}
