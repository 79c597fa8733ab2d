//! How others talk to notification.

use std::sync::Arc;
use std::time::Duration;

use belfry_signal::{Journey, Registry};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::client::{Post, http_post};
use crate::config::{Config, check_url, journey_named};
use crate::error::Error;
use crate::event;
use crate::key::RoutingKey;
use crate::outbox::Outbox;
use crate::page::Notification;
use crate::sender::{Command, Sender, Service};
use crate::signals::{ServiceName, Signals};
use crate::target::TargetConfig;

/// Commands that may wait for the sender.
const COMMANDS_MAX: usize = 64;

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
}

/// How notification fares.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NotifyStatus {
    /// Every configured service.
    pub services: Vec<ServiceStatus>,
    /// What services will never accept, oldest first.
    pub rejected: Vec<RejectedStatus>,
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
        let needs_tls = config.services.iter().any(|service| service.url.starts_with("https:"))
            || targets.iter().any(TargetConfig::needs_tls);
        let post = http_post(needs_tls, config.request_timeout)?;
        Ok(NotifyHandle { has_tls: needs_tls, ..start_all(config, targets, registry, post)? })
    }
}

/// Starts with the given way to make requests.
#[cfg(test)]
pub(crate) fn start_with(config: Config, registry: &Registry, post: Post) -> Result<NotifyHandle, Error> {
    start_all(config, &[], registry, post)
}

fn start_all(
    config: Config,
    targets: &[TargetConfig],
    registry: &Registry,
    post: Post,
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
    let sender =
        Sender::new(config, services, origin, outbox, Signals::register(registry), post, receiver, publisher);
    tokio::spawn(sender.run(loaded));
    Ok(NotifyHandle { commands, status, has_tls: true })
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
