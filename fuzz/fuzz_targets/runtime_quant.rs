#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| harness::targets::runtime_quant(bytes));
