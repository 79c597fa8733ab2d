//! The media relay: anchors the sound of calls between two legs and measures what each side will hear.
//!
//! Requests and notices are the plain data of `relay-api`; rules of RTP and SDP come from `rtp-proto`. Here are the
//! sockets: pinned threads, each with its own sessions, that forward packets without locks, tasks or allocation.
//! Not here: signalling, transcoding, recording, the mesh (the root connects it to [`RelayHandle`]).

mod config;
mod error;
mod faults;
mod handle;
mod ports;
mod session;
mod signals;
#[cfg(test)]
mod tests;
mod worker;

pub use config::Config;
pub use error::Error;
pub use faults::Faults;
pub use handle::RelayHandle;

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use belfry_signal::Registry;

use crate::handle::{Common, Doors};
use crate::ports::PortPool;
use crate::signals::Signals;

/// The relay; [`Relay::start`] makes it and everything after goes through the handle.
#[derive(Debug)]
pub struct Relay;

impl Relay {
    /// Checks the configuration, starts the workers, and answers requests from then on.
    ///
    /// # Errors
    /// When the configuration cannot work, the address cannot be bound or a thread cannot be started.
    pub fn start(config: Config, registry: &Registry, faults: Faults) -> Result<RelayHandle, Error> {
        if let Some((key, what)) = config.check().into_iter().next() {
            return Err(Error::Config { key, what });
        }
        ports::probe(config.bind_address).map_err(Error::Bind)?;
        let signals = Signals::register(registry);
        // Port order must not be guessable; the fault dice must be repeatable, so only the order is random.
        let order = RandomState::new().hash_one("ports");
        let pool = PortPool::new(config.bind_address, config.dscp, config.port_min, config.port_max, order);
        signals.started(&config, pool.ports());
        // Four sockets per call with one stream; the root may raise the limit before it starts us.
        let files_needed = config.sessions_max as u64 * 4;
        let files_max = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        if let Some(files_max) = files_max.filter(|files_max| *files_max < files_needed) {
            signals.files_are_few(files_max, files_needed);
        }
        let common = Arc::new(Common::new(config, Arc::new(pool), signals, faults));
        let doors = (0..common.config.workers)
            .map(|number| worker::start(number, &common))
            .collect::<Result<Doors, Error>>()?;
        Ok(RelayHandle::new(common, doors))
    }
}

/// Registers this room's signals without starting it, for the catalogue.
pub fn describe(registry: &belfry_signal::Registry) {
    drop(signals::Signals::register(registry));
}
