//! The open stream to one comet: what was sent on it and is not answered, and how much more may be.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::StreamExt;
use prost::Message as _;
use proto::delivery::down::Frame;
use proto::delivery::{ClaimReq, Down, Interest, Mark, Marks, Remark, Up};
use tokio::time::Instant;

use super::queue::{Batch, Vouch};
use super::{Call, CometError, Link};
use crate::push::Partition;

/// What a frame carried.
#[derive(Clone, Debug)]
pub enum Sent {
    /// A claim of these partitions.
    Claim(Vec<Arc<Partition>>),
    /// What we vouch for.
    Marks(Vec<Vouch>),
    /// Records, and when they were sent.
    Batch(Batch, Instant),
}

/// What a comet said.
#[derive(Debug)]
pub struct Said {
    /// In which rooms somebody is there; holds before what it answers.
    pub interest: Option<Interest>,
    /// The frames that are taken, in their order, each with what there is to say of it.
    pub answered: Vec<(Sent, Remark)>,
}

/// A stream and what is out on it.
#[derive(Debug)]
pub struct Pipe {
    link: Link,
    /// Frames without an answer and their sizes, oldest first.
    sent: VecDeque<(u64, Sent)>,
    /// Their bytes.
    ahead: u64,
    /// Frames with an answer.
    taken: u64,
}

impl Pipe {
    /// Nothing was sent on it yet.
    pub fn new(link: Link) -> Self {
        Self { link, sent: VecDeque::new(), ahead: 0, taken: 0 }
    }

    /// Whether one more frame may be sent before the next answer.
    pub fn has_credit(&self) -> bool {
        self.ahead < self.link.credit || self.sent.is_empty()
    }

    /// Claims partitions of one epoch and generation.
    pub fn claim(&mut self, claim: ClaimReq, partitions: Vec<Arc<Partition>>) {
        let frame = Down { frame: Some(Frame::Claim(claim)), ..Down::default() };
        let size = frame.encoded_len();
        self.put(frame, size, Sent::Claim(partitions));
    }

    /// Vouches for partitions.
    pub fn vouch(&mut self, vouches: Vec<Vouch>) {
        let same = |a: &Vouch, b: &Vouch| {
            (a.partition.epoch, a.partition.generation) == (b.partition.epoch, b.partition.generation)
        };
        for same in vouches.chunk_by(same) {
            let Partition { group, epoch, generation, .. } = &*same[0].partition;
            let mark = |&Vouch { ref partition, from, through, floor, sent }: &Vouch| Mark {
                partition: partition.number,
                from,
                through,
                floor,
                sent,
            };
            let marks = same.iter().map(mark).collect();
            let marks = Marks { group: group.to_string(), epoch: *epoch, generation: *generation, marks };
            let frame = Down { frame: Some(Frame::Marks(marks)), ..Down::default() };
            let size = frame.encoded_len();
            self.put(frame, size, Sent::Marks(same.to_vec()));
        }
    }

    /// Sends a batch.
    ///
    /// # Errors
    /// When it is larger than what a comet takes: nothing was sent.
    pub fn send(&mut self, batch: Batch, now: Instant) -> Result<(), (Batch, CometError)> {
        let frame = Call::of(&batch.items, &batch.partition).frame(batch.trace());
        let size = frame.encoded_len();
        if size > proto::grpc::MAX_MESSAGE {
            let text = format!("a batch of {size} bytes: lower --batch-bytes");
            return Err((batch, CometError::Refused { reason: "out_of_range", text }));
        }
        self.put(frame, size, Sent::Batch(batch, now));
        Ok(())
    }

    fn put(&mut self, frame: Down, size: usize, sent: Sent) {
        // A stream that broke says so when it is next asked for answers.
        let _broken = self.link.down.send(frame);
        self.ahead += size as u64;
        self.sent.push_back((size as u64, sent));
    }

    /// Waits for answers. Cancel safe.
    ///
    /// # Errors
    /// When the stream is over: what was not answered may or may not have been taken.
    pub async fn answers(&mut self) -> Result<Said, CometError> {
        match self.link.up.next().await {
            Some(Ok(up)) => self.answered(up),
            Some(Err(error)) => Err(error),
            None => Err(CometError::Away("the comet ended the stream".to_owned())),
        }
    }

    fn answered(&mut self, up: Up) -> Result<Said, CometError> {
        let count = up.taken.checked_sub(self.taken).filter(|count| *count <= self.sent.len() as u64);
        let Some(count) = count else {
            return Err(CometError::Away(format!("the comet answered frame {}, which was not sent", up.taken)));
        };
        let mut remarks = up.remarks.into_iter().peekable();
        let mut answered = Vec::with_capacity(count as usize);
        for (size, sent) in self.sent.drain(..count as usize) {
            self.taken += 1;
            self.ahead -= size;
            let remark = remarks.next_if(|remark| remark.frame == self.taken).unwrap_or_default();
            answered.push((sent, remark));
        }
        Ok(Said { interest: up.interest, answered })
    }
}

#[cfg(test)]
mod tests {
    use proto::logic::PushMsg;
    use tokio::sync::mpsc;

    use super::*;
    use crate::push::Push;
    use crate::push::tests::{partition, record};
    use crate::room::Item;

    fn pipe(credit: u64) -> (Pipe, mpsc::UnboundedReceiver<Down>, mpsc::UnboundedSender<Result<Up, CometError>>) {
        let (down, frames) = mpsc::unbounded_channel();
        let (answers, up) = mpsc::unbounded_channel();
        let up = Box::pin(tokio_stream::wrappers::UnboundedReceiverStream::new(up));
        (Pipe::new(Link { credit, down, up }), frames, answers)
    }

    fn batch(size: usize) -> Batch {
        let message = PushMsg { r#type: 1, room: "a://1".into(), msg: vec![0; size].into(), ..Default::default() };
        let push = Push::decode(&record(0, 3, &message), 1, Instant::now()).unwrap();
        Batch { partition: partition(0), items: Arc::new(vec![Item { push: Arc::new(push), speed: 0 }]) }
    }

    #[tokio::test]
    async fn beyond_the_credit_nothing_is_sent_until_the_comet_answers() {
        let (mut pipe, _frames, answers) = pipe(1000);
        for _ in 0..2 {
            assert!(pipe.has_credit());
            pipe.send(batch(600), Instant::now()).unwrap();
        }
        assert!(!pipe.has_credit());
        answers.send(Ok(Up { taken: 1, ..Up::default() })).unwrap();
        assert_eq!(pipe.answers().await.unwrap().answered.len(), 1);
        assert!(pipe.has_credit());
    }

    #[tokio::test]
    async fn a_batch_larger_than_the_credit_goes_alone_and_one_that_no_comet_takes_does_not_go() {
        let (mut pipe, mut frames, _answers) = pipe(10);
        assert!(pipe.has_credit());
        pipe.send(batch(900_000), Instant::now()).unwrap();
        assert!(!pipe.has_credit() && frames.recv().await.is_some());
        let (_, error) = pipe.send(batch(17 << 20), Instant::now()).unwrap_err();
        assert!(matches!(error, CometError::Refused { reason: "out_of_range", .. }), "{error}");
        assert!(frames.try_recv().is_err());
    }

    #[tokio::test]
    async fn one_answer_is_for_all_frames_until_there_and_remarks_find_theirs() {
        let (mut pipe, _frames, answers) = pipe(1 << 20);
        pipe.claim(ClaimReq::default(), vec![partition(0)]);
        for _ in 0..3 {
            pipe.send(batch(1), Instant::now()).unwrap();
        }
        let remarks = vec![
            Remark { frame: 1, fenced: vec![7], ..Remark::default() },
            Remark { frame: 3, not_here: vec!["k".into()], ..Remark::default() },
        ];
        answers.send(Ok(Up { taken: 3, remarks, ..Up::default() })).unwrap();
        let said = pipe.answers().await.unwrap().answered;
        assert!(matches!(said[0].0, Sent::Claim(_)) && said[0].1.fenced == [7]);
        assert_eq!(said[1].1, Remark::default());
        assert_eq!(said[2].1.not_here, ["k"]);
        answers.send(Ok(Up { taken: 4, ..Up::default() })).unwrap();
        assert_eq!(pipe.answers().await.unwrap().answered.len(), 1);
    }

    #[tokio::test]
    async fn an_answer_to_what_was_not_sent_ends_the_stream() {
        for taken in [2, u64::MAX] {
            let (mut pipe, _frames, answers) = pipe(1 << 20);
            pipe.send(batch(1), Instant::now()).unwrap();
            answers.send(Ok(Up { taken, ..Up::default() })).unwrap();
            assert!(matches!(pipe.answers().await, Err(CometError::Away(_))));
        }
    }
}
