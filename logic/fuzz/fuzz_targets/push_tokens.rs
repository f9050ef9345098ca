#![no_main]

#[path = "../properties/push_tokens.rs"]
mod property;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| property::holds(bytes));
