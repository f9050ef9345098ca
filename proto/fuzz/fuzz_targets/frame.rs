#![no_main]

#[path = "../../src/frame.rs"]
#[allow(dead_code)]
mod frame;
#[path = "../properties/frame.rs"]
mod property;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| property::holds(bytes));
