#![no_main]

#[path = "../../src/envelope.rs"]
#[allow(dead_code)]
mod envelope;
#[path = "../../src/id.rs"]
#[allow(dead_code)]
mod id;
#[path = "../../src/op.rs"]
#[allow(dead_code)]
mod op;
#[path = "../../src/packet.rs"]
#[allow(dead_code)]
mod packet;
#[path = "../properties/token.rs"]
mod property;
#[path = "../../src/token.rs"]
#[allow(dead_code)]
mod token;

use id::Mid;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| property::holds(bytes));
