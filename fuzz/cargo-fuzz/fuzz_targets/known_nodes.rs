#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ferrocore_fuzz::discovery::known_nodes(data));
