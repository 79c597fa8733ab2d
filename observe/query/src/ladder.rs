//! A call in plain characters, for a terminal: who said what to whom, how it sounded, what was logged.
//!
//! Peers choose much of the text in here, so control characters never reach the terminal.

use std::fmt::Write as _;

use belfry_events::{CallView, Stamped};
use belfry_signal::Value;
use belfry_signal::record::{Call, Log, Quality, SipMessage};

use crate::json::{has_sdp, loss_ratio, start_of};
use crate::participants::Participants;
use crate::time::{offset_millis, text};

/// Characters before the first lifeline: the offset.
const OFFSET_WIDTH: usize = 12;
/// Room for what stands beside a message.
const NOTE_WIDTH: usize = 24;
const COLUMN_MIN: usize = 14;
const COLUMN_MAX: usize = 30;

/// Draws the call, at most about `width` characters wide: a ladder, a table of quality, log lines.
///
/// ```text
///              caller               core-1               callee
///   +0.000 s      |----- INVITE ------>|                    |   udp 1 INVITE, sdp
/// ```
#[must_use]
pub fn render_call(view: &CallView, width: usize) -> String {
    let start = start_of(&view.timeline, view.summary.as_ref());
    let mut out = String::new();
    head(&mut out, view, start);
    if !view.timeline.messages.is_empty() {
        ladder(&mut out, &view.timeline.messages, start, width);
    }
    if !view.timeline.quality.is_empty() {
        quality(&mut out, &view.timeline.quality);
    }
    if !view.timeline.logs.is_empty() {
        logs(&mut out, &view.timeline.logs, start, width);
    }
    if view.timeline.is_cut {
        out.push_str("\nThere is more than is shown: older records were left out.\n");
    }
    if view.timeline.splits_damaged > 0 {
        let count = view.timeline.splits_damaged;
        let _ = writeln!(out, "\n{count} damaged parts of the store could hold more.");
    }
    out
}

fn head(out: &mut String, view: &CallView, start: u64) {
    line(out, &format!("Call {}", view.call_id.reveal()));
    match &view.summary {
        Some(call) => summary(out, call),
        None => line(out, &format!("  since {}, not ended yet", text(start))),
    }
    if let Some(trace_id) = view.trace_id {
        line(out, &format!("  trace {trace_id}"));
    }
}

fn summary(out: &mut String, call: &Call) {
    let (caller, callee) = (call.caller.reveal(), call.callee.reveal());
    line(out, &format!("  {caller} -> {callee}"));
    line(out, &format!("  {} {} ({})", call.outcome, call.status_code, call.cause));
    let country = call.country.as_deref().unwrap_or("unknown country");
    let start = text(call.start_unix_nanos);
    line(out, &format!("  {start}, from {} in {country} over {}", call.region.as_str(), call.transport));
    let whose = [
        ("tenant", &call.tenant),
        ("came by trunk", &call.calling_trunk),
        ("left by trunk", &call.called_trunk),
    ];
    let whose: Vec<String> =
        whose.iter().filter_map(|(what, name)| Some(format!("{what} {}", name.as_ref()?))).collect();
    if !whose.is_empty() {
        line(out, &format!("  {}", whose.join(", ")));
    }
    let mut figures = Vec::new();
    if let Some(answer) = call.answer_unix_nanos {
        let seconds = offset_millis(call.start_unix_nanos, answer) / 1000.0;
        figures.push(format!("answered after {seconds:.3} s"));
    }
    if let Some(seconds) = call.post_dial_seconds {
        figures.push(format!("post-dial delay {seconds:.3} s"));
    }
    if let (Some(min), Some(mean)) = (call.mos_min, call.mos_mean) {
        figures.push(format!("MOS {mean:.2} mean, {min:.2} lowest"));
    }
    for leg in &call.silent_legs {
        figures.push(format!("nothing heard from the {leg}"));
    }
    if !figures.is_empty() {
        line(out, &format!("  {}", figures.join(", ")));
    }
}

fn ladder(out: &mut String, messages: &[Stamped<SipMessage>], start: u64, width: usize) {
    let participants = Participants::of(messages);
    let count = participants.list.len().max(2);
    let column = (width.saturating_sub(OFFSET_WIDTH + NOTE_WIDTH) / count).clamp(COLUMN_MIN, COLUMN_MAX);
    let centre = |index: usize| OFFSET_WIDTH + index * column + column / 2;
    out.push('\n');
    for names in [
        participants.list.iter().map(|one| one.label.clone()).collect::<Vec<_>>(),
        participants
            .list
            .iter()
            .map(|one| one.address.map_or_else(String::new, |it| it.to_string()))
            .collect(),
    ] {
        let mut row = String::new();
        for (index, name) in names.iter().enumerate() {
            let name = shortened(name, column - 2);
            pad_to(&mut row, centre(index).saturating_sub(name.chars().count() / 2));
            row.push_str(&name);
        }
        line(out, &row);
    }
    for message in messages {
        let sip = &message.value;
        let (from, to) = participants.ends(sip);
        let mut row: Vec<char> = vec![' '; centre(count - 1) + 3];
        for index in 0..participants.list.len() {
            row[centre(index)] = '|';
        }
        arrow(&mut row, centre(from), centre(to), &label(&printable(&sip.summary)));
        let offset = format!("{:>+9.3} s", offset_millis(start, message.unix_nanos) / 1000.0);
        for (place, c) in row.iter_mut().zip(offset.chars()) {
            *place = c;
        }
        let row: String = row.into_iter().collect();
        line(out, &format!("{row} {}", note(sip)));
    }
}

/// A status code with its phrase (RFC 3261 section 21), for the codes that calls meet every day.
fn label(summary: &str) -> String {
    let phrase = match summary {
        "100" => "Trying",
        "180" => "Ringing",
        "183" => "Progress",
        "200" => "OK",
        "401" => "Unauthorized",
        "403" => "Forbidden",
        "404" => "Not Found",
        "407" => "Proxy Auth",
        "408" => "Timeout",
        "480" => "Unavailable",
        "481" => "No Dialog",
        "486" => "Busy Here",
        "487" => "Terminated",
        "488" => "Not Acceptable",
        "500" => "Server Error",
        "503" => "Unavailable",
        "603" => "Decline",
        _ => return summary.to_owned(),
    };
    format!("{summary} {phrase}")
}

/// Draws `|---- INVITE ---->|` between two lifelines.
fn arrow(row: &mut [char], from: usize, to: usize, label: &str) {
    if from == to {
        return;
    }
    let (left, right) = (from.min(to), from.max(to));
    for place in &mut row[left + 1..right] {
        // Lifelines in between show that the message passes by.
        *place = if *place == '|' { '+' } else { '-' };
    }
    let head = if to > from { right - 1 } else { left + 1 };
    row[head] = if to > from { '>' } else { '<' };
    let label = format!(" {} ", shortened(label, right - left - 6));
    let at = left + 1 + (right - left - 1).saturating_sub(label.chars().count()) / 2;
    for (place, c) in row[at..].iter_mut().zip(label.chars()) {
        *place = c;
    }
}

fn note(sip: &SipMessage) -> String {
    let mut note = format!("{} {}", sip.transport, printable(&sip.cseq));
    if has_sdp(sip) {
        note.push_str(", sdp");
    }
    if sip.retransmission {
        note.push_str(", again");
    }
    note
}

/// What one leg sounded like, all windows together.
#[derive(Default)]
struct Leg {
    name: String,
    region: String,
    windows: usize,
    packets: u64,
    lost: u64,
    jitter_max: f64,
    rtt_max: Option<f64>,
    scores: Vec<f64>,
}

fn quality(out: &mut String, points: &[Stamped<Quality>]) {
    let mut legs: Vec<Leg> = Vec::new();
    for point in points {
        let quality = &point.value;
        let index = legs.iter().position(|leg| leg.name == quality.leg).unwrap_or_else(|| {
            let (name, region) = (quality.leg.as_ref().to_owned(), quality.region.as_str().to_owned());
            legs.push(Leg { name, region, ..Leg::default() });
            legs.len() - 1
        });
        let leg = &mut legs[index];
        leg.windows += 1;
        leg.packets += quality.packets;
        leg.lost += quality.lost;
        leg.jitter_max = leg.jitter_max.max(quality.jitter_ms);
        leg.rtt_max = leg.rtt_max.into_iter().chain(quality.rtt_ms).reduce(f64::max);
        leg.scores.extend(quality.mos);
    }
    out.push_str("\nQuality      region       windows  packets   lost    loss  jitter max  rtt max   MOS mean  lowest\n");
    for leg in legs {
        #[expect(clippy::cast_precision_loss, reason = "a mean of a few scores")]
        let mean = leg.scores.iter().sum::<f64>() / leg.scores.len().max(1) as f64;
        let lowest = leg.scores.iter().copied().fold(f64::INFINITY, f64::min);
        let (mean, lowest) = if leg.scores.is_empty() {
            ("-".to_owned(), "-".to_owned())
        } else {
            (format!("{mean:.2}"), format!("{lowest:.2}"))
        };
        let rtt = leg.rtt_max.map_or_else(|| "-".to_owned(), |rtt| format!("{rtt:.1} ms"));
        let row = format!(
            "  {:<10} {:<12} {:>7}  {:>7}  {:>5}  {:>4.1} %  {:>7.1} ms  {rtt:>7}  {mean:>9}  {lowest:>6}",
            shortened(&leg.name, 10),
            shortened(&leg.region, 12),
            leg.windows,
            leg.packets,
            leg.lost,
            loss_ratio(leg.packets, leg.lost) * 100.0,
            leg.jitter_max,
        );
        line(out, &row);
        if leg.scores.len() > 1 {
            line(out, &format!("    MOS over time (1 worst, 9 best): {}", curve(&leg.scores)));
        }
    }
}

/// Scores as characters, 1 the worst and 9 the best, so that a dip is seen without a graph: `888521888`.
fn curve(scores: &[f64]) -> String {
    const POINTS_MAX: usize = 60;
    let step = scores.len().div_ceil(POINTS_MAX);
    scores
        .chunks(step)
        .map(|chunk| {
            // The worst window of those that share a character: dips are what people look for.
            let worst = chunk.iter().copied().fold(f64::INFINITY, f64::min);
            let level = ((worst.clamp(1.0, 4.5) - 1.0) / 3.5 * 8.0).round() + 1.0;
            format!("{level:.0}")
        })
        .collect()
}

fn logs(out: &mut String, lines: &[Stamped<Log>], start: u64, width: usize) {
    out.push_str("\nLog\n");
    for log in lines {
        let offset = offset_millis(start, log.unix_nanos) / 1000.0;
        let value = &log.value;
        let mut row = format!(
            "{offset:>+9.3} s  {:<5} {:<16} {}",
            value.severity.as_str(),
            shortened(&log.component, 16),
            value.message
        );
        for (name, value) in &value.attributes {
            let value = match value {
                Value::Text(text) => text.as_ref().to_owned(),
                Value::Private(text) => text.reveal().clone(),
                Value::Int(number) => number.to_string(),
                Value::Float(number) => number.to_string(),
                Value::Bool(truth) => truth.to_string(),
            };
            let _ = write!(row, " {name}={value}");
        }
        line(out, &shortened(&row, width.max(60)));
    }
}

/// Writes one line, without anything that a terminal would obey, and without spaces at its end.
fn line(out: &mut String, text: &str) {
    out.push_str(printable(text).trim_end());
    out.push('\n');
}

/// Control characters, among them escape sequences that a peer may have put into a header, become question marks.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn pad_to(row: &mut String, width: usize) {
    let length = row.chars().count();
    row.extend(std::iter::repeat_n(' ', width.saturating_sub(length)));
}

fn shortened(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('~');
    short
}
