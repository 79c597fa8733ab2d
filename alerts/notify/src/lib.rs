//! The only crate that speaks to whoever wakes people: PagerDuty's Events API v2, through a durable outbox.
//!
//! A notification is on disk before [`NotifyHandle::enqueue`] returns, and leaves the disk when the service has
//! accepted it or has said that it never will. What belongs to one incident goes out in the order in which it
//! came in, so a resolve always follows its trigger. A page is built from closed vocabularies, numbers and
//! links to our own page: there is no field that could carry a telephone number, a URI or free text. A notice about a
//! group of alerts says what the operator's own rules and receivers say.
//!
//! Not here: deciding that something is wrong, and gathering evidence (the engine).

mod back;
mod client;
pub mod config;
mod error;
mod event;
mod handle;
mod key;
mod notice;
mod outbox;
mod page;
mod sender;
mod signals;
mod target;

pub use back::{Place, Signature, Standing, StandingState, WebhookError};
pub use config::{BackConfig, Config, ServiceConfig};
pub use error::Error;
pub use handle::{Notify, NotifyHandle, NotifyStatus, RejectedStatus, ServiceStatus};
pub use notice::{GroupAlert, GroupNotice, Pairs};
pub use page::{AlertName, BudgetFigures, DedupKey, EXAMPLES_MAX, Notification, Page, PageId};
pub use target::{SecretSource, TargetConfig, TargetKind};

/// Registers the crate's metric families, for the catalogue of a process that does not run it.
pub fn describe(registry: &belfry_signal::Registry) {
    signals::Signals::register(registry);
}
