//! The packet decoders on any bytes: what is decoded, encoded again, is what was there; nothing beyond the input is
//! ever reported; a stream and a message agree.

use crate::packet::{self, HEADER_LEN, MAX_BODY, PacketError};

/// Panics where it does not hold.
pub fn holds(bytes: &[u8]) {
    let mut rest = bytes;
    loop {
        let in_message = packet::decode_message(rest, MAX_BODY);
        match packet::decode(rest, MAX_BODY) {
            Ok(Some((found, used))) => {
                assert!(used >= HEADER_LEN && used <= rest.len());
                assert_eq!(&found.to_packet().to_bytes()[..], &rest[..used]);
                assert_eq!(in_message, Ok(found));
                rest = &rest[used..];
            }
            Ok(None) => {
                assert!(matches!(in_message, Err(PacketError::BeyondMessage { .. })), "{in_message:?}");
                break;
            }
            Err(error) => {
                assert_eq!(in_message, Err(error));
                break;
            }
        }
    }
    let mut taken = 0;
    for found in packet::packets(bytes) {
        match found {
            Ok(found) => taken += HEADER_LEN + found.body.len(),
            Err(_) => break,
        }
    }
    assert!(taken <= bytes.len());
}
