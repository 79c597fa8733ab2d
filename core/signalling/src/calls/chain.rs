//! Chains of INVITEs: an attempt that is challenged goes on with credentials and is still one attempt, measured from
//! its first INVITE (RFC 6076 section 4.3).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use belfry_signal::SpanContext;

use crate::received::Received;

/// Attempts that are remembered between their challenge and their credentials.
const CHAINS_MAX: usize = 16_384;

/// How long a caller may take to answer a challenge.
const CHAIN_LIFETIME: Duration = Duration::from_secs(32);

/// Where an attempt began.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    /// The root span of the call that may come of it.
    pub(crate) root: SpanContext,
    pub(crate) began: Instant,
    pub(crate) start_unix_nanos: u64,
    /// The relay that holds a session from before the challenge.
    pub(crate) relay: Option<Arc<str>>,
}

/// The attempts that began lately, by Call-ID.
#[derive(Debug, Default)]
pub(super) struct Chains {
    chains: HashMap<Box<str>, Chain>,
    /// Oldest first; an attempt that ended leaves its name here until it is old.
    order: VecDeque<(Instant, Box<str>)>,
}

impl Chains {
    /// The chain that an INVITE goes on with, or begins.
    pub(super) fn of(&mut self, invite: &Received, now: Instant) -> Chain {
        self.forget_old(now);
        if let Some(chain) = self.chains.get(invite.call_id()) {
            return chain.clone();
        }
        let root = SpanContext { trace_id: invite.trace_id, ..SpanContext::new_root() };
        let chain = Chain { root, began: now, start_unix_nanos: invite.unix_nanos, relay: None };
        self.chains.insert(invite.call_id().into(), chain.clone());
        self.order.push_back((now, invite.call_id().into()));
        chain
    }

    /// The called side asked for credentials: its session waits for the caller to come back with them.
    pub(super) fn keep_relay(&mut self, call_id: &str, relay: Arc<str>) {
        if let Some(chain) = self.chains.get_mut(call_id) {
            chain.relay = Some(relay);
        }
    }

    /// The attempt is over: another one of this Call-ID begins anew.
    pub(super) fn end(&mut self, call_id: &str) {
        self.chains.remove(call_id);
    }

    fn forget_old(&mut self, now: Instant) {
        while let Some((began, _)) = self.order.front() {
            let is_old = now.saturating_duration_since(*began) > CHAIN_LIFETIME;
            if !is_old && self.order.len() < CHAINS_MAX {
                return;
            }
            if let Some((began, call_id)) = self.order.pop_front()
                && self.chains.get(&call_id).is_some_and(|chain| chain.began == began)
            {
                self.chains.remove(&call_id);
            }
        }
    }
}
