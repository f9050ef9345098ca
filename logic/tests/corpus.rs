//! What `logic/fuzz` holds true of everything that reads tokens and keys, for any bytes, held against its corpus and inputs
//! made of it. libFuzzer looks further: `make fuzz`.
#![allow(clippy::unwrap_used)]

use std::path::Path;

#[path = "../fuzz/properties/jwt.rs"]
mod jwt;
#[path = "../fuzz/properties/keys.rs"]
mod keys;
#[path = "../fuzz/properties/push_tokens.rs"]
mod push_tokens;
#[path = "../../proto/fuzz/replay.rs"]
mod replay;

fn replay(target: &str, made: usize, property: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    replay::replay(&corpus, made, property);
}

#[test]
fn nobody_is_let_in_beyond_what_a_signed_token_says_whatever_comes() {
    replay("jwt", 100_000, jwt::holds);
}

#[test]
fn keys_are_for_the_algorithms_of_their_kind_whatever_comes() {
    replay("keys", 100_000, keys::holds);
}

#[test]
fn a_push_is_let_in_only_by_a_token_of_the_file_whatever_comes() {
    replay("push_tokens", 20_000, push_tokens::holds);
}
