//! Any bytes as a request of remote write, in both versions: reading never panics, and what was read can be sent on.
#![no_main]

use belfry_pipeline::metrics::labels::LabelLimits;
use belfry_pipeline::metrics::remote_write::{Limits, Protocol, decode, encode};

const LIMITS: Limits = Limits {
    bytes_max: 1 << 20,
    series_max: 10_000,
    memory_bytes_max: 16 << 20,
    labels: LabelLimits { labels_max: 64, name_bytes_max: 512, value_bytes_max: 4096 },
    exemplar_bytes_max: 100,
    help_bytes_max: 40,
};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    for protocol in [Protocol::V1, Protocol::V2] {
        // Most bytes are not snappy, so they are tried as what was inside, too.
        let packed = snap::raw::Encoder::new().compress_vec(bytes).unwrap_or_default();
        for input in [bytes, &packed] {
            if let Ok(decoded) = decode(protocol, input, &LIMITS) {
                let _sent = encode(protocol, &decoded.batch);
            }
        }
    }
});
