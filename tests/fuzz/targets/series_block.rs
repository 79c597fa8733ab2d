//! Any bytes as a block file, and as an index of Prometheus: reading never panics and never takes all memory.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    belfry_series::fuzz::block(bytes);
});
