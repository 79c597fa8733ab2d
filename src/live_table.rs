//! `belfry calls`: the live calls of a running Belfry as a table for a terminal.

use anyhow::Context;
use serde_json::Value;

use crate::ask::percent_encoded;
use crate::cli::CallsArguments;
use crate::slo_table::{aligned, in_words};

/// Calls of one page.
const PAGE_ROWS: usize = 500;

/// Where the page behind `after` is found.
#[must_use]
pub fn path(arguments: &CallsArguments, after: u64, left: usize) -> String {
    let held = arguments.held.map(|held| held.to_string());
    let filters = [
        ("state", &arguments.state),
        ("tenant", &arguments.tenant),
        ("trunk", &arguments.trunk),
        ("region", &arguments.region),
        ("country", &arguments.country),
        ("transport", &arguments.transport),
        ("held", &held),
        ("older_than", &arguments.older_than),
        ("younger_than", &arguments.younger_than),
    ];
    let mut path = format!("/api/v1/calls/live?after={after}&limit={}", left.clamp(1, PAGE_ROWS));
    for (name, value) in filters {
        if let Some(value) = value {
            path.push_str(&format!("&{name}={}", percent_encoded(value)));
        }
    }
    path
}

/// The calls of a page, and where the next one begins.
///
/// # Errors
/// When it is not the JSON that a Belfry of this version gives.
pub fn read(json: &str) -> anyhow::Result<(Vec<Value>, Option<u64>)> {
    let mut answer: Value = serde_json::from_str(json).context("read the live calls")?;
    let next = answer["next"].as_u64();
    match answer["calls"].take() {
        Value::Array(calls) => Ok((calls, next)),
        _ => anyhow::bail!("read the live calls: no list of them"),
    }
}

/// Lays calls out, the oldest first.
#[must_use]
pub fn render(calls: &[Value]) -> String {
    let head = ["STATE", "AGE", "CALLER", "CALLEE", "REGION", "VIA", "TRUNK", "HELD BY", "TIMER", "CALL-ID"];
    let mut rows = vec![head.map(str::to_owned)];
    for call in calls {
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let held_by: Vec<&str> =
            call["held_by"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let timer =
            call["session"]["left_seconds"].as_f64().map_or("-".to_owned(), |left| format!("{left:.0} s"));
        rows.push([
            text(&call["state"]),
            call["age_seconds"].as_f64().map_or("-".to_owned(), in_words),
            text(&call["caller"]["uri"]),
            text(&call["callee"]["uri"]),
            text(&call["region"]),
            text(&call["transport"]),
            trunks(call),
            if held_by.is_empty() { "-".to_owned() } else { held_by.join(", ") },
            timer,
            text(&call["call_id"]),
        ]);
    }
    let count = calls.len();
    format!("{}{count} live calls\n", aligned(&rows))
}

/// The trunks of a call, as `in>out`.
fn trunks(call: &Value) -> String {
    match (call["calling_trunk"].as_str(), call["called_trunk"].as_str()) {
        (None, None) => "-".to_owned(),
        (calling, called) => format!("{}>{}", calling.unwrap_or_default(), called.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_laid_out_in_columns() {
        let json = r#"{"calls":[{"call_id":"a@b","state":"confirmed","age_seconds":61.0,"held_by":["caller"],
            "caller":{"uri":"sip:alice@x"},"callee":{"uri":"sip:bob@x"},"region":"eu","transport":"tls","calling_trunk":null,"called_trunk":null,
            "session":{"left_seconds":-3.2}}],"next":7}"#;
        let (calls, next) = read(json).expect("read");
        assert_eq!(next, Some(7));
        let table = render(&calls);
        let line = table.lines().nth(1).expect("a line");
        assert!(line.starts_with("confirmed  1 min  sip:alice@x  sip:bob@x"), "{table}");
        assert!(line.ends_with("caller   -3 s   a@b") && table.ends_with("1 live calls\n"), "{table}");
        assert!(read("{}").is_err());
    }
}
