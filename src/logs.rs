//! `belfry logs`: a search at a terminal, and what comes after it.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use hyper::Method;
use serde_json::Value;

use crate::ask::{Token, ask, percent_encoded};
use crate::cli::LogsArguments;
use crate::commands::{block_on, complain, say};

/// Between two looks for what is new.
const LOOK: Duration = Duration::from_millis(500);
/// How far back each look reaches: what others send may be a while on its way, and carries its own time.
const LOOK_BACK: &str = "-5m";
/// Rows of one look.
const LOOK_ROWS: u16 = 1000;

/// Lines, oldest first, and whether there are more than were asked for.
struct Page {
    lines: Vec<Value>,
    has_more: bool,
}

/// `belfry logs`.
///
/// # Errors
/// When nobody can be asked, or the search has a fault.
pub fn run(arguments: &LogsArguments) -> anyhow::Result<ExitCode> {
    let token = Token::of(arguments.site.token_file.as_deref())?;
    let from = ago(&arguments.since);
    let to = arguments.until.as_deref().map(ago);
    block_on(async {
        let page = page(arguments, &token, &from, to.as_deref(), arguments.limit).await?;
        if page.has_more {
            complain(&format!("older ones are left out: --limit is {}", arguments.limit));
        }
        let mut last = None;
        show(arguments, &page.lines, &mut last);
        if !arguments.follow {
            return Ok(());
        }
        loop {
            tokio::time::sleep(LOOK).await;
            let news = self::page(arguments, &token, LOOK_BACK, None, LOOK_ROWS).await?;
            let is_gap = news.has_more && news.lines.iter().all(|line| sequence(line) > last);
            if last.is_some() && is_gap {
                complain("more came than can be shown: some are left out");
            }
            let mut fresh: Vec<Value> = news.lines.into_iter().filter(|line| sequence(line) > last).collect();
            fresh.sort_by_key(sequence);
            show(arguments, &fresh, &mut last);
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn page(
    arguments: &LogsArguments,
    token: &Token,
    from: &str,
    to: Option<&str>,
    limit: u16,
) -> anyhow::Result<Page> {
    let mut path = format!(
        "/api/v1/logs?query={}&from={}&kinds={}&limit={limit}",
        percent_encoded(&arguments.query),
        percent_encoded(from),
        percent_encoded(&arguments.kinds),
    );
    for (name, value) in [("to", to), ("severity", arguments.severity.as_deref())] {
        if let Some(value) = value {
            path.push_str(&format!("&{name}={}", percent_encoded(value)));
        }
    }
    let answer = ask(Method::GET, arguments.site.api, &path, token).await?;
    let mut answer: Value = serde_json::from_str(&answer).context("read the answer")?;
    let has_more = answer["has_more"].as_bool().unwrap_or_default();
    let mut lines = match answer["lines"].take() {
        Value::Array(lines) => lines,
        _ => Vec::new(),
    };
    lines.reverse();
    Ok(Page { lines, has_more })
}

fn sequence(line: &Value) -> Option<u64> {
    line["sequence"].as_u64()
}

/// Prints the lines, and notes the last that came.
fn show(arguments: &LogsArguments, lines: &[Value], last: &mut Option<u64>) {
    for line in lines {
        say(&if arguments.json { line.to_string() } else { text(line) });
        *last = (*last).max(sequence(line));
    }
}

/// A line for a person: when, how much it matters, who, what, and the particulars.
fn text(line: &Value) -> String {
    let word = |name: &str| line[name].as_str().unwrap_or_default();
    let attribute = |name: &str| line["attributes"][name].as_str();
    let host = attribute("host.name").map(|host| format!("{} ", printable(host))).unwrap_or_default();
    let who = attribute("service.name").unwrap_or_else(|| word("component"));
    let who = printable(who);
    let mut text =
        format!("{} {:5} {host}{who}: {}", word("time"), word("severity"), printable(word("message")));
    if let Some(call_id) = line["call_id"].as_str() {
        text.push_str(&format!(" call_id={}", printable(call_id)));
    }
    for (name, value) in line["attributes"].as_object().into_iter().flatten() {
        let is_shown_already = matches!(name.as_str(), "host.name" | "service.name" | "message");
        if !is_shown_already {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            text.push_str(&format!(" {}={}", printable(name), printable(&value)));
        }
    }
    text
}

/// Without what would move the terminal's cursor: strangers wrote it.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// `15m` means so long ago.
fn ago(time: &str) -> String {
    let is_duration = time.starts_with(|c: char| c.is_ascii_digit()) && time.ends_with(['s', 'm', 'h', 'd']);
    if is_duration { format!("-{time}") } else { time.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_read_well_and_cannot_move_the_cursor() {
        let line = serde_json::json!({
            "time": "2026-11-20T12:00:00Z", "severity": "WARN", "component": "door_syslog", "sequence": 7,
            "message": "no route\u{1b}[2J", "call_id": null,
            "attributes": { "host.name": "sbc-1", "service.name": "kamailio", "process.pid": 5 },
        });
        let expected = "2026-11-20T12:00:00Z WARN  sbc-1 kamailio: no route [2J process.pid=5";
        assert_eq!(text(&line), expected);
        for (written, sent) in [("15m", "-15m"), ("1795161600", "1795161600"), ("now", "now"), ("-2h", "-2h")]
        {
            assert_eq!(ago(written), sent);
        }
    }
}
