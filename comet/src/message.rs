//! One push inside a comet: encoded at most once per framing, shared by every connection it goes to.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use proto::comet::{Id, OnFull};
use proto::envelope::{Caps, Message, PushId};
use proto::packet::{self, Packet};
use proto::{frame, op};
use tracing::Span;

use crate::transport::Framing;

/// How a connection wants its pushes: the four ways one push can stand on a wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// Bare packets.
    GoimTcp = 0,
    /// One WebSocket message with an outer op 9 packet.
    GoimWebSocket = 1,
    /// Op 25 packets.
    EnvelopeTcp = 2,
    /// One WebSocket message with an outer op 9 packet around op 25 packets.
    EnvelopeWebSocket = 3,
}

impl Variant {
    /// The variant of a client that speaks so and announced this.
    pub fn of(framing: Framing, caps: Caps) -> Self {
        match (framing, caps.envelope) {
            (Framing::Tcp, false) => Self::GoimTcp,
            (Framing::WebSocket, false) => Self::GoimWebSocket,
            (Framing::Tcp, true) => Self::EnvelopeTcp,
            (Framing::WebSocket, true) => Self::EnvelopeWebSocket,
        }
    }

    /// What is spoken on the wire.
    pub fn framing(self) -> Framing {
        match self {
            Self::GoimTcp | Self::EnvelopeTcp => Framing::Tcp,
            Self::GoimWebSocket | Self::EnvelopeWebSocket => Framing::WebSocket,
        }
    }

    /// Whether pushes go out as op 25.
    pub fn is_envelope(self) -> bool {
        matches!(self, Self::EnvelopeTcp | Self::EnvelopeWebSocket)
    }
}

/// What job handed over in one call: the packets of one push, or several merged into one.
#[derive(Debug)]
pub struct Push {
    room: Box<str>,
    proto: Packet,
    parts: Vec<Part>,
    frames: [OnceLock<Bytes>; 4],
    /// When this comet had it.
    pub received: Instant,
    /// The trace it belongs to, if it is a sampled one.
    pub span: Span,
}

/// One inner packet of a push and its place in the queue.
#[derive(Clone, Debug)]
pub struct Part {
    /// Its place in the queue; epoch 0 when job did not say.
    pub id: PushId,
    /// What a full connection is to do.
    pub on_full: OnFull,
    packet: Packet,
}

impl Push {
    /// A push to a room (`room` not empty) or to keys or all (empty).
    ///
    /// `ids` name the inner packets of a raw body in order; a list that does not fit them is not used.
    pub fn new(room: &str, proto: Packet, ids: &[Id], span: Span) -> Self {
        let inner: Vec<Packet> = if proto.op == op::RAW {
            let found: Result<Vec<_>, _> =
                packet::packets(&proto.body).map(|inner| Ok(inner?.shared_with(&proto.body))).collect();
            found.unwrap_or_else(|_: packet::PacketError| vec![proto.clone()])
        } else {
            vec![proto.clone()]
        };
        let ids = if ids.len() == inner.len() { ids } else { &[] };
        let parts = inner
            .into_iter()
            .enumerate()
            .map(|(index, packet)| match ids.get(index) {
                Some(id) => Part {
                    id: PushId { epoch: id.epoch, partition: id.partition, offset: id.offset },
                    on_full: id.on_full(),
                    packet,
                },
                None => Part { id: PushId::default(), on_full: OnFull::Default, packet },
            })
            .collect();
        Self { room: room.into(), proto, parts, frames: Default::default(), received: Instant::now(), span }
    }

    /// The inner packets.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// How many messages a client is given by it.
    pub fn messages(&self) -> usize {
        self.parts.len()
    }

    /// The room it was pushed to, empty for keys and all.
    pub fn room(&self) -> &str {
        &self.room
    }

    /// The same push without the parts that `keep` refuses; `None` when nothing is left.
    pub fn filtered(self: &Arc<Self>, keep: impl FnMut(&&Part) -> bool) -> Option<Arc<Self>> {
        let parts: Vec<Part> = self.parts.iter().filter(keep).cloned().collect();
        if parts.len() == self.parts.len() {
            return Some(self.clone());
        }
        if parts.is_empty() {
            return None;
        }
        let mut raw = BytesMut::new();
        for part in &parts {
            part.packet.encode(&mut raw);
        }
        Some(Arc::new(Self {
            room: self.room.clone(),
            proto: packet::raw(raw.freeze()),
            parts,
            frames: Default::default(),
            received: self.received,
            span: self.span.clone(),
        }))
    }

    /// The bytes for a connection of that variant, encoded on first use.
    pub fn frame(&self, variant: Variant) -> &Bytes {
        self.frames[variant as usize].get_or_init(|| match variant {
            Variant::GoimTcp if self.proto.op == op::RAW => self.proto.body.clone(),
            Variant::GoimTcp => self.proto.to_bytes(),
            Variant::GoimWebSocket => web_socket(&self.proto),
            Variant::EnvelopeTcp => self.envelopes(),
            Variant::EnvelopeWebSocket => web_socket(&packet::raw(self.envelopes())),
        })
    }

    fn envelopes(&self) -> Bytes {
        let mut out = BytesMut::new();
        for part in &self.parts {
            let message = Message { room: &self.room, id: part.id, op: part.packet.op, body: &part.packet.body };
            message.encode_packet(&mut out);
        }
        out.freeze()
    }
}

/// A packet as one binary WebSocket message.
pub fn web_socket(packet: &Packet) -> Bytes {
    let length = packet::HEADER_LEN + packet.body.len();
    let mut out = BytesMut::with_capacity(10 + length);
    frame::put_header(frame::BINARY, length, &mut out);
    packet.encode(&mut out);
    out.freeze()
}

/// A packet as it stands on a wire of that framing.
pub fn framed(framing: Framing, packet: &Packet) -> Bytes {
    match framing {
        Framing::Tcp => packet.to_bytes(),
        Framing::WebSocket => web_socket(packet),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw_of(packets: &[Packet]) -> Packet {
        let mut body = BytesMut::new();
        packets.iter().for_each(|packet| packet.encode(&mut body));
        packet::raw(body.freeze())
    }

    fn id(offset: u64) -> Id {
        Id { epoch: 7, partition: 1, offset, ..Default::default() }
    }

    #[test]
    fn a_raw_push_is_bare_on_tcp_and_keeps_its_header_on_websocket() {
        let raw = raw_of(&[Packet::new(1000, 0, "m1"), Packet::new(1001, 0, "m2")]);
        let push = Push::new("live://1", raw.clone(), &[], Span::none());
        assert_eq!(push.frame(Variant::GoimTcp), &raw.body);
        assert_eq!(push.frame(Variant::GoimWebSocket)[..2], [0x82, 0x34]);
        assert_eq!(push.frame(Variant::GoimWebSocket)[2..], raw.to_bytes());
    }

    #[test]
    fn a_push_that_is_not_raw_is_framed_as_it_is_on_both() {
        let packet = Packet { ver: 3, op: 1000, seq: 9, body: "hi".into() };
        let push = Push::new("", packet.clone(), &[], Span::none());
        assert_eq!(push.frame(Variant::GoimTcp), &packet.to_bytes());
        assert_eq!(push.frame(Variant::GoimWebSocket)[2..], packet.to_bytes());
    }

    #[test]
    fn capable_clients_get_each_packet_with_room_and_id() {
        let raw = raw_of(&[Packet::new(1000, 0, "m1"), Packet::new(1001, 0, "m2")]);
        let push = Push::new("live://1", raw, &[id(4), id(9)], Span::none());
        let bodies: Vec<Packet> =
            packet::packets(push.frame(Variant::EnvelopeTcp)).map(|packet| packet.unwrap().to_packet()).collect();
        let messages: Vec<_> = bodies.iter().map(|packet| Message::decode(&packet.body).unwrap()).collect();
        assert_eq!((messages[0].room, messages[0].id.offset, messages[0].op), ("live://1", 4, 1000));
        assert_eq!((messages[1].id.offset, messages[1].body), (9, &b"m2"[..]));
        assert_eq!(bodies[0].op, op::MESSAGE);
    }

    #[test]
    fn filtering_keeps_the_rest_in_order() {
        let raw = raw_of(&[Packet::new(1, 0, "a"), Packet::new(2, 0, "b"), Packet::new(3, 0, "c")]);
        let push = Arc::new(Push::new("r", raw, &[id(1), id(2), id(3)], Span::none()));
        let rest = push.filtered(|part| part.id.offset != 2).unwrap();
        assert_eq!(rest.frame(Variant::GoimTcp), &raw_of(&[Packet::new(1, 0, "a"), Packet::new(3, 0, "c")]).body);
        assert!(push.filtered(|_| false).is_none());
    }

    #[test]
    fn a_raw_body_that_is_no_packets_is_relayed_untouched() {
        let push = Push::new("", packet::raw("junk".into()), &[], Span::none());
        assert_eq!(push.frame(Variant::GoimTcp), &Bytes::from("junk"));
        assert_eq!(push.messages(), 1);
    }
}
