//! The stream of deliveries that one job has to this comet: frames are handed to the shards in their order, many at a
//! time, and answered in their order as the shards take them.
//!
//! The answers also say in which rooms somebody is here ([`crate::interest`]).
//!
//! Bounded by credit: job stops while so many bytes are not answered, so a comet whose shards are slow slows down job
//! instead of filling up.

use std::pin::{Pin, pin};
use std::task::Poll;

use futures::poll;
use proto::Key;
use proto::delivery::down::Frame;
use proto::delivery::{Down, Remark, Up};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::{Pending, Service};
use crate::interest;
use crate::shard::Without;

/// Bytes of frames that job may send ahead of our answers.
const CREDIT: u64 = 4 * 1024 * 1024;

/// The way back to job.
pub(super) type Answers = mpsc::Sender<Result<Up, Status>>;

/// A frame that was handed to the shards, or what there is to say of it already.
enum Taken {
    Handed(Pending),
    Answered(Remark),
}

/// Serves one stream until job ends it, it breaks, or this comet ends.
pub(super) async fn serve(service: Service, mut frames: Streaming<Down>, answers: Answers) {
    // Credit bounds what can be in here.
    let (handing, handed) = mpsc::unbounded_channel();
    let rooms = service.shared.interest.stream();
    let reading = async {
        loop {
            match frames.message().await {
                Ok(Some(frame)) => {
                    if handing.send(take(&service, frame).await).is_err() {
                        return;
                    }
                }
                Ok(None) => return,
                Err(error) => return tracing::debug!(%error, "a job's stream broke"),
            }
        }
    };
    tokio::select! {
        () = reading => {}
        () = answer(handed, &rooms, &answers) => {}
        () = service.ending.cancelled() => {
            // A job that does not read has no use for the reason either.
            let _best_effort = answers.try_send(Err(Status::unavailable("this comet is ending")));
        }
    }
}

async fn take(service: &Service, Down { traceparent, frame }: Down) -> Taken {
    let trace = (!traceparent.is_empty()).then_some(traceparent.as_str());
    let handed = match frame {
        Some(Frame::Keys(request)) => service.hand_keys(request, trace).await,
        Some(Frame::Room(request)) => service.hand_room(request, trace).await,
        Some(Frame::All(request)) => service.hand_all(request, trace).await,
        Some(Frame::Kick(request)) => {
            service.hear_kick(request);
            Ok(Pending::default())
        }
        Some(Frame::Claim(claim)) => {
            return Taken::Answered(Remark { fenced: service.hear_claim(claim), ..Remark::default() });
        }
        Some(Frame::Marks(marks)) => {
            return Taken::Answered(Remark { fenced: service.hear_marks(marks), ..Remark::default() });
        }
        None => Err(Status::unimplemented("a frame of a kind that this comet does not know")),
    };
    handed.map_or_else(|status| Taken::Answered(refusal(&status)), Taken::Handed)
}

impl Taken {
    async fn answered(self) -> Remark {
        match self {
            Self::Answered(remark) => remark,
            Self::Handed(pending) => match pending.taken().await {
                Ok(Without { missing, overtaken }) => {
                    let names = |keys: Vec<Key>| keys.iter().map(Key::to_string).collect();
                    Remark { not_here: names(missing), overtaken: names(overtaken), ..Remark::default() }
                }
                Err(status) => refusal(&status),
            },
        }
    }
}

fn refusal(status: &Status) -> Remark {
    Remark { code: status.code() as i32, text: status.message().to_owned(), ..Remark::default() }
}

/// Frames on their way through the shards.
struct Frames {
    handed: mpsc::UnboundedReceiver<Taken>,
    /// The oldest that is not taken yet, if it was looked at.
    held: Option<Pin<Box<dyn Future<Output = Remark> + Send>>>,
}

impl Frames {
    /// What there is to say of the next frame once it is taken; `None` after the last. Cancel safe.
    async fn next(&mut self) -> Option<Remark> {
        let held = match &mut self.held {
            Some(held) => held,
            none => none.insert(Box::pin(self.handed.recv().await?.answered())),
        };
        let remark = held.await;
        self.held = None;
        Some(remark)
    }
}

/// Answers frames in their order, one message all that are taken by then, and says before that which rooms changed.
async fn answer(handed: mpsc::UnboundedReceiver<Taken>, rooms: &interest::Stream, answers: &Answers) {
    let mut frames = Frames { handed, held: None };
    let mut taken = 0;
    let welcome = Up { credit: CREDIT, ..Up::default() };
    if answers.send(Ok(welcome)).await.is_err() {
        return;
    }
    loop {
        let (mut up, before) = (Up::default(), taken);
        let mut next = tokio::select! {
            remark = frames.next() => match remark {
                Some(remark) => Some(remark),
                None => return,
            },
            () = rooms.changed() => None,
        };
        while let Some(remark) = next {
            taken += 1;
            if remark != Remark::default() {
                up.remarks.push(Remark { frame: taken, ..remark });
            }
            next = match poll!(pin!(frames.next())) {
                Poll::Ready(remark) => remark,
                Poll::Pending => None,
            };
        }
        // After it is known what is answered: so all that was noted before it was taken goes first.
        let Some(mut changes) = rooms.take() else {
            let text = "this stream has not taken which rooms changed: begin another";
            // A job that does not read has no use for the reason either.
            let _best_effort = answers.try_send(Err(Status::resource_exhausted(text)));
            return;
        };
        up.interest = changes.pop();
        up.taken = taken;
        for interest in changes {
            let first = Up { taken: before, interest: Some(interest), ..Up::default() };
            if answers.send(Ok(first)).await.is_err() {
                return;
            }
        }
        let is_news = taken > before || up.interest.is_some();
        if is_news && answers.send(Ok(up)).await.is_err() {
            return;
        }
    }
}
