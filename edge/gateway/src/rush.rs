//! When more datagrams come than can be served: whom to take in, decided by nothing but where they come from.
//!
//! Reading a message costs ten times what throwing it away does, and what is not thrown away in time the kernel throws
//! away, whosever it is. So in a rush the socket is emptied in every turn; who was let in lately from where the datagram
//! comes is served, a few of the others are, and the rest is answered 503 as long as there is time for it, or dropped: a
//! phone repeats what it gets no answer to, later and later (RFC 3261 section 17.1.1.2). Whoever may be calling for help
//! is passed to the core, which knows what help is called.
//!
//! No clock and no socket: counts and the time are arguments. Who is known stands in a table of fixed size
//! ([`KnownFlows`](belfry_signalling::KnownFlows)).

use std::time::{Duration, Instant};

use crate::sip_text;

/// More datagrams than this in one turn are a rush: the kernel has room for some thousands.
const RUSH_FROM: usize = 256;
/// A turn of a rush with no more than this is calm.
const CALM_MAX: usize = 64;
/// A rush is over when all turns of so long were calm.
const CALM_AFTER: Duration = Duration::from_millis(200);
/// Turns further apart than this show that there is too much to do.
const TURN_MAX: Duration = Duration::from_millis(3);
/// Datagrams of strangers that are taken in a turn of a rush, at most and at least.
const STRANGERS_MAX: usize = 32;
const STRANGERS_MIN: usize = 1;
/// Strangers who are told 503 in a turn, and possible emergencies that are passed.
const ANSWERS_MAX: usize = 8;
const EMERGENCIES_MAX: usize = 8;
/// Ends of calls and answers that are passed in a turn, from wherever: a phone whose address changed still hangs up.
const ENDINGS_MAX: usize = 16;
/// Digits of a number that may call for help: as many as a plan of routes may give it, behind what leads outside.
const EMERGENCY_DIGITS_MAX: usize = 12;

/// What becomes of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is read and goes to the core.
    Taken,
    /// It is answered 503.
    Answered,
    /// Nobody looks at it.
    Dropped,
}

/// What a turn led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing new.
    None,
    /// A rush began.
    Began,
    /// It is over; so many datagrams were answered 503 and dropped in it.
    Ended { answered: u64, dropped: u64 },
}

/// The rush of one socket, or its absence.
#[derive(Debug)]
pub(crate) struct Rush {
    /// When the last turn was that had too much; none, when it is calm.
    last: Option<Instant>,
    is_core_behind: bool,
    turn_began: Instant,
    /// Strangers that a turn takes.
    quota: usize,
    strangers_left: usize,
    answers_left: usize,
    emergencies_left: usize,
    endings_left: usize,
    taken: usize,
    /// Since it was asked last, and in the whole rush.
    shed: (u64, u64),
    shed_in_all: (u64, u64),
}

impl Rush {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            last: None,
            is_core_behind: false,
            turn_began: now,
            quota: STRANGERS_MAX,
            strangers_left: 0,
            answers_left: 0,
            emergencies_left: 0,
            endings_left: 0,
            taken: 0,
            shed: (0, 0),
            shed_in_all: (0, 0),
        }
    }

    /// Whether there is one.
    pub(crate) fn is_on(&self) -> bool {
        self.last.is_some()
    }

    /// A turn begins, in which the socket is emptied. A core that is behind is a rush, too: what more it got would push
    /// out customers' messages.
    pub(crate) fn begin_turn(&mut self, is_core_behind: bool, now: Instant) {
        self.is_core_behind = is_core_behind;
        if self.is_on() {
            let is_slow = is_core_behind || now.saturating_duration_since(self.turn_began) > TURN_MAX;
            let next = if is_slow { self.quota / 2 } else { self.quota + 1 };
            self.quota = next.clamp(STRANGERS_MIN, STRANGERS_MAX);
        }
        self.turn_began = now;
        self.strangers_left = self.quota;
        self.answers_left = ANSWERS_MAX;
        self.emergencies_left = EMERGENCIES_MAX;
        self.endings_left = ENDINGS_MAX;
        self.taken = 0;
    }

    /// What becomes of a datagram; whether its sender is known is asked only when it matters.
    pub(crate) fn fate(&mut self, datagram: &[u8], is_known: impl FnOnce() -> bool) -> Fate {
        self.taken += 1;
        let is_calm = !self.is_on() && !self.is_core_behind && self.taken <= RUSH_FROM;
        if is_calm || is_known() {
            return Fate::Taken;
        }
        if self.emergencies_left > 0 && may_call_for_help(datagram) {
            self.emergencies_left -= 1;
            return Fate::Taken;
        }
        let is_ending = datagram.starts_with(b"BYE ") || datagram.starts_with(b"SIP/2.0 ");
        if is_ending && self.endings_left > 0 {
            self.endings_left -= 1;
            return Fate::Taken;
        }
        if self.strangers_left > 0 {
            self.strangers_left -= 1;
            return Fate::Taken;
        }
        if self.answers_left > 0 && wants_answer(datagram) {
            self.answers_left -= 1;
            self.shed.0 += 1;
            return Fate::Answered;
        }
        self.shed.1 += 1;
        Fate::Dropped
    }

    /// How many were answered and dropped since this was asked last.
    pub(crate) fn take_shed(&mut self) -> (u64, u64) {
        std::mem::take(&mut self.shed)
    }

    /// A turn ends.
    pub(crate) fn end_turn(&mut self, now: Instant) -> Change {
        self.shed_in_all = (self.shed_in_all.0 + self.shed.0, self.shed_in_all.1 + self.shed.1);
        let is_crowded = self.taken > RUSH_FROM || self.is_core_behind;
        if is_crowded || (self.is_on() && self.taken > CALM_MAX) {
            let is_new = self.last.replace(now).is_none();
            return if is_new { Change::Began } else { Change::None };
        }
        match self.last {
            Some(last) if now.saturating_duration_since(last) > CALM_AFTER => {
                let (answered, dropped) = std::mem::take(&mut self.shed_in_all);
                (self.last, self.quota) = (None, STRANGERS_MAX);
                Change::Ended { answered, dropped }
            }
            _ => Change::None,
        }
    }
}

/// Whether a datagram is a request that waits for an answer. Anything else gets none, so that a forged source gains
/// nothing from what is no SIP.
fn wants_answer(datagram: &[u8]) -> bool {
    let first_line = datagram.split(|byte| *byte == b'\n').next().unwrap_or_default();
    sip_text::is_start_line(first_line)
        && !datagram.starts_with(b"SIP/2.0 ")
        && !datagram.starts_with(b"ACK ")
        && sip_text::glance(datagram).is_some()
}

/// Whether a request may be a call for help, or take one back: an INVITE or CANCEL to a service URN (RFC 5031), or to a
/// number as short as those are.
pub(crate) fn may_call_for_help(datagram: &[u8]) -> bool {
    // Line ends before the message (RFC 3261 section 7.5).
    let start = datagram.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    let request = &datagram[start..];
    let uri = request.strip_prefix(b"INVITE ").or_else(|| request.strip_prefix(b"CANCEL "));
    let Some(uri) = uri else { return false };
    let begins =
        |scheme: &[u8]| uri.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    if begins(b"urn:service:sos") {
        return true;
    }
    let schemes: [&[u8]; 3] = [b"sip:", b"sips:", b"tel:"];
    let Some(scheme) = schemes.into_iter().find(|scheme| begins(scheme)) else { return false };
    let number = &uri[scheme.len()..];
    let digits = number.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let is_end = matches!(number.get(digits), Some(b'@' | b' ' | b';'));
    is_end && (1..=EMERGENCY_DIGITS_MAX).contains(&digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REGISTER: &[u8] = b"REGISTER sip:a SIP/2.0\r\nCall-ID: 1\r\n\r\n";

    /// So many datagrams of strangers and customers in turns of so many milliseconds; how many of each were taken, and
    /// how many were answered.
    fn rush(turns: usize, strangers: usize, customers: usize, turn_ms: u64) -> ([usize; 3], Rush) {
        let start = Instant::now();
        let mut rush = Rush::new(start);
        let mut counts = [0; 3];
        for turn in 0..turns {
            let now = start + Duration::from_millis(turn as u64 * turn_ms);
            rush.begin_turn(false, now);
            for _ in 0..strangers {
                match rush.fate(REGISTER, || false) {
                    Fate::Taken => counts[0] += 1,
                    Fate::Answered => counts[2] += 1,
                    Fate::Dropped => {}
                }
            }
            for _ in 0..customers {
                counts[1] += usize::from(rush.fate(REGISTER, || true) == Fate::Taken);
            }
            rush.end_turn(now);
            rush.take_shed();
        }
        (counts, rush)
    }

    #[test]
    fn without_a_rush_nobody_is_asked_who_he_is() {
        let ([strangers, ..], rush) = rush(100, RUSH_FROM, 0, 1);
        assert_eq!((strangers, rush.is_on()), (100 * RUSH_FROM, false));
    }

    #[test]
    fn in_a_rush_customers_are_served_and_few_others() {
        let ([strangers, customers, answered], rush) = rush(100, 1_000, 10, 1);
        assert_eq!(customers, 100 * 10);
        assert!((99 * STRANGERS_MAX..=RUSH_FROM + 100 * STRANGERS_MAX).contains(&strangers), "{strangers}");
        assert_eq!(answered, 100 * ANSWERS_MAX);
        assert_eq!(strangers + answered + usize::try_from(rush.shed_in_all.1).expect("few"), 100 * 1_000);
        assert!(rush.is_on());
    }

    #[test]
    fn who_gets_behind_takes_fewer_strangers() {
        let ([strangers, customers, _], _) = rush(100, 1_000, 10, 20);
        assert_eq!(customers, 100 * 10);
        assert!(strangers < RUSH_FROM + 2 * STRANGERS_MAX + 100 * STRANGERS_MIN, "{strangers}");
    }

    #[test]
    fn a_rush_begins_once_and_ends_when_it_was_calm_for_a_while() {
        let start = Instant::now();
        let mut rush = Rush::new(start);
        let mut turn = |millis, count: usize| {
            rush.begin_turn(false, start + Duration::from_millis(millis));
            for _ in 0..count {
                rush.fate(REGISTER, || false);
            }
            let change = rush.end_turn(start + Duration::from_millis(millis));
            rush.take_shed();
            change
        };
        assert_eq!(turn(0, 10), Change::None);
        assert_eq!(turn(1, 500), Change::Began);
        assert_eq!(turn(2, 500), Change::None);
        assert_eq!(turn(150, 1), Change::None);
        let ended = turn(203, 1);
        assert!(matches!(ended, Change::Ended { answered: 16, dropped } if dropped > 600), "{ended:?}");
        assert_eq!(turn(204, CALM_MAX), Change::None);
    }

    #[test]
    fn a_core_that_is_behind_is_a_rush() {
        let now = Instant::now();
        let mut rush = Rush::new(now);
        for _ in 0..10 {
            rush.begin_turn(true, now);
            let fates: Vec<Fate> = (0..50).map(|_| rush.fate(REGISTER, || false)).collect();
            assert_eq!(rush.fate(REGISTER, || true), Fate::Taken);
            assert!(fates.contains(&Fate::Dropped));
            rush.end_turn(now);
        }
        assert_eq!((rush.is_on(), rush.quota), (true, STRANGERS_MIN));
    }

    #[test]
    fn what_is_no_request_gets_no_answer_and_ends_of_calls_have_places_of_their_own() {
        let start = Instant::now();
        let mut rush = Rush::new(start);
        rush.begin_turn(true, start);
        for _ in 0..STRANGERS_MAX {
            assert_eq!(rush.fate(REGISTER, || false), Fate::Taken);
        }
        for junk in [
            &b""[..],
            b"\r\n\r\n",
            b"x",
            b"REGISTER sip:a SIP/2.0\r\n\r\n",
            b"ACK sip:a SIP/2.0\r\nCall-ID: 1\r\n\r\n",
        ] {
            assert_eq!(rush.fate(junk, || false), Fate::Dropped, "{}", String::from_utf8_lossy(junk));
        }
        assert_eq!(rush.fate(REGISTER, || false), Fate::Answered);
        let ends: [&[u8]; 2] =
            [b"BYE sip:a SIP/2.0\r\nCall-ID: 1\r\n\r\n", b"SIP/2.0 200 OK\r\nCall-ID: 1\r\n\r\n"];
        for end in ends.into_iter().cycle().take(ENDINGS_MAX) {
            assert_eq!(rush.fate(end, || false), Fate::Taken);
        }
        assert_eq!(rush.fate(ends[0], || false), Fate::Answered);
        assert_eq!(rush.fate(ends[1], || false), Fate::Dropped);
    }

    #[test]
    fn whoever_may_call_for_help_is_heard() {
        for (line, expected) in [
            ("INVITE sip:112@a.test SIP/2.0", true),
            ("INVITE SIP:911@a.test;user=phone SIP/2.0", true),
            ("INVITE tel:110;phone-context=a SIP/2.0", true),
            ("INVITE urn:service:sos.fire SIP/2.0", true),
            ("INVITE sip:+4930123@a.test SIP/2.0", false),
            ("INVITE sip:0112@a.test SIP/2.0", true),
            ("INVITE sip:99911166@a.test SIP/2.0", true),
            ("\r\n\r\nINVITE sip:112@a.test SIP/2.0", true),
            ("CANCEL sip:112@a.test SIP/2.0", true),
            ("OPTIONS sip:112@a.test SIP/2.0", false),
            ("INVITE sip:004930123456789@a.test SIP/2.0", false),
            ("INVITE sip:112", false),
            ("INVITE sip:bob@a.test SIP/2.0", false),
            ("REGISTER sip:112@a.test SIP/2.0", false),
        ] {
            assert_eq!(may_call_for_help(line.as_bytes()), expected, "{line}");
        }
        let mut rush = Rush::new(Instant::now());
        rush.last = Some(Instant::now());
        rush.begin_turn(false, Instant::now());
        let fates: Vec<Fate> = (0..100).map(|_| rush.fate(b"INVITE sip:112@a SIP/2.0", || false)).collect();
        let taken = fates.iter().filter(|fate| **fate == Fate::Taken).count();
        assert!((EMERGENCIES_MAX..=EMERGENCIES_MAX + STRANGERS_MAX + 1).contains(&taken), "{taken}");
    }
}
