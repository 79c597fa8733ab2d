//! Any text as a page of OpenMetrics: reading never panics.
#![no_main]

use belfry_pipeline::metrics::exposition::{Flavour, Item, Said, Sink, pairs, read};

struct Ignore;

impl Sink for Ignore {
    fn said(&mut self, _: &str, _: Said<'_>) {}

    fn take(&mut self, item: Item<'_>) -> Result<(), String> {
        // Whoever takes an item needs its labels apart.
        pairs(item.series).map(drop)
    }
}

libfuzzer_sys::fuzz_target!(|text: &str| {
    let _read = read(text, Flavour::OpenMetrics, &mut Ignore);
});
