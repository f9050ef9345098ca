//! What job asks: goim's `Comet` service on goim's path, and `Delivery` beside it, whose [`stream`] carries the same
//! calls without a round trip for each.
//!
//! An answer means this comet's memory holds the push and every shard has it in a fan-out round; walking the
//! connections may go on. So whoever pushes slows down to what the sockets take, instead of messages being dropped.

mod missed;
mod stream;

use std::collections::HashMap;
use std::sync::Arc;

use proto::comet::comet_server::{Comet, CometServer};
use proto::comet::{
    BroadcastReply, BroadcastReq, BroadcastRoomReply, BroadcastRoomReq, Id, Owner, PushMsgReply, PushMsgReq,
    RoomsReply, RoomsReq,
};
use proto::delivery::delivery_server::{Delivery, DeliveryServer};
use proto::delivery::{ClaimReply, ClaimReq, Down, HelloReply, HelloReq, KickReply, KickReq, Mark, Marks, Up};
use proto::envelope::{GapRange, PushId};
use proto::protocol::Proto;
use proto::push::MOVING;
use proto::{Key, Packet, grpc};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, async_trait};

use crate::claims::Claims;
use crate::interest::Audience;
use crate::message::{Push, Variant};
use crate::owners::Heard;
use crate::probe::Probe;
use crate::repeats::Sender;
use crate::shard::{Command, Handle, Order, Target, Without, merged};
use crate::shared::Shared;

/// Both services of one comet. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Service {
    shared: Arc<Shared>,
    probe: Probe,
    claims: Claims,
    ending: CancellationToken,
}

/// A push that was handed to shards. Dropping it does not take it back.
#[derive(Debug, Default)]
struct Pending(Vec<oneshot::Receiver<Without>>);

impl Pending {
    /// Waits until every shard has it in a round. Returns the keys that go without.
    async fn taken(self) -> Result<Without, Status> {
        let mut all = Without::default();
        for answer in self.0 {
            let Without { missing, overtaken } =
                answer.await.map_err(|_| Status::unavailable("this comet is ending"))?;
            all.missing.extend(missing);
            all.overtaken.extend(overtaken);
        }
        Ok(all)
    }
}

impl Service {
    /// Serves this comet; streams end when it does.
    pub fn new(shared: Arc<Shared>, probe: Probe, claims: Claims, ending: CancellationToken) -> Self {
        Self { shared, probe, claims, ending }
    }

    /// The routes, with goim's limits.
    pub fn routes(self) -> tonic::service::Routes {
        let comet = CometServer::new(self.clone()).max_decoding_message_size(grpc::MAX_MESSAGE);
        let delivery = DeliveryServer::new(self).max_decoding_message_size(grpc::MAX_MESSAGE);
        tonic::service::Routes::new(comet).add_service(delivery)
    }

    #[allow(clippy::result_large_err, reason = "tonic's own error type")]
    fn admit(&self, ids: &[Id], owner: Option<&Owner>) -> Result<Sender, Status> {
        let Some(owner) = owner else {
            self.claims.settle();
            return Ok(Sender { group: "".into(), floor: None });
        };
        let sender = Sender { group: owner.group.as_str().into(), floor: owner.floor };
        let mut owners = self.shared.interest.owners();
        for id in ids {
            if !owners.see(&owner.group, place(id), owner.generation) {
                return Err(Status::failed_precondition("fenced"));
            }
            if !sender.may_send(id.offset) {
                let Id { partition, offset, .. } = id;
                let text = format!("record {offset} of partition {partition} is too far above its floor");
                return Err(Status::out_of_range(text));
            }
        }
        Ok(sender)
    }

    /// Hands a push to these shards, once there is room for it in their inboxes.
    async fn hand(
        &self,
        push: Arc<Push>,
        targets: impl IntoIterator<Item = (&Handle, Target)>,
        sender: Sender,
    ) -> Pending {
        let budget = self.shared.room_for(size(&push)).await;
        hand_within(budget, push, targets, sender)
    }

    async fn hand_keys(&self, request: PushMsgReq, trace: Option<&str>) -> Result<Pending, Status> {
        let span = runtime::trace::push_span("comet push", trace);
        let PushMsgReq { keys, proto, proto_op: op, ids, owner } = request;
        let (Some(proto), false) = (proto, keys.is_empty()) else {
            return Err(Status::unknown("rpc pushmsg arg error"));
        };
        self.shared.metrics.push("key");
        let sender = self.admit(&ids, owner.as_ref())?;
        if keys.iter().any(|key| self.probe.is(key)) {
            self.probe.came_back();
            return Ok(Pending::default());
        }
        let mut homes: Vec<Vec<Key>> = vec![Vec::new(); self.shared.shards.len()];
        for key in keys {
            let key = Key::from(key);
            homes[self.shared.home(&key)].push(key);
        }
        let targets = self.shared.shards.iter().zip(homes).filter(|(_, keys)| !keys.is_empty());
        let targets = targets.map(|(shard, keys)| (shard, Target::Keys { keys, op }));
        Ok(self.hand(Push::new("", packet(proto), &ids, span).into(), targets, sender).await)
    }

    async fn hand_all(&self, request: BroadcastReq, trace: Option<&str>) -> Result<Pending, Status> {
        let span = runtime::trace::push_span("comet broadcast", trace);
        let BroadcastReq { proto_op, proto, speed, ids, owner } = request;
        let Some(proto) = proto else {
            return Err(Status::unknown("rpc broadcast arg error"));
        };
        self.shared.metrics.push("all");
        let sender = self.admit(&ids, owner.as_ref())?;
        let push = Arc::new(Push::new("", packet(proto), &ids, span));
        let shards = &self.shared.shards;
        if speed > 0 {
            if let Some(room) = self.shared.room_to_pace(size(&push)) {
                return Ok(hand_within(room, push, shards.iter().zip(self.paced_targets(proto_op, speed)), sender));
            }
            // That it arrives is a promise, how fast is a wish.
            self.shared.metrics.unpaced.inc();
        }
        Ok(self.hand(push, shards.iter().map(|shard| (shard, Target::All(proto_op))), sender).await)
    }

    async fn hand_room(&self, request: BroadcastRoomReq, trace: Option<&str>) -> Result<Pending, Status> {
        let span = runtime::trace::push_span("comet room", trace);
        let BroadcastRoomReq { room_id, proto, ids, owner } = request;
        let (Some(proto), false) = (proto, room_id.is_empty()) else {
            return Err(Status::unknown("rpc broadcast  room arg error"));
        };
        self.shared.metrics.push("room");
        let sender = self.admit(&ids, owner.as_ref())?;
        let partition = ids.first().filter(|id| id.epoch != 0).map(|id| id.partition);
        let since = match self.shared.interest.audience(&room_id, partition) {
            Audience::Nobody => return Ok(Pending::default()),
            Audience::Since(since) => since,
        };
        let mut push = Arc::new(Push::new(&room_id, packet(proto), &ids, span));
        let is_old = |id: PushId| since.as_ref().is_some_and(|since| since.covers(&sender.group, id));
        if ids.iter().map(place).any(is_old) {
            let new = push.filtered(|part| !is_old(part.id));
            let old = push.messages() - new.as_ref().map_or(0, |new| new.messages());
            self.shared.metrics.dropped("before_room", old as u64);
            match new {
                Some(new) => push = new,
                None => return Ok(Pending::default()),
            }
        }
        let targets = self.shared.shards.iter().map(|shard| (shard, Target::Room));
        Ok(self.hand(push, targets, sender).await)
    }

    fn hear_kick(&self, KickReq { keys, created_ms, reason, .. }: KickReq) {
        let command = if reason == MOVING { Command::Elsewhere } else { Command::Kick };
        for key in keys.into_iter().map(Key::from) {
            self.shared.shards[self.shared.home(&key)].send(command(key, created_ms));
        }
    }

    /// Notes a claim; returns the partitions that a later generation has.
    fn hear_claim(&self, request: ClaimReq) -> Vec<u32> {
        let ClaimReq { group, epoch, partitions, generation, partitions_in_topic, takeover } = request;
        let mut owners = self.shared.interest.owners();
        owners.count(&group, epoch, partitions_in_topic);
        if takeover {
            partitions.iter().for_each(|partition| owners.forget_owner(&group, epoch, *partition));
        }
        partitions.into_iter().filter(|partition| !owners.claim(&group, epoch, *partition, generation)).collect()
    }

    /// Takes what the owner vouches for, and tells clients what it does not. Returns the partitions that a later
    /// generation has.
    fn hear_marks(&self, Marks { group, epoch, generation, marks }: Marks) -> Vec<u32> {
        let (mut fenced, mut floors, mut ranges) = (vec![], vec![], vec![]);
        let mut owners = self.shared.interest.owners();
        for Mark { partition, from, through, floor, sent } in marks {
            if let Some(offset) = sent.checked_sub(1) {
                owners.see(&group, PushId { epoch, partition, offset }, generation);
            }
            let floor = match owners.hear(&group, epoch, partition, generation, from..through) {
                Heard::Fenced => {
                    fenced.push(partition);
                    continue;
                }
                Heard::Whole => floor,
                Heard::Missed(missed) => {
                    ranges.push(GapRange { room: None, partition, from: missed.start, to: missed.end - 1 });
                    // Were it sent all the same, it would come after what is later.
                    floor.max(from)
                }
            };
            if owners.settle(&group, epoch, partition, floor) {
                floors.push((partition, floor));
            }
        }
        if !self.claims.are_settled() && owners.are_complete() {
            self.claims.settle();
        }
        if !ranges.is_empty() {
            // Before anybody who moves can see that the rest was vouched for: he would be gone before he is told.
            missed::tell(&self.shared, ranges);
        }
        drop(owners);
        self.shared.interest.has_heard();
        if floors.is_empty() {
            return fenced;
        }
        let (group, floors): (Arc<str>, Arc<[(u32, u64)]>) = (group.into(), floors.into());
        for shard in &self.shared.shards {
            shard.send(Command::Settle { group: group.clone(), epoch, floors: floors.clone() });
        }
        fenced
    }

    /// Splits a speed over the shards by their connections, so that all are done at the same time.
    fn paced_targets(&self, op: i32, speed: i32) -> Vec<Target> {
        let counts: Vec<f64> = self.shared.shards.iter().map(|shard| shard.connections() as f64).collect();
        let total: f64 = counts.iter().sum();
        let share = |count: f64| f64::from(speed) * (count / total.max(1.0));
        counts.into_iter().map(|count| Target::Paced(op, share(count).max(0.001))).collect()
    }
}

/// Hands a push that has its room to these shards.
fn hand_within<'a>(
    budget: Arc<OwnedSemaphorePermit>,
    push: Arc<Push>,
    targets: impl IntoIterator<Item = (&'a Handle, Target)>,
    sender: Sender,
) -> Pending {
    let mut answers = Vec::new();
    // No waiting in between: every shard hears of pushes in the same order.
    for (shard, target) in targets {
        let (taken, answer) = oneshot::channel();
        let (push, sender, budget) = (push.clone(), sender.clone(), budget.clone());
        shard.send(Command::Push(Order { push, target, sender, budget, taken }));
        answers.push(answer);
    }
    Pending(answers)
}

/// The room that a push takes, in bytes.
fn size(push: &Push) -> usize {
    push.frame(Variant::GoimTcp).len()
}

fn place(id: &Id) -> PushId {
    PushId { epoch: id.epoch, partition: id.partition, offset: id.offset }
}

fn packet(proto: Proto) -> Packet {
    Packet { ver: proto.ver as i16, op: proto.op, seq: proto.seq, body: proto.body }
}

#[async_trait]
impl Comet for Service {
    async fn push_msg(&self, request: Request<PushMsgReq>) -> Result<Response<PushMsgReply>, Status> {
        let trace = grpc::traceparent(&request).map(str::to_owned);
        let without = self.hand_keys(request.into_inner(), trace.as_deref()).await?.taken().await?;
        Ok(Response::new(PushMsgReply { not_here: without.missing.iter().map(Key::to_string).collect() }))
    }

    async fn broadcast(&self, request: Request<BroadcastReq>) -> Result<Response<BroadcastReply>, Status> {
        let trace = grpc::traceparent(&request).map(str::to_owned);
        self.hand_all(request.into_inner(), trace.as_deref()).await?.taken().await?;
        Ok(Response::new(BroadcastReply {}))
    }

    async fn broadcast_room(&self, request: Request<BroadcastRoomReq>) -> Result<Response<BroadcastRoomReply>, Status> {
        let trace = grpc::traceparent(&request).map(str::to_owned);
        self.hand_room(request.into_inner(), trace.as_deref()).await?.taken().await?;
        Ok(Response::new(BroadcastRoomReply {}))
    }

    async fn rooms(&self, _: Request<RoomsReq>) -> Result<Response<RoomsReply>, Status> {
        let rooms = room_counts(&self.shared).await.into_keys().map(|room| (room, true)).collect();
        Ok(Response::new(RoomsReply { rooms }))
    }
}

#[async_trait]
impl Delivery for Service {
    async fn hello(&self, _: Request<HelloReq>) -> Result<Response<HelloReply>, Status> {
        let Shared { server, incarnation, .. } = &*self.shared;
        Ok(Response::new(HelloReply { server: server.to_string(), incarnation: *incarnation }))
    }

    async fn claim(&self, request: Request<ClaimReq>) -> Result<Response<ClaimReply>, Status> {
        Ok(Response::new(ClaimReply { fenced: self.hear_claim(request.into_inner()) }))
    }

    async fn kick(&self, request: Request<KickReq>) -> Result<Response<KickReply>, Status> {
        self.hear_kick(request.into_inner());
        Ok(Response::new(KickReply {}))
    }

    type DeliverStream = ReceiverStream<Result<Up, Status>>;

    async fn deliver(&self, request: Request<Streaming<Down>>) -> Result<Response<Self::DeliverStream>, Status> {
        let (answers, up) = mpsc::channel(16);
        tokio::spawn(stream::serve(self.clone(), request.into_inner(), answers));
        Ok(Response::new(ReceiverStream::new(up)))
    }
}

/// Asks every shard how many are in each room.
pub async fn room_counts(shared: &Shared) -> HashMap<String, i32> {
    let mut answers = Vec::new();
    for shard in &shared.shards {
        let (answer, counts) = oneshot::channel();
        shard.send(Command::Counts(answer));
        answers.push(counts);
    }
    let mut counts = Vec::new();
    for answer in answers {
        counts.push(answer.await.unwrap_or_default());
    }
    merged(counts)
}

#[cfg(test)]
mod tests;
