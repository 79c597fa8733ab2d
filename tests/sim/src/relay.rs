//! A relay that keeps its books: which sessions are open. It is quick, slow, or refuses, as the dice say.

use std::collections::{BTreeSet, HashMap};

use belfry_relay_api::{Leg, LegReport, Refusal, Reply, Request, SessionReport};

use crate::dice::Seed;

/// What it does with requests.
#[derive(Debug)]
pub(crate) struct Relay {
    seed: Seed,
    /// In a thousand: requests refused, and answered later than anybody waits.
    refuses: u64,
    dawdles: u64,
    asked: HashMap<String, u32>,
    pub(crate) open: BTreeSet<String>,
    pub(crate) made: usize,
}

impl Relay {
    pub(crate) fn new(seed: Seed) -> Self {
        let mut dice = seed.dice("relay");
        let (refuses, dawdles) = (dice.pick(&[0, 0, 30]), dice.pick(&[0, 0, 20]));
        Self { seed, refuses, dawdles, asked: HashMap::new(), open: BTreeSet::new(), made: 0 }
    }

    /// What it says to a request, and after how many milliseconds.
    pub(crate) fn asked(&mut self, request: Request) -> (u64, Reply) {
        let (name, session) = match &request {
            Request::Offer(description) => ("offer", &description.session),
            Request::Answer(description) => ("answer", &description.session),
            Request::Delete { session } => ("delete", session),
            Request::Query { session } => ("query", session),
        };
        let (name, key) = (format!("{name} {}", session.0), session.0.clone());
        let count = self.asked.entry(name.clone()).or_default();
        *count += 1;
        let mut dice = self.seed.dice(&format!("relay {name} #{count}"));
        let delay = if dice.happens(self.dawdles) { dice.between(1_500, 4_000) } else { dice.roll(10) };
        let is_refused = dice.happens(self.refuses);
        let reply = match request {
            Request::Offer(_) if is_refused => Reply::Refused(Refusal::PortsExhausted),
            Request::Answer(_) if is_refused => Reply::Refused(Refusal::BadDescription),
            Request::Answer(_) if !self.open.contains(&key) => Reply::Refused(Refusal::UnknownSession),
            Request::Offer(description) | Request::Answer(description) => {
                self.made += usize::from(self.open.insert(key));
                let port = if description.from == Leg::Caller { "20000" } else { "30000" };
                let sdp = String::from_utf8_lossy(&description.sdp).replace("192.0.2.1", "198.51.100.9");
                Reply::Description { sdp: sdp.replace("4000", port).into_bytes() }
            }
            Request::Delete { session } => {
                if self.open.remove(&key) {
                    Reply::Deleted(Box::new(report(session)))
                } else {
                    Reply::Refused(Refusal::UnknownSession)
                }
            }
            Request::Query { session } if self.open.contains(&key) => Reply::State(Box::new(report(session))),
            Request::Query { .. } => Reply::Refused(Refusal::UnknownSession),
        };
        (delay, reply)
    }
}

fn report(session: belfry_relay_api::SessionKey) -> SessionReport {
    let leg = || LegReport { packets: 500, mos: Some(4.3), mos_min: Some(4.1), ..LegReport::default() };
    SessionReport { session, seconds: 10.0, quiet_seconds: Some(0.0), caller: leg(), callee: leg() }
}
