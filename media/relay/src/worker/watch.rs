//! What time brings: quality windows, one-way and silent calls, calls that nobody ends, calls whose core is gone.

use std::time::Instant;

use belfry_relay_api::{Leg, Notice};

use super::Worker;
use crate::config::Config;
use crate::handle::Controller;
use crate::session::{LEGS, Session, Stream, side_of};
use crate::signals::{End, Signals, Window};

impl Worker {
    /// Looks at one session.
    pub(super) fn watch(&mut self, slot: usize, now: Instant) {
        let common = &self.common;
        let Some(Some(session)) = self.sessions.get_mut(slot) else { return };
        if session.orphaned.is_none() && session.controller.is_gone() {
            session.orphaned = Some(now);
            common.signals.session_orphaned(&session.subject);
        }
        let is_answered = session.answered.is_some();
        if is_answered && now.duration_since(session.window_started) >= common.config.quality_window {
            end_windows(session, &common.config, &common.signals, now, true);
        }
        // Nobody could do anything about an orphan, and what is missing is most likely a phone that hung up.
        if is_answered && session.orphaned.is_none() {
            for notice in notices(session, &common.config, now) {
                common.signals.noticed(&session.subject, &notice);
                // Nobody may be listening; the signals have it all the same.
                let _ = common.notices.send(notice);
            }
        }
        if is_orphan_over(session, &common.config, now) {
            self.remove(slot, End::Orphaned, now);
            return;
        }
        let heard = LEGS.iter().filter_map(|leg| session.last_heard(*leg)).max();
        let last = heard.map_or(session.touched, |heard| heard.max(session.touched));
        let config = &common.config;
        let after = if is_held(session) { config.abandoned_held_after } else { config.abandoned_after };
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
            let is_whole = length * 2 >= common.config.quality_window;
            end_windows(session, &common.config, &common.signals, now, is_whole);
        }
    }

    /// Whoever asks about a session may end it from now on. What was measured while nobody could is recorded and held
    /// against nobody.
    pub(super) fn adopt(&mut self, slot: usize, by: &Controller, now: Instant) {
        let common = &self.common;
        let Some(Some(session)) = self.sessions.get_mut(slot) else { return };
        session.controller = by.clone();
        if session.orphaned.is_some() {
            if session.answered.is_some() {
                end_windows(session, &common.config, &common.signals, now, true);
            }
            session.orphaned = None;
            common.signals.session_adopted(&session.subject);
        }
    }
}

/// Ends the window of every leg of every audio stream and records it; one that is whole is judged, unless the session
/// is an orphan.
fn end_windows(session: &mut Session, config: &Config, signals: &Signals, now: Instant, is_whole: bool) {
    let is_judged = is_whole && session.orphaned.is_none();
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
            let quality = if is_whole {
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
                None if is_unheard && is_whole => signals.window_unheard(subject, &window, is_judged),
                // On hold, or muted by both: there was nothing to judge.
                None => {}
            }
        }
    }
}

/// Whether a session that nobody can end is over: a leg that was heard and should be has fallen silent, as when its BYE
/// found nobody, or nothing is heard of either. What was before counts for nothing: the core knew and let it be.
fn is_orphan_over(session: &Session, config: &Config, now: Instant) -> bool {
    let Some(orphaned) = session.orphaned else { return false };
    let is_quiet = |last: Instant, after| now.saturating_duration_since(last.max(orphaned)) >= after;
    let heard = LEGS.map(|leg| session.last_heard(leg));
    let has_left = |leg: Leg| {
        session.expects(leg) && heard[side_of(leg)].is_some_and(|last| is_quiet(last, config.one_way_after))
    };
    let last = heard.into_iter().flatten().max().unwrap_or(orphaned);
    LEGS.into_iter().any(has_left) || !is_held(session) && is_quiet(last, config.silent_after)
}

/// Whether both legs of an answered call agreed to be silent.
fn is_held(session: &Session) -> bool {
    session.answered.is_some() && !LEGS.iter().any(|leg| session.expects(*leg))
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
