//! WebSocket frames (RFC 6455 §5) as pure functions: the server's writing and reading, and a client's.
//!
//! The server writes unfragmented, unmasked binary messages. It reads masked frames, puts fragments together and
//! hands out control frames between them; limits are checked on the header, before anything is kept.

use bytes::BufMut;

/// Continues a fragmented message.
pub const CONTINUATION: u8 = 0x0;
/// A text message.
pub const TEXT: u8 = 0x1;
/// A binary message.
pub const BINARY: u8 = 0x2;
/// Closes the connection.
pub const CLOSE: u8 = 0x8;
/// Asks for a pong.
pub const PING: u8 = 0x9;
/// Answers a ping.
pub const PONG: u8 = 0xa;

/// The most frames one message may come in: goim's limit, which also bounds a flood of empty fragments.
pub const MAX_FRAGMENTS: usize = 102;

/// What breaks the protocol; `code` is the close code of RFC 6455 §7.4.1 to answer with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A reserved bit without an extension that defines it.
    #[error("reserved bit set")]
    Reserved,
    /// An opcode the RFC does not define.
    #[error("unknown opcode {0:#x}")]
    Opcode(u8),
    /// A client frame without a mask, or a server frame with one.
    #[error("mask bit is wrong for this side")]
    Mask,
    /// A fragmented or overlong control frame.
    #[error("control frame is fragmented or longer than 125 bytes")]
    Control,
    /// A continuation of nothing, or a new message inside a fragmented one.
    #[error("fragments out of order")]
    Fragments,
    /// A message beyond the limit, in bytes or in frames.
    #[error("message too large")]
    TooLarge,
}

impl FrameError {
    /// The close code that says this.
    pub fn code(self) -> u16 {
        if self == Self::TooLarge { 1009 } else { 1002 }
    }
}

/// What a whole frame amounted to.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A whole message, text or binary alike.
    Message(&'a [u8]),
    /// Part of a message, or a pong: nothing to do.
    Nothing,
    /// Answer with a pong of the same payload.
    Ping(&'a [u8]),
    /// The other side closes, with this code if it gave one.
    Close(Option<u16>),
}

/// Puts one side's incoming frames together.
#[derive(Debug)]
pub struct Reader {
    masked: bool,
    max_message: usize,
    partial: Option<Box<Partial>>,
    lent: Vec<u8>,
}

#[derive(Debug, Default)]
struct Partial {
    bytes: Vec<u8>,
    frames: usize,
}

struct Header {
    fin: bool,
    opcode: u8,
    start: usize,
    length: usize,
    mask: Option<[u8; 4]>,
}

impl Reader {
    /// Reads a client's frames: they must be masked.
    pub fn server(max_message: usize) -> Self {
        Self { masked: true, max_message, partial: None, lent: Vec::new() }
    }

    /// Reads a server's frames: they must not be masked.
    pub fn client(max_message: usize) -> Self {
        Self { masked: false, ..Self::server(max_message) }
    }

    /// Takes the frame at the front of `stream`, unmasking it in place; `Ok(None)` until all of it is there.
    /// Returns what it amounted to with the number of bytes it took.
    ///
    /// # Errors
    /// [`FrameError`] as soon as the header shows it; the connection is to be closed.
    pub fn next<'a>(&'a mut self, stream: &'a mut [u8]) -> Result<Option<(Event<'a>, usize)>, FrameError> {
        self.lent = Vec::new();
        let Some(header) = self.header(stream)? else {
            return Ok(None);
        };
        let used = header.start + header.length;
        let Some(payload) = stream.get_mut(header.start..used) else {
            return Ok(None);
        };
        if let Some(mask) = header.mask {
            unmask(payload, mask);
        }
        let event = match header.opcode {
            PING => Event::Ping(payload),
            PONG => Event::Nothing,
            CLOSE => Event::Close(payload.first_chunk().map(|code| u16::from_be_bytes(*code))),
            _ if header.fin && self.partial.is_none() => Event::Message(payload),
            _ => self.fragment(payload, header.fin),
        };
        Ok(Some((event, used)))
    }

    fn fragment(&mut self, payload: &[u8], last: bool) -> Event<'_> {
        let partial = self.partial.get_or_insert_default();
        partial.bytes.extend_from_slice(payload);
        partial.frames += 1;
        if !last {
            return Event::Nothing;
        }
        self.lent = self.partial.take().map(|partial| partial.bytes).unwrap_or_default();
        Event::Message(&self.lent)
    }

    fn header(&self, stream: &[u8]) -> Result<Option<Header>, FrameError> {
        let [first, second, rest @ ..] = stream else {
            return Ok(None);
        };
        let (fin, opcode) = (first & 0x80 != 0, first & 0x0f);
        if first & 0x70 != 0 {
            return Err(FrameError::Reserved);
        }
        if (second & 0x80 != 0) != self.masked {
            return Err(FrameError::Mask);
        }
        match opcode {
            CLOSE | PING | PONG if !fin || second & 0x7f > 125 => return Err(FrameError::Control),
            CLOSE | PING | PONG => {}
            CONTINUATION if self.partial.is_none() => return Err(FrameError::Fragments),
            TEXT | BINARY if self.partial.is_some() => return Err(FrameError::Fragments),
            CONTINUATION | TEXT | BINARY => {}
            _ => return Err(FrameError::Opcode(opcode)),
        }
        let (length, extended) = match second & 0x7f {
            126 => match rest.first_chunk::<2>() {
                Some(length) => (u64::from(u16::from_be_bytes(*length)), 2),
                None => return Ok(None),
            },
            127 => match rest.first_chunk::<8>() {
                Some(length) => (u64::from_be_bytes(*length), 8),
                None => return Ok(None),
            },
            length => (u64::from(length), 0),
        };
        let length = self.checked(opcode, length)?;
        let mask = match (self.masked, rest.get(extended..).and_then(|rest| rest.first_chunk::<4>())) {
            (false, _) => None,
            (true, Some(mask)) => Some(*mask),
            (true, None) => return Ok(None),
        };
        let start = 2 + extended + if self.masked { 4 } else { 0 };
        Ok(Some(Header { fin, opcode, start, length, mask }))
    }

    fn checked(&self, opcode: u8, length: u64) -> Result<usize, FrameError> {
        let length = usize::try_from(length).map_err(|_| FrameError::TooLarge)?;
        let (bytes, frames) = match &self.partial {
            Some(partial) if opcode == CONTINUATION => (partial.bytes.len(), partial.frames),
            _ => (0, 0),
        };
        if length > self.max_message - bytes || frames >= MAX_FRAGMENTS {
            return Err(FrameError::TooLarge);
        }
        Ok(length)
    }
}

/// Appends the header of an unmasked, unfragmented frame: what the server writes before `length` bytes of payload.
pub fn put_header(opcode: u8, length: usize, out: &mut impl BufMut) {
    put_head(opcode, 0, length, out);
}

/// Appends a masked, unfragmented frame: what a client writes.
pub fn put_masked(opcode: u8, payload: &[u8], mask: [u8; 4], out: &mut Vec<u8>) {
    put_head(opcode, 0x80, payload.len(), out);
    out.put_slice(&mask);
    let start = out.len();
    out.put_slice(payload);
    unmask(&mut out[start..], mask);
}

fn put_head(opcode: u8, mask_bit: u8, length: usize, out: &mut impl BufMut) {
    out.put_u8(0x80 | opcode);
    if length < 126 {
        out.put_u8(mask_bit | length as u8);
    } else if let Ok(length) = u16::try_from(length) {
        out.put_u8(mask_bit | 126);
        out.put_u16(length);
    } else {
        out.put_u8(mask_bit | 127);
        out.put_u64(length as u64);
    }
}

fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    for chunk in payload.chunks_mut(4) {
        for (byte, mask) in chunk.iter_mut().zip(mask) {
            *byte ^= mask;
        }
    }
}

#[cfg(test)]
mod tests;
