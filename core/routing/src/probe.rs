//! Whether gateways are alive: when each is asked (OPTIONS), and when failures or answers mean that it went down or came
//! back. It takes as many failures in a row as the plan says, and as many answers, so that one lost datagram changes nothing.
//!
//! Not here: how they are asked, and what is done with one that is down.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::plan::ProbePlan;
use crate::table::Table;

/// A gateway: its trunk's name, and its place among the trunk's.
pub type GatewayKey = (Arc<str>, u8);

/// What is known of the gateways that are asked. One that is not asked is never down.
#[derive(Debug, Default)]
pub struct Probes {
    gateways: HashMap<GatewayKey, Probed>,
    /// The soonest time at which anybody's turn comes.
    next: Option<Instant>,
}

#[derive(Clone, Debug)]
struct Probed {
    uri: String,
    plan: ProbePlan,
    next: Instant,
    /// Whether it was asked and has neither answered nor failed.
    is_asked: bool,
    is_down: bool,
    /// Failures in a row while it is up, answers in a row while it is down.
    count: u8,
    /// Unix seconds of the last change, or of when it was first known.
    since: u64,
}

/// A gateway whose turn it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Which one.
    pub key: GatewayKey,
    /// Where it is.
    pub uri: String,
}

/// A gateway changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is down.
    WentDown,
    /// It is up again.
    CameUp,
}

/// What is known of a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Which one.
    pub key: GatewayKey,
    /// Where it is.
    pub uri: String,
    /// Whether it is down.
    pub is_down: bool,
    /// Since when, in seconds since the Unix epoch.
    pub since_unix_seconds: u64,
}

impl Probes {
    /// Asks the gateways of these routes from now on. One that was known before, at the same place, stays what it was.
    pub fn follow(&mut self, table: &Table, now: Instant, unix_seconds: u64) {
        let mut known = std::mem::take(&mut self.gateways);
        let wanted: Vec<_> = table
            .trunks()
            .filter(|trunk| trunk.probe.interval_seconds > 0)
            .flat_map(|trunk| {
                (0_u8..).zip(&trunk.gateways).map(move |(place, gateway)| (trunk, place, gateway))
            })
            .collect();
        let count = u32::try_from(wanted.len()).unwrap_or(u32::MAX).max(1);
        for (number, (trunk, place, gateway)) in (0_u32..).zip(wanted) {
            let (key, uri, plan) = ((Arc::clone(&trunk.name), place), gateway.uri(), trunk.probe);
            // Spread over the interval, so that they are not all asked in one moment.
            let first = now + Duration::from_secs(plan.interval_seconds.into()) * number / count;
            let probed = match known.remove(&key).filter(|known| known.uri == uri) {
                Some(known) => Probed { plan, next: known.next.min(first), ..known },
                None => Probed {
                    uri,
                    plan,
                    next: first,
                    is_asked: false,
                    is_down: false,
                    count: 0,
                    since: unix_seconds,
                },
            };
            self.gateways.insert(key, probed);
        }
        self.next = self.gateways.values().map(|probed| probed.next).min();
    }

    /// Those whose turn it is. Each has to end with [`answered`](Self::answered) or [`failed`](Self::failed) before it
    /// has another.
    pub fn due(&mut self, now: Instant) -> Vec<Turn> {
        if self.next.is_none_or(|next| next > now) {
            return Vec::new();
        }
        let mut due = Vec::new();
        for (key, probed) in &mut self.gateways {
            if probed.next > now {
                continue;
            }
            probed.next = now + Duration::from_secs(probed.plan.interval_seconds.into());
            if !std::mem::replace(&mut probed.is_asked, true) {
                due.push(Turn { key: key.clone(), uri: probed.uri.clone() });
            }
        }
        self.next = self.gateways.values().map(|probed| probed.next).min();
        due
    }

    /// It answered.
    pub fn answered(&mut self, key: &GatewayKey, unix_seconds: u64) -> Option<Change> {
        self.heard(key, true, unix_seconds)
    }

    /// It did not answer, could not be reached, or said that it has no service.
    pub fn failed(&mut self, key: &GatewayKey, unix_seconds: u64) -> Option<Change> {
        self.heard(key, false, unix_seconds)
    }

    /// It could not be asked, through no fault of its own.
    pub fn skipped(&mut self, key: &GatewayKey) {
        if let Some(probed) = self.gateways.get_mut(key) {
            probed.is_asked = false;
        }
    }

    fn heard(&mut self, key: &GatewayKey, is_good: bool, unix_seconds: u64) -> Option<Change> {
        let probed = self.gateways.get_mut(key)?;
        probed.is_asked = false;
        if is_good != probed.is_down {
            probed.count = 0;
            return None;
        }
        probed.count = probed.count.saturating_add(1);
        let needed = if is_good { probed.plan.successes } else { probed.plan.failures };
        if probed.count < needed {
            return None;
        }
        (probed.is_down, probed.count, probed.since) = (!is_good, 0, unix_seconds);
        Some(if is_good { Change::CameUp } else { Change::WentDown })
    }

    /// Whether a gateway is known to be down.
    #[must_use]
    pub fn is_down(&self, trunk: &Arc<str>, gateway: u8) -> bool {
        !self.gateways.is_empty()
            && self.gateways.get(&(Arc::clone(trunk), gateway)).is_some_and(|probed| probed.is_down)
    }

    /// All that are asked, by name and place.
    #[must_use]
    pub fn all(&self) -> Vec<Health> {
        let health = |(key, probed): (&GatewayKey, &Probed)| Health {
            key: key.clone(),
            uri: probed.uri.clone(),
            is_down: probed.is_down,
            since_unix_seconds: probed.since,
        };
        let mut all: Vec<Health> = self.gateways.iter().map(health).collect();
        all.sort_by(|one, other| one.key.cmp(&other.key));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;

    fn table(interval_seconds: u16, gateways: &[&str]) -> Table {
        let gateways: Vec<String> =
            gateways.iter().map(|host| format!("{{ uri = \"sip:{host}\" }}")).collect();
        let plan = format!(
            "[[trunks]]\nname = \"t\"\ngateways = [{}]\n\
             probe = {{ interval_seconds = {interval_seconds}, failures = 3, successes = 2 }}\n",
            gateways.join(", ")
        );
        let plan: Plan = toml::from_str(&plan).expect("a plan");
        Table::compile(&plan, &["here.test".to_owned()]).expect("a table")
    }

    fn key(gateway: u8) -> GatewayKey {
        ("t".into(), gateway)
    }

    /// Answers and failures of one gateway, and after each whether it is down: `.` an answer, `x` a failure.
    #[track_caller]
    fn check(heard: &str, expected: &str) {
        let mut probes = Probes::default();
        probes.follow(&table(30, &["a"]), Instant::now(), 0);
        let told: String = heard
            .chars()
            .map(|one| {
                let change = match one {
                    '.' => probes.answered(&key(0), 1),
                    _ => probes.failed(&key(0), 1),
                };
                let is_down = probes.is_down(&"t".into(), 0);
                assert_eq!(change == Some(Change::WentDown), change.is_some() && is_down, "{heard}");
                if is_down { 'D' } else { 'u' }
            })
            .collect();
        assert_eq!(told, expected, "{heard}");
    }

    #[test]
    fn it_takes_some_in_a_row_to_change() {
        check("....", "uuuu");
        check("xx.xx.", "uuuuuu");
        check("xxx", "uuD");
        check("xxx.x.x..", "uuDDDDDDu");
        check("xxx..xx.xxx", "uuDDuuuuuuD");
    }

    #[test]
    fn each_has_its_turn_once_per_interval_and_only_after_its_last_one_ended() {
        let now = Instant::now();
        let mut probes = Probes::default();
        probes.follow(&table(30, &["a", "b", "c"]), now, 0);
        let mut asked = [0; 3];
        for second in 0..90 {
            let due = probes.due(now + Duration::from_secs(second));
            assert!(due.len() <= 1, "they are spread");
            for turn in due {
                asked[usize::from(turn.key.1)] += 1;
                // The last never ends.
                if turn.key.1 != 2 {
                    probes.answered(&turn.key, second);
                }
            }
        }
        assert_eq!(asked, [3, 3, 1]);
    }

    #[test]
    fn new_routes_forget_what_moved_and_keep_what_stayed() {
        let now = Instant::now();
        let mut probes = Probes::default();
        probes.follow(&table(30, &["a", "b"]), now, 7);
        for gateway in [0, 1] {
            for _ in 0..3 {
                probes.failed(&key(gateway), 8);
            }
        }
        probes.follow(&table(60, &["a", "elsewhere"]), now, 9);
        let all: Vec<_> = probes.all().into_iter().map(|one| (one.is_down, one.since_unix_seconds)).collect();
        assert_eq!(all, [(true, 8), (false, 9)]);
        probes.follow(&table(0, &["a"]), now, 10);
        assert!(probes.all().is_empty() && !probes.is_down(&"t".into(), 0), "nobody asks any more");
        assert!(probes.due(now + Duration::from_secs(100)).is_empty());
        assert_eq!(probes.failed(&key(0), 11), None, "an answer that comes too late");
    }
}
