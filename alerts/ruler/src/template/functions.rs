//! The functions of templates: Go's own, and those of Prometheus and Alertmanager that need no query.

use std::net::IpAddr;

use super::number;
use super::value::Value;

/// Every function that there is.
const KNOWN: &[&str] = &[
    "and",
    "or",
    "not",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "print",
    "println",
    "printf",
    "len",
    "index",
    "html",
    "js",
    "urlquery",
    "humanize",
    "humanize1024",
    "humanizeDuration",
    "humanizePercentage",
    "humanizeTimestamp",
    "toTime",
    "title",
    "toUpper",
    "toLower",
    "trimSpace",
    "join",
    "match",
    "reReplaceAll",
    "stripPort",
    "stripDomain",
    "graphLink",
    "tableLink",
    "parseDuration",
    "pathPrefix",
    "externalURL",
    "safeHtml",
    "safeUrl",
    "stringSlice",
    "args",
    "sortByLabel",
];

/// Functions of Prometheus that a template of ours cannot have.
const QUERIES: &[&str] = &["query", "first", "value", "label", "strvalue", "tmpl"];

/// How long a text may become.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// Why a function cannot be called; `None` when it can.
pub(crate) fn why_not(name: &str) -> Option<String> {
    if QUERIES.contains(&name) {
        return Some(format!(
            "function {name:?} is not supported: templates do not query; put it into the expression"
        ));
    }
    (!KNOWN.contains(&name)).then(|| format!("function {name:?} not defined"))
}

/// Calls a function. `external_url` is where this Belfry is reached.
pub(crate) fn call(name: &str, arguments: &[Value], external_url: &str) -> Result<Value, String> {
    let value = match name {
        "and" | "or" => {
            let stop = name == "or";
            let decided = arguments.iter().find(|value| value.is_true() == stop).or(arguments.last());
            decided.cloned().ok_or_else(|| format!("{name} needs an argument"))?
        }
        "not" => Value::Bool(!one(name, arguments)?.is_true()),
        "eq" | "ne" | "lt" | "le" | "gt" | "ge" => Value::Bool(compare(name, arguments)?),
        "print" => print(arguments).into(),
        "println" => {
            let mut line = arguments.iter().map(Value::print).collect::<Vec<_>>().join(" ");
            line.push('\n');
            line.into()
        }
        "printf" => {
            let (format, rest) = arguments.split_first().ok_or("printf needs a format")?;
            printf(format.text()?, rest)?.into()
        }
        "len" => Value::Int(length(one(name, arguments)?)?),
        "index" => index(arguments)?,
        "html" => html(&print(arguments)).into(),
        "js" => format!("{:?}", print(arguments)).trim_matches('"').to_owned().into(),
        "urlquery" => url_query(&print(arguments)).into(),
        "args" => {
            Value::Map((0..).zip(arguments).map(|(at, value)| (format!("arg{at}"), value.clone())).collect())
        }
        "sortByLabel" | "stringSlice" => Value::List(arguments.to_vec()),
        _ => return of_prometheus(name, arguments, external_url),
    };
    Ok(value)
}

fn of_prometheus(name: &str, arguments: &[Value], external_url: &str) -> Result<Value, String> {
    let number_of = || one(name, arguments)?.number();
    let text_of = || one(name, arguments)?.text();
    let value = match name {
        "humanize" => number::humanize(number_of()?),
        "humanize1024" => number::humanize_1024(number_of()?),
        "humanizeDuration" => number::humanize_duration(number_of()?),
        "humanizePercentage" => number::humanize_percentage(number_of()?),
        "humanizeTimestamp" => match time(number_of()?) {
            Some(time) => number::print_time(time),
            None => number::general(number_of()?, 4),
        },
        "toTime" => return time(number_of()?).map(Value::Time).ok_or_else(|| "not a time".to_owned()),
        "title" => title(text_of()?),
        "toUpper" => text_of()?.to_uppercase(),
        "toLower" => text_of()?.to_lowercase(),
        "trimSpace" => text_of()?.trim().to_owned(),
        "safeHtml" | "safeUrl" => one(name, arguments)?.print(),
        "join" => match arguments {
            [separator, Value::List(list)] => {
                list.iter().map(Value::print).collect::<Vec<_>>().join(separator.text()?)
            }
            _ => return Err("join needs a separator and a list".to_owned()),
        },
        "match" => {
            let [pattern, text] = arguments else {
                return Err("match needs a pattern and a text".to_owned());
            };
            return Ok(Value::Bool(regex(pattern.text()?)?.is_match(text.text()?)));
        }
        "reReplaceAll" => {
            let [pattern, with, text] = arguments else {
                return Err("reReplaceAll needs a pattern, a replacement and a text".to_owned());
            };
            bounded(regex(pattern.text()?)?.replace_all(text.text()?, with.text()?).into_owned())?
        }
        "stripPort" => strip_port(text_of()?).to_owned(),
        "stripDomain" => strip_domain(text_of()?),
        "graphLink" => format!("/graph?g0.expr={}&g0.tab=0", url_query(text_of()?)),
        "tableLink" => format!("/graph?g0.expr={}&g0.tab=1", url_query(text_of()?)),
        "parseDuration" => {
            let millis = belfry_promql::parse_duration(text_of()?);
            let millis = millis.ok_or_else(|| "not a valid duration string".to_owned())?;
            return Ok(Value::Float(millis as f64 / 1_000.0));
        }
        "externalURL" => external_url.to_owned(),
        "pathPrefix" => {
            let path = external_url.split_once("://").map_or(external_url, |(_, rest)| rest);
            path.split_once('/').map_or_else(String::new, |(_, path)| format!("/{path}"))
        }
        _ => return Err(format!("function {name:?} not defined")),
    };
    Ok(Value::Text(value))
}

fn one<'a>(name: &str, arguments: &'a [Value]) -> Result<&'a Value, String> {
    match arguments {
        [value] => Ok(value),
        _ => Err(format!("wrong number of args for {name}: want 1 got {}", arguments.len())),
    }
}

/// Seconds as Unix milliseconds, if that is a time.
#[expect(clippy::cast_possible_truncation, reason = "checked to be in range before")]
fn time(seconds: f64) -> Option<i64> {
    (seconds.is_finite() && seconds.abs() < 9.2e9).then(|| (seconds * 1_000.0).round() as i64)
}

fn regex(pattern: &str) -> Result<regex::Regex, String> {
    regex::RegexBuilder::new(pattern)
        .size_limit(1 << 20)
        .build()
        .map_err(|_| format!("bad pattern {pattern:?}"))
}

fn bounded(text: String) -> Result<String, String> {
    if text.len() > TEXT_BYTES_MAX {
        Err(format!("a text is longer than {TEXT_BYTES_MAX} bytes"))
    } else {
        Ok(text)
    }
}

/// Texts side by side; between two values that are no texts stands a blank.
fn print(arguments: &[Value]) -> String {
    let mut line = String::new();
    for (at, value) in arguments.iter().enumerate() {
        let is_text = |value: &Value| matches!(value, Value::Text(_));
        if at > 0 && !is_text(value) && !is_text(&arguments[at - 1]) {
            line.push(' ');
        }
        line.push_str(&value.print());
    }
    line
}

fn compare(name: &str, arguments: &[Value]) -> Result<bool, String> {
    let (left, rest) = arguments.split_first().ok_or("missing argument for comparison")?;
    if rest.is_empty() || (rest.len() > 1 && name != "eq") {
        return Err(format!("wrong number of args for {name}"));
    }
    let ordering = |left: &Value, right: &Value| match (left, right) {
        (Value::Text(left), Value::Text(right)) => Ok(Some(left.cmp(right))),
        (Value::Bool(left), Value::Bool(right)) => Ok(Some(left.cmp(right))),
        (Value::Int(left), Value::Int(right)) => Ok(Some(left.cmp(right))),
        (Value::Float(left), Value::Float(right)) => Ok(left.partial_cmp(right)),
        (Value::Nil, Value::Nil) => Ok(Some(std::cmp::Ordering::Equal)),
        _ => Err("incompatible types for comparison".to_owned()),
    };
    use std::cmp::Ordering::{Equal, Greater, Less};
    let found = rest.iter().map(|right| ordering(left, right)).collect::<Result<Vec<_>, _>>()?;
    Ok(match name {
        "eq" => found.contains(&Some(Equal)),
        "ne" => found[0] != Some(Equal),
        "lt" => found[0] == Some(Less),
        "le" => matches!(found[0], Some(Less | Equal)),
        "gt" => found[0] == Some(Greater),
        _ => matches!(found[0], Some(Greater | Equal)),
    })
}

fn length(value: &Value) -> Result<i64, String> {
    let length = match value {
        Value::Text(text) => text.len(),
        Value::Map(map) => map.len(),
        Value::List(list) => list.len(),
        other => return Err(format!("len of type {}", other.kind())),
    };
    Ok(i64::try_from(length).unwrap_or(i64::MAX))
}

fn index(arguments: &[Value]) -> Result<Value, String> {
    let (first, keys) = arguments.split_first().ok_or("index needs a value")?;
    let mut found = first.clone();
    for key in keys {
        found = match (&found, key) {
            (Value::Map(map), Value::Text(key)) => {
                map.get(key).cloned().unwrap_or(Value::Text(String::new()))
            }
            (Value::List(list), Value::Int(at)) => {
                let item = usize::try_from(*at).ok().and_then(|at| list.get(at));
                item.cloned().ok_or_else(|| format!("index out of range: {at}"))?
            }
            (value, _) => return Err(format!("can't index item of type {}", value.kind())),
        };
    }
    Ok(found)
}

fn html(text: &str) -> String {
    let mut escaped = String::new();
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&#34;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// A text inside the query of a URL.
pub(crate) fn url_query(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                escaped.push(char::from(byte))
            }
            b' ' => escaped.push('+'),
            other => escaped.push_str(&format!("%{other:02X}")),
        }
    }
    escaped
}

/// Every word with a capital.
fn title(text: &str) -> String {
    let mut titled = String::new();
    let mut is_start = true;
    for letter in text.chars() {
        if is_start {
            titled.extend(letter.to_uppercase());
        } else {
            titled.push(letter);
        }
        is_start = !letter.is_alphanumeric() && letter != '\'' && letter != '_';
    }
    titled
}

fn strip_port(text: &str) -> &str {
    match text.rsplit_once(':') {
        Some((host, _)) if host.starts_with('[') => host.trim_start_matches('[').trim_end_matches(']'),
        Some((host, _)) if !host.contains(':') => host,
        _ => text,
    }
}

fn strip_domain(text: &str) -> String {
    let host = strip_port(text);
    let port = text.rsplit_once(':').filter(|_| host.len() < text.len()).map(|(_, port)| port);
    if host.parse::<IpAddr>().is_ok() {
        return text.to_owned();
    }
    let name = host.split('.').next().unwrap_or(host);
    port.map_or_else(|| name.to_owned(), |port| format!("{name}:{port}"))
}

/// One `%` of a format: flags, width, precision.
#[derive(Default)]
struct Directive {
    is_left: bool,
    is_plus: bool,
    is_zero: bool,
    is_sharp: bool,
    width: usize,
    precision: Option<usize>,
}

/// Go's `Printf`, for the values that there are here.
fn printf(format: &str, arguments: &[Value]) -> Result<String, String> {
    let mut text = String::new();
    let (mut letters, mut values) = (format.chars().peekable(), arguments.iter());
    while let Some(letter) = letters.next() {
        if letter != '%' {
            text.push(letter);
            continue;
        }
        let mut directive = Directive::default();
        while let Some(flag) = letters.next_if(|c| matches!(c, '-' | '+' | '0' | '#' | ' ')) {
            match flag {
                '-' => directive.is_left = true,
                '+' => directive.is_plus = true,
                '0' => directive.is_zero = true,
                '#' => directive.is_sharp = true,
                _ => {}
            }
        }
        let digits = |letters: &mut std::iter::Peekable<std::str::Chars<'_>>| {
            let mut number = 0_usize;
            while let Some(digit) = letters.next_if(char::is_ascii_digit) {
                number = (number * 10 + digit.to_digit(10).unwrap_or(0) as usize).min(4_096);
            }
            number
        };
        directive.width = digits(&mut letters);
        if letters.next_if_eq(&'.').is_some() {
            directive.precision = Some(digits(&mut letters).min(100));
        }
        match letters.next() {
            None => text.push_str("%!(NOVERB)"),
            Some('%') => text.push('%'),
            Some(verb) => match values.next() {
                None => text.push_str(&format!("%!{verb}(MISSING)")),
                Some(value) => text.push_str(&padded(&directive, verbalise(verb, value, &directive))),
            },
        }
        if text.len() > TEXT_BYTES_MAX {
            return Err(format!("a text is longer than {TEXT_BYTES_MAX} bytes"));
        }
    }
    let extra: Vec<String> = values.map(|value| format!("{}={}", value.kind(), value.print())).collect();
    if !extra.is_empty() {
        text.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    Ok(text)
}

fn verbalise(verb: char, value: &Value, directive: &Directive) -> String {
    let signed = |text: String| {
        if directive.is_plus && !text.starts_with(['-', '+']) { format!("+{text}") } else { text }
    };
    match (verb, value) {
        ('v', Value::Float(float)) => signed(match directive.precision {
            Some(precision) => number::general(*float, precision),
            None => belfry_promql::format_short(*float),
        }),
        ('v', other) => other.print(),
        ('s', Value::Text(text)) => match directive.precision {
            Some(most) => text.chars().take(most).collect(),
            None => text.clone(),
        },
        ('s', other @ (Value::Map(_) | Value::List(_) | Value::Time(_))) => other.print(),
        ('q', Value::Text(text)) => format!("{text:?}"),
        ('d', Value::Int(whole)) => signed(whole.to_string()),
        ('x', Value::Int(whole)) => format!("{whole:x}"),
        ('x', Value::Text(text)) => text.bytes().map(|byte| format!("{byte:02x}")).collect(),
        ('c', Value::Int(whole)) => u32::try_from(*whole)
            .ok()
            .and_then(char::from_u32)
            .unwrap_or(char::REPLACEMENT_CHARACTER)
            .to_string(),
        ('t', Value::Bool(value)) => value.to_string(),
        ('f' | 'F' | 'e' | 'g' | 'G', Value::Float(float)) => signed(float_text(verb, *float, directive)),
        (_, other) => format!("%!{verb}({}={})", other.kind(), other.print()),
    }
}

fn float_text(verb: char, value: f64, directive: &Directive) -> String {
    if !value.is_finite() {
        return number::general(value, 4);
    }
    match verb {
        'f' | 'F' => format!("{value:.*}", directive.precision.unwrap_or(6)),
        'e' => {
            let text = format!("{value:.*e}", directive.precision.unwrap_or(6));
            let Some((mantissa, exponent)) = text.split_once('e') else { return text };
            let exponent: i32 = exponent.parse().unwrap_or(0);
            format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
        }
        _ => match directive.precision {
            Some(precision) => number::general(value, precision),
            None => belfry_promql::format_short(value),
        },
    }
}

fn padded(directive: &Directive, text: String) -> String {
    let length = text.chars().count();
    if length >= directive.width {
        return text;
    }
    let missing = directive.width - length;
    if directive.is_left {
        return text + &" ".repeat(missing);
    }
    if directive.is_zero && text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+')) {
        let (sign, digits) = text.split_at(usize::from(text.starts_with(['-', '+'])));
        return format!("{sign}{}{digits}", "0".repeat(missing));
    }
    " ".repeat(missing) + &text
}
