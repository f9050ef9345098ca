//! The stream of deliveries that job has to a comet.

use proto::comet::{BroadcastReq, BroadcastRoomReq, Owner, PushMsgReq};
use proto::delivery::down::Frame;
use proto::delivery::{ClaimReq, Down, KickReq, Remark, Up};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::support::*;

/// A job's end of a stream.
struct Job {
    frames: mpsc::UnboundedSender<Down>,
    up: Streaming<Up>,
    taken: u64,
    remarks: Vec<Remark>,
}

impl Job {
    async fn open(comet: &Comet) -> Self {
        let (frames, sent) = mpsc::unbounded_channel();
        let up = within(comet.delivery().deliver(UnboundedReceiverStream::new(sent))).await.unwrap().into_inner();
        let mut job = Self { frames, up, taken: 0, remarks: vec![] };
        let welcome = job.answer().await.unwrap().unwrap();
        assert_eq!((welcome.taken, welcome.credit), (0, 4 << 20));
        job
    }

    fn send(&self, frame: Frame) {
        self.frames.send(Down { traceparent: String::new(), frame: Some(frame) }).unwrap();
    }

    fn room(&self, offset: u64, generation: i32) {
        let owner = Some(Owner { group: "g".into(), generation, floor: Some(0) });
        let proto = Some(raw(&[&offset.to_string()]));
        self.send(Frame::Room(BroadcastRoomReq { room_id: "r".into(), proto, ids: vec![id(offset)], owner }));
    }

    fn claim(&self, generation: i32) {
        self.send(Frame::Claim(ClaimReq { group: "g".into(), epoch: 7, partitions: vec![3], generation }));
    }

    async fn answer(&mut self) -> Result<Option<Up>, Status> {
        within(self.up.message()).await
    }

    /// Waits until so many frames are taken.
    async fn taken(&mut self, count: u64) {
        while self.taken < count {
            let up = self.answer().await.unwrap().unwrap();
            assert!(up.taken > self.taken && up.taken <= count, "{up:?}");
            self.taken = up.taken;
            self.remarks.extend(up.remarks);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_frames_are_ahead_of_their_answers_and_arrive_once_and_in_order() {
    let (comet, _) = comet(&[]).await;
    let mut client = Client::signed_in(&comet, true, r#"{"key":"k","room_id":"r"}"#).await;
    let mut job = Job::open(&comet).await;
    job.claim(1);
    (0..500).for_each(|offset| job.room(offset, 1));
    // As after a stream that broke: another one brings the last of them again.
    let mut again = Job::open(&comet).await;
    again.claim(1);
    job.taken(501).await;
    (400..600).for_each(|offset| again.room(offset, 1));
    again.taken(201).await;
    let mut got = Vec::new();
    while got.len() < 600 {
        got.extend(client.pushed().await.into_iter().map(|(_, body)| body));
    }
    assert_eq!(got, (0..600).map(|offset| offset.to_string()).collect::<Vec<_>>());
    client.got_nothing().await;
    assert_eq!((job.remarks, again.remarks), (vec![], vec![]));
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_says_of_each_frame_what_a_call_would_have() {
    let (comet, _) = comet(&[]).await;
    let mut client = Client::signed_in(&comet, false, r#"{"key":"here","room_id":"r","accepts":[1000]}"#).await;
    let mut job = Job::open(&comet).await;
    job.claim(5);
    job.claim(4);
    job.room(1, 4);
    job.room(2, 5);
    let keys = ["here", "gone"].map(str::to_owned).to_vec();
    job.send(Frame::Keys(PushMsgReq { keys, proto: Some(raw(&["k"])), proto_op: 1000, ..Default::default() }));
    job.send(Frame::All(BroadcastReq { proto_op: 1000, proto: Some(raw(&["a"])), ..Default::default() }));
    job.send(Frame::All(BroadcastReq::default()));
    job.room(65_536, 5);
    job.frames.send(Down::default()).unwrap();
    job.taken(9).await;
    let remark = |frame| Remark { frame, ..Remark::default() };
    let refused = |frame, code: Code, text: &str| Remark { code: code as i32, text: text.into(), ..remark(frame) };
    let expected = [
        Remark { fenced: vec![3], ..remark(2) },
        refused(3, Code::FailedPrecondition, "fenced"),
        Remark { not_here: vec!["gone".into()], ..remark(5) },
        refused(7, Code::Unknown, "rpc broadcast arg error"),
        refused(8, Code::OutOfRange, "record 65536 of partition 3 is too far above its floor"),
        refused(9, Code::Unimplemented, "a frame of a kind that this comet does not know"),
    ];
    assert_eq!(job.remarks, expected);
    // Room, keys and all keep no order among one another.
    let mut got = [client.pushed().await, client.pushed().await, client.pushed().await].concat();
    got.sort();
    assert_eq!(got, ["2", "a", "k"].map(|body| (1000, body.to_owned())));
    job.send(Frame::Kick(KickReq { keys: vec!["here".into()], ..Default::default() }));
    job.taken(10).await;
    client.closes().await;
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comet_that_ends_ends_its_streams() {
    let (comet, _) = comet(&[]).await;
    let mut job = Job::open(&comet).await;
    job.claim(1);
    job.taken(1).await;
    comet.stop().await;
    assert!(!matches!(job.answer().await, Ok(Some(_))));
}
