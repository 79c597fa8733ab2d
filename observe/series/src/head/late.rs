//! Samples of one series that came behind later ones: sorted, few, closed into chunks of their own.
//!
//! Such a chunk lies over those in order; readers and compaction merge them by time.

use std::sync::Arc;

use belfry_promql::Value;

use super::Taken;
use crate::chunk::{Chunk, ChunkBuilder};

/// Late samples that wait before they become a chunk, as in Prometheus.
const LATE_MAX: usize = 32;

/// Late samples, by time.
#[derive(Debug, Default)]
pub(super) struct Late {
    samples: Vec<(i64, Value)>,
}

impl Late {
    pub(super) fn bytes(&self) -> usize {
        self.samples.len() * 16
    }

    /// Takes a sample. The first value of a time counts; against samples in order that is seen when they are read.
    pub(super) fn push(&mut self, unix_millis: i64, value: &Value) -> Taken {
        match self.samples.binary_search_by_key(&unix_millis, |(time, _)| *time) {
            Ok(at) if self.samples[at].1 == *value => return Taken::Repeated,
            Ok(_) => return Taken::Duplicate,
            Err(at) => self.samples.insert(at, (unix_millis, value.clone())),
        }
        Taken::Late
    }

    /// When there are many: all of them, as chunks, and none is left here.
    pub(super) fn take_full(&mut self) -> Vec<Arc<Chunk>> {
        if self.samples.len() < LATE_MAX {
            return Vec::new();
        }
        let chunks = self.chunks();
        self.samples.clear();
        chunks
    }

    /// The samples as chunks: floats and histograms apart, and histograms by layout.
    pub(super) fn chunks(&self) -> Vec<Arc<Chunk>> {
        let mut chunks = Vec::new();
        let mut open = ChunkBuilder::default();
        let mut close = |open: &mut ChunkBuilder| {
            let full = std::mem::take(open);
            if full.count() > 0 {
                chunks.push(Arc::new(full.close()));
            }
        };
        for (time, value) in &self.samples {
            match value {
                Value::Float(value) => {
                    if !open.takes(None) {
                        close(&mut open);
                    }
                    open.push(*time, *value);
                }
                // What is between two late histograms is not known here, so neither is whether there was a reset.
                Value::Histogram(histogram) => {
                    if open.count() == 0 || !open.takes(Some(histogram)) {
                        close(&mut open);
                        open = ChunkBuilder::for_histogram(histogram);
                    }
                    open.push_histogram(*time, histogram);
                }
            }
        }
        close(&mut open);
        chunks
    }
}
