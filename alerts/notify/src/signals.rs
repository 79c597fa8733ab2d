//! Everything that notification tells about itself.

use std::borrow::Cow;
use std::time::Duration;

use belfry_signal::{Counter, Emitter, Gauge, Histogram, Registry, SECONDS, Severity, Value};

use crate::back::WebhookError;
use crate::error::Error;
use crate::outbox::{Act, Taken};

belfry_signal::label_name! {
    /// A notified service, by its configured name.
    pub(crate) struct ServiceName("service", max = 64)
}

belfry_signal::label_enum! {
    /// What an event does.
    pub(crate) enum Action("action") { Trigger = "trigger", Resolve = "resolve", Acknowledge = "acknowledge" }
}

belfry_signal::label_enum! {
    /// Why an attempt has to be made again.
    pub(crate) enum RetryReason("reason") {
        RateLimited = "rate_limited",
        ServerError = "server_error",
        Refused = "refused",
        Timeout = "timeout",
        Network = "network",
    }
}

belfry_signal::label_enum! {
    /// What became of what a service said of an incident.
    pub(crate) enum Report("outcome") {
        Changed = "changed",
        Known = "known",
        Ended = "ended",
        Unknown = "unknown",
    }
}

belfry_signal::label_enum! {
    /// Why a webhook was not taken.
    pub(crate) enum Refusal("reason") {
        Signature = "signature",
        Malformed = "malformed",
        Unavailable = "unavailable",
    }
}

belfry_signal::label_enum! {
    /// How a look at a service's incidents ended.
    pub(crate) enum Look("outcome") { Done = "done", Failed = "failed" }
}

const COMPONENT: &str = "notify";

/// The crate's families and its voice.
#[derive(Clone, Debug)]
pub(crate) struct Signals {
    emitter: Emitter,
    enqueued: Counter<(ServiceName, Action)>,
    accepted: Counter<(ServiceName, Action)>,
    rejected: Counter<(ServiceName, Action)>,
    retries: Counter<(ServiceName, RetryReason)>,
    refused: Counter<()>,
    store_failures: Counter<()>,
    request_seconds: Histogram<(ServiceName,)>,
    waiting: Gauge<()>,
    reports: Counter<(ServiceName, Report)>,
    webhooks_refused: Counter<(Refusal,)>,
    looks: Counter<(ServiceName, Look)>,
}

impl From<Act> for Action {
    fn from(act: Act) -> Self {
        match act {
            Act::Trigger => Self::Trigger,
            Act::Resolve => Self::Resolve,
            Act::Acknowledge => Self::Acknowledge,
        }
    }
}

impl Signals {
    pub(crate) fn register(registry: &Registry) -> Self {
        let component = registry.component(COMPONENT);
        Self {
            emitter: component.emitter(),
            enqueued: component.counter("events_enqueued_total", "Events taken into the outbox."),
            accepted: component.counter("events_accepted_total", "Events that the service accepted."),
            rejected: component
                .counter("events_rejected_total", "Events that the service will never accept."),
            retries: component
                .counter("request_retries_total", "Requests that have to be made again, by reason."),
            refused: component
                .counter("outbox_refusals_total", "Notifications refused because the outbox was full."),
            store_failures: component
                .counter("outbox_failures_total", "Failures to read or write the outbox."),
            request_seconds: component.histogram(
                "request_seconds",
                "Time of a request to a service.",
                SECONDS,
            ),
            waiting: component.gauge("outbox_events", "Events that wait to be sent."),
            reports: component
                .counter("reports_total", "What services said of incidents, by what became of it."),
            webhooks_refused: component.counter("webhooks_refused_total", "Webhooks that were not taken."),
            looks: component.counter("reconciliations_total", "Looks at a service's incidents."),
        }
    }

    /// Notification began with what was left from before.
    pub(crate) fn started(&self, services: usize, waiting: usize) {
        let attributes = vec![
            (Cow::Borrowed("services"), Value::from(services as u64)),
            (Cow::Borrowed("waiting"), Value::from(waiting as u64)),
        ];
        self.emitter.log(COMPONENT, Severity::Info, "notification started", attributes, None, None);
        if services == 0 {
            self.emitter.log(
                COMPONENT,
                Severity::Warn,
                "no service is configured: pages stand on the control-tower page only",
                vec![],
                None,
                None,
            );
        }
    }

    /// An event is on disk.
    pub(crate) fn event_enqueued(&self, service: &ServiceName, act: Act) {
        self.enqueued.inc((service.clone(), act.into()));
    }

    /// A service has an event.
    pub(crate) fn event_accepted(&self, service: &ServiceName, act: Act, took: Duration) {
        self.accepted.inc((service.clone(), act.into()));
        self.request_seconds.observe((service.clone(),), took.as_secs_f64());
        let attributes = vec![name(service), (Cow::Borrowed("action"), Action::from(act).as_str().into())];
        self.emitter.log(COMPONENT, Severity::Info, "service accepted event", attributes, None, None);
    }

    /// A request has to be made again.
    pub(crate) fn request_failed(
        &self,
        service: &ServiceName,
        reason: RetryReason,
        took: Duration,
        pause: Duration,
    ) {
        self.retries.inc((service.clone(), reason));
        self.request_seconds.observe((service.clone(),), took.as_secs_f64());
        let attributes = vec![
            name(service),
            (Cow::Borrowed("reason"), reason.as_str().into()),
            (Cow::Borrowed("pause_seconds"), pause.as_secs_f64().into()),
        ];
        self.emitter.log(
            COMPONENT,
            Severity::Warn,
            "service did not accept event, will try again",
            attributes,
            None,
            None,
        );
    }

    /// A service will never accept an event: a person must look.
    pub(crate) fn event_rejected(&self, service: &ServiceName, act: Act, status: u16) {
        self.rejected.inc((service.clone(), act.into()));
        let attributes = vec![
            name(service),
            (Cow::Borrowed("action"), Action::from(act).as_str().into()),
            (Cow::Borrowed("http.response.status_code"), status.into()),
        ];
        self.emitter.log(
            COMPONENT,
            Severity::Error,
            "service rejected event for good",
            attributes,
            None,
            None,
        );
    }

    /// The outbox could not take a notification.
    pub(crate) fn outbox_was_full(&self) {
        self.refused.inc(());
        self.emitter.log(
            COMPONENT,
            Severity::Error,
            "outbox is full, notification refused",
            vec![],
            None,
            None,
        );
    }

    /// The outbox could not be read or written.
    pub(crate) fn outbox_failed(&self, error: &Error) {
        self.store_failures.inc(());
        let attributes = vec![(Cow::Borrowed("reason"), error.reason().into())];
        self.emitter.log(COMPONENT, Severity::Error, "outbox could not be used", attributes, None, None);
    }

    /// A service said how an incident stands.
    pub(crate) fn report_taken(&self, service: &ServiceName, taken: Taken) {
        let outcome = match taken {
            Taken::Changed => Report::Changed,
            Taken::Known => Report::Known,
            Taken::Ended => Report::Ended,
            Taken::Unknown => Report::Unknown,
        };
        self.reports.inc((service.clone(), outcome));
        if matches!(taken, Taken::Changed | Taken::Ended) {
            let attributes = vec![name(service), (Cow::Borrowed("outcome"), outcome.as_str().into())];
            self.emitter.log(
                COMPONENT,
                Severity::Info,
                "service said how an incident stands",
                attributes,
                None,
                None,
            );
        }
    }

    /// A webhook was not taken.
    pub(crate) fn webhook_refused(&self, error: WebhookError) {
        let reason = match error {
            WebhookError::Signature => Refusal::Signature,
            WebhookError::Malformed => Refusal::Malformed,
            WebhookError::Unavailable => Refusal::Unavailable,
        };
        self.webhooks_refused.inc((reason,));
    }

    /// A look at a service's incidents ended, well or not.
    pub(crate) fn looked(&self, service: &ServiceName, is_done: bool) {
        self.looks.inc((service.clone(), if is_done { Look::Done } else { Look::Failed }));
        if !is_done {
            self.emitter.log(
                COMPONENT,
                Severity::Warn,
                "service does not say how incidents stand, will try again",
                vec![name(service)],
                None,
                None,
            );
        }
    }

    /// So many events wait now.
    pub(crate) fn outbox_moved(&self, waiting: usize) {
        self.waiting.set((), i64::try_from(waiting).unwrap_or(i64::MAX));
    }
}

fn name(service: &ServiceName) -> (Cow<'static, str>, Value) {
    (Cow::Borrowed("service"), Value::Text(Cow::Owned(service.as_str().to_owned())))
}
