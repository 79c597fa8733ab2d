//! What a query says about one label.

use regex::{Regex, RegexBuilder};

use crate::error::Error;

/// A compiled expression may take this much memory; a larger one is refused.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// How a matcher compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchOperator {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`, anchored at both ends.
    Regex,
    /// `!~`, anchored at both ends.
    NotRegex,
}

impl MatchOperator {
    /// As PromQL writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Regex => "=~",
            Self::NotRegex => "!~",
        }
    }

    /// What [`as_str`](Self::as_str) wrote.
    pub(crate) fn written(text: &str) -> Option<Self> {
        [Self::Equal, Self::NotEqual, Self::Regex, Self::NotRegex]
            .into_iter()
            .find(|held| held.as_str() == text)
    }
}

/// A condition on one label. A label that a series does not have is the empty text, as in Prometheus.
#[derive(Clone, Debug)]
pub struct Matcher {
    name: String,
    test: Test,
    is_negated: bool,
}

#[derive(Clone, Debug)]
enum Test {
    Text(String),
    /// The compiled expression, and the text between its anchors.
    Pattern(Regex, String),
}

impl Matcher {
    /// A matcher.
    ///
    /// # Errors
    /// When the value should be a regular expression and is none.
    pub fn new(name: &str, operator: MatchOperator, value: &str) -> Result<Self, Error> {
        let is_negated = matches!(operator, MatchOperator::NotEqual | MatchOperator::NotRegex);
        let test = match operator {
            MatchOperator::Equal | MatchOperator::NotEqual => Test::Text(value.to_owned()),
            MatchOperator::Regex | MatchOperator::NotRegex => {
                let pattern = RegexBuilder::new(&format!("^(?s:{value})$"))
                    .size_limit(PATTERN_BYTES_MAX)
                    .build()
                    .map_err(|error| Error::Pattern { pattern: value.to_owned(), text: error.to_string() })?;
                Test::Pattern(pattern, value.to_owned())
            }
        };
        Ok(Self { name: name.to_owned(), test, is_negated })
    }

    /// `name="value"`.
    #[must_use]
    pub fn equal(name: &str, value: &str) -> Self {
        Self { name: name.to_owned(), test: Test::Text(value.to_owned()), is_negated: false }
    }

    /// The metric's name.
    #[must_use]
    pub fn metric(name: &str) -> Self {
        Self::equal("__name__", name)
    }

    /// The label that it is about.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether a value of the label satisfies it.
    #[must_use]
    pub fn is_match(&self, value: &str) -> bool {
        let holds = match &self.test {
            Test::Text(text) => text == value,
            Test::Pattern(pattern, _) => pattern.is_match(value),
        };
        holds != self.is_negated
    }

    /// Name, operator, value.
    pub(crate) fn parts(&self) -> (&str, MatchOperator, &str) {
        let (operator, value) = match (&self.test, self.is_negated) {
            (Test::Text(text), false) => (MatchOperator::Equal, text),
            (Test::Text(text), true) => (MatchOperator::NotEqual, text),
            (Test::Pattern(_, text), false) => (MatchOperator::Regex, text),
            (Test::Pattern(_, text), true) => (MatchOperator::NotRegex, text),
        };
        (&self.name, operator, value)
    }

    /// The one value that satisfies it, when there is just one.
    pub(crate) fn only_value(&self) -> Option<&str> {
        match &self.test {
            Test::Text(text) if !self.is_negated => Some(text),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_compare_as_prometheus_does() {
        let check = |operator, value: &str, matching: &[&str], others: &[&str]| {
            let matcher = Matcher::new("x", operator, value).expect("it compiles");
            assert!(matching.iter().all(|text| matcher.is_match(text)), "{operator:?} {value}");
            assert!(!others.iter().any(|text| matcher.is_match(text)), "{operator:?} {value}");
        };
        check(MatchOperator::Equal, "a", &["a"], &["", "b", "aa"]);
        check(MatchOperator::NotEqual, "a", &["", "b", "aa"], &["a"]);
        check(MatchOperator::Regex, "a|b.*", &["a", "b", "bcd", "b\n"], &["", "ab", "xa"]);
        check(MatchOperator::NotRegex, "a|b.*", &["", "ab"], &["a", "bcd"]);
        check(MatchOperator::Regex, "", &[""], &["a"]);
    }

    #[test]
    fn a_bad_or_huge_expression_is_refused() {
        for pattern in ["(", "a{1000}{1000}"] {
            let refused = Matcher::new("x", MatchOperator::Regex, pattern);
            assert_eq!(refused.err().map(|error| error.reason()), Some("pattern"));
        }
    }
}
