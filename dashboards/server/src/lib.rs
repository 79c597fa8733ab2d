//! The control-tower page: HTTP, JSON and the live stream for people, and the page itself, compiled in.
//!
//! This is the only crate that knows JSON for people: [`json`] holds the wire twins of what the engine and the stores
//! say. Nobody gets in without a login; the page runs under `default-src 'self'`; every queue has a bound.
//!
//! Not here: read APIs for machines (the query crate), judging (the engine), anything that changes a call.

mod access;
mod acknowledging;
mod assets;
mod attempts;
mod config;
mod error;
mod handle;
mod json;
mod keeping;
mod link;
mod live;
mod login;
mod password;
mod reading;
mod routes;
mod runbooks;
mod sessions;
mod signals;
mod status;
#[cfg(test)]
mod tests;

pub use config::{Config, User};
pub use error::Error;
pub use handle::{Dashboard, DashboardDeps, DashboardHandle};
pub use password::hash_password;

/// Registers the crate's metric families, for the catalogue of a process that does not run it.
pub fn describe(registry: &belfry_signal::Registry) {
    signals::Signals::register(registry);
}
