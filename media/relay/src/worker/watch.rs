//! What time brings: quality windows, one-way and silent calls, calls that nobody ends.

use std::time::Instant;

use belfry_relay_api::{Leg, Notice};

use super::Worker;
use crate::config::Config;
use crate::session::{LEGS, Session, Stream, side_of};
use crate::signals::{End, Signals, Window};

impl Worker {
    /// Looks at one session.
    pub(super) fn watch(&mut self, slot: usize, now: Instant) {
        let common = &self.common;
        let Some(Some(session)) = self.sessions.get_mut(slot) else { return };
        if session.answered.is_some() {
            if now.duration_since(session.window_started) >= common.config.quality_window {
                end_windows(session, &common.config, &common.signals, now, true);
            }
            for notice in notices(session, &common.config, now) {
                common.signals.noticed(&session.subject, &notice);
                // Nobody may be listening; the signals have it all the same.
                let _ = common.notices.send(notice);
            }
        }
        let heard = LEGS.iter().filter_map(|leg| session.last_heard(*leg)).max();
        let last = heard.map_or(session.touched, |heard| heard.max(session.touched));
        let is_held = session.answered.is_some() && !LEGS.iter().any(|leg| session.expects(*leg));
        let config = &common.config;
        let after = if is_held { config.abandoned_held_after } else { config.abandoned_after };
        if now.saturating_duration_since(last) >= after {
            self.remove(slot, End::Abandoned, now);
        }
    }

    /// Ends the window that is open when a session goes. It is shorter than the others: it is reported, but judged
    /// only when it is at least half as long, since one packet lost of twenty would make it bad.
    pub(super) fn close_windows(&mut self, slot: usize, now: Instant) {
        let common = &self.common;
        let Some(Some(session)) = self.sessions.get_mut(slot) else { return };
        if session.answered.is_some() {
            let length = now.saturating_duration_since(session.window_started);
            let is_judged = length * 2 >= common.config.quality_window;
            end_windows(session, &common.config, &common.signals, now, is_judged);
        }
    }
}

/// Ends the window of every leg of every audio stream, reports it and, if wanted, judges it.
fn end_windows(session: &mut Session, config: &Config, signals: &Signals, now: Instant, is_judged: bool) {
    let seconds = now.saturating_duration_since(session.window_started).as_secs_f64();
    session.window_started = now;
    let Session { subject, streams, .. } = session;
    for stream in streams.iter_mut().flatten().filter(|stream| stream.is_judged()) {
        let round_trip_ms = stream.round_trip_ms();
        let is_heard = LEGS.map(|leg| stream.sides[side_of(leg)].meter.window_packets() > 0);
        for leg in LEGS {
            let is_unheard = !is_heard[side_of(leg)]
                && is_heard[side_of(leg.other())]
                && is_overdue(stream, leg, config, now);
            let side = &mut stream.sides[side_of(leg)];
            let quality = if is_judged {
                side.meter.end_window(round_trip_ms)
            } else {
                side.meter.window(round_trip_ms)
            };
            let payload_type = side.meter.payload_type();
            let window = Window { leg, seconds, round_trip_ms: side.round_trip.last_ms(), payload_type };
            match quality {
                Some(quality) => {
                    signals.window_measured(subject, &window, &quality);
                    if is_judged && quality.mos_listening < config.mos_min {
                        signals.window_bad(subject, quality.impairment);
                    } else if is_judged {
                        signals.window_good(subject);
                    }
                }
                None if is_unheard && is_judged => signals.window_unheard(subject, &window),
                // On hold, or muted by both: there was nothing to judge.
                None => {}
            }
        }
    }
}

/// Whether a leg that should send has not been heard for too long.
fn is_overdue(stream: &Stream, leg: Leg, config: &Config, now: Instant) -> bool {
    let since =
        stream.sides[side_of(leg)].last_heard.map_or(stream.described, |heard| heard.max(stream.described));
    stream.expects(leg) && now.saturating_duration_since(since) >= config.one_way_after
}

/// What the core should know and has not been told since the last description or sound.
fn notices(session: &mut Session, config: &Config, now: Instant) -> Vec<Notice> {
    let mut notices = Vec::new();
    let heard = LEGS.map(|leg| session.last_heard(leg));
    let is_quiet = |last: Option<Instant>, after| {
        let since = last.map_or(session.described(), |heard| heard.max(session.described()));
        now.saturating_duration_since(since) >= after
    };
    let is_expected = LEGS.map(|leg| session.expects(leg));
    let is_silent =
        is_expected.contains(&true) && heard.iter().all(|last| is_quiet(*last, config.silent_after));
    let is_one_way = LEGS.map(|leg| {
        let (own, other) = (heard[side_of(leg)], heard[side_of(leg.other())]);
        // The other leg is heard now, so the call lives and the fault is on this leg's way.
        let is_other_heard =
            other.is_some_and(|last| now.saturating_duration_since(last) < config.one_way_after);
        is_expected[side_of(leg)] && is_other_heard && is_quiet(own, config.one_way_after)
    });
    if is_silent && !session.is_silent_noticed {
        notices.push(Notice::Silent { session: session.subject.key.clone() });
    }
    session.is_silent_noticed = is_silent;
    for leg in LEGS {
        if is_one_way[side_of(leg)] && !session.is_one_way_noticed[side_of(leg)] {
            notices.push(Notice::OneWay { session: session.subject.key.clone(), missing: leg });
        }
        session.is_one_way_noticed[side_of(leg)] = is_one_way[side_of(leg)];
    }
    notices
}
