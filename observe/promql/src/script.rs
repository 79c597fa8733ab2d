//! PromQL test scripts: `load`, `clear` and `eval` with what is expected, in the language of promtool's
//! conformance data. The reader runs a script against this crate's engine and says which evals failed.

mod check;
mod nhcb;
mod points;

use std::sync::atomic::AtomicBool;

use crate::ast::{At, Expr, Node, ValueType};
use crate::engine::{Answer, Options, Times, is_invariant, query_expr};
use crate::error::Error;
use crate::labels::Labels;
use crate::matcher::MatchOp;
use crate::memory::MemorySeries;
use crate::source::{Series, Value};
use crate::text;

use points::Point;

/// What a script's run gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScriptReport {
    /// Evals that gave what was expected.
    pub passed: usize,
    /// The others, and commands that could not be read.
    pub failed: Vec<Failure>,
}

/// One command that failed.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// Line of the command, from 1.
    pub line: usize,
    /// The command and what went wrong.
    pub text: String,
}

/// A store that a script loads its series into.
pub trait ScriptStore: Series {
    /// Takes a point of a series. The points of one `load` come series by series, each in order.
    fn add(&mut self, labels: &Labels, unix_millis: i64, value: Value);
    /// A `load` is complete: what was added must be found from now on.
    fn loaded(&mut self) {}
    /// Forgets everything.
    fn clear(&mut self);
    /// Sees each question with the engine's answer over this store, to compare it with another way to ask. What it
    /// finds wrong fails the eval.
    fn asked(&self, _text: &str, _times: Times, _answer: &Result<Answer, Error>) -> Result<(), String> {
        Ok(())
    }
}

impl ScriptStore for MemorySeries {
    fn add(&mut self, labels: &Labels, unix_millis: i64, value: Value) {
        MemorySeries::add(self, labels, unix_millis, value);
    }

    fn clear(&mut self) {
        MemorySeries::clear(self);
    }
}

/// Runs a script from an empty store in memory. Every experimental part is on, as in the upstream test suite.
pub fn run_script(text: &str) -> ScriptReport {
    run_script_in(text, &mut MemorySeries::new())
}

/// As [`run_script`], with the series in a store of the caller's, which must be empty.
pub fn run_script_in(text: &str, store: &mut dyn ScriptStore) -> ScriptReport {
    let mut runner = Runner { store };
    let mut report = ScriptReport::default();
    for block in blocks(text) {
        match runner.run(&block) {
            Ok(true) => report.passed += 1,
            Ok(false) => {}
            Err(message) => {
                let text = format!("{}: {message}", block.head);
                report.failed.push(Failure { line: block.line, text });
            }
        }
    }
    report
}

/// A command and the lines below it.
struct Block<'a> {
    line: usize,
    head: &'a str,
    body: Vec<&'a str>,
}

fn is_command(line: &str) -> bool {
    let word = line.split_whitespace().next().unwrap_or("");
    matches!(word, "load" | "load_with_nhcb" | "clear") || word == "eval" || word.starts_with("eval_")
}

fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut blocks: Vec<Block<'_>> = Vec::new();
    let mut is_open = false;
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('#') {
            continue;
        }
        if line.is_empty() {
            is_open = false;
        } else if is_command(line) {
            blocks.push(Block { line: at + 1, head: line, body: Vec::new() });
            is_open = true;
        } else if let Some(block) = blocks.last_mut().filter(|_| is_open) {
            block.body.push(line);
        } else {
            blocks.push(Block { line: at + 1, head: line, body: Vec::new() });
        }
    }
    blocks
}

/// Seconds, or a duration, in milliseconds.
fn time(text: &str) -> Result<i64, String> {
    let duration = text.strip_prefix('-').map_or_else(
        || text::parse_duration(text),
        |positive| text::parse_duration(positive).map(|milliseconds| -milliseconds),
    );
    duration
        .or_else(|| text.parse::<f64>().ok().map(|seconds| (seconds * 1000.0).round() as i64))
        .ok_or_else(|| format!("bad time {text:?}, expected for example 50m or 3000"))
}

/// A series as scripts write it: labels and points.
fn series_line(line: &str) -> Result<(Labels, Vec<Point>), String> {
    let (matchers, end) = crate::parser::series_head(line).map_err(|error| error.to_string())?;
    if matchers.iter().any(|matcher| matcher.op != MatchOp::Equal) {
        return Err("a series has labels with \"=\" only".to_owned());
    }
    let labels = Labels::from_pairs(matchers.iter().map(|matcher| (&matcher.name, &matcher.value)));
    Ok((labels, points::parse(&line[end..])?))
}

/// The labels of a series as scripts and unit tests of rules write it: `calls_total{region="eu"}`.
///
/// # Errors
/// When it is no series: what was found and what was expected.
pub fn parse_series_name(text: &str) -> Result<Labels, String> {
    let (labels, points) = series_line(text)?;
    if points.is_empty() { Ok(labels) } else { Err(format!("{text:?} has values behind the series")) }
}

/// The values of a series in the notation of scripts and unit tests of rules, one place per step: `1+2x3 _ stale`.
/// A place without a value is `None`.
///
/// # Errors
/// When it is not that notation: what was found and what was expected.
pub fn parse_points(text: &str) -> Result<Vec<Option<Value>>, String> {
    let places = points::parse(text)?.into_iter().map(|point| match point {
        Point::Missing => None,
        Point::Sample { value, .. } => Some(value),
    });
    Ok(places.collect())
}

/// One `eval` command.
struct Eval {
    times: Times,
    query: String,
    expected: check::Expected,
}

struct Runner<'a> {
    store: &'a mut dyn ScriptStore,
}

impl Runner<'_> {
    /// Whether an eval passed; false for other commands.
    fn run(&mut self, block: &Block<'_>) -> Result<bool, String> {
        let (command, rest) = block.head.split_once(char::is_whitespace).unwrap_or((block.head, ""));
        match command {
            "clear" => self.store.clear(),
            "load" | "load_with_nhcb" => self.load(rest.trim(), &block.body, command == "load_with_nhcb")?,
            _ if is_command(command) => {
                self.check(&eval(command, rest.trim(), &block.body)?)?;
                return Ok(true);
            }
            _ => return Err("not a command: expected load, load_with_nhcb, clear or eval".to_owned()),
        }
        Ok(false)
    }

    fn load(&mut self, step: &str, lines: &[&str], with_nhcb: bool) -> Result<(), String> {
        let step = time(step)?;
        let mut loaded: std::collections::BTreeMap<Labels, Vec<Point>> = std::collections::BTreeMap::new();
        for line in lines {
            let (labels, points) = series_line(line)?;
            loaded.insert(labels, points);
        }
        for (labels, points) in &loaded {
            for (at, point) in points.iter().enumerate() {
                if let Point::Sample { value, .. } = point {
                    self.store.add(labels, at as i64 * step, value.clone());
                }
            }
        }
        if with_nhcb {
            for (labels, at, histogram) in nhcb::converted(&loaded) {
                self.store.add(&labels, at as i64 * step, Value::Histogram(histogram.into()));
            }
        }
        self.store.loaded();
        Ok(())
    }

    fn answer(&self, text: &str, expr: &Expr, times: Times) -> Result<Answer, Error> {
        let options = Options {
            lookback_ms: 300_000,
            samples_max: 5_000_000,
            subquery_step_ms: 60_000,
            experimental: true,
        };
        query_expr(text, expr, &*self.store, times, &options, &AtomicBool::new(false))
    }

    fn check(&self, eval: &Eval) -> Result<(), String> {
        let parsed = crate::parser::parse(&eval.query);
        let result = parsed.clone().and_then(|expr| self.answer(&eval.query, &expr, eval.times));
        self.store.asked(&eval.query, eval.times, &result)?;
        let answer = match result {
            Err(error) => return eval.expected.check_failure(&error.to_string()),
            Ok(answer) => answer,
        };
        eval.expected.check_answer(&answer, eval.times)?;
        let (Times::Instant(at), Ok(mut expr)) = (eval.times, parsed) else { return Ok(()) };
        self.check_range(eval, &expr, at)?;
        pin(&mut expr, at);
        if !is_invariant(&expr) || asks_for_its_times(&expr) {
            return Ok(());
        }
        // With every selector at a fixed time, the time of evaluation may not matter any more.
        let elsewhere = Times::Instant(at + 77_000);
        let answer =
            self.answer(&eval.query, &expr, elsewhere).map_err(|error| format!("with @: {error}"))?;
        eval.expected.check_answer(&answer, elsewhere).map_err(|message| format!("with @: {message}"))
    }

    /// The same query over a range has to give the same at the same time.
    fn check_range(&self, eval: &Eval, expr: &Expr, at: i64) -> Result<(), String> {
        let has_range_form = !matches!(expr.value_type(), ValueType::Text | ValueType::RangeVector);
        if !has_range_form || !eval.expected.is_comparable_over_range() || asks_for_its_times(expr) {
            return Ok(());
        }
        let times = Times::Range { start_ms: at - 60_000, end_ms: at + 60_000, step_ms: 60_000 };
        let answer =
            self.answer(&eval.query, expr, times).map_err(|error| format!("as a range query: {error}"))?;
        eval.expected.check_at(&answer, at).map_err(|message| format!("as a range query: {message}"))
    }
}

/// Gives every selector and subquery that has no `@` the time it is evaluated at.
fn pin(expr: &mut Expr, at: i64) {
    match &mut expr.node {
        Node::Number(_) | Node::Text(_) => {}
        Node::Vector(selector) | Node::Range(selector, _) => {
            selector.at.get_or_insert(At::Millis(at));
        }
        Node::Subquery(subquery) => {
            subquery.at.get_or_insert(At::Millis(at));
        }
        Node::Paren(inner) | Node::Unary { operand: inner, .. } => pin(inner, at),
        Node::Binary(binary) => {
            pin(&mut binary.left, at);
            pin(&mut binary.right, at);
        }
        Node::Aggregate(aggregate) => {
            aggregate.parameter.iter_mut().for_each(|parameter| pin(parameter, at));
            pin(&mut aggregate.inner, at);
        }
        Node::Call(_, arguments) => arguments.iter_mut().for_each(|argument| pin(argument, at)),
    }
}

/// Whether a query asks for its own start, end, step or range.
fn asks_for_its_times(expr: &Expr) -> bool {
    let text = expr.to_string();
    ["start()", "end()", "step()", "range()"].iter().any(|word| text.contains(word))
}

fn eval(command: &str, rest: &str, lines: &[&str]) -> Result<Eval, String> {
    let words: Vec<&str> = rest.split_whitespace().collect();
    let (times, used) = match words.as_slice() {
        ["instant", "at", at, ..] => (Times::Instant(time(at)?), 3),
        ["range", "from", start, "to", end, "step", step, ..] => {
            (Times::Range { start_ms: time(start)?, end_ms: time(end)?, step_ms: time(step)? }, 7)
        }
        _ => return Err("expected \"instant at T QUERY\" or \"range from A to B step S QUERY\"".to_owned()),
    };
    let mut query = rest;
    for _ in 0..used {
        query = query.trim_start();
        query = &query[query.find(char::is_whitespace).unwrap_or(query.len())..];
    }
    let expected = check::Expected::read(command.trim_start_matches("eval").trim_start_matches('_'), lines)?;
    Ok(Eval { times, query: query.trim().to_owned(), expected })
}

#[cfg(test)]
mod tests;
