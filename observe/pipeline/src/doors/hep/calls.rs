//! Captured messages as calls: what began, was answered and ended, told by the messages alone. Sans-IO.
//!
//! Whoever captures sees a call at one place or at several. The first INVITE says who calls whom; what counts as the
//! end is what went back to where that came from, so that the failures of branches do not end a forked call.

use std::collections::hash_map::Entry;
use std::hash::BuildHasher;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use belfry_signal::record::{Call, Name};
use belfry_signal::{Pii, Region, TraceId};
use foldhash::fast::RandomState;
use foldhash::{HashMap, HashSet};

use crate::doors::signals::CallEnd;

/// Messages of a call that are remembered to tell repeats.
const REMEMBERED_MAX: usize = 256;
/// How often calls of which nothing was heard are looked for.
const SWEEP: Duration = Duration::from_secs(10);
/// How long an ended call is remembered, so that what comes late makes no new one.
const ENDED_FOR: Duration = Duration::from_secs(64);

/// What of a SIP message matters to calls.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'a> {
    pub(super) unix_nanos: u64,
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    pub(super) call_id: &'a str,
    pub(super) trace_id: TraceId,
    /// Nothing for a request.
    pub(super) status: Option<u16>,
    /// Of the request, or of the one that is answered.
    pub(super) method: &'a str,
    pub(super) cseq: u32,
    pub(super) branch: &'a str,
    pub(super) transport: &'a str,
    pub(super) from: &'a str,
    pub(super) to: &'a str,
    pub(super) from_tag: &'a str,
    /// Whether the request is within a dialog.
    pub(super) has_to_tag: bool,
}

#[derive(Debug)]
struct Followed {
    call: Call,
    last_nanos: u64,
    heard: Instant,
    /// Where the first INVITE came from.
    caller_at: SocketAddr,
    from_tag: String,
    is_cancelled: bool,
    is_over: bool,
    remembered: HashSet<u64>,
}

/// All captured calls that are under way.
#[derive(Debug)]
pub(super) struct Calls {
    followed: HashMap<String, Followed>,
    calls_max: usize,
    idle: Duration,
    region: Region,
    hasher: RandomState,
    swept: Instant,
}

/// What a message turned out to be.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Learnt {
    pub(super) is_repeat: bool,
    /// The call that it ended.
    pub(super) ended: Option<(u64, Call)>,
    /// Whether there was no room to follow a new call.
    pub(super) is_unfollowed: bool,
}

impl Calls {
    pub(super) fn new(calls_max: usize, idle: Duration, region: Region, now: Instant) -> Self {
        let hasher = RandomState::default();
        Self { followed: HashMap::default(), calls_max, idle, region, hasher, swept: now }
    }

    /// Calls that are not over.
    pub(super) fn open(&self) -> usize {
        self.followed.values().filter(|followed| !followed.is_over).count()
    }

    /// Takes one message, in the order of capture.
    pub(super) fn take(&mut self, seen: &Seen<'_>, now: Instant) -> Learnt {
        let is_full = self.followed.len() >= self.calls_max;
        let mark = self.hasher.hash_one((
            seen.source,
            seen.destination,
            seen.status,
            seen.method,
            (seen.cseq, seen.branch),
        ));
        let followed = match self.followed.entry(seen.call_id.to_owned()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                if seen.method != "INVITE" || seen.status.is_some() || seen.has_to_tag {
                    return Learnt::default();
                }
                if is_full {
                    return Learnt { is_unfollowed: true, ..Learnt::default() };
                }
                new.insert(Followed::of(seen, &self.region, now))
            }
        };
        followed.heard = now;
        followed.last_nanos = followed.last_nanos.max(seen.unix_nanos);
        if followed.remembered.contains(&mark) {
            return Learnt { is_repeat: true, ..Learnt::default() };
        }
        if followed.remembered.len() < REMEMBERED_MAX {
            followed.remembered.insert(mark);
        }
        let ended = followed.learn(seen).then(|| (seen.unix_nanos, followed.call.clone()));
        Learnt { ended, ..Learnt::default() }
    }

    /// Lets go of calls that are over, and ends those of which nothing was heard. A few times a minute is enough.
    pub(super) fn sweep(&mut self, now: Instant) -> Vec<(u64, Call, CallEnd)> {
        if now.saturating_duration_since(self.swept) < SWEEP {
            return Vec::new();
        }
        self.swept = now;
        let mut ended = Vec::new();
        let idle = self.idle;
        self.followed.retain(|_, followed| {
            let silent = now.saturating_duration_since(followed.heard);
            if followed.is_over {
                return silent < ENDED_FOR;
            }
            if silent < idle {
                return true;
            }
            followed.give_up();
            ended.push((followed.last_nanos, followed.call.clone(), CallEnd::Idle));
            false
        });
        ended
    }
}

impl Followed {
    fn of(seen: &Seen<'_>, region: &Region, now: Instant) -> Self {
        let call = Call {
            call_id: Pii::new(seen.call_id.to_owned()),
            trace_id: seen.trace_id,
            start_unix_nanos: seen.unix_nanos,
            answer_unix_nanos: None,
            caller: Pii::new(seen.from.to_owned()),
            callee: Pii::new(seen.to.to_owned()),
            region: region.clone(),
            country: None,
            transport: Name::Owned(seen.transport.to_owned()),
            outcome: Name::Borrowed(""),
            status_code: 0,
            cause: Name::Borrowed(""),
            post_dial_seconds: None,
            mos_min: None,
            mos_mean: None,
            silent_legs: Vec::new(),
            tenant: None,
            calling_trunk: None,
            called_trunk: None,
        };
        Self {
            call,
            last_nanos: seen.unix_nanos,
            heard: now,
            caller_at: seen.source,
            from_tag: seen.from_tag.to_owned(),
            is_cancelled: false,
            is_over: false,
            remembered: HashSet::default(),
        }
    }

    /// Whether the message ends the call.
    fn learn(&mut self, seen: &Seen<'_>) -> bool {
        if self.is_over {
            return false;
        }
        match (seen.status, seen.method) {
            (None, "CANCEL") => self.is_cancelled = true,
            (None, "BYE") => {
                let is_caller = seen.from_tag == self.from_tag;
                let cause = if is_caller { "caller_hung_up" } else { "callee_hung_up" };
                self.end("answered", 200, cause);
            }
            (Some(status @ 180..=699), "INVITE") => {
                // The first answer of substance, as RFC 6076 section 4.3 counts.
                if self.call.post_dial_seconds.is_none() && !matches!(status, 401 | 407) {
                    self.call.post_dial_seconds = Some(seconds(self.call.start_unix_nanos, seen.unix_nanos));
                }
                self.answered(status, seen);
            }
            _ => {}
        }
        self.is_over
    }

    fn answered(&mut self, status: u16, seen: &Seen<'_>) {
        match status {
            200..=299 => {
                self.call.answer_unix_nanos.get_or_insert(seen.unix_nanos);
                self.call.status_code = status;
            }
            // The caller is asked who he is, and begins again.
            401 | 407 => {}
            // Of a branch, or within an answered call.
            300..=699 if seen.destination != self.caller_at || self.call.answer_unix_nanos.is_some() => {}
            300..=699 => {
                let (outcome, cause) = verdict(status, self.is_cancelled);
                self.end(outcome, status, cause);
            }
            _ => {}
        }
    }

    fn end(&mut self, outcome: &'static str, status: u16, cause: &'static str) {
        self.is_over = true;
        let is_answered = self.call.answer_unix_nanos.is_some() || outcome == "answered";
        self.call.outcome = Name::Borrowed(if is_answered { "answered" } else { outcome });
        self.call.status_code =
            if is_answered && self.call.status_code > 0 { self.call.status_code } else { status };
        self.call.cause = Name::Borrowed(cause);
        self.remembered = HashSet::default();
    }

    /// Its end was not captured.
    fn give_up(&mut self) {
        match self.call.answer_unix_nanos {
            Some(_) => self.end("answered", 200, "lifetime_over"),
            None if self.is_cancelled => self.end("cancelled", 487, "cancelled"),
            None => self.end("no_answer", 408, "no_answer"),
        }
    }
}

/// Outcome and cause of a failure, in the words of our own call records.
fn verdict(status: u16, is_cancelled: bool) -> (&'static str, &'static str) {
    match status {
        487 => ("cancelled", "cancelled"),
        _ if is_cancelled => ("cancelled", "cancelled"),
        486 | 600 => ("busy", "busy"),
        408 | 480 => ("no_answer", "no_answer"),
        603 => ("rejected", "declined"),
        300..=399 => ("rejected", "declined"),
        404 | 410 | 484 | 604 => ("rejected", "unknown_customer"),
        403 => ("rejected", "denied"),
        500 | 503 | 504 => ("failed", "server_error"),
        _ => ("rejected", "rejected"),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a delay in seconds")]
fn seconds(from_nanos: u64, to_nanos: u64) -> f64 {
    to_nanos.saturating_sub(from_nanos) as f64 / 1e9
}

#[cfg(test)]
mod tests;
