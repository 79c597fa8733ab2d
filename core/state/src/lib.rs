//! What the core must remember: subscribers, routes, call records, and where subscribers are.
//!
//! Subscribers, imported routes and call records live in SQLite; a call has its books ([`Books`]) on the disk from its
//! beginning, and from them exactly one record, however it ends. Bindings live in memory with a snapshot and a journal beside it, because
//! they change with every registration and are worth little after their expiry.
//! Not here: what registers or ends a call (the signalling crate), search over calls (the events crate).

mod accounts;
mod billing;
mod bindings;
mod books;
mod config;
mod database;
mod error;
mod frame;
mod handle;
mod record;
mod routes;
mod signals;
mod subscriber;

pub use accounts::{Account, AccountsSnapshot, Debit, Movement};
pub use billing::{Charge, ProfileDocument, Rating, RatingOutcome, Unrated};
pub use bindings::{Binding, Bindings, Change, Expired, KeepAlive, Round, Writing, network_of};
pub use books::{Books, Lost, Told};
pub use config::Config;
pub use error::Error;
pub use handle::{Ledger, State};
pub use record::{Book, CallRecord, Kept, Prepaid, RecordPage, RecordWhose};
pub use routes::{RouteAlias, RouteBlock, RouteDocument, RouteImport, RoutePrefix, RouteRows};
pub use subscriber::Subscriber;

/// Registers this room's signals without starting it, for the catalogue.
pub fn describe(registry: &belfry_signal::Registry) {
    drop(signals::Signals::register(registry));
}
