//! Any bytes as a page of protobuf exposition: reading never panics.
#![no_main]

use belfry_pipeline::metrics::exposition::{Item, Said, Sink, pairs};
use belfry_pipeline::metrics::families::{Histograms, read};

struct Ignore;

impl Sink for Ignore {
    fn said(&mut self, _: &str, _: Said<'_>) {}

    fn take(&mut self, item: Item<'_>) -> Result<(), String> {
        // Whoever takes an item needs its labels apart.
        pairs(item.series).map(drop)
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let histograms = Histograms { native: true, classic_too: true };
    let _read = read(bytes.to_vec().into(), histograms, &mut Ignore);
});
