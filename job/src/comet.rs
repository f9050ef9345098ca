//! One comet as job sees it: what can be asked of it ([`Comet`]), what is owed to it ([`queue`]) and the task that
//! sends it ([`driver`]).
//!
//! goim's three calls carry everything; a later stream of deliveries is one more implementation behind the same trait.

pub mod driver;
pub mod grpc;
pub mod memory;
pub mod queue;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use proto::comet::{BroadcastReq, BroadcastRoomReq, Id, Owner, PushMsgReq};
use proto::delivery::{ClaimReply, ClaimReq, HelloReply, KickReq};
use proto::{op, packet, protocol};

use crate::push::{Partition, Target};
use crate::room::Item;

/// What a comet answers to job. gRPC, or memory.
#[async_trait]
pub trait Comet: Send + Sync + 'static {
    /// Asks who it is. A Go comet answers [`CometError::Unimplemented`].
    async fn hello(&self) -> Result<HelloReply, CometError>;
    /// Says which partitions are ours from now on; answers those that a later generation has.
    async fn claim(&self, claim: ClaimReq) -> Result<ClaimReply, CometError>;
    /// Hands over one call's worth of pushes and returns the keys that are not there. An answer means that the comet
    /// has them in memory.
    async fn send(&self, call: Call, traceparent: Option<&str>) -> Result<Vec<String>, CometError>;
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
