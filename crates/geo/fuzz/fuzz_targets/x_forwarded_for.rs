#![no_main]

#[path = "../checks/x_forwarded_for.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|data: &[u8]| check::check(data));
