#![no_main]

#[path = "../../src/op.rs"]
#[allow(dead_code)]
mod op;
#[path = "../../src/packet.rs"]
#[allow(dead_code)]
mod packet;
#[path = "../properties/packet.rs"]
mod property;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| property::holds(bytes));
