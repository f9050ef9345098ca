//! A connection that is served: its task reads, answers, finishes what its socket refused, and cleans up.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use proto::packet::Packet;
use proto::{Key, Mid};

use super::{Places, last_word};
use crate::channel::{Channel, Next};
use crate::close::Close;
use crate::input::Input;
use crate::requests::Requests;
use crate::shard::{Registration, Shard};

/// How often a session's end or refresh is tried again while logic is away.
pub(super) const RETRY: Duration = Duration::from_secs(10);
/// How long a client of a draining comet has to take what waits for it.
const LAST_FLUSH: Duration = Duration::from_secs(2);
/// The longest pause between two tries to tell logic of a session's end.
const SELDOM: Duration = Duration::from_secs(60);

/// One connection's task.
pub(super) struct Session {
    pub(super) requests: Requests,
    pub(super) input: Input,
    pub(super) registration: Registration,
    pub(super) _places: Places,
}

/// Has logic told of the end of a session also when its task panics.
struct Ended {
    shard: Rc<Shard>,
    mid: Mid,
    key: Key,
}

impl Drop for Ended {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tokio::task::spawn_local(depart(self.shard.clone(), self.mid, self.key.clone()));
        }
    }
}

enum Event {
    Answered(Option<Packet>),
    Next(Next),
}

impl Session {
    /// Serves until the connection ends, then tells logic.
    pub(super) async fn run(mut self) {
        let channel = self.registration.channel().clone();
        let ended = Ended { shard: self.registration.shard().clone(), mid: channel.mid, key: channel.key.clone() };
        let reason = match self.serve(&channel).await {
            Ok(never) => match never {},
            Err(reason) => reason,
        };
        channel.close(reason);
        let reason = channel.closing().unwrap_or(reason);
        if matches!(reason, Close::Drain | Close::Missed | Close::Moved) {
            // What was pushed before the close is still the client's; who does not read by then goes without.
            let _in_time = tokio::time::timeout(LAST_FLUSH, flushed(&channel)).await;
        }
        let last = last_word(channel.variant.framing(), self.requests.caps(), reason, self.requests.goodbye());
        channel.finish(last);
        tracing::debug!(mid = %ended.mid, key = %ended.key, reason = reason.label(), "client gone");
        // The last that holds the socket: it closes now, however long logic takes.
        drop((self, channel));
        let is_here_again = reason == Close::Moved && ended.shard.bucket.get(&ended.key).is_some();
        if reason != Close::Replaced && !is_here_again {
            depart(ended.shard.clone(), ended.mid, ended.key.clone()).await;
        }
    }

    async fn serve(&mut self, channel: &Rc<Channel>) -> Result<std::convert::Infallible, Close> {
        self.take(&mut [])?;
        loop {
            let event = poll_fn(|context| {
                if let Some(call) = self.requests.waiting()
                    && let Poll::Ready(reply) = call.as_mut().poll(context)
                {
                    return Poll::Ready(Event::Answered(reply));
                }
                channel.poll_next(context, self.requests.waiting().is_none()).map(Event::Next)
            })
            .await;
            match event {
                Event::Answered(reply) => {
                    self.requests.answered(reply);
                    self.take(&mut [])?;
                    self.read(channel)?;
                }
                Event::Next(Next::Close(reason)) => return Err(reason),
                Event::Next(Next::Write) => {
                    channel.flush();
                }
                Event::Next(Next::Read) => self.read(channel)?,
            }
        }
    }

    /// Reads once. What TLS decrypted beyond that is read next, when others have had their turn.
    fn read(&mut self, channel: &Channel) -> Result<(), Close> {
        let shard = self.registration.shard().clone();
        let mut scratch = shard.scratch.borrow_mut();
        if self.requests.waiting().is_some() {
            return Ok(());
        }
        match channel.wire().try_read(&mut scratch) {
            Ok(0) => Err(Close::Gone),
            Ok(read) => self.take(&mut scratch[..read]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Err(Close::Gone),
            Err(_) => Err(Close::Io),
        }
    }

    fn take(&mut self, fresh: &mut [u8]) -> Result<(), Close> {
        let Self { requests, input, .. } = self;
        if requests.waiting().is_some() {
            return Ok(());
        }
        input.read(fresh, |incoming| requests.take(incoming))
    }
}

/// Waits until nothing waits for the socket, or it breaks.
async fn flushed(channel: &Channel) {
    while channel.flush() {
        if poll_fn(|context| channel.wire().poll_writable(context)).await.is_err() {
            return;
        }
    }
}

/// Refreshes a session at logic, now and, while logic is away, again and again.
pub async fn refresh(shard: Rc<Shard>, channel: Rc<Channel>) {
    channel.refresh.set(shard.tick_after(RETRY.min(channel.refresh_every.get())));
    match shard.shared.logic.heartbeat(channel.held()).await {
        Ok(()) => channel.refresh.set(shard.tick_after(channel.refresh_every.get())),
        Err(error) => {
            shard.shared.logic_failed("heartbeat", &error);
            tracing::debug!(%error, "session not refreshed");
        }
    }
}

/// Tells logic that a session ended, again and again until its time to live has passed: nobody else ends it, and nobody is
/// let in while logic does not answer, so no more of these wait than there were connections. When the key is here again by
/// then, its session is written once more.
pub async fn depart(shard: Rc<Shard>, mid: Mid, key: Key) {
    let _counted = shard.shared.departing();
    let turn = shard.turn(&key);
    let until = tokio::time::Instant::now() + shard.session_ttl.get();
    let mut pause = RETRY;
    loop {
        let mine = turn.lock().await;
        if shard.bucket.get(&key).is_some_and(|channel| channel.mid == mid) {
            break;
        }
        let answer = shard.shared.logic.disconnect(mid, &key).await;
        shard.departed.borrow_mut().insert(key.clone(), Instant::now());
        drop(mine);
        match answer {
            Ok(_) => break,
            Err(error) => {
                shard.shared.logic_failed("disconnect", &error);
                tracing::debug!(%error, "end of a session not told");
            }
        }
        if shard.bucket.get(&key).is_some() || tokio::time::Instant::now() >= until {
            break;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(SELDOM);
    }
    if let Some(channel) = shard.bucket.get(&key) {
        refresh(shard, channel).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::task::{LocalSet, spawn_local};
    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::logic::memory::MemoryLogic;
    use crate::logic::{Held, Logic};
    use crate::session::GOIM_TTL;
    use crate::testing;

    #[tokio::test(start_paused = true)]
    async fn who_left_is_told_of_however_long_logic_is_away_until_the_session_has_ended_by_itself() {
        let alone = async {
            let logic = Arc::new(MemoryLogic::default());
            let shard = testing::shard(logic.clone());
            logic.heartbeat(Held { mid: Mid(1), key: "k".into(), connected_ms: 5 }).await.unwrap();
            logic.set_down(true);
            let telling = spawn_local(depart(shard.clone(), Mid(1), "k".into()));
            sleep(Duration::from_secs(600)).await;
            assert!(!telling.is_finished());
            logic.set_down(false);
            telling.await.unwrap();
            assert!(logic.sessions().is_empty());

            logic.set_down(true);
            let began = Instant::now();
            depart(shard, Mid(1), "k".into()).await;
            assert!((GOIM_TTL..GOIM_TTL + SELDOM).contains(&began.elapsed()), "{:?}", began.elapsed());
        };
        LocalSet::new().run_until(alone).await;
    }
}
