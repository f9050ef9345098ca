//! The stream of deliveries that job has to a comet.

use std::collections::BTreeSet;

use proto::comet::{BroadcastReq, BroadcastRoomReq, Owner, PushMsgReq};
use proto::delivery::down::Frame;
use proto::delivery::{ClaimReq, Down, Interest, KickReq, Mark, Marks, Remark, Up};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::support::*;

/// A job's end of a stream.
pub struct Job {
    pub frames: mpsc::UnboundedSender<Down>,
    up: Streaming<Up>,
    taken: u64,
    pub remarks: Vec<Remark>,
    rooms: BTreeSet<String>,
    knows_rooms: bool,
}

impl Job {
    pub async fn open(comet: &Comet) -> Self {
        let (frames, sent) = mpsc::unbounded_channel();
        let up = within(comet.delivery().deliver(UnboundedReceiverStream::new(sent))).await.unwrap().into_inner();
        let mut job = Self { frames, up, taken: 0, remarks: vec![], rooms: BTreeSet::new(), knows_rooms: false };
        let welcome = job.answer().await.unwrap().unwrap();
        assert_eq!((welcome.taken, welcome.credit), (0, 4 << 20));
        job
    }

    pub fn send(&self, frame: Frame) {
        self.frames.send(Down { traceparent: String::new(), frame: Some(frame) }).unwrap();
    }

    fn room(&self, offset: u64, generation: i32) {
        let owner = Some(Owner { group: "g".into(), generation, floor: Some(0) });
        let proto = Some(raw(&[&offset.to_string()]));
        self.send(Frame::Room(BroadcastRoomReq { room_id: "r".into(), proto, ids: vec![id(offset)], owner }));
    }

    fn claim(&self, generation: i32) {
        self.claim_of(vec![3], generation);
    }

    /// Claims these of four partitions.
    pub fn claim_of(&self, partitions: Vec<u32>, generation: i32) {
        let (group, partitions_in_topic) = ("g".into(), 4);
        let claim = ClaimReq { group, epoch: 7, partitions, generation, partitions_in_topic, takeover: false };
        self.send(Frame::Claim(claim));
    }

    fn mark(&self, from: u64, through: u64, generation: i32) {
        let marks = vec![Mark { partition: 3, from, through, floor: through, sent: through }];
        self.send(Frame::Marks(Marks { group: "g".into(), epoch: 7, generation, marks }));
    }

    async fn answer(&mut self) -> Result<Option<Up>, Status> {
        within(self.up.message()).await
    }

    fn hear(&mut self, up: Up) {
        if let Some(Interest { entered, left, complete }) = up.interest {
            left.iter().for_each(|room| assert!(self.rooms.remove(room), "{room} was not there"));
            self.rooms.extend(entered);
            self.knows_rooms |= complete;
        }
        self.taken = up.taken;
        self.remarks.extend(up.remarks);
    }

    /// Waits until these are the rooms that somebody is in.
    async fn until_rooms(&mut self, rooms: &[&str]) {
        while !self.knows_rooms || !self.rooms.iter().eq(rooms) {
            let up = self.answer().await.unwrap().unwrap();
            self.hear(up);
        }
    }

    /// Waits until so many frames are taken.
    pub async fn taken(&mut self, count: u64) {
        while self.taken < count {
            let up = self.answer().await.unwrap().unwrap();
            assert!(up.taken <= count, "{up:?}");
            assert!(up.taken > self.taken || up.interest.is_some(), "{up:?}");
            self.hear(up);
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

#[tokio::test(flavor = "multi_thread")]
async fn who_was_here_while_records_were_missed_is_told_or_closed_and_who_comes_later_is_neither() {
    let (comet, logic) = comet(&[]).await;
    let mut caps = Client::tcp(&comet).await;
    caps.send(&packet(7, 1, r#"{"key":"caps","room_id":"r","caps":["envelope"]}"#)).await;
    assert_eq!(caps.packet().await.op, 8);
    let mut tcp = Client::signed_in(&comet, false, r#"{"key":"tcp","room_id":"r"}"#).await;
    let mut ws = Client::signed_in(&comet, true, r#"{"key":"ws","room_id":"r"}"#).await;
    let mut job = Job::open(&comet).await;
    job.mark(100, 100, 1);
    job.room(100, 1);
    job.mark(100, 101, 1);
    job.taken(3).await;
    assert_eq!(caps.packet().await.op, 25);
    assert_eq!((tcp.pushed().await, ws.pushed().await), (vec![(1000, "100".into())], vec![(1000, "100".into())]));

    let mut later = Job::open(&comet).await;
    later.mark(105, 105, 2);
    later.room(105, 2);
    later.taken(2).await;
    let gap = caps.packet().await;
    let body = r#"{"reason":"missed","dropped":4,"ranges":[{"partition":3,"from":101,"to":104}]}"#;
    assert_eq!((gap.op, &gap.body[..]), (23, body.as_bytes()));
    assert_eq!(caps.packet().await.op, 25);
    tcp.rest().await;
    assert!(ws.rest().await.ends_with(&[0x88, 2, 0x03, 0xf5]));
    eventually("logic is told", || disconnected(&logic).len() == 2).await;
    assert_eq!((comet.closed("missed"), comet.metric("holes_total")), (2.0, 1.0));

    let mut back = Client::signed_in(&comet, true, r#"{"key":"ws","room_id":"r"}"#).await;
    later.mark(105, 106, 2);
    // What was missed is missed for good: it would come after what was later.
    later.room(103, 2);
    job.mark(101, 107, 1);
    job.taken(4).await;
    later.taken(4).await;
    back.got_nothing().await;
    assert_eq!(job.remarks, [Remark { frame: 4, fenced: vec![3], ..Remark::default() }]);
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_owner_that_begins_where_was_committed_tells_nobody_of_a_gap() {
    let (comet, _) = comet(&[]).await;
    let mut client = Client::signed_in(&comet, true, r#"{"key":"k","room_id":"r"}"#).await;
    let mut job = Job::open(&comet).await;
    job.mark(0, 0, 1);
    (0..5).for_each(|offset| job.room(offset, 1));
    job.mark(0, 5, 1);
    job.taken(7).await;
    let mut later = Job::open(&comet).await;
    later.mark(3, 3, 2);
    (3..7).for_each(|offset| later.room(offset, 2));
    later.mark(3, 7, 2);
    later.taken(6).await;
    let mut got = Vec::new();
    while got.len() < 7 {
        got.extend(client.pushed().await.into_iter().map(|(_, body)| body));
    }
    assert_eq!(got, ["0", "1", "2", "3", "4", "5", "6"]);
    client.got_nothing().await;
    assert_eq!(comet.metric("holes_total"), 0.0);
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waited_for_a_comet_comes_although_nobody_vouches_for_what_was_before_it_was_known() {
    let (comet, _) = comet(&[]).await;
    let mut client = Client::signed_in(&comet, true, r#"{"key":"k","room_id":"r"}"#).await;
    let mut job = Job::open(&comet).await;
    let marks = vec![Mark { partition: 3, from: 9, through: 9, floor: 2, sent: 0 }];
    job.send(Frame::Marks(Marks { group: "g".into(), epoch: 7, generation: 1, marks }));
    job.room(4, 1);
    job.taken(2).await;
    assert_eq!(client.pushed().await, [(1000, "4".into())]);
    assert_eq!(comet.metric("holes_total"), 0.0);
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_says_in_which_rooms_somebody_is_and_a_room_before_what_is_answered_after_it_began() {
    let (comet, _) = comet(&[]).await;
    let mut first = Client::signed_in(&comet, false, r#"{"key":"a","room_id":"r"}"#).await;
    let mut job = Job::open(&comet).await;
    job.until_rooms(&["r"]).await;
    let second = Client::signed_in(&comet, true, r#"{"key":"b","room_id":"s"}"#).await;
    job.mark(0, 0, 1);
    job.taken(1).await;
    assert!(job.rooms.contains("s"), "the client was told that it is in before this mark was sent");
    drop(second);
    job.until_rooms(&["r"]).await;
    first.send(&packet(12, 2, "t")).await;
    assert_eq!(first.packet().await.op, 13);
    job.until_rooms(&["t"]).await;
    let mut later = Job::open(&comet).await;
    later.until_rooms(&["t"]).await;
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_older_than_a_room_here_is_not_for_it_and_a_client_is_told_from_where_on_it_is_given_all() {
    let (comet, _) = comet(&[]).await;
    let mut job = Job::open(&comet).await;
    job.mark(0, 3, 1);
    job.room(4, 1);
    job.taken(2).await;
    let mut client = Client::tcp(&comet).await;
    client.send(&packet(7, 1, r#"{"key":"k","room_id":"r","caps":["rooms"]}"#)).await;
    let welcome = String::from_utf8(client.packet().await.body.to_vec()).unwrap();
    assert!(welcome.ends_with(r#""through":{"3":5}}"#), "{welcome}");
    // From a job that takes over: none of it was for this client, and all of it would come after what is later.
    let mut later = Job::open(&comet).await;
    later.mark(3, 3, 2);
    (3..6).for_each(|offset| later.room(offset, 2));
    later.taken(4).await;
    let pushed = client.packet().await;
    assert_eq!((pushed.op, pushed.body.last()), (25, Some(&b'5')));
    client.send(&packet(19, 2, r#"["s"]"#)).await;
    assert_eq!(client.packet().await.body, r#"{"s":"ok","through":{"3":6}}"#.as_bytes());
    assert_eq!(comet.metric(r#"dropped_total{reason="before_room"}"#), 2.0);
    comet.stop().await;
}
