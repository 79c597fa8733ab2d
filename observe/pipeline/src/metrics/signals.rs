//! Everything that the doors for metrics tell about themselves.

use belfry_signal::{Counter, Emitter, Gauge, Histogram, Registry, SECONDS_FAST, Severity, Value, Written};

belfry_signal::label_enum! {
    /// How something was pushed.
    pub enum Pushed("protocol") {
        /// Remote write 1.0.
        V1 = "remote_write_1",
        /// Remote write 2.0.
        V2 = "remote_write_2",
        /// A page of text or protobuf.
        Text = "exposition",
    }
}

belfry_signal::label_enum! {
    /// What a sender was answered.
    pub enum Outcome("outcome") {
        /// All was taken.
        Taken = "taken",
        /// Some points were refused, the others written.
        Partly = "partly",
        /// Nothing was taken, and sending it again would not help.
        Refused = "refused",
        /// Nothing was taken: the sender should try again.
        Later = "later",
    }
}

belfry_signal::label_enum! {
    /// What a scrape came to.
    pub enum Scraped("outcome") {
        /// The page was read.
        Good = "good",
        /// Nobody answered in time.
        Timeout = "timeout",
        /// The connection could not be made or broke off.
        Connection = "connection",
        /// The answer was not 200.
        Status = "status",
        /// The page could not be read.
        Page = "page",
        /// The page was larger than allowed.
        Limit = "limit",
        /// It was read and could not be stored.
        Store = "store",
    }
}

belfry_signal::label_enum! {
    /// What became of points on their way to another store.
    pub enum Sent("outcome") {
        /// It has them.
        Sent = "sent",
        /// It refused them for good.
        Refused = "refused",
        /// Rules dropped them.
        Dropped = "dropped",
    }
}

const COMPONENT: &str = "pipeline";

/// The families and the voice of what is pushed to us.
#[derive(Clone, Debug)]
pub struct ReceiveSignals {
    requests: Counter<(Pushed, Outcome)>,
    points: Counter<(Pushed,)>,
    points_refused: Counter<(Pushed,)>,
    emitter: Emitter,
    groups_damaged: Counter<()>,
}

impl ReceiveSignals {
    /// Registers them.
    #[must_use]
    pub fn register(registry: &Registry) -> Self {
        let component = registry.component(COMPONENT);
        Self {
            requests: component.counter("received_requests_total", "Requests that pushed metrics to us."),
            points: component
                .counter("received_points_total", "Points that were pushed to us and taken, each once."),
            points_refused: component.counter(
                "received_points_refused_total",
                "Points that were pushed to us and refused; the store counts most of them by reason.",
            ),
            emitter: component.emitter(),
            groups_damaged: component.counter(
                "received_groups_damaged_total",
                "Groups of pushed metrics whose file could not be read at the start; it ends in .damaged now.",
            ),
        }
    }

    pub(crate) fn groups_opened(&self, groups: usize, damaged: usize) {
        if damaged > 0 {
            self.groups_damaged.add((), damaged as u64);
            let attributes =
                vec![("groups".into(), (groups as u64).into()), ("damaged".into(), (damaged as u64).into())];
            let message = "groups of pushed metrics could not be read: they are not repeated until they are pushed again";
            self.emitter.log(COMPONENT, Severity::Warn, message, attributes, None, None);
        }
    }

    pub(crate) fn request_answered(&self, protocol: Pushed, outcome: Outcome, written: Option<&Written>) {
        self.requests.inc((protocol, outcome));
        if let Some(written) = written {
            self.points.add((protocol,), written.taken());
            self.points_refused.add((protocol,), written.refusals());
        }
    }
}

/// The families and the voice of what we scrape.
#[derive(Clone, Debug)]
pub struct ScrapeSignals {
    emitter: Emitter,
    scrapes: Counter<(Scraped,)>,
    targets: Gauge<()>,
    targets_dropped: Counter<()>,
    discovery_failures: Counter<()>,
    late: Counter<()>,
    seconds: Histogram<()>,
}

impl ScrapeSignals {
    /// Registers them.
    #[must_use]
    pub fn register(registry: &Registry) -> Self {
        let component = registry.component(COMPONENT);
        Self {
            emitter: component.emitter(),
            scrapes: component.counter("scrapes_total", "Pages that we asked targets for."),
            targets: component.gauge("scrape_targets", "Targets that are scraped now."),
            targets_dropped: component.counter(
                "scrape_targets_refused_total",
                "Targets that were found and not taken, because there are as many as may be.",
            ),
            discovery_failures: component
                .counter("scrape_discovery_failures_total", "Attempts to find targets that failed."),
            late: component.counter(
                "scrapes_skipped_total",
                "Scrapes that were due while the one before was still under way or waited for its turn.",
            ),
            seconds: component.histogram(
                "scrape_seconds",
                "Time of one scrape, storing included.",
                SECONDS_FAST,
            ),
        }
    }

    pub(crate) fn scraped(&self, outcome: Scraped, seconds: f64) {
        self.scrapes.inc((outcome,));
        self.seconds.observe((), seconds);
    }

    pub(crate) fn skipped(&self, scrapes: u64) {
        self.late.add((), scrapes);
    }

    pub(crate) fn targets_counted(&self, targets: usize, refused: usize) {
        self.targets.set((), i64::try_from(targets).unwrap_or(i64::MAX));
        self.targets_dropped.add((), refused as u64);
    }

    /// Targets could not be found; `is_news` on the first of a row.
    pub(crate) fn discovery_failed(&self, job: &str, fault: &str, is_news: bool) {
        self.discovery_failures.inc(());
        if is_news {
            let attributes = vec![
                ("scrape.job".into(), Value::Text(job.to_owned().into())),
                ("error".into(), Value::Text(fault.to_owned().into())),
            ];
            self.log(Severity::Warn, "targets of a scrape job cannot be found", attributes);
        }
    }

    pub(crate) fn started(&self, jobs: usize) {
        self.log(Severity::Info, "scraping begins", vec![("scrape.jobs".into(), (jobs as u64).into())]);
    }

    fn log(&self, severity: Severity, message: &'static str, attributes: belfry_signal::record::Attributes) {
        self.emitter.log(COMPONENT, severity, message, attributes, None, None);
    }
}

/// The families and the voice of what we send on.
#[derive(Clone, Debug)]
pub struct SendSignals {
    emitter: Emitter,
    points: Counter<(Sent,)>,
    failures: Counter<()>,
    waiting: Gauge<()>,
    seconds: Histogram<()>,
}

impl SendSignals {
    /// Registers them.
    #[must_use]
    pub fn register(registry: &Registry) -> Self {
        let component = registry.component(COMPONENT);
        Self {
            emitter: component.emitter(),
            points: component.counter("sent_points_total", "Points that were to be sent to another store."),
            failures: component.counter(
                "send_failures_total",
                "Requests to another store that failed and are tried again; nothing is lost by it.",
            ),
            waiting: component.gauge(
                "send_waiting_bytes",
                "Bytes of points in memory that wait to be sent; what does not fit waits in the log.",
            ),
            seconds: component.histogram(
                "send_seconds",
                "Time of one request to another store.",
                SECONDS_FAST,
            ),
        }
    }

    pub(crate) fn sent(&self, outcome: Sent, points: u64) {
        self.points.add((outcome,), points);
    }

    pub(crate) fn answered(&self, seconds: f64) {
        self.seconds.observe((), seconds);
    }

    pub(crate) fn waiting(&self, bytes: usize) {
        self.waiting.set((), i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// The other store does not take points now; `is_news` on the first of a row.
    pub(crate) fn failed(&self, fault: &str, is_news: bool) {
        self.failures.inc(());
        if is_news {
            self.log(Severity::Warn, "remote store takes no points", fault);
        }
    }

    pub(crate) fn recovered(&self) {
        self.log(Severity::Info, "remote store takes points again", "");
    }

    /// The other store will never take some points.
    pub(crate) fn refused(&self, points: u64, fault: &str, is_news: bool) {
        self.sent(Sent::Refused, points);
        if is_news {
            self.log(Severity::Warn, "remote store refuses points for good", fault);
        }
    }

    fn log(&self, severity: Severity, message: &'static str, fault: &str) {
        let attributes = vec![("error".into(), Value::Text(fault.to_owned().into()))];
        self.emitter.log(COMPONENT, severity, message, attributes, None, None);
    }
}
