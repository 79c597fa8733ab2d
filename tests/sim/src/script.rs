//! What people do with their phones, from the seed: who calls whom, and how everybody behaves in that call.

use crate::dice::Seed;

/// The longest time that anybody talks, in milliseconds.
const TALK_MS_MAX: u64 = 60_000;

/// One call as its caller means it.
#[derive(Clone, Debug)]
pub(crate) struct CallScript {
    pub(crate) begin_ms: u64,
    pub(crate) caller: usize,
    /// The user part of whom is called.
    pub(crate) callee: String,
    /// Whether the INVITE has no offer, so that the ACK brings the answer.
    pub(crate) is_offer_delayed: bool,
    /// The caller gives up so long after the beginning, unless somebody answered.
    pub(crate) cancel_after_ms: Option<u64>,
    /// How long they talk.
    pub(crate) talk_ms: u64,
    pub(crate) hangs_up: HangsUp,
    /// Who puts the other on hold, and how long after the answer.
    pub(crate) hold: Option<(Side, u64)>,
}

/// Who ends an answered call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HangsUp {
    Caller,
    Callee,
    /// At the same moment.
    Both,
    /// Nobody ever does.
    Nobody,
}

/// A side of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Caller,
    Callee,
}

/// What a phone does that is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CalleeScript {
    /// Milliseconds until it rings; not at all, when it never does.
    pub(crate) ring_ms: Option<u64>,
    /// Whether it describes its sound while it rings.
    pub(crate) has_early_sound: bool,
    /// When it answers, and what; never, when it rings until it is stopped.
    pub(crate) answer: Option<(u64, u16)>,
    /// It picks up although it was just told to stop, so long after.
    pub(crate) late_pickup_ms: Option<u64>,
    /// It is switched off while it rings.
    pub(crate) dies_ringing: bool,
}

impl CallScript {
    pub(crate) fn of(
        seed: Seed,
        number: usize,
        callers: &[usize],
        called: &[String],
        window_ms: u64,
    ) -> Self {
        let mut dice = seed.dice(&format!("call {number}"));
        let begin_ms = dice.roll(window_ms);
        let caller = callers[usize::try_from(dice.roll(callers.len() as u64)).unwrap_or_default()];
        let callee = &called[usize::try_from(dice.roll(called.len() as u64)).unwrap_or_default()];
        let hangs_up = match dice.roll(100) {
            0..45 => HangsUp::Caller,
            45..80 => HangsUp::Callee,
            80..97 => HangsUp::Both,
            _ => HangsUp::Nobody,
        };
        let cancel_after_ms = match dice.roll(10) {
            0 => Some(dice.roll(300)),
            1 => Some(dice.roll(4_000)),
            2 => Some(dice.roll(30_000)),
            _ => None,
        };
        let talk_ms = match dice.roll(5) {
            0 => 0,
            1 => dice.roll(500),
            _ => dice.roll(TALK_MS_MAX),
        };
        let side = if dice.happens(500) { Side::Caller } else { Side::Callee };
        Self {
            begin_ms,
            caller,
            callee: callee.clone(),
            is_offer_delayed: dice.happens(100),
            cancel_after_ms,
            talk_ms,
            hangs_up,
            hold: dice.happens(250).then(|| (side, dice.roll(talk_ms + 500))),
        }
    }
}

impl CalleeScript {
    /// What the phone with this number does when it is called the `attempt`th time in a call.
    pub(crate) fn of(seed: Seed, call: usize, phone: usize, attempt: usize) -> Self {
        let mut dice = seed.dice(&format!("callee {call} {phone} {attempt}"));
        let ring_ms = dice.happens(930).then(|| dice.roll(400));
        let after = ring_ms.unwrap_or(0);
        let answer = match dice.roll(20) {
            0..9 => Some((after + dice.roll(6_000), 200)),
            9..11 => Some((after, 200)),
            11 => Some((after + dice.roll(35_000), 200)),
            12..18 => Some((
                after + dice.roll(3_000),
                dice.pick(&[486, 486, 603, 480, 404, 503, 500, 302, 600, 488]),
            )),
            _ => None,
        };
        Self {
            ring_ms,
            has_early_sound: dice.happens(250),
            answer: answer.filter(|_| ring_ms.is_some() || dice.happens(500)),
            late_pickup_ms: dice.happens(150).then(|| dice.roll(3_000)),
            dies_ringing: dice.happens(15),
        }
    }
}

/// What befalls the core and its links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The edge is away.
    Edge,
    /// The relay is away.
    Relay,
    /// The core is killed, and starts again.
    Core,
}

/// When it befalls them, from and until, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outage {
    pub(crate) trouble: Trouble,
    pub(crate) from_ms: u64,
    pub(crate) to_ms: u64,
}

impl Outage {
    /// Those of a run, one after another: none at all in half of the runs.
    pub(crate) fn of(seed: Seed, window_ms: u64) -> Vec<Self> {
        let mut dice = seed.dice("outages");
        let count = dice.pick(&[0, 0, 0, 1, 2, 3]);
        let mut begin = 0;
        let mut outages = Vec::new();
        for _ in 0..count {
            let trouble = dice.pick(&[Trouble::Edge, Trouble::Relay, Trouble::Core, Trouble::Core]);
            let from_ms = begin + 1_000 + dice.roll(window_ms);
            let to_ms = from_ms + dice.pick(&[50, 1_000, 8_000]);
            outages.push(Self { trouble, from_ms, to_ms });
            begin = to_ms;
        }
        outages
    }
}

/// When a phone registers again, and for how many seconds: 0 takes the registration back.
pub(crate) fn registrations(seed: Seed, phone: usize, window_ms: u64) -> Vec<(u64, u64)> {
    let mut dice = seed.dice(&format!("registrations {phone}"));
    let count = dice.roll(4);
    (0..count).map(|_| (dice.roll(2 * window_ms), dice.pick(&[0, 12, 25, 60, 3600, 3600]))).collect()
}
