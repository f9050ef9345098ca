//! The client packet: a 16-byte header and a body.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | packet length, header and body |
//! | 4 | 2 | header length, always 16 |
//! | 6 | 2 | version, echoed in replies |
//! | 8 | 4 | operation ([`crate::op`]) |
//! | 12 | 4 | sequence, the client's, echoed in replies; 0 when the server starts |
//!
//! All integers big-endian and signed, as in goim `api/protocol/protocol.go`. Pure functions on slices: no I/O here.

use bytes::{BufMut, Bytes, BytesMut};

use crate::op;

/// Bytes before the body.
pub const HEADER_LEN: usize = 16;
/// The longest body a client may send, in bytes.
pub const MAX_BODY: usize = 4096;
/// The version we write where there is none to echo.
pub const VERSION: i16 = 1;

/// One packet that owns its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Version, never checked.
    pub ver: i16,
    /// What the packet is about.
    pub op: i32,
    /// The client's number for it.
    pub seq: i32,
    /// Everything after the header.
    pub body: Bytes,
}

/// One packet that borrows its body from the buffer it was read into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketRef<'a> {
    /// Version, never checked.
    pub ver: i16,
    /// What the packet is about.
    pub op: i32,
    /// The client's number for it.
    pub seq: i32,
    /// Everything after the header.
    pub body: &'a [u8],
}

/// Bytes that can never become a packet: the connection they came over is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// The header length field is not 16.
    #[error("header length {0} is not 16")]
    HeaderLength(i16),
    /// The packet length is below 16 or above the limit.
    #[error("packet length {0} is not within 16 and the limit")]
    Length(i32),
    /// A message holds less than the packet it announces.
    #[error("message of {message} bytes announces a packet of {packet}")]
    BeyondMessage {
        /// What the packet length field says.
        packet: usize,
        /// What there is.
        message: usize,
    },
}

impl Packet {
    /// A packet in our version.
    pub fn new(op: i32, seq: i32, body: impl Into<Bytes>) -> Self {
        Self { ver: VERSION, op, seq, body: body.into() }
    }

    /// Appends header and body.
    pub fn encode(&self, out: &mut impl BufMut) {
        encode(self.ver, self.op, self.seq, &self.body, out);
    }

    /// Header and body as bytes of their own.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(HEADER_LEN + self.body.len());
        self.encode(&mut out);
        out.freeze()
    }
}

impl PacketRef<'_> {
    /// Copies the body out of the buffer.
    pub fn to_packet(self) -> Packet {
        Packet { ver: self.ver, op: self.op, seq: self.seq, body: Bytes::copy_from_slice(self.body) }
    }
}

/// Appends a packet.
///
/// # Panics
/// When the body is longer than a packet length can say (2 GiB); every limit above it is far lower.
pub fn encode(ver: i16, op: i32, seq: i32, body: &[u8], out: &mut impl BufMut) {
    put_header(ver, op, seq, body.len(), out);
    out.put_slice(body);
}

/// Appends the header of a packet whose body of `body` bytes follows.
///
/// # Panics
/// As [`encode`].
pub fn put_header(ver: i16, op: i32, seq: i32, body: usize, out: &mut impl BufMut) {
    let length = i32::try_from(HEADER_LEN + body).expect("bodies are bounded far below 2 GiB");
    out.put_i32(length);
    out.put_i16(HEADER_LEN as i16);
    out.put_i16(ver);
    out.put_i32(op);
    out.put_i32(seq);
}

/// Reads the packet at the front of a stream; `Ok(None)` until all of it is there.
/// Returns it with the number of bytes it took. Bodies longer than `max_body` are refused by the header alone.
///
/// # Errors
/// [`PacketError`] as soon as the header shows that no packet can follow.
pub fn decode(stream: &[u8], max_body: usize) -> Result<Option<(PacketRef<'_>, usize)>, PacketError> {
    let Some(header) = stream.first_chunk::<HEADER_LEN>() else {
        return Ok(None);
    };
    let length = checked_length(header, max_body)?;
    let Some(body) = stream.get(HEADER_LEN..length) else {
        return Ok(None);
    };
    Ok(Some((with_body(header, body), length)))
}

/// Reads the one packet of a WebSocket message; bytes after it are not looked at, as in goim.
///
/// # Errors
/// [`PacketError`] when the message does not hold the packet it announces.
pub fn decode_message(message: &[u8], max_body: usize) -> Result<PacketRef<'_>, PacketError> {
    let header = message
        .first_chunk::<HEADER_LEN>()
        .ok_or(PacketError::BeyondMessage { packet: HEADER_LEN, message: message.len() })?;
    let length = checked_length(header, max_body)?;
    let body =
        message.get(HEADER_LEN..length).ok_or(PacketError::BeyondMessage { packet: length, message: message.len() })?;
    Ok(with_body(header, body))
}

/// The packets that a raw body (op 9) holds, in order; ends with an error where it holds anything else.
pub fn packets(raw: &[u8]) -> impl Iterator<Item = Result<PacketRef<'_>, PacketError>> {
    let mut rest = raw;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let found = match decode(rest, i32::MAX as usize) {
            Ok(Some((packet, used))) => {
                rest = &rest[used..];
                return Some(Ok(packet));
            }
            Ok(None) => PacketError::BeyondMessage { packet: announced(rest), message: rest.len() },
            Err(error) => error,
        };
        rest = &[];
        Some(Err(found))
    })
}

/// A raw packet (op 9) as WebSocket and gRPC carry it: version 1, sequence 0.
pub fn raw(body: Bytes) -> Packet {
    Packet::new(op::RAW, 0, body)
}

fn announced(stream: &[u8]) -> usize {
    stream.first_chunk::<4>().map_or(HEADER_LEN, |length| i32::from_be_bytes(*length).max(0) as usize)
}

fn checked_length(header: &[u8; HEADER_LEN], max_body: usize) -> Result<usize, PacketError> {
    let header_length = i16::from_be_bytes([header[4], header[5]]);
    if header_length != HEADER_LEN as i16 {
        return Err(PacketError::HeaderLength(header_length));
    }
    let length = i32::from_be_bytes([header[0], header[1], header[2], header[3]]);
    match usize::try_from(length) {
        Ok(whole) if whole >= HEADER_LEN && whole - HEADER_LEN <= max_body => Ok(whole),
        _ => Err(PacketError::Length(length)),
    }
}

fn with_body<'a>(header: &[u8; HEADER_LEN], body: &'a [u8]) -> PacketRef<'a> {
    PacketRef {
        ver: i16::from_be_bytes([header[6], header[7]]),
        op: i32::from_be_bytes([header[8], header[9], header[10], header[11]]),
        seq: i32::from_be_bytes([header[12], header[13], header[14], header[15]]),
        body,
    }
}

#[cfg(test)]
mod tests;
