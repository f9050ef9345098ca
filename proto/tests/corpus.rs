//! What `proto/fuzz` holds true for any bytes, held against its corpus and inputs made of it. libFuzzer looks further:
//! `make fuzz`.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use proto::{Mid, frame, packet, token};

#[path = "../fuzz/properties/frame.rs"]
mod frame_property;
#[path = "../fuzz/properties/packet.rs"]
mod packet_property;
#[path = "../fuzz/replay.rs"]
mod replay;
#[path = "../fuzz/properties/token.rs"]
mod token_property;

fn replay(target: &str, made: usize, property: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    replay::replay(&corpus, made, property);
}

#[test]
fn packets_are_decoded_as_they_are_encoded_whatever_comes() {
    replay("packet", 500_000, packet_property::holds);
}

#[test]
fn frames_are_the_same_in_chunks_and_whole_whatever_comes() {
    replay("frame", 200_000, frame_property::holds);
}

#[test]
fn auth_bodies_are_read_alike_by_all_their_readers_whatever_comes() {
    replay("token", 200_000, token_property::holds);
}
