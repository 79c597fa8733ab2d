//! Any bytes as a chunk of a block, in each encoding, ours and Prometheus': reading never panics and never takes all memory.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    belfry_series::fuzz::chunk(bytes);
});
