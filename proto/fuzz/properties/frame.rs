//! The server's frame reader on any bytes: fed whole or in chunks it sees the same, and a message it accepted, written
//! by a client, is read again. The first byte of the input says how long the chunks are.

use crate::frame::{self, Event, FrameError, Reader};

const LIMIT: usize = 4096;

#[derive(Debug, PartialEq)]
enum Seen {
    Message(Vec<u8>),
    Nothing,
    Ping(Vec<u8>),
    Close(Option<u16>),
    Broken(FrameError),
}

/// Reads frames off the front of `stream` until more bytes are needed; false once the protocol is broken.
fn drain(reader: &mut Reader, stream: &mut Vec<u8>, seen: &mut Vec<Seen>) -> bool {
    loop {
        let used = match reader.next(stream) {
            Ok(None) => return true,
            Ok(Some((event, used))) => {
                seen.push(match event {
                    Event::Message(message) => Seen::Message(message.to_vec()),
                    Event::Nothing => Seen::Nothing,
                    Event::Ping(payload) => Seen::Ping(payload.to_vec()),
                    Event::Close(code) => Seen::Close(code),
                });
                used
            }
            Err(error) => {
                seen.push(Seen::Broken(error));
                return false;
            }
        };
        stream.drain(..used);
    }
}

fn read(bytes: &[u8], chunk: usize) -> Vec<Seen> {
    let mut reader = Reader::server(LIMIT);
    let mut stream = Vec::new();
    let mut seen = Vec::new();
    for part in bytes.chunks(chunk) {
        stream.extend_from_slice(part);
        if !drain(&mut reader, &mut stream, &mut seen) {
            break;
        }
    }
    seen
}

/// Panics where it does not hold.
pub fn holds(bytes: &[u8]) {
    let Some((chunk, bytes)) = bytes.split_first() else {
        return;
    };
    let whole = read(bytes, bytes.len().max(1));
    assert_eq!(read(bytes, usize::from(*chunk).max(1)), whole);
    for seen in &whole {
        if let Seen::Message(message) = seen {
            assert!(message.len() <= LIMIT);
            let mut again = Vec::new();
            frame::put_masked(frame::BINARY, message, [*chunk; 4], &mut again);
            assert_eq!(read(&again, again.len()), [Seen::Message(message.clone())]);
        }
    }
}
