//! Bytes from a client as packets: the same for TCP and WebSocket, before and after it authenticated.

use proto::frame::{Event, Reader};
use proto::packet::{self, PacketRef};

use crate::close::Close;
use crate::transport::Framing;

/// The largest WebSocket message taken, in bytes: goim's read buffer.
const MAX_MESSAGE: usize = 8192;

/// What a client's bytes amounted to.
#[derive(Debug)]
pub enum Incoming<'a> {
    /// A packet.
    Packet(PacketRef<'a>),
    /// A WebSocket ping, to be answered with its payload.
    Ping(&'a [u8]),
    /// The client says goodbye.
    Goodbye(Option<u16>),
}

/// The reading half of one connection. Holds bytes only while a packet is incomplete.
#[derive(Debug)]
pub struct Input {
    frames: Option<Reader>,
    partial: Vec<u8>,
}

impl Input {
    /// Reads this framing; `leftover` came with the transport's handshake.
    pub fn new(framing: Framing, leftover: Vec<u8>) -> Self {
        let frames = (framing == Framing::WebSocket).then(|| Reader::server(MAX_MESSAGE));
        Self { frames, partial: leftover }
    }

    /// Takes packets out of what waited and the `fresh` bytes after it, in order, until `take` says stop.
    /// What is left waits for more, or for the next call with nothing fresh.
    ///
    /// # Errors
    /// The reason to close, from the bytes or from `take`.
    pub fn read(
        &mut self,
        fresh: &mut [u8],
        mut take: impl FnMut(Incoming<'_>) -> Result<bool, Close>,
    ) -> Result<(), Close> {
        if self.partial.is_empty() {
            let used = Self::packets(&mut self.frames, fresh, &mut take)?;
            self.partial.extend_from_slice(&fresh[used..]);
            return Ok(());
        }
        let mut waiting = std::mem::take(&mut self.partial);
        waiting.extend_from_slice(fresh);
        let used = Self::packets(&mut self.frames, &mut waiting, &mut take)?;
        if used < waiting.len() {
            waiting.drain(..used);
            waiting.shrink_to_fit();
            self.partial = waiting;
        }
        Ok(())
    }

    fn packets(
        frames: &mut Option<Reader>,
        stream: &mut [u8],
        take: &mut impl FnMut(Incoming<'_>) -> Result<bool, Close>,
    ) -> Result<usize, Close> {
        let mut at = 0;
        loop {
            let (incoming, used) = match frames {
                None => match packet::decode(&stream[at..], packet::MAX_BODY)? {
                    Some((packet, used)) => (Incoming::Packet(packet), used),
                    None => return Ok(at),
                },
                Some(frames) => match frames.next(&mut stream[at..])? {
                    Some((Event::Message(message), used)) => {
                        (Incoming::Packet(packet::decode_message(message, packet::MAX_BODY)?), used)
                    }
                    Some((Event::Ping(payload), used)) => (Incoming::Ping(payload), used),
                    Some((Event::Close(code), used)) => (Incoming::Goodbye(code), used),
                    Some((Event::Nothing, used)) => {
                        at += used;
                        continue;
                    }
                    None => return Ok(at),
                },
            };
            let more = take(incoming)?;
            at += used;
            if !more {
                return Ok(at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::frame;

    use super::*;

    fn ops(input: &mut Input, bytes: &[u8]) -> Result<Vec<i32>, Close> {
        let mut ops = Vec::new();
        input.read(&mut bytes.to_vec(), |incoming| {
            if let Incoming::Packet(packet) = incoming {
                ops.push(packet.op);
            }
            Ok(true)
        })?;
        Ok(ops)
    }

    fn message(payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        frame::put_masked(frame::BINARY, payload, [9, 8, 7, 6], &mut out);
        out
    }

    #[test]
    fn packets_are_found_however_the_stream_is_cut() {
        let mut stream = Vec::new();
        packet::encode(1, 2, 1, b"", &mut stream);
        packet::encode(1, 1000, 2, b"hello", &mut stream);
        for cut in 0..stream.len() {
            let mut input = Input::new(Framing::Tcp, stream[..cut].to_vec());
            assert_eq!(ops(&mut input, &stream[cut..]), Ok(vec![2, 1000]));
            assert!(input.partial.is_empty());
        }
    }

    #[test]
    fn a_stop_keeps_the_rest_for_the_next_call() {
        let mut stream = Vec::new();
        packet::encode(1, 4, 1, b"", &mut stream);
        packet::encode(1, 2, 2, b"", &mut stream);
        let mut input = Input::new(Framing::Tcp, Vec::new());
        let mut seen = 0;
        input
            .read(&mut stream, |_| {
                seen += 1;
                Ok(false)
            })
            .unwrap();
        assert_eq!((seen, input.partial.len()), (1, 16));
        assert_eq!(ops(&mut input, &[]), Ok(vec![2]));
    }

    #[test]
    fn length_beyond_the_message_closes() {
        let mut short = Vec::new();
        packet::put_header(1, 2, 1, 100, &mut short);
        short.extend_from_slice(b"only this");
        let mut input = Input::new(Framing::WebSocket, Vec::new());
        assert_eq!(ops(&mut input, &message(&short)), Err(Close::BadPacket));
        let mut input = Input::new(Framing::WebSocket, Vec::new());
        assert_eq!(ops(&mut input, &message(b"less than a head")[..]), Err(Close::BadPacket));
    }
}
