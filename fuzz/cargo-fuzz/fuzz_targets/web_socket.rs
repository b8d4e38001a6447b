#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ferrocore_fuzz::web_socket::run(data));
