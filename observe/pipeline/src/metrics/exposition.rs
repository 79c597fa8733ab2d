//! Reading the text expositions: Prometheus' own (0.0.4 and 1.0.0 with quoted names) and OpenMetrics 1.0.
//!
//! Line by line, without a copy of what is read: a series' name and labels stay one piece of text until somebody needs
//! them apart ([`pairs`]), because a page that comes every few seconds names the same series each time.
//! Sources: <https://prometheus.io/docs/instrumenting/exposition_formats/> and
//! <https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md>. Why our own: the crates that read
//! these formats either hold a page as a tree of owned texts or know neither exemplars nor quoted names.

use std::borrow::Cow;

use belfry_signal::{Exemplar, PointValue};

/// Which text it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// Times in milliseconds, no end mark.
    Prometheus,
    /// Times in seconds, exemplars, units, an end mark.
    OpenMetrics,
}

/// What a page says of a family of metrics.
#[derive(Clone, Debug, PartialEq)]
pub enum Said<'a> {
    /// `counter`, `gauge`, ...
    Kind(&'a str),
    /// A sentence.
    Help(Cow<'a, str>),
    /// As `seconds`.
    Unit(&'a str),
}

/// One value of one series.
#[derive(Clone, Debug, PartialEq)]
pub struct Item<'a> {
    /// Name and labels as the page writes them.
    pub series: &'a str,
    /// Its value.
    pub value: PointValue,
    /// Milliseconds since the Unix epoch, when the page says so.
    pub unix_millis: Option<i64>,
    /// Examples.
    pub exemplars: Vec<Exemplar>,
    /// When it began to count, when the page says so here.
    pub created_ms: Option<i64>,
}

/// Takes what a page says, in order.
pub trait Sink {
    /// Something about a family.
    fn said(&mut self, family: &str, said: Said<'_>);

    /// A value.
    ///
    /// # Errors
    /// When the page is not to be read on, and why.
    fn take(&mut self, item: Item<'_>) -> Result<(), String>;
}

/// Why a page cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct Fault {
    /// From 1; for protobuf, the number of the family.
    pub line: usize,
    /// What is wrong and what was expected.
    pub what: String,
}

/// Reads a page.
///
/// # Errors
/// At the first thing that is not of the format, or when the sink has enough.
pub fn read(text: &str, flavour: Flavour, sink: &mut dyn Sink) -> Result<(), Fault> {
    let mut has_ended = false;
    for (line, content) in (1..).zip(text.split('\n')) {
        let fault = |what: String| Fault { line, what };
        let content = content.trim_end_matches('\r').trim_start_matches([' ', '\t']);
        if content.is_empty() {
            continue;
        }
        if has_ended {
            return Err(fault("something stands after # EOF".to_owned()));
        }
        match content.strip_prefix('#') {
            Some(comment) if flavour == Flavour::OpenMetrics && comment == " EOF" => has_ended = true,
            Some(comment) => describe(comment, flavour, sink).map_err(fault)?,
            None => {
                let item = item(content, flavour).map_err(fault)?;
                sink.take(item).map_err(fault)?;
            }
        }
    }
    if flavour == Flavour::OpenMetrics && !has_ended {
        let line = text.split('\n').count();
        return Err(Fault { line, what: "the page does not end with # EOF: is it whole?".to_owned() });
    }
    Ok(())
}

/// `# TYPE`, `# HELP`, `# UNIT`; anything else behind `#` is for people.
fn describe(comment: &str, flavour: Flavour, sink: &mut dyn Sink) -> Result<(), String> {
    let comment = comment.trim_start_matches([' ', '\t']);
    let (word, rest) = comment.split_once([' ', '\t']).unwrap_or((comment, ""));
    if !matches!(word, "TYPE" | "HELP" | "UNIT") {
        return Ok(());
    }
    let rest = rest.trim_start_matches([' ', '\t']);
    let (family, rest) = family_name(rest)?;
    let text = rest.trim_start_matches([' ', '\t']);
    match word {
        "TYPE" => sink.said(&family, Said::Kind(kind_of(text.trim_end(), flavour)?)),
        "UNIT" => sink.said(&family, Said::Unit(text.trim_end())),
        _ => sink.said(&family, Said::Help(unescaped(text))),
    }
    Ok(())
}

fn kind_of(text: &str, flavour: Flavour) -> Result<&'static str, String> {
    let kinds = super::labels::KINDS;
    match (text, flavour) {
        ("untyped", Flavour::Prometheus) => Ok("unknown"),
        _ => kinds
            .into_iter()
            .find(|kind| *kind == text)
            .ok_or_else(|| format!("{text:?} is no type of metric: counter, gauge, histogram, summary, ...")),
    }
}

/// A name, quoted or not, and what follows it.
fn family_name(text: &str) -> Result<(Cow<'_, str>, &str), String> {
    if let Some(quoted) = text.strip_prefix('"') {
        let end = end_of_quote(quoted).ok_or("a name in quotes does not end")?;
        return Ok((unescaped(&quoted[..end]), &quoted[end + 1..]));
    }
    let end = text.find([' ', '\t']).unwrap_or(text.len());
    if end == 0 {
        Err("a metric's name is missing".to_owned())
    } else {
        Ok((Cow::Borrowed(&text[..end]), &text[end..]))
    }
}

/// Where the quote ends that began before this text.
fn end_of_quote(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = 0;
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

fn unescaped(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(letter) = rest.next() {
        match letter {
            '\\' => match rest.next() {
                Some('n') => plain.push('\n'),
                Some(other @ ('\\' | '"')) => plain.push(other),
                Some(other) => plain.extend(['\\', other]),
                None => plain.push('\\'),
            },
            other => plain.push(other),
        }
    }
    Cow::Owned(plain)
}

/// Where name and labels end in a line.
fn end_of_series(line: &str) -> Result<usize, String> {
    let open = line.find(['{', ' ', '\t']).ok_or("a value is missing behind the series")?;
    if line.as_bytes()[open] == b'{' {
        return end_of_braces(line, open);
    }
    // Spaces may stand between the name and its labels.
    let rest = line[open..].trim_start_matches([' ', '\t']);
    if rest.starts_with('{') { end_of_braces(line, line.len() - rest.len()) } else { Ok(open) }
}

/// The place behind the brace that closes the one at `open`.
fn end_of_braces(line: &str, open: usize) -> Result<usize, String> {
    let bytes = line.as_bytes();
    let mut at = open + 1;
    loop {
        match bytes.get(at) {
            Some(b'}') => return Ok(at + 1),
            Some(b'"') => {
                let end = end_of_quote(&line[at + 1..]).ok_or("a text in quotes does not end")?;
                at += end + 2;
            }
            Some(_) => at += 1,
            None => return Err("the labels do not end: a closing brace is missing".to_owned()),
        }
    }
}

fn item(line: &str, flavour: Flavour) -> Result<Item<'_>, String> {
    let end = end_of_series(line)?;
    let (series, rest) = line.split_at(end);
    let (rest, example) = match flavour {
        Flavour::OpenMetrics => {
            rest.split_once('#').map_or((rest, None), |(rest, example)| (rest, Some(example)))
        }
        Flavour::Prometheus => (rest, None),
    };
    let mut words = rest.split_ascii_whitespace();
    let value = words.next().ok_or("a value is missing behind the series")?;
    let value = number(value)?;
    let unix_millis = words.next().map(|word| millis(word, flavour)).transpose()?;
    if let Some(more) = words.next() {
        return Err(format!("{more:?} stands behind the time"));
    }
    let exemplars = example.map(exemplar).transpose()?.into_iter().collect();
    Ok(Item { series, value: PointValue::Float(value), unix_millis, exemplars, created_ms: None })
}

fn number(text: &str) -> Result<f64, String> {
    text.parse().map_err(|_| format!("{text:?} is not a number"))
}

#[expect(clippy::cast_possible_truncation, reason = "a float as an integer saturates")]
fn millis(text: &str, flavour: Flavour) -> Result<i64, String> {
    match flavour {
        Flavour::Prometheus => {
            text.parse().map_err(|_| format!("{text:?} is not a time in whole milliseconds"))
        }
        Flavour::OpenMetrics => {
            let seconds = number(text)?;
            if !seconds.is_finite() {
                return Err(format!("{text:?} is not a time in seconds"));
            }
            Ok((seconds * 1000.0).round() as i64)
        }
    }
}

/// `{trace_id="abc"} 0.5 1520879607.789`
fn exemplar(text: &str) -> Result<Exemplar, String> {
    let text = text.trim_start();
    if !text.starts_with('{') {
        return Err("an exemplar begins with its labels in braces".to_owned());
    }
    let end = end_of_braces(text, 0)?;
    let labels =
        pairs(&text[..end])?.into_iter().map(|(name, value)| (name.into_owned(), value.into_owned()));
    let mut words = text[end..].split_ascii_whitespace();
    let value = number(words.next().ok_or("an exemplar without a value")?)?;
    let unix_millis = words.next().map(|word| millis(word, Flavour::OpenMetrics)).transpose()?;
    Ok(Exemplar { labels: labels.collect(), unix_millis: unix_millis.unwrap_or(NO_TIME), value })
}

/// The time of an exemplar that says none: it is that of its sample.
pub const NO_TIME: i64 = i64::MIN;

/// Names and values of a label.
pub type Pair<'a> = (Cow<'a, str>, Cow<'a, str>);

/// Name and labels of a series, apart: the name as that of `__name__`.
///
/// # Errors
/// What is wrong with it.
pub fn pairs(series: &str) -> Result<Vec<Pair<'_>>, String> {
    let mut found = Vec::with_capacity(8);
    let (name, rest) = match series.split_once('{') {
        None => (series, None),
        Some((name, rest)) => (name, Some(rest)),
    };
    let name = name.trim_end_matches([' ', '\t']);
    if !name.is_empty() {
        found.push((Cow::Borrowed(super::labels::METRIC), Cow::Borrowed(name)));
    }
    let Some(mut rest) = rest else { return Ok(found) };
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.starts_with('}') {
            return Ok(found);
        }
        let is_quoted = rest.starts_with('"');
        let (label, after) = label_name(rest)?;
        let after = after.trim_start_matches([' ', '\t']);
        let Some(value) = after.strip_prefix('=') else {
            // A name in quotes by itself is that of the metric.
            if is_quoted && after.starts_with([',', '}']) {
                found.push((Cow::Borrowed(super::labels::METRIC), label));
                rest = after;
                continue;
            }
            return Err(format!("= is missing behind the label {label:?}"));
        };
        let value = value.trim_start_matches([' ', '\t']);
        let quoted =
            value.strip_prefix('"').ok_or_else(|| format!("the value of {label:?} is not in quotes"))?;
        let end = end_of_quote(quoted).ok_or_else(|| format!("the value of {label:?} does not end"))?;
        found.push((label, unescaped(&quoted[..end])));
        rest = &quoted[end + 1..];
    }
}

fn label_name(text: &str) -> Result<(Cow<'_, str>, &str), String> {
    if text.starts_with('"') {
        return family_name(text);
    }
    let end = text.find(['=', ' ', '\t', ',', '}', '"']).unwrap_or(text.len());
    if end == 0 {
        Err("a label's name is missing".to_owned())
    } else {
        Ok((Cow::Borrowed(&text[..end]), &text[end..]))
    }
}

/// Writes name and labels as [`pairs`] reads them.
pub fn write_series(out: &mut String, name: &str, labels: &mut dyn Iterator<Item = (&str, &str)>) {
    out.push_str("{\"");
    escape(out, name);
    out.push('"');
    for (label, value) in labels {
        out.push_str(",\"");
        escape(out, label);
        out.push_str("\"=\"");
        escape(out, value);
        out.push('"');
    }
    out.push('}');
}

fn escape(out: &mut String, text: &str) {
    for letter in text.chars() {
        match letter {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests;
