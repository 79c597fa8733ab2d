//! The network between phones and the edge: datagrams are lost, come twice, and come late and out of order; connections
//! keep the order and lose nothing while they last.

use std::collections::HashMap;

use crate::dice::Seed;

/// How bad the network is, from the seed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    /// Datagrams lost and doubled, in a thousand.
    loss: u64,
    doubles: u64,
    /// The longest usual delay, and how many in a thousand take up to seconds, in milliseconds.
    delay_ms: u64,
    late: u64,
    late_ms: u64,
    /// Datagrams that the edge cannot send, in a thousand.
    unsendable: u64,
}

/// What was sent before, so that each message has dice of its own.
#[derive(Debug)]
pub(crate) struct Network {
    seed: Seed,
    pub(crate) weather: Weather,
    /// How often a message of this name was sent.
    sent: HashMap<String, u32>,
    /// When the last message of a connection arrives, by direction and phone.
    last: HashMap<(bool, usize), u64>,
}

impl Weather {
    fn of(seed: Seed) -> Self {
        let mut dice = seed.dice("weather");
        let (loss, doubles) = (dice.pick(&[0, 10, 50, 100, 200]), dice.pick(&[0, 10, 50, 200]));
        let (late, late_ms) = (dice.pick(&[0, 10, 100]), dice.pick(&[300, 1_000, 3_000]));
        let (delay_ms, unsendable) = (dice.pick(&[1, 20, 200]), dice.pick(&[0, 0, 5]));
        Self { loss, doubles, delay_ms, late, late_ms, unsendable }
    }
}

impl Network {
    pub(crate) fn new(seed: Seed) -> Self {
        Self { seed, weather: Weather::of(seed), sent: HashMap::new(), last: HashMap::new() }
    }

    /// After how many milliseconds a datagram arrives: not at all, once or twice. Its name says who sends what to whom.
    pub(crate) fn datagram(&mut self, name: &str) -> Vec<u64> {
        let count = self.sent.entry(name.to_owned()).or_default();
        *count += 1;
        let mut dice = self.seed.dice(&format!("{name} #{count}"));
        let weather = self.weather;
        if dice.happens(weather.loss) {
            return Vec::new();
        }
        let copies = 1 + usize::from(dice.happens(weather.doubles));
        let mut delay = || {
            let late = if dice.happens(weather.late) { dice.roll(weather.late_ms) } else { 0 };
            1 + dice.roll(weather.delay_ms) + late
        };
        (0..copies).map(|_| delay()).collect()
    }

    /// Whether the edge cannot send a datagram, and knows it.
    pub(crate) fn is_unsendable(&mut self, name: &str) -> bool {
        let count = self.sent.get(name).copied().unwrap_or_default();
        self.seed.dice(&format!("send {name} #{count}")).happens(self.weather.unsendable)
    }

    /// When a message over a phone's connection arrives: never before the one before it.
    pub(crate) fn stream(&mut self, name: &str, is_up: bool, phone: usize, now: u64) -> u64 {
        let count = self.sent.entry(name.to_owned()).or_default();
        *count += 1;
        let mut dice = self.seed.dice(&format!("{name} #{count}"));
        let last = self.last.entry((is_up, phone)).or_default();
        *last = (now + 1 + dice.roll(self.weather.delay_ms)).max(*last);
        *last
    }
}
