//! Any text as a prometheus.yml: reading never panics.
#![no_main]

use belfry_pipeline::metrics::scrape::config::FileConfig;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let _read = FileConfig::parse(text, std::path::Path::new(""));
});
