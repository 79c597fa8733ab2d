//! Gateways that did not answer lately: their turn comes after that of others, so that not every call waits for them.
//!
//! A gateway is known by its trunk's name and its place there; what it stands for may change with the routes, and is
//! forgotten soon.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

/// Gateways that are remembered; more than a plan may have.
const GATEWAYS_MAX: usize = 4096;

/// The gateways whose turn comes last.
#[derive(Debug, Default)]
pub(crate) struct QuietGateways {
    until: HashMap<(Arc<str>, u8), Instant>,
}

impl QuietGateways {
    /// Nothing was heard of a gateway, or nobody could reach it.
    pub(crate) fn note(&mut self, trunk: &Arc<str>, gateway: u8, until: Instant, now: Instant) {
        if self.until.len() >= GATEWAYS_MAX {
            self.until.retain(|_, until| *until > now);
        }
        if self.until.len() < GATEWAYS_MAX {
            self.until.insert((Arc::clone(trunk), gateway), until);
        }
    }

    /// A gateway answered, whatever it said.
    pub(crate) fn heard(&mut self, trunk: &Arc<str>, gateway: u8) {
        if !self.until.is_empty() {
            self.until.remove(&(Arc::clone(trunk), gateway));
        }
    }

    /// Whether a gateway did not answer lately.
    pub(crate) fn is_quiet(&self, trunk: &Arc<str>, gateway: u8, now: Instant) -> bool {
        !self.until.is_empty()
            && self.until.get(&(Arc::clone(trunk), gateway)).is_some_and(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_does_not_answer_waits_until_it_does_or_time_is_over() {
        let (mut quiet, trunk, now) = (QuietGateways::default(), Arc::from("one"), Instant::now());
        let later = now + Duration::from_secs(30);
        quiet.note(&trunk, 1, later, now);
        assert!(quiet.is_quiet(&trunk, 1, now) && !quiet.is_quiet(&trunk, 0, now));
        assert!(!quiet.is_quiet(&trunk, 1, later));
        quiet.heard(&trunk, 1);
        assert!(!quiet.is_quiet(&trunk, 1, now));
        for number in 0..2 * GATEWAYS_MAX {
            quiet.note(&Arc::from(format!("t{number}")), 0, later, now);
        }
        assert!(quiet.until.len() <= GATEWAYS_MAX);
    }
}
