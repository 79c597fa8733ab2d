//! Everything that the series store tells about itself.

use belfry_signal::{
    Counter, CounterHandle, Emitter, Gauge, Histogram, Registry, SECONDS_FAST, Severity, Value,
};

belfry_signal::label_enum! {
    /// Why a sample was not kept.
    pub(crate) enum DropReason("reason") {
        MetricLimit = "metric_limit",
        SeriesLimit = "series_limit",
        TenantLimit = "tenant_limit",
        OutOfOrder = "out_of_order",
        TooOld = "too_old",
        Duplicate = "duplicate",
        Invalid = "invalid",
        HeadFull = "head_full",
    }
}

belfry_signal::label_enum! {
    /// What the bucket was asked for.
    pub(crate) enum BucketWork("work") {
        Read = "read",
        Upload = "upload",
        Delete = "delete",
    }
}

const COMPONENT: &str = "series";

/// The store's families and its voice.
#[derive(Clone, Debug)]
pub(crate) struct Signals {
    emitter: Emitter,
    appended: CounterHandle,
    repeated: CounterHandle,
    late: CounterHandle,
    exemplars_dropped: Counter<()>,
    metadata_dropped: Counter<()>,
    compactions: Counter<()>,
    compaction_failures: Counter<()>,
    compaction_seconds: Histogram<()>,
    days_downsampled: Counter<()>,
    downsampling_failures: Counter<()>,
    blocks_uploaded: Counter<()>,
    bucket_failures: Counter<(BucketWork,)>,
    bucket_blocks: Gauge<()>,
    points_deleted: Counter<()>,
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
    stores_set_aside: Counter<()>,
    blocks_set_aside: Counter<()>,
    seal_seconds: Histogram<()>,
    seal_failures: Counter<()>,
}

impl Signals {
    pub(crate) fn register(registry: &Registry) -> Self {
        let component = registry.component(COMPONENT);
        let appended: Counter<()> =
            component.counter("samples_appended_total", "Samples taken into the head.");
        let repeated: Counter<()> = component
            .counter("samples_repeated_total", "Samples that the head had already, with the same value.");
        let late: Counter<()> =
            component.counter("samples_late_total", "Samples taken behind later ones of their series.");
        Self {
            emitter: component.emitter(),
            appended: appended.handle(()),
            repeated: repeated.handle(()),
            late: late.handle(()),
            exemplars_dropped: component
                .counter("exemplars_dropped_total", "Exemplars that were too old or too long."),
            metadata_dropped: component
                .counter("metadata_dropped_total", "Descriptions of metrics beyond metadata_max."),
            compactions: component.counter("compactions_total", "Blocks made of others."),
            compaction_failures: component
                .counter("compaction_failures_total", "Compactions that were not finished."),
            compaction_seconds: component.histogram(
                "compaction_seconds",
                "Time to make one block of others.",
                SECONDS_FAST,
            ),
            days_downsampled: component
                .counter("days_downsampled_total", "Days made of a level of downsampled series."),
            downsampling_failures: component
                .counter("downsampling_failures_total", "Days of levels that could not be made."),
            blocks_uploaded: component.counter("blocks_uploaded_total", "Blocks copied into the bucket."),
            bucket_failures: component
                .counter("bucket_failures_total", "Questions that the bucket did not answer."),
            bucket_blocks: component
                .gauge("bucket_blocks", "Blocks that are in the bucket and nowhere else."),
            points_deleted: component.counter("points_deleted_total", "Points deleted by matcher."),
            dropped: component.counter("samples_dropped_total", "Samples that were not kept."),
            head_series: component.gauge("head_series", "Series in the head."),
            head_bytes: component.gauge("head_bytes", "Packed samples in the head."),
            blocks: component.gauge("blocks", "Sealed blocks."),
            block_bytes: component.gauge("block_bytes", "Size of all sealed blocks."),
            blocks_sealed: component.counter("blocks_sealed_total", "Blocks sealed and published."),
            blocks_deleted: component
                .counter("blocks_deleted_total", "Blocks deleted because of their age or the disk's use."),
            blocks_damaged: component
                .counter("blocks_damaged_total", "Blocks skipped because they cannot be read."),
            chunks_damaged: component
                .counter("chunks_damaged_total", "Chunks skipped by queries because they cannot be read."),
            stores_set_aside: component.counter(
                "stores_set_aside_total",
                "Times that the directory was of another format and was renamed.",
            ),
            blocks_set_aside: component
                .counter("blocks_set_aside_total", "Blocks that the catalogue did not know, moved aside."),
            catalogue_rebuilds: component.counter(
                "catalogue_rebuilds_total",
                "Times that the catalogue was made again from the blocks.",
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

    pub(crate) fn repeated(&self, samples: u64) {
        self.repeated.add(samples);
    }

    pub(crate) fn late(&self) {
        self.late.add(1);
    }

    pub(crate) fn exemplar_dropped(&self) {
        self.exemplars_dropped.inc(());
    }

    pub(crate) fn metadata_dropped(&self) {
        self.metadata_dropped.inc(());
    }

    /// A metric has more series than it may; told once per metric and window, with the label that has the most values.
    pub(crate) fn metric_limit_reached(&self, metric: &str, label: &str, values: usize) {
        self.log(
            Severity::Warn,
            "metric has more series than it may",
            offender("series.metric", metric, label, values),
        );
    }

    /// A tenant has more series than it may; told once per tenant and window.
    pub(crate) fn tenant_limit_reached(&self, tenant: &str, label: &str, values: usize) {
        self.log(
            Severity::Warn,
            "tenant has more series than it may",
            offender("series.tenant", tenant, label, values),
        );
    }

    pub(crate) fn head_measured(&self, series: usize, bytes: usize) {
        self.head_series.set((), i64::try_from(series).unwrap_or(i64::MAX));
        self.head_bytes.set((), i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    pub(crate) fn blocks_measured(&self, blocks: usize, bytes: u64, in_bucket: usize) {
        self.bucket_blocks.set((), i64::try_from(in_bucket).unwrap_or(i64::MAX));
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

    pub(crate) fn compacted(&self, blocks: usize, bytes_before: u64, bytes_after: u64, seconds: f64) {
        self.compactions.inc(());
        self.compaction_seconds.observe((), seconds);
        let attributes = vec![
            ("series.blocks".into(), (blocks as u64).into()),
            ("series.bytes_before".into(), bytes_before.into()),
            ("series.bytes_after".into(), bytes_after.into()),
            ("seconds".into(), seconds.into()),
        ];
        self.log(Severity::Info, "blocks compacted", attributes);
    }

    pub(crate) fn compaction_failed(&self, reason: &'static str) {
        self.compaction_failures.inc(());
        self.log(
            Severity::Error,
            "blocks cannot be compacted",
            vec![("series.reason".into(), reason.into())],
        );
    }

    pub(crate) fn downsampled(&self, stretches: u64, seconds: f64) {
        self.days_downsampled.inc(());
        let attributes =
            vec![("series.stretches".into(), stretches.into()), ("seconds".into(), seconds.into())];
        self.log(Severity::Info, "day downsampled", attributes);
    }

    pub(crate) fn downsampling_failed(&self, reason: &'static str) {
        self.downsampling_failures.inc(());
        self.log(Severity::Error, "day cannot be downsampled", vec![("series.reason".into(), reason.into())]);
    }

    pub(crate) fn block_uploaded(&self, id: u64, bytes: u64, seconds: f64) {
        self.blocks_uploaded.inc(());
        let attributes = vec![
            ("series.block".into(), id.into()),
            ("series.bytes".into(), bytes.into()),
            ("seconds".into(), seconds.into()),
        ];
        self.log(Severity::Info, "block uploaded", attributes);
    }

    /// The bucket did not do its work; what is in it is missing in answers until it does.
    pub(crate) fn bucket_failed(&self, work: BucketWork) {
        self.bucket_failures.inc((work,));
    }

    /// Told when it begins to fail.
    pub(crate) fn bucket_lost(&self, text: &str) {
        let attributes = vec![("series.fault".into(), Value::Text(text.to_owned().into()))];
        self.log(Severity::Error, "bucket with blocks does not answer", attributes);
    }

    pub(crate) fn series_deleted(&self, blocks: u64, points: u64) {
        self.points_deleted.add((), points);
        let attributes =
            vec![("series.blocks".into(), blocks.into()), ("series.points".into(), points.into())];
        self.log(Severity::Info, "series deleted by matcher", attributes);
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

    /// The directory is of another format: it has another name now, and the store begins anew.
    pub(crate) fn store_set_aside(&self, aside: &std::path::Path) {
        self.stores_set_aside.inc(());
        let attributes = vec![("file.path".into(), Value::Text(aside.display().to_string().into()))];
        self.log(Severity::Error, "store of series is of another format and was set aside", attributes);
    }

    /// A block that the catalogue does not know, mostly of a crash, is out of the way, or could not be moved.
    pub(crate) fn block_set_aside(&self, id: u64, is_moved: bool) {
        if is_moved {
            self.blocks_set_aside.inc(());
        }
        let attributes =
            vec![("series.block".into(), id.into()), ("series.is_moved".into(), Value::Bool(is_moved))];
        self.log(Severity::Warn, "block that the catalogue does not know was set aside", attributes);
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

/// Label values may be private; how many there are is not.
fn offender(key: &'static str, name: &str, label: &str, values: usize) -> belfry_signal::record::Attributes {
    vec![
        (key.into(), Value::Text(name.to_owned().into())),
        ("series.label".into(), Value::Text(label.to_owned().into())),
        ("series.label_values".into(), (values as u64).into()),
    ]
}
