//! The stream of deliveries that one job has to this comet: frames are handed to the shards in their order, many at a
//! time, and answered in their order as the shards take them.
//!
//! Bounded by credit: job stops while so many bytes are not answered, so a comet whose shards are slow slows down job
//! instead of filling up.

use std::task::Poll;

use futures::poll;
use proto::Key;
use proto::delivery::down::Frame;
use proto::delivery::{Down, Remark, Up};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::{Pending, Service};

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
        () = answer(handed, &answers) => {}
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
                Ok(missing) => Remark { not_here: missing.iter().map(Key::to_string).collect(), ..Remark::default() },
                Err(status) => refusal(&status),
            },
        }
    }
}

fn refusal(status: &Status) -> Remark {
    Remark { code: status.code() as i32, text: status.message().to_owned(), ..Remark::default() }
}

/// Answers frames in their order; one message answers all that are taken by then.
async fn answer(mut handed: mpsc::UnboundedReceiver<Taken>, answers: &Answers) {
    let mut up = Up { credit: CREDIT, ..Up::default() };
    let (mut frame, mut held) = (0, None);
    while answers.send(Ok(std::mem::take(&mut up))).await.is_ok() {
        let mut next = match held.take() {
            Some(next) => next,
            None => match handed.recv().await {
                Some(taken) => Box::pin(taken.answered()),
                None => return,
            },
        };
        let mut remark = next.as_mut().await;
        loop {
            frame += 1;
            up.taken = frame;
            if remark != Remark::default() {
                up.remarks.push(Remark { frame, ..remark });
            }
            let Ok(taken) = handed.try_recv() else {
                break;
            };
            next = Box::pin(taken.answered());
            match poll!(next.as_mut()) {
                Poll::Ready(ready) => remark = ready,
                Poll::Pending => {
                    held = Some(next);
                    break;
                }
            }
        }
    }
}
