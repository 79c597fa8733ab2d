//! What is watched of a call while it lives: when it was last heard of, who holds whom, and for how long its session
//! lives without a refresh (RFC 4028).

use std::time::{Duration, Instant};

use belfry_relay_api::Leg;
use belfry_sip_proto::timer::TimerKey;
use belfry_sip_proto::transaction::TransactionId;

use super::Call;
use crate::signals::CallCause;

/// The watch over one call.
#[derive(Debug)]
pub(crate) struct Watch {
    /// When its dialog last had a message from either side.
    pub(crate) heard_unix_nanos: u64,
    /// Whether the caller, and whether the callee, holds the other side.
    holds: [bool; 2],
    /// What both sides agreed on, when at least one of them keeps a timer.
    pub(crate) session: Option<Session>,
    /// Refreshes that came since it was answered.
    pub(crate) refreshes: u32,
    /// Looks whether the session was refreshed.
    pub(crate) alarm: Option<TimerKey>,
    /// The INVITE that sets it up.
    pub(crate) setup: Option<TransactionId>,
}

/// A session with a timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Session {
    /// How long it lives without a refresh.
    pub(crate) interval: Duration,
    /// Who has to refresh it.
    pub(crate) refresher: Leg,
    /// When it last was.
    pub(crate) refreshed: Instant,
}

impl Watch {
    /// A call of which the INVITE came now.
    pub(super) fn new(unix_nanos: u64) -> Self {
        Self {
            heard_unix_nanos: unix_nanos,
            holds: [false; 2],
            session: None,
            refreshes: 0,
            alarm: None,
            setup: None,
        }
    }

    /// A side offered this: does it hold the other?
    pub(crate) fn offered(&mut self, by: Leg, sdp: &[u8]) {
        self.holds[side(by)] = is_holding(sdp);
    }

    /// Who holds the other side.
    pub(crate) fn holders(&self) -> impl Iterator<Item = Leg> {
        [Leg::Caller, Leg::Callee].into_iter().filter(|leg| self.holds[side(*leg)])
    }
}

impl Session {
    /// When it is over, unless it is refreshed.
    pub(crate) fn expires(&self) -> Instant {
        self.refreshed + self.interval
    }
}

impl Call {
    /// A call that died in silence ended when it was last known to live, and not when we gave it up.
    pub(super) fn settle_end(&mut self) {
        if !matches!(self.ending.cause, CallCause::MediaTimeout | CallCause::SessionExpired) {
            return;
        }
        // Without the relay's word nobody knows how long there was sound; only a timer that ran out proves the silence.
        let quiet_seconds = match &self.report {
            Some(report) => report.quiet_seconds,
            None if self.ending.cause == CallCause::SessionExpired => None,
            None => return,
        };
        let sound = quiet_seconds.map_or(0, |seconds| self.end_unix_nanos.saturating_sub(nanos(seconds)));
        let last = sound.max(self.watch.heard_unix_nanos).max(self.answer_unix_nanos.unwrap_or_default());
        self.end_unix_nanos = self.end_unix_nanos.min(last);
    }
}

fn nanos(seconds: f64) -> u64 {
    let duration = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn side(leg: Leg) -> usize {
    match leg {
        Leg::Caller => 0,
        Leg::Callee => 1,
    }
}

/// Whether whoever offers this holds the other side: none of its streams wants to hear anything (RFC 3264 section 8.4;
/// the address 0.0.0.0 is the way of RFC 2543).
fn is_holding(sdp: &[u8]) -> bool {
    #[derive(Clone, Copy)]
    struct Stream {
        is_used: bool,
        is_deaf: bool,
        is_nowhere: bool,
    }
    // The session's own lines hold for streams that say nothing else.
    let mut session = Stream { is_used: false, is_deaf: false, is_nowhere: false };
    let mut streams: Vec<Stream> = Vec::new();
    for line in sdp.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end) {
        if let Some(media) = line.strip_prefix(b"m=") {
            let port = media.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
            streams.push(Stream { is_used: port != b"0", ..session });
            continue;
        }
        let place = streams.last_mut().unwrap_or(&mut session);
        match line {
            b"a=sendonly" | b"a=inactive" => place.is_deaf = true,
            b"a=sendrecv" | b"a=recvonly" => place.is_deaf = false,
            line if line.starts_with(b"c=") => place.is_nowhere = line == b"c=IN IP4 0.0.0.0",
            _ => {}
        }
    }
    let mut used = streams.iter().filter(|stream| stream.is_used).peekable();
    used.peek().is_some() && used.all(|stream| stream.is_deaf || stream.is_nowhere)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(lines: &str, is_held: bool) {
        let sdp = format!("v=0 o=- 1 1 IN IP4 h s=- {lines}");
        let sdp = ["v=0", "o=", "s=", "c=", "m=", "a="]
            .iter()
            .fold(sdp, |sdp, start| sdp.replace(&format!(" {start}"), &format!("\r\n{start}")));
        assert_eq!(is_holding(sdp.as_bytes()), is_held, "{sdp}");
    }

    #[test]
    fn who_wants_to_hear_nothing_holds() {
        check("c=IN IP4 192.0.2.1 m=audio 4000 RTP/AVP 0", false);
        check("c=IN IP4 192.0.2.1 m=audio 4000 RTP/AVP 0 a=sendonly", true);
        check("c=IN IP4 192.0.2.1 m=audio 4000 RTP/AVP 0 a=inactive", true);
        check("c=IN IP4 192.0.2.1 m=audio 4000 RTP/AVP 0 a=recvonly", false);
        check("c=IN IP4 192.0.2.1 a=sendonly m=audio 4000 RTP/AVP 0", true);
        check("c=IN IP4 192.0.2.1 a=sendonly m=audio 4000 RTP/AVP 0 a=sendrecv", false);
        check("c=IN IP4 0.0.0.0 m=audio 4000 RTP/AVP 0", true);
        check("c=IN IP4 0.0.0.0 m=audio 4000 RTP/AVP 0 c=IN IP4 192.0.2.1", false);
        check("c=IN IP4 192.0.2.1 m=audio 4000 RTP/AVP 0 a=sendonly m=video 4002 RTP/AVP 96", false);
        check("c=IN IP4 192.0.2.1 m=audio 4000 RTP/AVP 0 a=sendonly m=video 0 RTP/AVP 96", true);
        check("c=IN IP4 192.0.2.1", false);
    }
}
