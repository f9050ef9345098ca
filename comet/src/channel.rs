//! One connection as others see it: what it accepts, and the way to push to it without waiting.

mod batch;

use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use proto::comet::OnFull;
use proto::packet::Packet;
use proto::{Key, Mid};

pub use batch::Batch;

use crate::close::Close;
use crate::logic::Held;
use crate::message::{Push, Variant, framed};
use crate::moving::Moving;
use crate::outbound::Outbound;
use crate::wheel::Ticks;
use crate::wire::Wire;

/// Reply bytes that may wait before the client is no longer read from.
const MAX_REPLIES: usize = 16 * 1024;
/// Frames that leave in one system call.
const MAX_PIECES: usize = 64;
/// Operations one connection may accept: a client can add some with every packet.
const MAX_ACCEPTS: usize = 10_000;

/// How much may wait for sockets.
#[derive(Debug)]
pub struct QueueLimits {
    /// Bytes a connection.
    pub connection: AtomicUsize,
    /// Bytes in this comet.
    pub total: AtomicUsize,
    /// Bytes waiting in this comet now.
    pub used: AtomicUsize,
}

/// What pushing to one channel did, for the counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pushed {
    /// Messages written or queued.
    pub delivered: u64,
    /// Messages this client will not be given.
    pub dropped: u64,
}

/// One connection. Lives on its shard's thread; whoever has a push writes it.
#[derive(Debug)]
pub struct Channel {
    /// The connection's key.
    pub key: Key,
    /// Its member.
    pub mid: Mid,
    /// How it wants its pushes.
    pub variant: Variant,
    /// Tells this connection from others that had its place in the shard.
    pub serial: u32,
    /// When its session was made, in Unix milliseconds by logic's clock.
    pub connected_ms: Cell<u64>,
    /// Whether it can be asked to connect elsewhere first.
    pub moving: Cell<Moving>,
    elsewhere: Cell<bool>,
    /// When its session ends without a heartbeat.
    pub deadline: Cell<Ticks>,
    /// When the token that let it in is too old.
    pub expires: Cell<Ticks>,
    /// When its session is to be refreshed at logic.
    pub refresh: Cell<Ticks>,
    /// How often that is.
    pub refresh_every: Cell<Duration>,
    /// The fan-out round that touched it last, and its own list there.
    pub touched: Cell<(u64, Touched)>,
    accepts: RefCell<Vec<i32>>,
    wire: Wire,
    limits: Arc<QueueLimits>,
    outbound: RefCell<Option<Box<Outbound>>>,
    closing: Cell<Option<Close>>,
    waker: RefCell<Option<Waker>>,
}

/// How a fan-out round reaches a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touched {
    /// Through one source (a room, or all): it shares that source's batch.
    Shared(usize),
    /// Through its own list.
    Own(usize),
}

/// What a connection's task is to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// End.
    Close(Close),
    /// Write what waits.
    Write,
    /// Read what came.
    Read,
}

impl Channel {
    /// A channel over `wire` with nothing waiting.
    pub fn new(
        key: Key,
        mid: Mid,
        variant: Variant,
        serial: u32,
        accepts: Vec<i32>,
        wire: Wire,
        limits: Arc<QueueLimits>,
    ) -> Self {
        let channel = Self {
            key,
            mid,
            variant,
            serial,
            connected_ms: Cell::default(),
            moving: Cell::default(),
            elsewhere: Cell::default(),
            deadline: Cell::new(Ticks::MAX),
            expires: Cell::new(Ticks::MAX),
            refresh: Cell::new(Ticks::MAX),
            refresh_every: Cell::default(),
            touched: Cell::new((0, Touched::Shared(0))),
            accepts: RefCell::default(),
            wire,
            limits,
            outbound: RefCell::default(),
            closing: Cell::default(),
            waker: RefCell::default(),
        };
        channel.subscribe(accepts);
        channel
    }

    /// Who it is to logic.
    pub fn held(&self) -> Held {
        Held { mid: self.mid, key: self.key.clone(), connected_ms: self.connected_ms.get() }
    }

    /// Logic has noted its key for another server: every push that was sent here for it has come.
    pub fn is_noted_elsewhere(&self) {
        self.elsewhere.set(true);
        self.wake();
    }

    /// Whether logic has noted its key for another server.
    pub fn is_elsewhere(&self) -> bool {
        self.elsewhere.get()
    }

    /// Whether every push that is for its key has come, if any more of them would come here. A logic that does not say when
    /// a session was made, as goim's, does not say that either. For the connection's own task, which is woken when it is.
    pub fn has_its_keys(&self) -> bool {
        self.elsewhere.get() || self.connected_ms.get() == 0
    }

    /// When something is next to be done about it, by the clock alone.
    pub fn due(&self) -> Ticks {
        self.deadline.get().min(self.refresh.get()).min(self.expires.get())
    }

    /// Adds operations to the accept set, as long as there is room.
    pub fn subscribe(&self, ops: impl IntoIterator<Item = i32>) {
        let mut accepts = self.accepts.borrow_mut();
        let room = MAX_ACCEPTS - accepts.len();
        accepts.extend(ops.into_iter().take(room));
        accepts.sort_unstable();
        accepts.dedup();
        accepts.shrink_to_fit();
    }

    /// Takes operations from the accept set.
    pub fn unsubscribe(&self, ops: &[i32]) {
        self.accepts.borrow_mut().retain(|op| !ops.contains(op));
    }

    /// Whether pushes with this operation to its key, its member or all are for it.
    pub fn accepts(&self, op: i32) -> bool {
        self.accepts.borrow().binary_search(&op).is_ok()
    }

    /// Ends the session with this reason, the first one given.
    pub fn close(&self, reason: Close) {
        if self.closing.get().is_none() {
            self.closing.set(Some(reason));
            self.wake();
        }
    }

    /// Why the session is ending, if it is.
    pub fn closing(&self) -> Option<Close> {
        self.closing.get()
    }

    /// Whether what is pushed to its key is for this connection.
    pub fn is_here(&self) -> bool {
        self.closing.get().is_none() && self.moving.get() != Moving::Gone
    }

    /// Hands a batch to the socket; what it refuses waits, up to the limits. Never blocks.
    pub fn push(&self, batch: &Batch) -> Pushed {
        if self.closing.get().is_some() {
            return Pushed::default();
        }
        let mut outbound = self.outbound.borrow_mut();
        let mut taken = 0;
        if outbound.is_none() && !self.wire.owes() {
            match self.wire.try_write(&batch.bytes) {
                Ok(count) if count == batch.bytes.len() => {
                    drop(outbound);
                    if self.wire.owes() {
                        self.wake();
                    }
                    return Pushed { delivered: batch.messages, dropped: 0 };
                }
                Ok(count) => taken = count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => {
                    drop(outbound);
                    self.close(Close::Io);
                    return Pushed::default();
                }
            }
        }
        let before = outbound.as_ref().map_or(0, |queue| queue.bytes());
        let queue = outbound.get_or_insert_default();
        let pushed = self.enqueue(queue, batch, taken);
        let after = queue.bytes();
        drop(outbound);
        self.account(before, after);
        self.wake();
        pushed
    }

    /// Decides what happens to the frames that the socket did not take: the one place where messages are dropped.
    fn enqueue(&self, queue: &mut Outbound, batch: &Batch, taken: usize) -> Pushed {
        let mut pushed = Pushed::default();
        let mut start = 0;
        for (end, push) in &*batch.frames {
            let (from, messages) = (start, push.messages() as u64);
            start = *end;
            if *end <= taken {
                pushed.delivered += messages;
                continue;
            }
            let frame = batch.bytes.slice(from..*end);
            let begun = taken.saturating_sub(from);
            if begun > 0 || self.fits(queue, frame.len()) {
                queue.push(push.clone(), frame, begun);
                pushed.delivered += messages;
                continue;
            }
            if self.closes_when_full(push) {
                self.close(Close::Slow);
                pushed.dropped += messages;
                return pushed;
            }
            let limit = self.limits.connection().min(queue.waiting() + self.limits.left());
            let older = queue.make_room(frame.len(), limit);
            pushed.dropped += older;
            pushed.delivered = pushed.delivered.saturating_sub(older);
            if self.fits(queue, frame.len()) {
                queue.push(push.clone(), frame, 0);
                pushed.delivered += messages;
            } else {
                queue.miss(push);
                pushed.dropped += messages;
            }
        }
        pushed
    }

    fn fits(&self, queue: &Outbound, more: usize) -> bool {
        let waiting = queue.waiting();
        // A frame larger than the limit is taken when it is the only one: whoever reads may be pushed anything.
        (waiting == 0 || waiting + more <= self.limits.connection()) && more <= self.limits.left()
    }

    fn closes_when_full(&self, push: &Push) -> bool {
        match push.parts().last().map_or(OnFull::Default, |part| part.on_full) {
            OnFull::Default => !self.variant.is_envelope(),
            OnFull::Drop => false,
            OnFull::Close => true,
        }
    }

    /// Hands a packet of ours to the socket, after whatever waits; it is never dropped.
    pub fn reply(&self, packet: &Packet) {
        self.reply_bytes(framed(self.variant.framing(), packet));
    }

    /// As [`Channel::reply`], for bytes that are framed already.
    pub fn reply_bytes(&self, bytes: Bytes) {
        let before = {
            let mut outbound = self.outbound.borrow_mut();
            let before = outbound.as_ref().map_or(0, |queue| queue.bytes());
            outbound.get_or_insert_default().reply(bytes);
            before
        };
        self.flush_from(before);
    }

    /// Writes what waits, as far as the socket takes it. Returns whether there is anything left to write.
    pub fn flush(&self) -> bool {
        let before = self.queued();
        self.flush_from(before)
    }

    fn flush_from(&self, before: usize) -> bool {
        let mut outbound = self.outbound.borrow_mut();
        let broken = match self.drain(&mut outbound) {
            Ok(()) => {
                *outbound = None;
                false
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(_) => {
                *outbound = None;
                true
            }
        };
        let after = outbound.as_ref().map_or(0, |queue| queue.bytes());
        drop(outbound);
        self.account(before, after);
        if broken {
            self.close(Close::Io);
            return false;
        }
        let more = after > 0 || self.wire.owes();
        if more {
            self.wake();
        }
        more
    }

    fn drain(&self, outbound: &mut Option<Box<Outbound>>) -> std::io::Result<()> {
        self.wire.drain()?;
        let Some(queue) = outbound else {
            return Ok(());
        };
        let (framing, tell) = (self.variant.framing(), self.variant.is_envelope());
        loop {
            let mut pieces = [IoSlice::new(&[]); MAX_PIECES];
            let count = queue.front(framing, tell, &mut pieces);
            if count == 0 {
                return Ok(());
            }
            let written = self.wire.try_write_vectored(&pieces[..count])?;
            queue.taken(written);
        }
    }

    /// Puts a last word after the frame that was begun, if the socket takes it, and says goodbye.
    pub fn finish(&self, last: Option<Bytes>) {
        let before = self.queued();
        if let Some(queue) = self.outbound.borrow_mut().as_mut() {
            queue.cut();
        }
        if let Some(last) = last {
            let mut outbound = self.outbound.borrow_mut();
            outbound.get_or_insert_default().reply(last);
            // The session is over: what the socket does not take now is not worth waiting for.
            let _best_effort = self.drain(&mut outbound);
        }
        drop(self.outbound.take());
        self.account(before, 0);
        self.wire.end();
    }

    /// Bytes that wait for the socket.
    pub fn queued(&self) -> usize {
        self.outbound.borrow().as_ref().map_or(0, |queue| queue.bytes())
    }

    /// The socket, for the connection's own task.
    pub fn wire(&self) -> &Wire {
        &self.wire
    }

    /// Waits for the next thing to do, reading only when `reads` and the client takes its replies.
    pub fn poll_next(&self, context: &mut Context<'_>, reads: bool) -> Poll<Next> {
        match &mut *self.waker.borrow_mut() {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        if let Some(reason) = self.closing.get() {
            return Poll::Ready(Next::Close(reason));
        }
        let (waits, replies) =
            self.outbound.borrow().as_ref().map_or((false, 0), |queue| (!queue.is_empty(), queue.reply_bytes()));
        if (waits || self.wire.owes()) && self.wire.poll_writable(context).is_ready() {
            return Poll::Ready(Next::Write);
        }
        if reads && replies < MAX_REPLIES && (self.wire.holds_input() || self.wire.poll_readable(context).is_ready()) {
            return Poll::Ready(Next::Read);
        }
        Poll::Pending
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn account(&self, before: usize, after: usize) {
        if after > before {
            self.limits.used.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.limits.used.fetch_sub(before - after, Ordering::Relaxed);
        }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.account(self.queued(), 0);
    }
}

impl QueueLimits {
    fn connection(&self) -> usize {
        self.connection.load(Ordering::Relaxed)
    }

    fn left(&self) -> usize {
        self.total.load(Ordering::Relaxed).saturating_sub(self.used.load(Ordering::Relaxed))
    }
}
