//! The gate alone, and a server behind it in virtual time.

use std::collections::VecDeque;

use super::*;

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
    let gate = Gate::new(RULES, 16);
    let (known, stranger) = (("edge", "known"), ("edge", "stranger"));
    gate.let_in(known, 10_000);
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
        assert_eq!(gate.lane(class, flow, waiting, 10_001), lane, "{class:?} {flow:?} {waiting:?}");
    }
    assert_eq!(gate.lane(Class::Emergency, stranger, FULL, 10_002), Lane::First, "a second later");
    assert_eq!(gate.lane(Class::New, known, FULL, 10_000 + 3601), Lane::Away, "known only so long");
    assert_eq!(
        gate.lane(Class::New, ("other", "known"), FULL, 10_001),
        Lane::Away,
        "flows are an edge's own"
    );
    assert!(gate.is_stale(Duration::from_millis(501)) && !gate.is_stale(Duration::from_millis(500)));
}

#[test]
fn as_many_are_known_as_there_is_room_for() {
    let known = KnownFlows::new(1000);
    assert_eq!(known.places.len(), 1024);
    for number in 0..500 {
        known.note(("edge", &format!("flow-{number}")), 100 + number);
    }
    let is_known =
        |number: u64| known.is_known(("edge", &format!("flow-{number}")), 700, Duration::from_secs(3600));
    let found = (0..500).filter(|number| is_known(*number)).count();
    assert!(found > 440, "{found} of 500 in a table that is half full");
    assert_eq!((10_000..20_000).filter(|number| is_known(*number)).count(), 0, "nobody is taken for another");
    for number in 0..100_000 {
        known.note(("edge", &format!("more-{number}")), 700);
    }
    assert_eq!(known.places.len(), 1024);
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

/// A core that serves one message after another, 40 customers' calls a second (280 messages), and strangers who send
/// `storm` messages a second. Without a gate there is one lane, with room for 16384.
fn run(storm: u64, gate: Option<&Gate>) -> Outcome {
    let mut outcome = Outcome::default();
    let (mut first, mut second): (VecDeque<Item>, VecDeque<Item>) = (VecDeque::new(), VecDeque::new());
    let mut lost = vec![false; usize::try_from(END_US / 25_000).expect("few")];
    let (mut busy_until, mut sent_by_strangers, mut last_away_us) = (0, 0.0, 0);
    // Steps that are due: when, and which.
    let mut due: VecDeque<(u64, usize, u8)> = VecDeque::new();
    for now in (0..END_US).step_by(100) {
        if now % 25_000 == 0 && now < END_US - 5_000_000 {
            due.push_back((now, outcome.calls, 0));
            outcome.calls += 1;
        }
        let mut arrivals: Vec<Item> = Vec::new();
        due.retain(|(at, call, step)| {
            if *at <= now {
                arrivals.push(Item { arrived_us: now, call: Some((*call, *step)) });
            }
            *at > now
        });
        let rate = if STORM_US.contains(&now) { storm } else { 1_000 };
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let step = rate as f64 / 10_000.0;
        sent_by_strangers += step;
        while sent_by_strangers >= 1.0 {
            sent_by_strangers -= 1.0;
            arrivals.push(Item { arrived_us: now, call: None });
        }
        for item in arrivals {
            let waiting = Waiting { first: first.len(), second: second.len() };
            let class = match item.call {
                Some((_, step)) if step >= 2 => Class::Begun,
                _ => Class::New,
            };
            let flow = if item.call.is_some() { ("edge", "customer") } else { ("edge", "stranger") };
            let lane = match gate {
                Some(gate) => gate.lane(class, flow, waiting, 1_000 + now / 1_000_000),
                None if first.len() < 16_384 => Lane::First,
                None => Lane::Away,
            };
            match lane {
                Lane::First => first.push_back(item),
                Lane::Second => second.push_back(item),
                Lane::Away => {
                    outcome.turned_away += 1;
                    last_away_us = now;
                    if let Some((call, _)) = item.call {
                        lost[call] = true;
                    }
                }
            }
        }
        outcome.longest_queue = outcome.longest_queue.max(first.len() + second.len());
        if busy_until > now {
            continue;
        }
        let item = loop {
            if let Some(item) = first.pop_front() {
                break Some(item);
            }
            let Some(item) = second.pop_front() else { break None };
            let waited = Duration::from_micros(now - item.arrived_us);
            if gate.is_none_or(|gate| !gate.is_stale(waited)) {
                break Some(item);
            }
            outcome.turned_away += 1;
            last_away_us = now;
        };
        let Some(item) = item else { continue };
        busy_until = now + SERVICE_US;
        match item.call {
            Some((call, step)) => {
                lost[call] |= now - item.arrived_us > STEP_US_MAX;
                if step + 1 == STEPS {
                    outcome.completed += usize::from(!lost[call]);
                } else {
                    due.push_back((now + 100_000, call, step + 1));
                }
            }
            None => {
                outcome.strangers_served += 1;
                if now - item.arrived_us > 50_000 {
                    last_away_us = now;
                }
            }
        }
    }
    outcome.recovered_us = last_away_us.saturating_sub(STORM_US.end);
    outcome
}

#[test]
fn customers_do_not_notice_ten_times_the_load() {
    let gate = Gate::new(RULES, 1024);
    gate.let_in(("edge", "customer"), 1_000);
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
    let gate = Gate::new(RULES, 1024);
    let outcome = run(5_000, Some(&gate));
    assert_eq!((outcome.turned_away, outcome.completed), (0, outcome.calls), "{outcome:?}");
}
