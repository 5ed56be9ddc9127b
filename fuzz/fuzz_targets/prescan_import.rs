#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| harness::bytes::prescan_import(bytes));
