//! Who is told of which alert, when, and that it is over: Alertmanager's pipeline as a state machine.
//!
//! Alerts come from rules, from SLOs and from outside; notices go out. Grouping, inhibition, silences, routes and
//! time intervals are decided here, with every time as an argument: no clock, no socket, no store.
//!
//! The contract, which tests hold against crashes and clocks that jump: every trigger that went out is followed by
//! exactly one resolve, silenced or not; nothing is told while something inhibits it, also right after a restart; what
//! was decided and not yet handed over is decided state, not a moment that passes.
//!
//! Not here: rules (`belfry_ruler`), the store and HTTP (the engine), sending (`belfry_notify`).

mod alert;
mod config;
mod dispatch;
mod group;
mod inhibit;
mod interval;
mod matchers;
mod notice;
mod silence;
mod view;

pub use alert::{AlertRow, Incoming, fingerprint};
pub use config::{
    Authorization, Config, GroupBy, Integration, IntegrationKind, Pagerduty, Receiver, Route, Secret, Slack,
    Webhook,
};
pub use dispatch::{Bounds, Changes, Dispatch, Restored, Resume, Taken};
pub use group::{Acknowledgement, GroupRow, Told};
pub use inhibit::InhibitRule;
pub use interval::TimeInterval;
pub use matchers::{Matchers, PlainMatcher, parse_matchers};
pub use notice::{Act, Notice, NoticeAlert};
pub use silence::{Silence, SilenceError, SilenceRequest, SilenceState};
pub use view::{AlertView, GroupView, Muted};
