//! Syslog: RFC 5424 and what RFC 3164 found in the field, in datagrams (RFC 5426) and streams (RFC 6587, RFC 5425).
//!
//! Why our own parser: `syslog_loose` takes text only, while what devices send is not always UTF-8; without a colon it
//! takes the first words of a message for host and tag; and it would bring a second clock library and a second `nom`.

mod frame;
mod parse;

use std::net::IpAddr;
use std::sync::Arc;

use belfry_signal::{Record, Severity};
use jiff::tz::TimeZone;

use super::flow::{Frame, Passing, Protocol};
use super::refusal::Refusal;
use super::shape::Shaper;
use super::signals::Entrance;

pub(crate) use self::parse::parse;

/// Syslog as a protocol of streams and datagrams.
#[derive(Clone, Debug)]
pub(crate) struct Syslog {
    zone: Arc<TimeZone>,
}

impl Syslog {
    /// `zone` is where the clocks of senders stand that name none; it has been checked.
    pub(crate) fn new(zone: Option<&str>) -> Self {
        let zone = zone.and_then(|name| TimeZone::get(name).ok()).unwrap_or(TimeZone::UTC);
        Self { zone: Arc::new(zone) }
    }
}

impl Protocol for Syslog {
    const DOOR: Entrance = Entrance::Syslog;

    fn frame(&self, passing: &mut Passing, buffer: &[u8], is_end: bool) -> Frame {
        frame::frame(passing, buffer, is_end)
    }

    fn decode(
        &self,
        message: &[u8],
        sender: IpAddr,
        shaper: &mut Shaper<'_>,
        into: &mut Vec<Record>,
    ) -> Result<(), Refusal> {
        into.push(parse(message, Some(sender), &self.zone, shaper)?);
        Ok(())
    }
}

/// Syslog's severities (RFC 5424 section 6.2.1) as ours.
pub(crate) fn severity(number: u8) -> Severity {
    match number & 7 {
        0..=3 => Severity::Error,
        4 => Severity::Warn,
        5 | 6 => Severity::Info,
        _ => Severity::Debug,
    }
}

/// For the fuzzer.
#[doc(hidden)]
pub(super) mod fuzz {
    use jiff::tz::TimeZone;

    use super::super::config::DoorsConfig;
    use super::super::shape::{Rules, Shaper};
    use super::super::signals::Entrance;
    use super::{Frame, Passing, frame, parse};

    /// Any bytes as a message, and as a stream of messages.
    pub fn syslog(bytes: &[u8]) {
        let rules = Rules::of(&DoorsConfig::default());
        let mut shaper = Shaper::new(&rules, Entrance::Syslog, 1_795_000_000_000_000_000);
        let _record = parse(bytes, None, &TimeZone::UTC, &mut shaper);
        let (mut passing, mut done) = (Passing::default(), 0);
        while done < bytes.len() {
            match frame::frame(&mut passing, &bytes[done..], true) {
                Frame::Message { at, taken } => {
                    let _record = parse(&bytes[done..][at], None, &TimeZone::UTC, &mut shaper);
                    assert!(taken > 0);
                    done += taken;
                }
                Frame::PassOver { taken, .. } => {
                    assert!(taken > 0);
                    done += taken;
                }
                Frame::More | Frame::Broken(_) => return,
            }
        }
    }
}
