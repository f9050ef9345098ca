//! What a pushed body carries so that its receiver can judge it: which stream, which number, and when it was due.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | `IMCs`, so that other pushes are told apart |
//! | 4 | 4 | run: which measurement pushed it |
//! | 8 | 4 | stream: a room, a key, a member or everybody; numbers are ordered within one |
//! | 12 | 4 | number, from 0 |
//! | 16 | 8 | due, nanoseconds of `CLOCK_MONOTONIC`: when the schedule wanted it sent, not when it was |
//!
//! Integers big-endian; padding follows up to the body size asked for.

use std::time::Duration;

/// The shortest body that holds a stamp.
pub const LEN: usize = 24;
const MAGIC: &[u8; 4] = b"IMCs";

/// One push of a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Which measurement.
    pub run: u32,
    /// What it was addressed to.
    pub stream: u32,
    /// Its number in the stream, from 0.
    pub number: u32,
    /// When it was due, by [`crate::os::monotonic`].
    pub due: Duration,
}

impl Stamp {
    /// Appends a body of `size` bytes, or of [`LEN`] when that is more.
    pub fn encode(&self, size: usize, out: &mut Vec<u8>) {
        let end = out.len() + size.max(LEN);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&self.run.to_be_bytes());
        out.extend_from_slice(&self.stream.to_be_bytes());
        out.extend_from_slice(&self.number.to_be_bytes());
        out.extend_from_slice(&(self.due.as_nanos() as u64).to_be_bytes());
        out.resize(end, b'.');
    }

    /// Reads a body; `None` when it carries no stamp.
    pub fn decode(body: &[u8]) -> Option<Self> {
        let (magic, rest) = body.split_first_chunk::<4>()?;
        let (run, rest) = rest.split_first_chunk::<4>()?;
        let (stream, rest) = rest.split_first_chunk::<4>()?;
        let (number, rest) = rest.split_first_chunk::<4>()?;
        let due = rest.first_chunk::<8>()?;
        (magic == MAGIC).then(|| Self {
            run: u32::from_be_bytes(*run),
            stream: u32::from_be_bytes(*stream),
            number: u32::from_be_bytes(*number),
            due: Duration::from_nanos(u64::from_be_bytes(*due)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_comes_back_from_a_body_of_64_bytes_and_from_none_other() {
        let stamp = Stamp { run: 7, stream: 3, number: 9, due: Duration::from_nanos(123_456_789_012) };
        let mut body = Vec::new();
        stamp.encode(64, &mut body);
        assert_eq!(body.len(), 64);
        assert_eq!(Stamp::decode(&body), Some(stamp));
        assert_eq!(Stamp::decode(&body[..LEN - 1]), None);
        assert_eq!(Stamp::decode(b"hello, this is just a chat message"), None);
    }

    #[test]
    fn a_body_too_small_for_a_stamp_grows_to_hold_it() {
        let mut body = Vec::new();
        Stamp { run: 0, stream: 0, number: 0, due: Duration::ZERO }.encode(1, &mut body);
        assert_eq!(body.len(), LEN);
    }
}
