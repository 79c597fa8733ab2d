//! How others talk to notification.

use std::sync::Arc;
use std::time::Duration;

use belfry_signal::{Journey, Registry};
use http::HeaderValue;
use tokio::sync::{Notify as Nudge, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};

use crate::back::reconcile::Reconciler;
use crate::back::standing::person;
use crate::back::webhook::{self, Said};
use crate::back::{Signature, Standing, StandingState, WebhookError};
use crate::client::{Get, Post, http_get, http_post};
use crate::config::{Config, check_url, journey_named};
use crate::error::Error;
use crate::event;
use crate::key::{RoutingKey, Secret};
use crate::outbox::{Outbox, Word};
use crate::page::Notification;
use crate::sender::{Command, Sender, Service};
use crate::signals::{ServiceName, Signals};
use crate::target::{Destination, TargetConfig};

/// Commands that may wait for the sender.
const COMMANDS_MAX: usize = 64;
/// The longest comment that is kept.
const COMMENT_CHARS_MAX: usize = 1_024;
/// How long a webhook may take to be written down: its sender waits five seconds.
const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(4);

/// Starts notification.
#[derive(Debug)]
pub struct Notify;

/// Takes notifications. Cheap to clone.
#[derive(Clone, Debug)]
pub struct NotifyHandle {
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<Arc<NotifyStatus>>,
    /// Whether there was anybody at the start who is told over TLS: roots are read then.
    has_tls: bool,
    hooks: Arc<Vec<Hook>>,
    signals: Signals,
}

/// Who may send webhooks about the incidents of a service.
#[derive(Debug)]
struct Hook {
    service: String,
    secrets: Vec<Secret>,
    /// Asks for a look at the service's incidents.
    nudge: Arc<Nudge>,
}

/// How notification fares.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NotifyStatus {
    /// Every configured service.
    pub services: Vec<ServiceStatus>,
    /// What services will never accept, oldest first.
    pub rejected: Vec<RejectedStatus>,
    /// How open incidents stand at the services that say so, and what was said of them here.
    pub standings: Arc<Vec<Standing>>,
}

/// How one service fares. Times are nanoseconds since the epoch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceStatus {
    /// Its configured name.
    pub name: String,
    /// Events that wait for it.
    pub waiting: usize,
    /// When the oldest of them was taken.
    pub oldest_unix_nanos: Option<u64>,
    /// Events that it accepted since the process started.
    pub accepted: u64,
    /// When it last did.
    pub last_accepted_unix_nanos: Option<u64>,
    /// Why the last request failed; `None` when it did not.
    pub last_failure: Option<&'static str>,
}

/// One event that a service will never accept.
#[derive(Clone, Debug, PartialEq)]
pub struct RejectedStatus {
    /// The service.
    pub service: String,
    /// `trigger` or `resolve`.
    pub action: &'static str,
    /// The HTTP status; 0 when the service is no longer configured.
    pub status: u16,
    /// What the service said, cut.
    pub message: String,
    /// When the event was taken.
    pub enqueued_unix_nanos: u64,
}

impl Notify {
    /// Opens the outbox and begins to send what it holds. Call it inside a tokio runtime, when starting up: it
    /// reads the routing keys and the outbox before it returns.
    ///
    /// # Errors
    /// When the configuration cannot stand, a routing key cannot be read, TLS cannot be set up or the outbox
    /// cannot be opened.
    pub fn start(config: Config, registry: &Registry) -> Result<NotifyHandle, Error> {
        Self::start_with_targets(config, &[], registry)
    }

    /// As [`Notify::start`], with the targets that the routes of alerts name.
    ///
    /// # Errors
    /// As [`Notify::start`]; also when a secret of a target cannot be read.
    pub fn start_with_targets(
        config: Config,
        targets: &[TargetConfig],
        registry: &Registry,
    ) -> Result<NotifyHandle, Error> {
        let rest = config.services.iter().filter_map(|service| service.back.as_ref());
        let needs_tls = config.services.iter().any(|service| service.url.starts_with("https:"))
            || targets.iter().any(TargetConfig::needs_tls)
            || rest.into_iter().any(|back| back.has_token() && back.rest_url.starts_with("https:"));
        let post = http_post(needs_tls, config.request_timeout)?;
        let get = http_get(needs_tls, config.request_timeout)?;
        Ok(NotifyHandle { has_tls: needs_tls, ..start_all(config, targets, registry, post, &get)? })
    }
}

/// Starts with the given way to make requests.
#[cfg(test)]
pub(crate) fn start_with(config: Config, registry: &Registry, post: Post) -> Result<NotifyHandle, Error> {
    let nothing: Get = Arc::new(|_| Box::pin(async { None }));
    start_all(config, &[], registry, post, &nothing)
}

/// Starts with the given ways to make requests.
#[cfg(test)]
pub(crate) fn start_both(
    config: Config,
    registry: &Registry,
    post: Post,
    get: &Get,
) -> Result<NotifyHandle, Error> {
    start_all(config, &[], registry, post, get)
}

fn start_all(
    config: Config,
    targets: &[TargetConfig],
    registry: &Registry,
    post: Post,
    get: &Get,
) -> Result<NotifyHandle, Error> {
    if let Some((key, message)) = config.check().into_iter().next() {
        return Err(Error::Config { key, message });
    }
    let mut services = config.services.iter().map(service).collect::<Result<Vec<_>, _>>()?;
    services.extend(targets.iter().map(target).collect::<Result<Vec<_>, _>>()?);
    let outbox = Outbox::open(&config.directory)?;
    let loaded = outbox.load()?;
    let resource = registry.emitter().resource();
    let origin = event::Sender {
        public_url: config.public_url.clone(),
        site: resource.site.clone(),
        node: resource.node.clone(),
    };
    let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
    let (publisher, status) = watch::channel(Arc::new(NotifyStatus::default()));
    let signals = Signals::register(registry);
    let mut hooks = Vec::new();
    let mut reconcilers = Vec::new();
    for service in &config.services {
        let Some(back) = &service.back else { continue };
        let (file, variable) = (back.webhook_secrets_file.as_deref(), back.webhook_secrets_env.as_deref());
        let secrets = Secret::read_all(&service.name, file, variable)?;
        let nudge = Arc::new(Nudge::new());
        reconcilers.extend(reconciler(service, back, get, &commands, &nudge, &signals)?);
        hooks.push(Hook { service: service.name.clone(), secrets, nudge });
    }
    let sender = Sender::new(config, services, origin, outbox, signals.clone(), post, receiver, publisher);
    tokio::spawn(sender.run(loaded));
    for reconciler in reconcilers {
        tokio::spawn(reconciler.run());
    }
    Ok(NotifyHandle { commands, status, has_tls: true, hooks: Arc::new(hooks), signals })
}

/// Who looks at a service's incidents, if a token says that somebody may.
fn reconciler(
    service: &crate::config::ServiceConfig,
    back: &crate::config::BackConfig,
    get: &Get,
    commands: &mpsc::Sender<Command>,
    nudge: &Arc<Nudge>,
    signals: &Signals,
) -> Result<Option<Reconciler>, Error> {
    let wrong = |message: String| Error::Config { key: "services.back.rest_url".to_owned(), message };
    let (file, variable) = (back.rest_token_file.as_deref(), back.rest_token_env.as_deref());
    let Some(token) = Secret::read_all(&service.name, file, variable)?.into_iter().next() else {
        return Ok(None);
    };
    let mut login = HeaderValue::from_str(&format!("Token token={}", token.reveal()))
        .map_err(|_| wrong("its token has letters that no header may have".to_owned()))?;
    login.set_sensitive(true);
    let url = check_url(&back.rest_url).map_err(wrong)?;
    Ok(Some(Reconciler {
        service: service.name.clone(),
        name: ServiceName::configured(&service.name)
            .map_err(|error| Error::Config { key: "services.name".to_owned(), message: error.to_string() })?,
        api: Destination { url, authorization: Some(login) },
        look_every: back.look_every,
        looks_max: back.looks_max,
        get: get.clone(),
        commands: commands.downgrade(),
        nudge: nudge.clone(),
        signals: signals.clone(),
    }))
}

fn service(config: &crate::config::ServiceConfig) -> Result<Service, Error> {
    let wrong = |key: &str, message: String| Error::Config { key: key.to_owned(), message };
    let journeys: Option<Vec<Journey>> =
        config.journeys.as_ref().map(|names| names.iter().filter_map(|name| journey_named(name)).collect());
    Ok(Service {
        id: config.name.clone(),
        name: ServiceName::configured(&config.name)
            .map_err(|error| wrong("services.name", error.to_string()))?,
        to: check_url(&config.url).map_err(|message| wrong("services.url", message))?.into(),
        key: Some(RoutingKey::read(config)?),
        journeys,
        is_target: false,
    })
}

/// A target under a name that can be a label; when there are too many of them they share one.
fn target(config: &TargetConfig) -> Result<Service, Error> {
    let opened = config.open()?;
    let plain: String = config
        .name
        .to_lowercase()
        .chars()
        .take(50)
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let name =
        ServiceName::configured(&format!("to-{plain}")).or_else(|_| ServiceName::configured("targets"));
    Ok(Service {
        id: config.name.clone(),
        name: name.map_err(|error| Error::Config { key: config.name.clone(), message: error.to_string() })?,
        to: opened.destination,
        key: opened.key,
        journeys: None,
        is_target: true,
    })
}

/// Runs a blocking use of the store where it holds up nobody.
pub(crate) async fn on_blocking_thread<T: Send + 'static>(
    use_store: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(use_store).await.map_err(|_| Error::Closed)?
}

impl NotifyHandle {
    /// Takes a notification: when this returns `Ok` it is on disk and will be sent, even after a crash.
    ///
    /// A page that was taken before is not taken again, so a caller that does not know may simply repeat.
    ///
    /// # Errors
    /// When the outbox is full for a service or cannot be written, or notification has ended: then it is to be repeated.
    pub async fn enqueue(&self, notification: Notification) -> Result<(), Error> {
        let (done, taken) = oneshot::channel();
        let command = Command::Enqueue { notification, done };
        self.commands.send(command).await.map_err(|_| Error::Closed)?;
        taken.await.map_err(|_| Error::Closed)?
    }

    /// Takes other targets: those that the routes of alerts name now.
    ///
    /// # Errors
    /// When a secret of one cannot be read: then those of before stay.
    pub async fn set_targets(&self, targets: &[TargetConfig]) -> Result<(), Error> {
        if let Some(target) = targets.iter().find(|target| target.needs_tls() && !self.has_tls) {
            let message = "is the first that is told over TLS: in force after a restart".to_owned();
            return Err(Error::Config { key: format!("target {}", target.name), message });
        }
        let targets = targets.iter().map(target).collect::<Result<Vec<_>, _>>()?;
        let (done, is_done) = oneshot::channel();
        let command = Command::SetTargets { targets, done };
        self.commands.send(command).await.map_err(|_| Error::Closed)?;
        is_done.await.map_err(|_| Error::Closed)
    }

    /// Takes a webhook of a service: on return what it says is on disk.
    ///
    /// # Errors
    /// When nobody whom we know signed it, it is no event, or it cannot be written now.
    pub async fn webhook(&self, signature: Signature<'_>, body: &[u8]) -> Result<(), WebhookError> {
        self.take_webhook(signature, body).await.inspect_err(|error| self.signals.webhook_refused(*error))
    }

    async fn take_webhook(&self, signature: Signature<'_>, body: &[u8]) -> Result<(), WebhookError> {
        let signed = |hook: &&Hook| {
            hook.secrets.iter().any(|secret| webhook::is_signed(secret.reveal(), signature, body))
        };
        let hook = self.hooks.iter().find(signed).ok_or(WebhookError::Signature)?;
        let report = match webhook::read(body)? {
            Said::Nothing => return Ok(()),
            Said::Unnamed => {
                hook.nudge.notify_one();
                return Ok(());
            }
            Said::Report(report) => report,
        };
        let (done, taken) = oneshot::channel();
        let asking = async {
            let command = Command::Report { service: hook.service.clone(), report, done };
            self.commands.send(command).await.map_err(|_| WebhookError::Unavailable)?;
            let taken = taken.await.map_err(|_| WebhookError::Unavailable)?;
            taken.map_err(|_| WebhookError::Unavailable)
        };
        timeout(WEBHOOK_TIMEOUT, asking).await.map_err(|_| WebhookError::Unavailable)?
    }

    /// Says that somebody here works on an incident, or (`is_acknowledged` false) that nobody does: a page's handle or a
    /// group's incident. Services that were told of it hear of an acknowledgement; the other way there is no event for.
    /// Whether there is such an incident; `is_open_here` says that there is, whoever was told.
    ///
    /// # Errors
    /// When it cannot be written, or notification has ended.
    pub async fn acknowledge(
        &self,
        incident: &str,
        by: &str,
        comment: &str,
        is_acknowledged: bool,
        is_open_here: bool,
    ) -> Result<bool, Error> {
        let state = if is_acknowledged { StandingState::Acknowledged } else { StandingState::Triggered };
        let word = Word {
            incident: incident.to_owned(),
            state,
            by: person(by),
            comment: comment.chars().take(COMMENT_CHARS_MAX).collect(),
            is_open_here,
        };
        let (done, said) = oneshot::channel();
        self.commands.send(Command::Say { word, done }).await.map_err(|_| Error::Closed)?;
        said.await.map_err(|_| Error::Closed)?
    }

    /// How notification fares.
    #[must_use]
    pub fn status(&self) -> Arc<NotifyStatus> {
        self.status.borrow().clone()
    }

    /// Stops taking, sends what can be sent until the deadline, and names what has to wait for the next start.
    pub async fn drain(&self, deadline: Duration) -> Vec<String> {
        let (done, ended) = oneshot::channel();
        let command = Command::Drain { until: Instant::now() + deadline, done };
        if self.commands.send(command).await.is_err() {
            return Vec::new();
        }
        ended.await.unwrap_or_default()
    }
}
