//! One comet as job sees it: what can be asked of it ([`Comet`]), what is owed to it ([`queue`]), what is out on the
//! stream to it ([`pipe`]) and the task that sends ([`driver`]).
//!
//! One stream to each comet carries everything ([`Link`]). A Go comet, or one of ours that is older, is made goim's
//! three calls instead, and ours for what goim has none for.

pub mod driver;
pub mod grpc;
pub mod memory;
pub mod pipe;
pub mod queue;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use proto::comet::{BroadcastReq, BroadcastRoomReq, Id, Owner, PushMsgReq};
use proto::delivery::down::Frame;
use proto::delivery::{ClaimReply, ClaimReq, Down, HelloReply, KickReq, Up};
use proto::{op, packet, protocol};
use tokio::sync::mpsc;

use crate::push::{Partition, Target};
use crate::room::Item;

/// What a comet answers to job. gRPC, or memory.
#[async_trait]
pub trait Comet: Send + Sync + 'static {
    /// Asks who it is. A Go comet answers [`CometError::Unimplemented`].
    async fn hello(&self) -> Result<HelloReply, CometError>;
    /// Opens the stream that carries all that follows here. A comet that has none answers
    /// [`CometError::Unimplemented`].
    async fn deliver(&self) -> Result<Link, CometError>;
    /// Says which partitions are ours from now on; answers those that a later generation has.
    async fn claim(&self, claim: ClaimReq) -> Result<ClaimReply, CometError>;
    /// Hands over one call's worth of pushes and returns the keys that are not there. An answer means that the comet
    /// has them in memory.
    async fn send(&self, call: Call, traceparent: Option<&str>) -> Result<Vec<String>, CometError>;
}

/// An open stream of deliveries. Dropping it ends it.
pub struct Link {
    /// Bytes of frames that may be sent ahead of the comet's answers.
    pub credit: u64,
    /// Takes frames.
    pub down: mpsc::UnboundedSender<Down>,
    /// The comet's answers.
    pub up: BoxStream<'static, Result<Up, CometError>>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("credit", &self.credit).finish_non_exhaustive()
    }
}

/// Why a comet did not take it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CometError {
    /// No answer in time, or nobody there: try again.
    #[error("does not answer: {0}")]
    Away(String),
    /// A later generation owns the partition: stop.
    #[error("fenced by a later generation")]
    Fenced,
    /// It does not know the call.
    #[error("does not know the call")]
    Unimplemented,
    /// It answered no, by this status name and text; asking again would not help.
    #[error("{reason}: {text}")]
    Refused {
        /// The status code's name, for metrics.
        reason: &'static str,
        /// What it said.
        text: String,
    },
}

/// One call.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    /// To keys.
    Push(PushMsgReq),
    /// To everybody.
    Broadcast(BroadcastReq),
    /// To a room.
    Room(BroadcastRoomReq),
    /// Close these keys.
    Kick(KickReq),
}

impl Call {
    /// The call as a frame of a stream.
    pub fn frame(self, traceparent: Option<&str>) -> Down {
        let frame = match self {
            Self::Push(request) => Frame::Keys(request),
            Self::Broadcast(request) => Frame::All(request),
            Self::Room(request) => Frame::Room(request),
            Self::Kick(request) => Frame::Kick(request),
        };
        Down { traceparent: traceparent.unwrap_or_default().to_owned(), frame: Some(frame) }
    }

    /// The call that carries a batch: as goim's job packs it, one raw packet (op 9) whose body is the packets.
    ///
    /// # Panics
    /// When the batch is empty.
    pub fn of(batch: &[Item], partition: &Partition) -> Self {
        let first = &batch.first().expect("a batch has at least one item").push;
        let (group, floor) = (partition.group.to_string(), Some(partition.ledger.lock().committed()));
        let owner = Some(Owner { group, generation: partition.generation, floor });
        let ids: Vec<Id> = batch.iter().map(|item| item.push.id).collect();
        let proto = Some(raw(batch));
        match &first.target {
            Target::Keys(keys) => {
                Self::Push(PushMsgReq { keys: keys.clone(), proto, proto_op: first.operation, ids, owner })
            }
            Target::Kick(keys) => {
                let (reason, created_ms) = (kick_reason(&first.packet), first.id.created_ms);
                Self::Kick(KickReq { keys: keys.clone(), reason, owner, created_ms })
            }
            Target::Room(room) => Self::Room(BroadcastRoomReq { room_id: room.to_string(), proto, ids, owner }),
            Target::All => {
                let speed = batch[0].speed;
                Self::Broadcast(BroadcastReq { proto_op: first.operation, proto, speed, ids, owner })
            }
        }
    }
}

/// What logic wrote as a kick's message is the reason.
fn kick_reason(packet: &[u8]) -> String {
    String::from_utf8_lossy(packet.get(packet::HEADER_LEN..).unwrap_or_default()).into_owned()
}

fn raw(batch: &[Item]) -> protocol::Proto {
    let body: Bytes = match batch {
        [only] => only.push.packet.clone(),
        many => {
            let mut body = BytesMut::with_capacity(many.iter().map(|item| item.push.packet.len()).sum());
            many.iter().for_each(|item| body.extend_from_slice(&item.push.packet));
            body.freeze()
        }
    };
    protocol::Proto { ver: i32::from(packet::VERSION), op: op::RAW, seq: 0, body }
}

#[cfg(test)]
mod tests;
