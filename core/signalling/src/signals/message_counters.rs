//! The counters that every message moves: looked up by name once each, because there are two of them per message.

use std::sync::{Arc, OnceLock};

use belfry_signal::{Counter, CounterHandle};

use super::labels::{MethodName, StatusClass, Way};

const METHODS: usize = MethodName::ALL.len();
const CLASSES: usize = StatusClass::ALL.len();
const WAYS: usize = Way::ALL.len();

/// Requests and responses, by method, class and way.
#[derive(Clone, Debug)]
pub(super) struct MessageCounters {
    requests: Counter<(MethodName, Way)>,
    responses: Counter<(MethodName, StatusClass, Way)>,
    /// A series exists from its first message on: what never came is not listed as nought.
    known: Arc<Known>,
}

#[derive(Debug)]
struct Known {
    requests: [[OnceLock<CounterHandle>; WAYS]; METHODS],
    responses: [[[OnceLock<CounterHandle>; WAYS]; CLASSES]; METHODS],
}

impl MessageCounters {
    pub(super) fn new(
        requests: Counter<(MethodName, Way)>,
        responses: Counter<(MethodName, StatusClass, Way)>,
    ) -> Self {
        let known = Known {
            requests: std::array::from_fn(|_| std::array::from_fn(|_| OnceLock::new())),
            responses: std::array::from_fn(|_| {
                std::array::from_fn(|_| std::array::from_fn(|_| OnceLock::new()))
            }),
        };
        Self { requests, responses, known: Arc::new(known) }
    }

    /// A request, or a response with this status, came or went.
    pub(super) fn count(&self, method: MethodName, status: Option<u16>, way: Way) {
        let counter = match status.map(StatusClass::of) {
            None => {
                let known = &self.known.requests[method as usize][way as usize];
                known.get_or_init(|| self.requests.handle((method, way)))
            }
            Some(class) => {
                let known = &self.known.responses[method as usize][class as usize][way as usize];
                known.get_or_init(|| self.responses.handle((method, class, way)))
            }
        };
        counter.inc();
    }
}
