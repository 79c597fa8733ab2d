//! The doors for HTTP on the site's own network: one bounded server for the admin door, the read APIs and the page.
//!
//! A door bounds its connections, gives a request a time to come and an answer a time to be taken, and ends in good
//! order, naming what did not. A guarded door also decides who may ask: [`Guard`] wants a token of [`Tokens`], or,
//! where there is none, keeps out what a web page from elsewhere can make a browser send.
//!
//! Not here: what is answered (query, engine, dashboards, the admin door of the front door), logins, TLS, customers
//! (the edge has its own accept loop).

mod config;
mod cors;
mod error;
mod guard;
mod handle;
mod origin;
mod serving;
mod signals;
mod stall;
#[cfg(test)]
mod tests;
mod tokens;

pub use config::Limits;
pub use cors::check_origins;
pub use error::Error;
pub use guard::Guard;
pub use handle::{Access, DoorHandle, Doors};
pub use origin::is_cross_site;
pub use serving::PeerAddress;
pub use signals::Door;
pub use tokens::{TokenError, Tokens};

/// Registers the crate's metric families, for the catalogue of a process that does not run it.
pub fn describe(registry: &belfry_signal::Registry) {
    signals::Signals::register(registry);
}
