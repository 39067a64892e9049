#![no_main]

#[path = "../checks/client_address.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|data: &[u8]| check::check(data));
