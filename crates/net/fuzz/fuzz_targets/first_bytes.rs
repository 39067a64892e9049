#![no_main]

#[path = "../checks/first_bytes.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|data: &[u8]| check::check(data));
