//! Matchers as Alertmanager writes them: `severity="page"`, `region=~"eu|us"`, `{a!="b", c="d"}`.

use std::fmt;

use belfry_promql::{Labels, MatchOp, Matcher};
use serde::{Deserialize, Serialize};

/// A matcher as plain data, as it is kept and as the API has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlainMatcher {
    /// The label.
    pub name: String,
    /// The value or pattern.
    pub value: String,
    /// Whether the value is a pattern.
    #[serde(default)]
    pub is_regex: bool,
    /// Whether it must match, and not the contrary.
    #[serde(default = "yes")]
    pub is_equal: bool,
}

fn yes() -> bool {
    true
}

/// How long a pattern or value may be.
const VALUE_BYTES_MAX: usize = 4_096;
/// How many matchers may stand together.
const MATCHERS_MAX: usize = 64;

/// Conditions that must all hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Matchers(Vec<Matcher>);

impl Matchers {
    /// From plain data.
    ///
    /// # Errors
    /// When a name is empty, a pattern does not compile or there are too many.
    pub fn of(plain: &[PlainMatcher]) -> Result<Matchers, String> {
        if plain.len() > MATCHERS_MAX {
            return Err(format!("at most {MATCHERS_MAX} matchers"));
        }
        plain.iter().map(PlainMatcher::compiled).collect::<Result<_, _>>().map(Matchers)
    }

    /// Whether all of them hold.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|matcher| matcher.matches_labels(labels))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As plain data.
    pub fn plain(&self) -> Vec<PlainMatcher> {
        let of = |matcher: &Matcher| PlainMatcher {
            name: matcher.name.clone(),
            value: matcher.value.clone(),
            is_regex: matches!(matcher.op, MatchOp::Regex | MatchOp::NotRegex),
            is_equal: matches!(matcher.op, MatchOp::Equal | MatchOp::Regex),
        };
        self.0.iter().map(of).collect()
    }
}

impl fmt::Display for Matchers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut texts: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        texts.sort();
        write!(f, "{{{}}}", texts.join(","))
    }
}

impl PlainMatcher {
    fn compiled(&self) -> Result<Matcher, String> {
        if self.name.is_empty() {
            return Err("a matcher needs the name of a label".to_owned());
        }
        if self.value.len() > VALUE_BYTES_MAX {
            return Err(format!(
                "the value of matcher {:?} is longer than {VALUE_BYTES_MAX} bytes",
                self.name
            ));
        }
        let op = match (self.is_regex, self.is_equal) {
            (false, true) => MatchOp::Equal,
            (false, false) => MatchOp::NotEqual,
            (true, true) => MatchOp::Regex,
            (true, false) => MatchOp::NotRegex,
        };
        Matcher::new(&self.name, op, &self.value)
    }
}

/// Reads one or more matchers: `a=b`, `a="b"`, `{a="b",c=~"d.*"}`.
///
/// # Errors
/// What was found and what was expected.
pub fn parse_matchers(text: &str) -> Result<Vec<PlainMatcher>, String> {
    let trimmed = text.trim();
    let inner = match trimmed.strip_prefix('{') {
        Some(rest) => rest.strip_suffix('}').ok_or_else(|| format!("{text:?} has no closing brace"))?,
        None => trimmed,
    };
    let mut matchers = Vec::new();
    let mut rest = inner.trim();
    while !rest.is_empty() {
        let (matcher, after) = one(rest).map_err(|what| format!("bad matcher {text:?}: {what}"))?;
        matchers.push(matcher);
        let after = after.trim_start();
        rest = match after.strip_prefix(',') {
            Some(after) => after.trim_start(),
            None if after.is_empty() => after,
            None => return Err(format!("bad matcher {text:?}: expected a comma before {after:?}")),
        };
    }
    Ok(matchers)
}

fn one(text: &str) -> Result<(PlainMatcher, &str), String> {
    let (name, rest) = if text.starts_with('"') {
        quoted(text)?
    } else {
        let end = text.find(['=', '!', '~']).ok_or("expected =, !=, =~ or !~")?;
        (text[..end].trim().to_owned(), &text[end..])
    };
    let rest = rest.trim_start();
    let (is_regex, is_equal, rest) =
        [("=~", true, true), ("!~", true, false), ("!=", false, false), ("=", false, true)]
            .into_iter()
            .find_map(|(sign, is_regex, is_equal)| {
                rest.strip_prefix(sign).map(|rest| (is_regex, is_equal, rest))
            })
            .ok_or("expected =, !=, =~ or !~")?;
    if name.is_empty() {
        return Err("a matcher needs the name of a label".to_owned());
    }
    let rest = rest.trim_start();
    let (value, rest) = if rest.starts_with('"') {
        quoted(rest)?
    } else {
        let end = rest.find(',').unwrap_or(rest.len());
        let value = rest[..end].trim();
        if value.contains('"') {
            return Err(format!("{value:?} has a quote in it"));
        }
        (value.to_owned(), &rest[end..])
    };
    Ok((PlainMatcher { name, value, is_regex, is_equal }, rest))
}

fn quoted(text: &str) -> Result<(String, &str), String> {
    let mut value = String::new();
    let mut letters = text.char_indices().skip(1);
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => match letters.next().map(|(_, escape)| escape) {
                Some('n') => value.push('\n'),
                Some(escape @ ('"' | '\\')) => value.push(escape),
                Some(other) => value.extend(['\\', other]),
                None => break,
            },
            other => value.push(other),
        }
    }
    Err("a quote is not closed".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matchers_are_read_as_alertmanager_reads_them() {
        let plain = |name: &str, value: &str, is_regex, is_equal| PlainMatcher {
            name: name.into(),
            value: value.into(),
            is_regex,
            is_equal,
        };
        for (text, expected) in [
            ("a=b", vec![plain("a", "b", false, true)]),
            ("a = \"b,c\"", vec![plain("a", "b,c", false, true)]),
            ("{a!=\"b\", c=~\"d.*\",}", vec![plain("a", "b", false, false), plain("c", "d.*", true, true)]),
            ("a!~b.*", vec![plain("a", "b.*", true, false)]),
            ("a=\"q\\\"x\\\\d\"", vec![plain("a", "q\"x\\d", false, true)]),
            ("a=", vec![plain("a", "", false, true)]),
            ("{}", vec![]),
        ] {
            assert_eq!(parse_matchers(text), Ok(expected), "{text}");
        }
        for text in ["a", "=b", "{a=b", "a=\"b", "a=\"b\" c=d", "a=b\"c"] {
            assert!(parse_matchers(text).is_err(), "{text}");
        }
        assert!(Matchers::of(&[plain("a", "(", true, true)]).is_err());
        let matchers =
            Matchers::of(&parse_matchers("a=~\"x|y\",b!=\"1\"").expect("right")).expect("compiles");
        assert!(matchers.matches(&Labels::from_pairs([("a", "x")])));
        assert!(!matchers.matches(&Labels::from_pairs([("a", "xy")])));
        assert_eq!(matchers.to_string(), "{a=~\"x|y\",b!=\"1\"}");
    }
}
