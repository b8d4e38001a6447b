#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ferrocore_fuzz::discovery::announcements(data));
