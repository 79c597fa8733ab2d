//! Journeys: what customers come for, counted exactly at the moment it succeeds or fails.
//!
//! A journey event is good or bad when it happens, judged by the component that knows. The counts are plain
//! integers that the SLO engine samples every second; a scrape every 60 s could not measure 99.99 %.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::label::Region;
use crate::metric::Counter;
use crate::now_unix_nanos;
use crate::pii::Pii;
use crate::registry::Component;

crate::label_enum! {
    /// What a customer came for. Every SLO names one.
    pub enum Journey("journey") {
        /// A REGISTER was answered as it should be.
        Register = "register",
        /// A call was set up, or refused for a reason that is not ours.
        CallSetup = "call_setup",
        /// A leg of an answered call sounded well for a window.
        MediaQuality = "media_quality",
        /// An HTTPS request got a proper answer.
        EdgeHttp = "edge_http",
        /// A message was delivered.
        Messaging = "messaging",
        /// Something else that an operator promises and measures by queries; never counted here.
        Service = "service",
    }
}

crate::label_enum! {
    /// The room that was at fault.
    pub enum Room("room") {
        /// Where customers come in.
        Edge = "edge",
        /// Where calls are decided.
        Core = "core",
        /// Where sound flows.
        Media = "media",
        /// A backend behind the edge.
        Backend = "backend",
    }
}

crate::label_enum! {
    /// Why a journey event was bad.
    pub enum Cause("cause") {
        /// We answered with a server error.
        ServerError = "server_error",
        /// Nobody answered in time.
        Timeout = "timeout",
        /// The next room could not be reached.
        Unreachable = "unreachable",
        /// Load was shed.
        Overload = "overload",
        /// No media port was free.
        PortsExhausted = "ports_exhausted",
        /// The answer was right but too late.
        Slow = "slow",
        /// Packets were lost.
        Loss = "loss",
        /// Packets came unevenly.
        Jitter = "jitter",
        /// One side was not heard.
        OneWay = "one_way",
        /// A store did not answer.
        Store = "store",
    }
}

/// How many failed events are remembered for evidence, over all journeys.
const FAILED_EVENTS_MAX: usize = 4096;

crate::label_enum! {
    /// Good or bad.
    enum Verdict("verdict") { Good = "good", Bad = "bad" }
}

/// The counts of one journey in one region since the process started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JourneyCount {
    /// Which journey.
    pub journey: Journey,
    /// Where the customer belongs.
    pub region: Region,
    /// Events that were as they should be.
    pub good: u64,
    /// Events that were not.
    pub bad: u64,
}

/// One bad event, kept for a while as evidence.
#[derive(Clone, Debug)]
pub struct FailedEvent {
    /// When, in nanoseconds since the Unix epoch.
    pub unix_nanos: u64,
    /// Which journey.
    pub journey: Journey,
    /// Where the customer belongs.
    pub region: Region,
    /// The room at fault.
    pub room: Room,
    /// Why.
    pub cause: Cause,
    /// The Call-ID of the example, when there is one. It stays in the region.
    pub call_id: Option<Pii<String>>,
}

/// The exact counts of a process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Journeys {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    families: OnceLock<Families>,
    counts: Mutex<Vec<JourneyCount>>,
    failed: Mutex<VecDeque<FailedEvent>>,
}

#[derive(Debug)]
struct Families {
    events: Counter<(Journey, Region, Verdict)>,
    failures: Counter<(Journey, Region, Room, Cause)>,
}

impl Journeys {
    pub(crate) fn new() -> Self {
        Self { inner: Arc::default() }
    }

    pub(crate) fn register(&self, component: &Component) {
        let families = Families {
            events: component.counter("events_total", "Journey events, by verdict."),
            failures: component.counter("failures_total", "Bad journey events, by room at fault and cause."),
        };
        if self.inner.families.set(families).is_err() {
            debug_assert!(false, "journeys are registered once");
        }
    }

    /// An event was as it should be.
    pub fn good(&self, journey: Journey, region: &Region) {
        self.count(journey, region, Verdict::Good);
    }

    /// An event was not as it should be; `call_id` is kept as an example.
    pub fn bad(
        &self,
        journey: Journey,
        region: &Region,
        room: Room,
        cause: Cause,
        call_id: Option<Pii<String>>,
    ) {
        self.count(journey, region, Verdict::Bad);
        if let Some(families) = self.inner.families.get() {
            families.failures.inc((journey, region.clone(), room, cause));
        }
        let mut failed = self.inner.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if failed.len() == FAILED_EVENTS_MAX {
            failed.pop_front();
        }
        let region = region.clone();
        failed.push_back(FailedEvent { unix_nanos: now_unix_nanos(), journey, region, room, cause, call_id });
    }

    /// The counts of every journey and region that has had an event.
    #[must_use]
    pub fn counts(&self) -> Vec<JourneyCount> {
        self.inner.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The bad events of a journey and region since a time, newest last.
    #[must_use]
    pub fn failed_since(&self, journey: Journey, region: &Region, unix_nanos: u64) -> Vec<FailedEvent> {
        let failed = self.inner.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed
            .iter()
            .filter(|event| {
                event.journey == journey && event.region == *region && event.unix_nanos >= unix_nanos
            })
            .cloned()
            .collect()
    }

    fn count(&self, journey: Journey, region: &Region, verdict: Verdict) {
        if let Some(families) = self.inner.families.get() {
            families.events.inc((journey, region.clone(), verdict));
        }
        let mut counts = self.inner.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let found = counts.iter().position(|count| count.journey == journey && count.region == *region);
        let index = found.unwrap_or_else(|| {
            counts.push(JourneyCount { journey, region: region.clone(), good: 0, bad: 0 });
            counts.len() - 1
        });
        match verdict {
            Verdict::Good => counts[index].good += 1,
            Verdict::Bad => counts[index].bad += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::label::Label;
    use crate::registry::Registry;

    #[test]
    fn counts_are_exact_and_examples_are_kept() {
        let registry = Registry::for_test();
        let journeys = registry.journeys();
        let region = Region::configured("eu").expect("plain");
        for _ in 0..9_999 {
            journeys.good(Journey::CallSetup, &region);
        }
        journeys.bad(
            Journey::CallSetup,
            &region,
            Room::Core,
            Cause::ServerError,
            Some(Pii::new("a@b".into())),
        );
        let counts = journeys.counts();
        assert_eq!(
            counts,
            vec![JourneyCount { journey: Journey::CallSetup, region: region.clone(), good: 9_999, bad: 1 }]
        );
        let failed = journeys.failed_since(Journey::CallSetup, &region, 0);
        assert_eq!(failed.len(), 1);
        assert_eq!(failed[0].cause.text(), "server_error");
        assert!(journeys.failed_since(Journey::Register, &region, 0).is_empty());
        assert!(registry.encode_text().contains(
            "journey_failures_total{cause=\"server_error\",journey=\"call_setup\",region=\"eu\",room=\"core\"} 1"
        ));
    }
}
