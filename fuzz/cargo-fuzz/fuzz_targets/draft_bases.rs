#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ferrocore_fuzz::store_files::draft_bases(data));
