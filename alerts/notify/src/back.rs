//! The way back: what people did with an incident at the service that we told of it.
//!
//! Two ways lead to the same place. A webhook says it at once; a look at the service's REST API every few minutes says what
//! a webhook missed, because a hook that failed three times is switched off without a word. Both end in a [`Standing`]:
//! the newest word about an incident, by the time that the service gives, so that repetitions and reordering change nothing.
//!
//! Names of people who acknowledge are personal data: they stay on this site.

pub(crate) mod incidents;
pub(crate) mod reconcile;
pub(crate) mod standing;
pub(crate) mod webhook;

pub use standing::{Place, Standing, StandingState};
pub use webhook::{Signature, WebhookError};
