//! What is kept, and for how long: by stream, by hold, and, of calls, by how they went.
//!
//! Everything here decides; the housekeeper acts. Retention drops whole splits. After `thin_after`, splits of calls are
//! written anew once: calls that failed, were slow or sounded poor keep everything, of the others a share does, chosen
//! by the Call-ID so that all splits agree, and the rest keep their summary.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use belfry_signal::record::{Body, Call};
use belfry_signal::{Record, Severity};
use serde::Deserialize;

use crate::catalogue::SplitRow;
use crate::facts::{Stream, call_id, call_key, severity};

/// What is kept longer, shorter or in part.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Keep {
    /// How long all that belongs to calls is kept, when not as long as everything.
    #[serde(with = "humantime_serde")]
    pub calls: Option<Duration>,
    /// How long requests at the edge are kept.
    #[serde(with = "humantime_serde")]
    pub access: Option<Duration>,
    /// How long the rest is kept.
    #[serde(with = "humantime_serde")]
    pub system: Option<Duration>,
    /// How long samples of what doors refused are kept.
    #[serde(with = "humantime_serde")]
    pub refused: Option<Duration>,
    /// What must be kept whatever else is said here.
    pub hold: Vec<Hold>,
    /// After this, good calls keep only their summary, but for a share of them.
    #[serde(with = "humantime_serde")]
    pub thin_after: Option<Duration>,
    /// The share of good calls that keep everything, 0 to 1.
    pub good_share: f64,
    /// A call is not good when a leg scored below this.
    pub good_mos_min: f64,
    /// A call is not good when the first answer took longer, in seconds.
    pub good_delay_seconds_max: f64,
}

/// Records that may not be dropped: a legal hold.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hold {
    /// Which streams; none named means all.
    #[serde(default)]
    pub streams: Vec<Stream>,
    /// From when.
    #[serde(with = "humantime_serde")]
    pub from: SystemTime,
    /// Until when.
    #[serde(with = "humantime_serde")]
    pub to: SystemTime,
    /// Why, for whoever reads the configuration.
    pub reason: String,
}

impl Default for Keep {
    fn default() -> Self {
        Self {
            calls: None,
            access: None,
            system: None,
            refused: None,
            hold: Vec::new(),
            thin_after: None,
            good_share: 1.0,
            good_mos_min: 3.5,
            good_delay_seconds_max: 4.0,
        }
    }
}

impl Keep {
    /// What is wrong: the key inside the section, and what is allowed.
    pub(crate) fn check(&self, require: &mut impl FnMut(bool, &str, &str)) {
        let second = Duration::from_secs(1);
        let own = [self.calls, self.access, self.system, self.refused, self.thin_after];
        require(own.into_iter().flatten().all(|time| time >= second), "keep", "times of at least 1s");
        require((0.0..=1.0).contains(&self.good_share), "keep.good_share", "0 to 1");
        require((1.0..=5.0).contains(&self.good_mos_min), "keep.good_mos_min", "1 to 5");
        require(self.good_delay_seconds_max > 0.0, "keep.good_delay_seconds_max", "more than 0");
        require(self.hold.iter().all(|hold| hold.from < hold.to), "keep.hold", "from before to");
    }

    /// How long the stream is kept.
    pub(crate) fn retention(&self, stream: Stream, otherwise: Duration) -> Duration {
        let own = match stream {
            Stream::Calls => self.calls,
            Stream::Access => self.access,
            Stream::System => self.system,
            Stream::Refused => self.refused,
        };
        own.unwrap_or(otherwise)
    }

    /// Whether a hold reaches into the split.
    pub(crate) fn is_held(&self, row: &SplitRow) -> bool {
        self.hold.iter().any(|hold| {
            let is_of_stream = hold.streams.is_empty() || hold.streams.contains(&row.stream);
            is_of_stream && row.to_nanos >= nanos(hold.from) && row.from_nanos <= nanos(hold.to)
        })
    }

    /// Whether the split is one whose good calls go now.
    pub(crate) fn is_to_be_thinned(&self, row: &SplitRow, now_nanos: u64) -> bool {
        let Some(after) = self.thin_after else { return false };
        let oldest = now_nanos.saturating_sub(u64::try_from(after.as_nanos()).unwrap_or(u64::MAX));
        row.stream == Stream::Calls && !row.is_thinned && row.aged_from_nanos() < oldest && !self.is_held(row)
    }

    fn is_good(&self, call: &Call) -> bool {
        call.outcome != "failed"
            && call.silent_legs.is_empty()
            && call.mos_min.is_none_or(|mos| mos >= self.good_mos_min)
            && call.post_dial_seconds.is_none_or(|seconds| seconds <= self.good_delay_seconds_max)
    }

    /// Whether a good call is of the share that keeps everything.
    fn is_of_share(&self, call_id: &str) -> bool {
        #[expect(clippy::cast_precision_loss, reason = "a share")]
        let place = call_key(call_id) as f64 / u64::MAX as f64;
        place < self.good_share
    }
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Methods of exchanges that are no calls (RFC 3261 sections 10 and 11, RFC 6665, RFC 3903, RFC 3428).
const METHODS_OF_NO_CALL: [&str; 6] = ["REGISTER", "OPTIONS", "SUBSCRIBE", "NOTIFY", "PUBLISH", "MESSAGE"];

/// Whether a record is a part of a call, as far as it says itself: its INVITE may be in another split.
fn is_of_call(body: &Body) -> bool {
    match body {
        Body::Quality(_) | Body::Call(_) => true,
        Body::Sip(message) => {
            // `CSeq: 1 INVITE`; one that cannot be read is a call's rather than lost.
            let method = message.cseq.split_ascii_whitespace().nth(1);
            method.is_none_or(|method| !METHODS_OF_NO_CALL.contains(&method))
        }
        Body::Log(_) | Body::Span(_) => false,
    }
}

/// How the calls and other exchanges of one split went.
#[derive(Debug, Default)]
pub(crate) struct Outcomes {
    exchanges: HashMap<String, Exchange>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Exchange {
    /// It is a call, and so has a summary somewhere, or will have.
    is_call: bool,
    is_bad: bool,
    is_good: bool,
}

impl Outcomes {
    /// Takes a record of the split itself.
    pub(crate) fn meet(&mut self, record: &Record) {
        let Some(call_id) = call_id(&record.body) else { return };
        if !self.exchanges.contains_key(call_id) {
            self.exchanges.insert(call_id.to_owned(), Exchange::default());
        }
        let Some(exchange) = self.exchanges.get_mut(call_id) else { return };
        exchange.is_call |= is_of_call(&record.body);
        exchange.is_bad |= severity(&record.body) >= Severity::Warn;
    }

    /// Takes the summary of a call, from whatever split it is in.
    pub(crate) fn ended(&mut self, call: &Call, keep: &Keep) {
        if let Some(exchange) = self.exchanges.get_mut(call.call_id.reveal().as_str()) {
            let is_good = keep.is_good(call);
            exchange.is_good |= is_good;
            exchange.is_bad |= !is_good;
        }
    }

    /// Whether the record stays.
    pub(crate) fn keeps(&self, record: &Record, keep: &Keep) -> bool {
        let Some(call_id) = call_id(&record.body) else { return true };
        let exchange = self.exchanges.get(call_id).copied().unwrap_or_default();
        // A call without a summary: nobody knows how it went.
        let is_unknown = exchange.is_call && !exchange.is_good;
        matches!(record.body, Body::Call(_)) || exchange.is_bad || is_unknown || keep.is_of_share(call_id)
    }
}
