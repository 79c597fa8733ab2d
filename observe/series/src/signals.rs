//! Everything that the series store tells about itself.

use belfry_signal::{
    Counter, CounterHandle, Emitter, Gauge, Histogram, Registry, SECONDS_FAST, Severity, Value,
};

belfry_signal::label_enum! {
    /// Why a sample was not kept.
    pub(crate) enum DropReason("reason") {
        MetricLimit = "metric_limit",
        SeriesLimit = "series_limit",
        OutOfOrder = "out_of_order",
        HeadFull = "head_full",
    }
}

const COMPONENT: &str = "series";

/// The store's families and its voice.
#[derive(Clone, Debug)]
pub(crate) struct Signals {
    emitter: Emitter,
    appended: CounterHandle,
    dropped: Counter<(DropReason,)>,
    head_series: Gauge<()>,
    head_bytes: Gauge<()>,
    blocks: Gauge<()>,
    block_bytes: Gauge<()>,
    blocks_sealed: Counter<()>,
    blocks_deleted: Counter<()>,
    blocks_damaged: Counter<()>,
    chunks_damaged: Counter<()>,
    catalogue_rebuilds: Counter<()>,
    seal_seconds: Histogram<()>,
    seal_failures: Counter<()>,
}

impl Signals {
    pub(crate) fn register(registry: &Registry) -> Self {
        let component = registry.component(COMPONENT);
        let appended: Counter<()> =
            component.counter("samples_appended_total", "Samples taken into the head.");
        Self {
            emitter: component.emitter(),
            appended: appended.handle(()),
            dropped: component.counter("samples_dropped_total", "Samples that were not kept."),
            head_series: component.gauge("head_series", "Series in the head."),
            head_bytes: component.gauge("head_bytes", "Packed samples in the head."),
            blocks: component.gauge("blocks", "Sealed blocks."),
            block_bytes: component.gauge("block_bytes", "Size of all sealed blocks."),
            blocks_sealed: component.counter("blocks_sealed_total", "Blocks sealed and published."),
            blocks_deleted: component.counter("blocks_deleted_total", "Blocks deleted because of their age."),
            blocks_damaged: component
                .counter("blocks_damaged_total", "Blocks skipped because they cannot be read."),
            chunks_damaged: component
                .counter("chunks_damaged_total", "Chunks skipped by queries because they cannot be read."),
            catalogue_rebuilds: component.counter(
                "catalogue_rebuilds_total",
                "Times that the catalogue was lost or damaged and made again from the blocks.",
            ),
            seal_seconds: component.histogram(
                "seal_seconds",
                "Time to seal and publish a block.",
                SECONDS_FAST,
            ),
            seal_failures: component.counter(
                "seal_failures_total",
                "Blocks that could not be sealed; the head keeps their samples.",
            ),
        }
    }

    pub(crate) fn appended(&self, samples: u64) {
        self.appended.add(samples);
    }

    pub(crate) fn dropped(&self, reason: DropReason, samples: u64) {
        self.dropped.add((reason,), samples);
    }

    /// A metric has more series than it may; told once per metric and window, with the offender's name.
    pub(crate) fn limit_reached(&self, metric: &str) {
        let attributes = vec![("series.metric".into(), Value::Text(metric.to_owned().into()))];
        self.log(Severity::Warn, "metric has more series than it may", attributes);
    }

    pub(crate) fn head_measured(&self, series: usize, bytes: usize) {
        self.head_series.set((), i64::try_from(series).unwrap_or(i64::MAX));
        self.head_bytes.set((), i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    pub(crate) fn blocks_measured(&self, blocks: usize, bytes: u64) {
        self.blocks.set((), i64::try_from(blocks).unwrap_or(i64::MAX));
        self.block_bytes.set((), i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    pub(crate) fn block_sealed(&self, series: usize, samples: u64, bytes: u64, seconds: f64) {
        self.blocks_sealed.inc(());
        self.seal_seconds.observe((), seconds);
        let attributes = vec![
            ("series.count".into(), (series as u64).into()),
            ("series.samples".into(), samples.into()),
            ("bytes".into(), bytes.into()),
            ("seconds".into(), seconds.into()),
        ];
        self.log(Severity::Info, "block sealed", attributes);
    }

    /// Sealing failed; `is_news` on the first of a row.
    pub(crate) fn seal_failed(&self, reason: &'static str, is_news: bool) {
        self.seal_failures.inc(());
        if is_news {
            self.log(
                Severity::Error,
                "block cannot be sealed",
                vec![("series.reason".into(), reason.into())],
            );
        }
    }

    pub(crate) fn blocks_deleted(&self, blocks: u64) {
        self.blocks_deleted.add((), blocks);
        self.log(Severity::Info, "old blocks deleted", vec![("series.blocks".into(), blocks.into())]);
    }

    pub(crate) fn block_damaged(&self, id: u64) {
        self.blocks_damaged.inc(());
        self.log(
            Severity::Error,
            "block skipped, it cannot be read",
            vec![("series.block".into(), id.into())],
        );
    }

    pub(crate) fn chunk_damaged(&self) {
        self.chunks_damaged.inc(());
    }

    pub(crate) fn catalogue_rebuilt(&self, blocks: u64) {
        self.catalogue_rebuilds.inc(());
        let attributes = vec![("series.blocks".into(), blocks.into())];
        self.log(Severity::Error, "catalogue cannot be read and was rebuilt from the blocks", attributes);
    }

    fn log(&self, severity: Severity, message: &'static str, attributes: belfry_signal::record::Attributes) {
        self.emitter.log(COMPONENT, severity, message, attributes, None, None);
    }
}
