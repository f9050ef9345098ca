//! One record on its way: decoded once, shared by every comet that is owed it.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use prost::Message;
use proto::comet::Id;
use proto::log::Record;
use proto::logic::PushMsg;
use proto::logic::push_msg::Type;
use proto::{ServerId, packet};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::ledger::Ledger;

/// One partition while it is assigned to us. A later assignment is another value, so what is left of an earlier one
/// can never be counted for it.
#[derive(Debug)]
pub struct Partition {
    /// Its number in the topic.
    pub number: u32,
    /// The consumer group's generation in which we got it.
    pub generation: i32,
    /// The consumer group.
    pub group: Arc<str>,
    /// Names the topic's incarnation in ids; 0 = ids are not to be filtered by.
    pub epoch: u32,
    /// How many partitions the topic has; 0 = unknown.
    pub in_topic: u32,
    /// Whether comets are to forget whichever later owner they have heard of.
    pub takeover: bool,
    /// What is still owed.
    pub ledger: Mutex<Ledger>,
    /// Told when the floor moved or somebody else turned out to own the partition.
    pub progress: Arc<Notify>,
    /// Set once a comet said that a later generation owns it: from then on nothing is sent or committed.
    pub fenced: std::sync::atomic::AtomicBool,
}

impl Partition {
    /// Notes one comet's answer for these offsets.
    pub fn answer(&self, offsets: impl Iterator<Item = u64>) {
        let mut ledger = self.ledger.lock();
        let moved = offsets.fold(false, |moved, offset| ledger.answer(offset) | moved);
        drop(ledger);
        if moved {
            self.progress.notify_one();
        }
    }

    /// A later generation owns it.
    pub fn fence(&self) {
        self.fenced.store(true, std::sync::atomic::Ordering::Relaxed);
        self.progress.notify_one();
    }

    /// Whether a later generation owns it.
    pub fn is_fenced(&self) -> bool {
        self.fenced.load(std::sync::atomic::Ordering::Relaxed)
    }
}

/// Whom a record is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// These keys of one comet.
    Keys(Vec<String>),
    /// These keys of one comet, to be closed.
    Kick(Vec<String>),
    /// A room's members, on every comet.
    Room(Arc<str>),
    /// Everybody who accepts the operation.
    All,
}

/// Not a record we can deliver; skipped, as goim skips it.
#[derive(Debug, thiserror::Error)]
pub enum Undecodable {
    /// The bytes are no push record.
    #[error(transparent)]
    Bytes(#[from] prost::DecodeError),
    /// A type this version does not know.
    #[error("unknown record type {0}")]
    Type(i32),
}

/// How long a key of a push has been sought, and how often it was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Late {
    /// Since when.
    pub since: Instant,
    /// How often logic was asked where it is.
    pub tries: usize,
}

/// A decoded record, ready for every comet.
#[derive(Debug)]
pub struct Push {
    /// Whom it is for.
    pub target: Target,
    /// The comet its keys are on; empty for rooms and broadcasts.
    pub server: ServerId,
    /// The pusher's operation.
    pub operation: i32,
    /// Connections a second over all comets, 0 = as fast as possible.
    pub speed: i32,
    /// The message as clients get it: one packet, version 1, sequence 0.
    pub packet: Bytes,
    /// Its place in the queue.
    pub id: Id,
    /// The id that logic gave it, which no other record has; empty = goim's logic gave none.
    pub name: Bytes,
    /// Not worth delivering after this, Unix milliseconds; 0 = always.
    pub expires_ms: u64,
    /// When job had it.
    pub taken: Instant,
    /// Set on what is sent once more, to where logic says that its key went.
    pub late: Option<Late>,
    /// The span of a traced push, open until the last comet answered, and its `traceparent`.
    pub trace: Option<(tracing::Span, String)>,
}

impl Push {
    /// Decodes a record.
    ///
    /// # Errors
    /// When the value is no push record, or one of a type this version does not know.
    pub fn decode(record: &Record, epoch: u32, taken: Instant) -> Result<Self, Undecodable> {
        let message = PushMsg::decode(record.value.clone())?;
        let kind = Type::try_from(message.r#type).map_err(|_| Undecodable::Type(message.r#type))?;
        let mut packet = BytesMut::with_capacity(packet::HEADER_LEN + message.msg.len());
        packet::encode(packet::VERSION, message.operation, 0, &message.msg, &mut packet);
        let target = match kind {
            Type::Push => Target::Keys(message.keys),
            Type::Kick => Target::Kick(message.keys),
            Type::Room => Target::Room(message.room.as_str().into()),
            Type::Broadcast => Target::All,
        };
        Ok(Self {
            target,
            server: message.server.into(),
            operation: message.operation,
            speed: message.speed,
            packet: packet.freeze(),
            id: Id {
                epoch,
                partition: record.partition,
                offset: record.offset,
                created_ms: message.created_ms,
                on_full: message.on_full,
            },
            name: message.id,
            expires_ms: message.expires_ms,
            taken,
            late: None,
            trace: trace(record),
        })
    }

    /// Whether it is not worth delivering any more.
    pub fn is_expired(&self, now_ms: u64) -> bool {
        self.expires_ms != 0 && self.expires_ms <= now_ms
    }

    /// The same push for these of its keys alone.
    pub fn narrowed(&self, keys: Vec<String>) -> Self {
        Self {
            target: Target::Keys(keys),
            server: self.server.clone(),
            packet: self.packet.clone(),
            name: self.name.clone(),
            trace: self.trace.clone(),
            ..*self
        }
    }
}

/// The span of a push whose record carries a sampled trace.
fn trace(record: &Record) -> Option<(tracing::Span, String)> {
    let (_, parent) = record.headers.iter().find(|(name, _)| name == runtime::trace::HEADER)?;
    let parent = std::str::from_utf8(parent).ok().filter(|parent| runtime::trace::sampled(parent))?;
    let span = runtime::trace::push_span("deliver", Some(parent));
    runtime::trace::note(&span, "partition", i64::from(record.partition));
    runtime::trace::note(&span, "offset", record.offset as i64);
    // Without a collector here the trace goes on to the comet all the same.
    let own = runtime::trace::of(&span).unwrap_or_else(|| parent.to_owned());
    Some((span, own))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A partition whose ledger starts at 0.
    pub(crate) fn partition(number: u32) -> Arc<Partition> {
        Arc::new(Partition {
            number,
            generation: 1,
            group: "g".into(),
            epoch: 7,
            in_topic: 1,
            takeover: false,
            ledger: Mutex::new(Ledger::new(0)),
            progress: Arc::default(),
            fenced: false.into(),
        })
    }

    /// A record as it comes from the queue.
    pub(crate) fn record(partition: u32, offset: u64, message: &PushMsg) -> Record {
        let value = message.encode_to_vec().into();
        Record { partition, offset, key: Bytes::new(), value, headers: vec![], timestamp_ms: 0 }
    }

    fn decoded(message: &PushMsg) -> Push {
        Push::decode(&record(3, 9, message), 7, Instant::now()).unwrap()
    }

    #[tokio::test]
    async fn a_message_is_wrapped_in_one_packet_of_version_1_and_sequence_0() {
        let push = decoded(&PushMsg {
            operation: 1000,
            server: "h1".into(),
            keys: vec!["k".into()],
            msg: "m1".into(),
            ..Default::default()
        });
        assert_eq!(&push.packet[..], b"\0\0\0\x12\0\x10\0\x01\0\0\x03\xe8\0\0\0\0m1");
        assert_eq!(push.target, Target::Keys(vec!["k".into()]));
        assert_eq!((push.id.epoch, push.id.partition, push.id.offset), (7, 3, 9));
    }

    #[tokio::test]
    async fn bytes_that_are_no_record_and_unknown_types_are_undecodable() {
        let mut garbage = record(0, 0, &PushMsg::default());
        garbage.value = Bytes::from_static(b"\xff\xff");
        assert!(matches!(Push::decode(&garbage, 1, Instant::now()), Err(Undecodable::Bytes(_))));
        let unknown = record(0, 0, &PushMsg { r#type: 9, ..Default::default() });
        assert!(matches!(Push::decode(&unknown, 1, Instant::now()), Err(Undecodable::Type(9))));
    }

    #[tokio::test]
    async fn fields_a_go_logic_does_not_know_are_ignored() {
        let mut extended = record(0, 0, &PushMsg { room: "a://1".into(), r#type: 1, ..Default::default() });
        extended.value = [&extended.value[..], b"\xf8\x3f\x05"].concat().into();
        let push = Push::decode(&extended, 1, Instant::now()).unwrap();
        assert_eq!(push.target, Target::Room("a://1".into()));
    }
}
