//! Everything that the page tells about itself.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use belfry_signal::{
    Counter, Emitter, Gauge, GaugeGuard, Histogram, Pii, Registry, SECONDS, Severity, Value,
};

belfry_signal::label_enum! {
    /// What was asked for.
    pub(crate) enum Route("route") {
        /// The frame of a page.
        Page = "page",
        /// A file of the page.
        Asset = "asset",
        /// The live stream.
        Live = "live",
        /// Anything else under `/api`.
        Api = "api",
        /// Login and logout.
        Login = "login",
        /// What is not there.
        Unknown = "unknown",
    }
}

belfry_signal::label_enum! {
    /// The class of the answer's status code.
    pub(crate) enum Class("class") {
        /// 100 to 299.
        Success = "2xx",
        /// 300 to 399.
        Redirection = "3xx",
        /// 400 to 499.
        ClientError = "4xx",
        /// 500 and above.
        ServerError = "5xx",
    }
}

belfry_signal::label_enum! {
    /// How a login ended.
    pub(crate) enum LoginOutcome("outcome") {
        /// With a password.
        Password = "password",
        /// With a one-time link.
        Link = "link",
        /// The name or password was wrong.
        WrongPassword = "wrong_password",
        /// The link was used before, too old, or never made.
        WrongLink = "wrong_link",
        /// The address guessed too often and has to wait.
        Slowed = "slowed",
        /// Too many passwords were being checked.
        Busy = "busy",
        /// Another site sent the form.
        CrossSite = "cross_site",
    }
}

belfry_signal::label_enum! {
    /// What was refused because a bound was reached.
    pub(crate) enum Bounded("what") {
        /// A live stream.
        LiveStream = "live_stream",
        /// A search.
        Search = "search",
    }
}

const COMPONENT: &str = "dashboard";

/// The crate's families and its voice.
#[derive(Clone, Debug)]
pub(crate) struct Signals {
    emitter: Emitter,
    requests: Counter<(Route, Class)>,
    request_seconds: Histogram<(Route,)>,
    logins: Counter<(LoginOutcome,)>,
    refused: Counter<(Bounded,)>,
    session_file_failures: Counter<()>,
    sessions: Gauge<()>,
    live_streams: Gauge<()>,
}

impl Signals {
    pub(crate) fn register(registry: &Registry) -> Self {
        let component = registry.component(COMPONENT);
        Self {
            emitter: component.emitter(),
            requests: component.counter("requests_total", "Requests answered, by route and class of status."),
            request_seconds: component.histogram("request_seconds", "Time to the answer's head.", SECONDS),
            logins: component.counter("logins_total", "Logins tried, by outcome."),
            refused: component.counter("refused_total", "Requests refused because a bound was reached."),
            session_file_failures: component.counter(
                "session_file_failures_total",
                "Times the file of sessions could not be read or written.",
            ),
            sessions: component.gauge("sessions", "Sessions that stand now."),
            live_streams: component.gauge("live_streams", "Live streams open now."),
        }
    }

    pub(crate) fn started(&self, address: SocketAddr, users: usize, has_page: bool) {
        let attributes = vec![
            (Cow::Borrowed("net.address"), Value::Text(Cow::Owned(address.to_string()))),
            (Cow::Borrowed("dashboard.users"), Value::from(users as u64)),
            (Cow::Borrowed("dashboard.page_built_in"), Value::from(has_page)),
        ];
        self.emitter.log(COMPONENT, Severity::Info, "control-tower page is served", attributes, None, None);
    }

    pub(crate) fn stopped(&self, stragglers: usize) {
        let attributes = vec![(Cow::Borrowed("stragglers"), Value::from(stragglers as u64))];
        self.emitter.log(COMPONENT, Severity::Info, "control-tower page has stopped", attributes, None, None);
    }

    pub(crate) fn request_answered(&self, route: Route, status: u16, took: Duration) {
        let class = match status {
            ..300 => Class::Success,
            300..400 => Class::Redirection,
            400..500 => Class::ClientError,
            500.. => Class::ServerError,
        };
        self.requests.inc((route, class));
        self.request_seconds.observe((route,), took.as_secs_f64());
    }

    /// A login was tried. `name` is what was typed, or that it was a login link.
    pub(crate) fn login_tried(&self, outcome: LoginOutcome, name: &Pii<String>, address: IpAddr) {
        self.logins.inc((outcome,));
        let (severity, message) = match outcome {
            LoginOutcome::Password | LoginOutcome::Link => (Severity::Info, "somebody logged in"),
            _ => (Severity::Warn, "a login was refused"),
        };
        let attributes = vec![
            (Cow::Borrowed("outcome"), Value::from(outcome.as_str())),
            (Cow::Borrowed("net.peer"), Value::from(Pii::new(address.to_string()))),
            (Cow::Borrowed("user.name"), Value::from(name.clone())),
        ];
        self.emitter.log(COMPONENT, severity, message, attributes, None, None);
    }

    pub(crate) fn logged_out(&self, name: Pii<String>) {
        let attributes = vec![(Cow::Borrowed("user.name"), Value::from(name))];
        self.emitter.log(COMPONENT, Severity::Info, "somebody logged out", attributes, None, None);
    }

    pub(crate) fn bound_reached(&self, what: Bounded) {
        self.refused.inc((what,));
    }

    /// A search or look-up failed in a store; the reader saw an error page.
    pub(crate) fn reading_failed(&self, reason: &'static str) {
        let attributes = vec![(Cow::Borrowed("reason"), Value::from(reason))];
        self.emitter.log(
            COMPONENT,
            Severity::Warn,
            "a store did not answer the page",
            attributes,
            None,
            None,
        );
    }

    pub(crate) fn sessions_counted(&self, sessions: usize) {
        self.sessions.set((), i64::try_from(sessions).unwrap_or(i64::MAX));
    }

    /// Sessions could not be read or written: a restart will ask everybody to log in.
    pub(crate) fn sessions_not_kept(&self) {
        self.session_file_failures.inc(());
        self.emitter.log(COMPONENT, Severity::Warn, "sessions could not be kept", vec![], None, None);
    }

    pub(crate) fn live_stream_opened(&self) -> GaugeGuard {
        self.live_streams.guard(())
    }
}
