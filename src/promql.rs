//! `belfry promql`: the query language of the metrics for people at a terminal.
//!
//! Test and fmt work on text alone; query asks a running Belfry, or any Prometheus, over HTTP.

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::ask::{Token, post_form};
use crate::cli::PromqlQueryArguments;
use crate::commands::{block_on, complain, say};
use crate::slo_table::aligned;

/// How long a query may take: a little longer than the server gives it.
const PATIENCE: Duration = Duration::from_secs(130);

/// `belfry promql test`.
///
/// # Errors
/// Never; failures and files that cannot be read are an exit code.
pub fn test(files: &[PathBuf]) -> anyhow::Result<ExitCode> {
    let mut is_good = true;
    for file in files {
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) => {
                complain(&format!("read {}: {error}", file.display()));
                is_good = false;
                continue;
            }
        };
        let report = belfry_promql::run_script(&text);
        say(&format!("{}: {} passed, {} failed", file.display(), report.passed, report.failed.len()));
        for failure in &report.failed {
            say(&format!("  line {}: {}", failure.line, failure.text));
        }
        is_good &= report.failed.is_empty();
    }
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// `belfry promql fmt`.
///
/// # Errors
/// When the text is not PromQL, with the place of the fault.
pub fn format(expr: &str) -> anyhow::Result<ExitCode> {
    let mut text = expr.to_owned();
    if expr == "-" {
        text.clear();
        std::io::stdin().read_to_string(&mut text).context("read standard input")?;
    }
    match belfry_promql::parse(&text) {
        Ok(parsed) => {
            say(&belfry_promql::format(&parsed));
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => bail!("{}", pointed(&text, &error)),
    }
}

/// The fault, and below it the line with a mark at its place.
fn pointed(text: &str, error: &belfry_promql::Error) -> String {
    let belfry_promql::Error::Parse { line, column, .. } = error else { return error.to_string() };
    let Some(faulty) = text.lines().nth(line - 1) else { return error.to_string() };
    // The column counts bytes; the mark stands below a letter.
    let letters = faulty.char_indices().take_while(|(at, _)| at + 1 < *column).count();
    format!("{error}\n  {faulty}\n  {}^", " ".repeat(letters))
}

/// `belfry promql query`.
///
/// # Errors
/// When nobody can be asked, or the query has no answer.
pub fn query(arguments: &PromqlQueryArguments) -> anyhow::Result<ExitCode> {
    say(table(&answer(arguments, &[])?["data"])?.trim_end());
    Ok(ExitCode::SUCCESS)
}

/// `belfry promql explain`.
///
/// # Errors
/// As [`query`]; and when whoever is asked does not explain.
pub fn explain(arguments: &PromqlQueryArguments) -> anyhow::Result<ExitCode> {
    let answer = answer(arguments, &[("explain", "1")])?;
    let explained = &answer["explain"];
    if explained.is_null() {
        bail!("{} answers, but does not explain: only Belfry does", arguments.url);
    }
    say(plan_table(explained).trim_end());
    Ok(ExitCode::SUCCESS)
}

/// What is said to a query; remarks go to the terminal.
fn answer(arguments: &PromqlQueryArguments, more: &[(&str, &str)]) -> anyhow::Result<Value> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let time = |text: &Option<String>| moment(text.as_deref().unwrap_or("now"), now);
    let (path, times) = match &arguments.from {
        None => ("/api/v1/query", vec![("time", time(&arguments.at))]),
        Some(_) => (
            "/api/v1/query_range",
            vec![
                ("start", time(&arguments.from)),
                ("end", time(&arguments.to)),
                ("step", arguments.step.clone()),
            ],
        ),
    };
    let mut form = vec![("query", arguments.expr.as_str())];
    form.extend_from_slice(more);
    form.extend(times.iter().map(|(name, value)| (*name, value.as_str())));
    let token = Token::of(arguments.token_file.as_deref())?;
    let (status, text) = block_on(post_form(&arguments.url, path, &form, &token, PATIENCE))?;
    let Ok(answer) = serde_json::from_str::<Value>(&text) else {
        bail!("{} answered {status}: {}", arguments.url, text.trim())
    };
    if answer["status"] != "success" {
        bail!("{}", answer["error"].as_str().unwrap_or(&text));
    }
    for remark in ["warnings", "infos"].iter().flat_map(|name| answer[name].as_array()).flatten() {
        complain(remark.as_str().unwrap_or_default());
    }
    Ok(answer)
}

/// A line per part of the query, indented by its depth, and the sum of what was read and computed.
fn plan_table(explained: &Value) -> String {
    let titles = ["MILLISECONDS", "SERIES", "SAMPLES", "VALUES", "PART"];
    let mut rows = vec![titles.map(str::to_owned)];
    plan_rows(&explained["plan"], 0, &mut rows);
    format!("{}{} samples read and values computed\n", aligned(&rows), explained["samples"])
}

fn plan_rows(node: &Value, depth: usize, rows: &mut Vec<[String; 5]>) {
    let millis = node["seconds"].as_f64().unwrap_or_default() * 1000.0;
    let text = node["text"].as_str().unwrap_or_default();
    let kind = node["kind"].as_str().unwrap_or_default();
    rows.push([
        format!("{millis:.3}"),
        node["series"].to_string(),
        node["samplesRead"].to_string(),
        node["values"].to_string(),
        format!("{}{kind}: {text}", "  ".repeat(depth)),
    ]);
    for below in node["below"].as_array().into_iter().flatten() {
        plan_rows(below, depth + 1, rows);
    }
}

/// A time as the API reads it: what is said relative to now becomes Unix seconds.
fn moment(text: &str, now_seconds: f64) -> String {
    let ago = text.strip_prefix('-').and_then(belfry_promql::parse_duration);
    match ago {
        Some(millis) => format!("{:.3}", now_seconds - millis as f64 / 1000.0),
        None if text == "now" => format!("{now_seconds:.3}"),
        None => text.to_owned(),
    }
}

/// Lays out the data of an answer: a line per series, and per time for a range.
fn table(data: &Value) -> anyhow::Result<String> {
    let result = &data["result"];
    match data["resultType"].as_str() {
        Some("scalar" | "string") => Ok(value(&result[1])),
        Some("vector") => {
            let mut rows = vec![["SERIES", "VALUE"].map(str::to_owned)];
            for one in result.as_array().into_iter().flatten() {
                let point = if one["histogram"].is_null() { &one["value"] } else { &one["histogram"] };
                rows.push([series(&one["metric"]), value(&point[1])]);
            }
            Ok(aligned(&rows))
        }
        Some("matrix") => {
            let mut rows = vec![["SERIES", "TIME", "VALUE"].map(str::to_owned)];
            for one in result.as_array().into_iter().flatten() {
                let mut name = series(&one["metric"]);
                for point in ["values", "histograms"].iter().flat_map(|kind| one[kind].as_array()).flatten() {
                    // The name stands once; what is below it belongs to it.
                    rows.push([std::mem::take(&mut name), point[0].to_string(), value(&point[1])]);
                }
            }
            Ok(aligned(&rows))
        }
        _ => bail!("the answer is not one of a Prometheus API: {data}"),
    }
}

/// `name{label="value"}`
fn series(metric: &Value) -> String {
    let name = metric["__name__"].as_str().unwrap_or_default();
    let labels: Vec<String> = metric
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(label, _)| *label != "__name__")
        .map(|(label, value)| format!("{label}={value}"))
        .collect();
    if labels.is_empty() && !name.is_empty() {
        return name.to_owned();
    }
    format!("{name}{{{}}}", labels.join(", "))
}

/// A number as it came; a histogram on one line, as PromQL writes it.
fn value(value: &Value) -> String {
    if let Some(text) = value.as_str() {
        return text.to_owned();
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut parts = vec![format!("count:{}", text(&value["count"])), format!("sum:{}", text(&value["sum"]))];
    for bucket in value["buckets"].as_array().into_iter().flatten() {
        let (open, close) = match bucket[0].as_u64() {
            Some(0) => ('(', ']'),
            Some(1) => ('[', ')'),
            Some(2) => ('(', ')'),
            _ => ('[', ']'),
        };
        parts.push(format!("{open}{},{}{close}:{}", text(&bucket[1]), text(&bucket[2]), text(&bucket[3])));
    }
    format!("{{{}}}", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn answers_are_laid_out_as_tables() {
        let vector = json!({"resultType": "vector", "result": [
            {"metric": {"__name__": "up"}, "value": [1, "1"]},
            {"metric": {"region": "eu", "room": "a\"b"}, "value": [1, "+Inf"]},
            {"metric": {}, "histogram": [1, {"count": "3", "sum": "2", "buckets": [[0, "0", "1", "3"]]}]},
        ]});
        let expected = "SERIES                      VALUE\nup                          1\n\
            {region=\"eu\", room=\"a\\\"b\"}  +Inf\n{}                          {count:3, sum:2, (0,1]:3}\n";
        assert_eq!(table(&vector).expect("a table"), expected);
        let matrix = json!({"resultType": "matrix", "result": [
            {"metric": {"__name__": "up"}, "values": [[1, "1"], [1.5, "0"]]},
        ]});
        assert_eq!(
            table(&matrix).expect("a table"),
            "SERIES  TIME  VALUE\nup      1     1\n        1.5   0\n"
        );
        let scalar = json!({"resultType": "scalar", "result": [1, "NaN"]});
        assert_eq!(table(&scalar).expect("a value"), "NaN");
        assert!(table(&json!({})).is_err());
    }

    #[test]
    fn a_plan_is_laid_out_as_a_tree() {
        let below = json!({"kind": "range", "text": "x[5m]", "seconds": 0.0005, "series": 2, "samplesRead": 40,
            "values": 0, "below": []});
        let plan = json!({"kind": "function", "text": "rate(x[5m])", "seconds": 0.0015, "series": 2, "samplesRead": 0,
            "values": 6, "below": [below]});
        let expected = "MILLISECONDS  SERIES  SAMPLES  VALUES  PART\n\
            1.500         2       0        6       function: rate(x[5m])\n\
            0.500         2       40       0         range: x[5m]\n\
            46 samples read and values computed\n";
        assert_eq!(plan_table(&json!({"samples": 46, "plan": plan})), expected);
    }

    #[test]
    fn times_may_be_said_from_now() {
        for (text, expected) in [
            ("now", "1000.000"),
            ("-15m", "100.000"),
            ("-5", "-5"),
            ("2026-11-20T08:00:00Z", "2026-11-20T08:00:00Z"),
        ] {
            assert_eq!(moment(text, 1000.0), expected, "{text}");
        }
    }

    #[test]
    fn a_fault_is_pointed_at() {
        let text = "sum(up)\n  by \"ü\" (";
        let error = belfry_promql::parse(text).expect_err("no PromQL");
        let shown = pointed(text, &error);
        let mark = shown.lines().last().expect("a mark");
        assert!(shown.contains("parse error") && mark.trim() == "^", "{shown}");
    }
}
