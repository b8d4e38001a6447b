#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ferrocore_fuzz::store_files::aliases(data));
