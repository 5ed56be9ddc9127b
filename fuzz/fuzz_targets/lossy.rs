#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| harness::targets::lossy(bytes));
libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    harness::targets::Target::Lossy.mutate(data, size, max_size, seed)
        .unwrap_or_else(|| libfuzzer_sys::fuzzer_mutate(data, size, max_size))
});
