//! The gate alone, and a server behind it in virtual time.

use std::collections::VecDeque;
use std::net::Ipv4Addr;

use super::*;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

const RULES: Rules = Rules {
    calm_max: 64,
    second_max: 256,
    second_patience: Duration::from_millis(500),
    known_for: Duration::from_secs(3600),
    emergencies_per_second_max: 2,
};

const BUSY: Waiting = Waiting { first: 65, second: 0 };
const FULL: Waiting = Waiting { first: 65, second: 256 };

#[test]
fn lanes() {
    let gate = Gate::new(RULES, 16, 1_000);
    let (known, stranger) = (("edge", "known"), ("edge", "stranger"));
    gate.let_in(known, HERE, 10_000);
    let calm = Waiting { first: 64, second: 0 };
    let after = Waiting { first: 0, second: 1 };
    for (class, flow, waiting, lane) in [
        (Class::New, stranger, calm, Lane::First),
        (Class::New, stranger, BUSY, Lane::Second),
        // Nobody overtakes what waits in the second lane, or a CANCEL would come before its INVITE.
        (Class::New, stranger, after, Lane::Second),
        (Class::New, stranger, FULL, Lane::Away),
        (Class::New, known, FULL, Lane::First),
        (Class::Begun, stranger, FULL, Lane::First),
        (Class::Emergency, stranger, FULL, Lane::First),
        (Class::Emergency, stranger, FULL, Lane::First),
        (Class::Emergency, stranger, FULL, Lane::Away),
        (Class::Emergency, known, FULL, Lane::First),
    ] {
        assert_eq!(gate.lane(|| class, flow, waiting, 10_001), lane, "{class:?} {flow:?} {waiting:?}");
    }
    assert_eq!(gate.lane(|| Class::Emergency, stranger, FULL, 10_002), Lane::First, "a second later");
    assert_eq!(gate.lane(|| Class::New, known, FULL, 10_000 + 3601), Lane::Away, "known only so long");
    assert_eq!(
        gate.lane(|| Class::New, ("other", "known"), FULL, 10_001),
        Lane::Away,
        "flows are an edge's own"
    );
    assert!(gate.is_stale(Duration::from_millis(501)) && !gate.is_stale(Duration::from_millis(500)));
}

#[test]
fn as_many_are_known_as_there_is_room_for() {
    let known = KnownFlows::new(1000, u32::MAX);
    assert_eq!(known.places.len(), 1024);
    for number in 0..500 {
        known.note(("edge", &format!("flow-{number}")), HERE, 100 + number);
    }
    let is_known =
        |number: u64| known.is_known(("edge", &format!("flow-{number}")), 700, Duration::from_secs(3600));
    let found = (0..500).filter(|number| is_known(*number)).count();
    assert!(found > 440, "{found} of 500 in a table that is half full");
    assert_eq!((10_000..20_000).filter(|number| is_known(*number)).count(), 0, "nobody is taken for another");
    for number in 0..100_000 {
        known.note(("edge", &format!("more-{number}")), HERE, 700);
    }
    assert_eq!(known.places.len(), 1024);
}

#[test]
fn one_network_does_not_put_the_others_out() {
    let known = KnownFlows::new(4096, 100);
    let note = |source: &str, port: u32, unix_seconds| {
        let ip: IpAddr = source.parse().expect("an address");
        known.note((ip, port), ip, unix_seconds)
    };
    let is_known = |source: &str, port: u32, unix_seconds| {
        let ip: IpAddr = source.parse().expect("an address");
        known.is_known((ip, port), unix_seconds, Duration::from_secs(7200))
    };
    for number in 0..200 {
        assert!(note(&format!("198.51.100.{number}"), 5060, 10_000), "customers, one each");
    }
    // A subscriber with all ports of an address, and one with all addresses of a /64.
    assert_eq!((0..60_000).filter(|port| note("192.0.2.66", *port, 10_000)).count(), 100);
    let of_64 =
        |number: u32| note(&format!("2001:db8:1:2::{:x}:{:x}", number >> 16, number & 0xffff), 1, 10_000);
    assert_eq!((0..60_000).filter(|number| of_64(*number)).count(), 100);
    let left = (0..200).filter(|number| is_known(&format!("198.51.100.{number}"), 5060, 10_001)).count();
    assert!(left > 190, "{left} of 200 customers are still known");
    // Whoever is known stays so, and the next hour has its own share.
    assert!(is_known("192.0.2.66", 1, 10_001) && note("192.0.2.66", 1, 10_002));
    assert!(!note("192.0.2.66", 60_001, 10_002) && note("192.0.2.66", 60_001, 10_000 + 3600));
}

/// One message on its way through the model.
#[derive(Clone, Copy, Debug)]
struct Item {
    arrived_us: u64,
    /// The call and the step of it, when a customer's.
    call: Option<(usize, u8)>,
}

/// What a run of the model came to.
#[derive(Debug, Default)]
struct Outcome {
    calls: usize,
    completed: usize,
    strangers_served: usize,
    turned_away: usize,
    longest_queue: usize,
    /// Microseconds from the end of the overload until a stranger is served at once and nobody is turned away.
    recovered_us: u64,
}

/// Messages of one call: INVITE, its second INVITE with credentials, 180, 200, ACK, BYE, 200.
const STEPS: u8 = 7;
/// What the core needs for a message: ten thousand a second.
const SERVICE_US: u64 = 100;
/// Overload from the second to the twelfth second.
const STORM_US: std::ops::Range<u64> = 2_000_000..12_000_000;
const END_US: u64 = 20_000_000;
/// A step that takes longer is repeated, and its call counted as lost: half of T1, to be strict.
const STEP_US_MAX: u64 = 250_000;

/// A core that serves one message after another, with 40 customers' calls a second (280 messages) and strangers. Without
/// a gate there is one lane, with room for 16384.
struct Model<'a> {
    gate: Option<&'a Gate>,
    first: VecDeque<Item>,
    second: VecDeque<Item>,
    /// Steps of calls that are due: when, and which.
    due: VecDeque<(u64, usize, u8)>,
    /// Calls of which a message was turned away or waited too long.
    lost: Vec<bool>,
    busy_until: u64,
    /// Of the strangers' messages, what is left of one, in ten thousandths.
    fraction: u64,
    last_trouble_us: u64,
    outcome: Outcome,
}

/// Runs it while strangers send `storm` messages a second.
fn run(storm: u64, gate: Option<&Gate>) -> Outcome {
    let mut model = Model {
        gate,
        first: VecDeque::new(),
        second: VecDeque::new(),
        due: VecDeque::new(),
        lost: Vec::new(),
        busy_until: 0,
        fraction: 0,
        last_trouble_us: 0,
        outcome: Outcome::default(),
    };
    for now in (0..END_US).step_by(100) {
        for item in model.arrivals(storm, now) {
            model.queue(item, now);
        }
        let waiting = model.first.len() + model.second.len();
        model.outcome.longest_queue = model.outcome.longest_queue.max(waiting);
        if model.busy_until <= now
            && let Some(item) = model.next(now)
        {
            model.busy_until = now + SERVICE_US;
            model.serve(item, now);
        }
    }
    model.outcome.recovered_us = model.last_trouble_us.saturating_sub(STORM_US.end);
    model.outcome
}

impl Model<'_> {
    fn arrivals(&mut self, storm: u64, now: u64) -> Vec<Item> {
        if now.is_multiple_of(25_000) && now < END_US - 5_000_000 {
            self.due.push_back((now, self.outcome.calls, 0));
            self.outcome.calls += 1;
            self.lost.push(false);
        }
        let mut arrivals: Vec<Item> = Vec::new();
        self.due.retain(|(at, call, step)| {
            if *at <= now {
                arrivals.push(Item { arrived_us: now, call: Some((*call, *step)) });
            }
            *at > now
        });
        self.fraction += if STORM_US.contains(&now) { storm } else { 1_000 };
        while self.fraction >= 10_000 {
            self.fraction -= 10_000;
            arrivals.push(Item { arrived_us: now, call: None });
        }
        arrivals
    }

    fn queue(&mut self, item: Item, now: u64) {
        let waiting = Waiting { first: self.first.len(), second: self.second.len() };
        let class = match item.call {
            Some((_, step)) if step >= 2 => Class::Begun,
            _ => Class::New,
        };
        let flow = if item.call.is_some() { ("edge", "customer") } else { ("edge", "stranger") };
        let lane = match self.gate {
            Some(gate) => gate.lane(|| class, flow, waiting, 1_000 + now / 1_000_000),
            None if waiting.first < 16_384 => Lane::First,
            None => Lane::Away,
        };
        match lane {
            Lane::First => self.first.push_back(item),
            Lane::Second => self.second.push_back(item),
            Lane::Away => self.turn_away(item, now),
        }
    }

    fn turn_away(&mut self, item: Item, now: u64) {
        self.outcome.turned_away += 1;
        self.last_trouble_us = now;
        if let Some((call, _)) = item.call {
            self.lost[call] = true;
        }
    }

    fn next(&mut self, now: u64) -> Option<Item> {
        loop {
            if let Some(item) = self.first.pop_front() {
                return Some(item);
            }
            let item = self.second.pop_front()?;
            let waited = Duration::from_micros(now - item.arrived_us);
            if self.gate.is_none_or(|gate| !gate.is_stale(waited)) {
                return Some(item);
            }
            self.turn_away(item, now);
        }
    }

    fn serve(&mut self, item: Item, now: u64) {
        let waited = now - item.arrived_us;
        match item.call {
            Some((call, step)) => {
                self.lost[call] |= waited > STEP_US_MAX;
                if step + 1 == STEPS {
                    self.outcome.completed += usize::from(!self.lost[call]);
                } else {
                    self.due.push_back((now + 100_000, call, step + 1));
                }
            }
            None => {
                self.outcome.strangers_served += 1;
                if waited > 50_000 {
                    self.last_trouble_us = now;
                }
            }
        }
    }
}

#[test]
fn customers_do_not_notice_ten_times_the_load() {
    let gate = Gate::new(RULES, 1024, 1_000);
    gate.let_in(("edge", "customer"), HERE, 1_000);
    // Ten times what the core can do.
    let outcome = run(100_000, Some(&gate));
    assert!(outcome.completed * 100 >= outcome.calls * 95, "{outcome:?}");
    assert!(outcome.recovered_us <= 5_000_000, "{outcome:?}");
    assert!(outcome.longest_queue <= 1_000, "{outcome:?}");
    assert!(outcome.strangers_served > 50_000, "what is left over is theirs: {outcome:?}");
    // The model can fail: one queue for all loses nearly every call of the storm.
    let without = run(100_000, None);
    assert!(without.completed * 100 < without.calls * 60, "{without:?}");
    assert!(without.longest_queue > 10_000, "{without:?}");
}

#[test]
fn nobody_is_turned_away_while_there_is_little_to_do() {
    let gate = Gate::new(RULES, 1024, 1_000);
    let outcome = run(5_000, Some(&gate));
    assert_eq!((outcome.turned_away, outcome.completed), (0, outcome.calls), "{outcome:?}");
}
