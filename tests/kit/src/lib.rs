//! Simulated customers and a stand-in for the outside world, for tests, benches and the demo.
//!
//! A [`Phone`] is a real user agent: it registers with digest over UDP, TCP, TLS or WSS, places and answers calls,
//! and sends and hears real RTP. [`PagerDuty`] checks events as the real service does and keeps an inbox.
//! Nothing here belongs into a product process other than `belfry demo`.

mod error;
pub mod https;
mod media;
mod pagerduty;
mod phone;
mod tls;
mod tone;
mod wire;

pub use error::Error;
pub use media::Heard;
pub use pagerduty::{Inbox, Incident, IncidentState, PagerDuty, Rejected, Reply};
pub use phone::{AnswerPlan, CallOutcome, CallPlan, CallReport, Phone, PhoneConfig, Registered};
pub use tls::{Trust, client_config};
pub use wire::Transport;
