//! Any bytes at a door for others' telemetry: decoding never panics and never takes all memory.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    belfry_pipeline::doors::fuzz::otlp(bytes);
});
