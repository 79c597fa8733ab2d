//! Selectors and what stands behind an expression: ranges, subqueries, `offset`, `@`, `anchored`, `smoothed`.

use super::Parser;
use crate::ast::{At, Duration, DurationOp, Expr, Extension, Node, Selector, Span, Subquery};
use crate::error::Error;
use crate::labels::{METRIC_NAME, is_valid_label_name};
use crate::lexer::Token;
use crate::matcher::{MatchOp, Matcher};

impl Parser<'_> {
    pub(super) fn vector_selector(&mut self) -> Result<Node, Error> {
        let matchers = self.selector_matchers()?;
        Ok(Node::Vector(Selector { matchers, offset: None, at: None, extension: Extension::None }))
    }

    /// `name{a="b", "quoted name", "c d"=~"e"}`, the name becoming a matcher.
    pub(super) fn selector_matchers(&mut self) -> Result<Vec<Matcher>, Error> {
        let mut matchers = Vec::new();
        if let Token::Word(name) = self.peek().clone() {
            self.advance();
            matchers.push(Matcher::equal(METRIC_NAME, &name));
        }
        if self.accept("{") {
            let mut is_first = true;
            while !self.accept("}") {
                if !is_first {
                    self.expect(",", "between label matchers or \"}\" after them")?;
                    if self.accept("}") {
                        break;
                    }
                }
                is_first = false;
                let span = self.span();
                let matcher = self.matcher()?;
                if matcher.is_metric_name() && matchers.iter().any(Matcher::is_metric_name) {
                    return self.fail(span, "metric name must not be set twice");
                }
                matchers.push(matcher);
            }
        }
        Ok(matchers)
    }

    fn matcher(&mut self) -> Result<Matcher, Error> {
        let span = self.span();
        let (name, is_quoted) = match self.peek().clone() {
            Token::Word(name) => (name, false),
            Token::Text(name) => (name, true),
            // Words that the lexer reads as numbers may be label names too.
            Token::Number(_) if self.text[span.start..span.end].bytes().all(|b| b.is_ascii_alphabetic()) => {
                (self.text[span.start..span.end].to_owned(), false)
            }
            _ => return Err(self.unexpected("a label name or a quoted metric name")),
        };
        self.advance();
        if is_quoted && (self.is_sign(",") || self.is_sign("}")) {
            return Ok(Matcher::equal(METRIC_NAME, &name));
        }
        if !is_valid_label_name(&name) {
            return self.fail(span, format!("invalid label name {}", crate::text::quote(&name)));
        }
        let op = match self.peek() {
            Token::Sign("=") => MatchOp::Equal,
            Token::Sign("!=") => MatchOp::NotEqual,
            Token::Sign("=~") => MatchOp::Regex,
            Token::Sign("!~") => MatchOp::NotRegex,
            _ => return Err(self.unexpected("one of \"=\", \"!=\", \"=~\", \"!~\"")),
        };
        self.advance();
        let value_span = self.span();
        let Token::Text(value) = self.peek().clone() else {
            return Err(self.unexpected("a quoted label value"));
        };
        self.advance();
        Matcher::new(&name, op, &value).or_else(|message| self.fail(value_span, message))
    }

    /// Everything that may stand behind an expression.
    pub(super) fn postfix(&mut self, mut expr: Expr) -> Result<Expr, Error> {
        loop {
            let span = self.span();
            if self.accept("[") {
                self.one_more_operator()?;
                expr = self.brackets(expr)?;
            } else if self.accept_word("offset") {
                let offset = self.duration_operand()?;
                self.set_offset(&mut expr, span, offset)?;
            } else if self.accept("@") {
                let at = self.at_time()?;
                self.set_at(&mut expr, span, at)?;
            } else if matches!(expr.node, Node::Vector(_) | Node::Range(..))
                && (self.is_word("anchored") || self.is_word("smoothed"))
            {
                let extension =
                    if self.is_word("anchored") { Extension::Anchored } else { Extension::Smoothed };
                self.advance();
                if let Node::Vector(selector) | Node::Range(selector, _) = &mut expr.node {
                    selector.extension = extension;
                }
            } else {
                return Ok(expr);
            }
            expr.span.end = self.end();
        }
    }

    fn brackets(&mut self, expr: Expr) -> Result<Expr, Error> {
        let span = expr.span;
        let range = self.duration(0)?;
        if let Duration::Fixed(milliseconds) = range
            && milliseconds <= 0
        {
            return self.fail(span, "duration must be greater than 0");
        }
        if self.accept(":") {
            let step = if self.is_sign("]") { None } else { Some(self.duration(0)?) };
            self.expect("]", "to close the subquery")?;
            let subquery = Subquery { inner: expr, range, step, offset: None, at: None };
            return Ok(Expr { node: Node::Subquery(Box::new(subquery)), span });
        }
        self.expect("]", "to close the range, or \":\" for a subquery")?;
        match expr.node {
            Node::Vector(selector) if selector.offset.is_some() || selector.at.is_some() => {
                self.fail(span, "no offset or @ modifier allowed before the range")
            }
            Node::Vector(selector) => Ok(Expr { node: Node::Range(selector, range), span }),
            _ => self.fail(span, "ranges only allowed for vector selectors"),
        }
    }

    fn set_offset(&self, expr: &mut Expr, span: Span, offset: Duration) -> Result<(), Error> {
        let held = match &mut expr.node {
            Node::Vector(selector) | Node::Range(selector, _) => &mut selector.offset,
            Node::Subquery(subquery) => &mut subquery.offset,
            _ => return self.fail(span, "offset modifier must be preceded by a selector or a subquery"),
        };
        if held.replace(offset).is_some() {
            return self.fail(span, "offset may not be set multiple times");
        }
        Ok(())
    }

    fn set_at(&self, expr: &mut Expr, span: Span, at: At) -> Result<(), Error> {
        let held = match &mut expr.node {
            Node::Vector(selector) | Node::Range(selector, _) => &mut selector.at,
            Node::Subquery(subquery) => &mut subquery.at,
            _ => return self.fail(span, "@ modifier must be preceded by a selector or a subquery"),
        };
        if held.replace(at).is_some() {
            return self.fail(span, "@ <timestamp> may not be set multiple times");
        }
        Ok(())
    }

    fn at_time(&mut self) -> Result<At, Error> {
        for (word, at) in [("start", At::Start), ("end", At::End)] {
            if self.accept_word(word) {
                self.expect("(", "after @ start or @ end")?;
                self.expect(")", "after @ start( or @ end(")?;
                return Ok(at);
            }
        }
        let span = self.span();
        let seconds = self.signed_number("a timestamp in seconds, start() or end()")?;
        let milliseconds = (seconds * 1000.0).round();
        if milliseconds.is_nan() || milliseconds.abs() > crate::engine::MILLIS_MAX as f64 {
            return self.fail(span, "timestamp out of bounds for @ modifier");
        }
        Ok(At::Millis(milliseconds as i64))
    }

    /// A duration expression whose operators bind tighter than `strength_min`.
    fn duration(&mut self, strength_min: u8) -> Result<Duration, Error> {
        let mut left = self.duration_operand()?;
        loop {
            let (op, strength) = match self.peek() {
                Token::Sign("+") => (DurationOp::Add, 1),
                Token::Sign("-") => (DurationOp::Sub, 1),
                Token::Sign("*") => (DurationOp::Mul, 2),
                Token::Sign("/") => (DurationOp::Div, 2),
                Token::Sign("%") => (DurationOp::Mod, 2),
                Token::Sign("^") => (DurationOp::Pow, 3),
                _ => return Ok(left),
            };
            if strength <= strength_min {
                return Ok(left);
            }
            self.one_more_operator()?;
            self.advance();
            let right = self.duration(if op == DurationOp::Pow { strength - 1 } else { strength })?;
            left = Duration::Compute(op, Box::new(left), Box::new(right));
        }
    }

    fn duration_operand(&mut self) -> Result<Duration, Error> {
        self.deeper()?;
        let operand = self.duration_primary()?;
        self.shallower();
        Ok(operand)
    }

    fn duration_primary(&mut self) -> Result<Duration, Error> {
        match self.peek().clone() {
            Token::Duration(milliseconds) => {
                self.advance();
                Ok(Duration::Fixed(milliseconds))
            }
            Token::Number(seconds) => {
                let span = self.span();
                self.advance();
                let milliseconds = (seconds * 1000.0).round();
                if !milliseconds.is_finite() || milliseconds.abs() > crate::engine::MILLIS_MAX as f64 {
                    return self.fail(span, "duration out of range");
                }
                Ok(Duration::Fixed(milliseconds as i64))
            }
            Token::Sign("-") => {
                self.advance();
                Ok(match self.duration_operand()? {
                    Duration::Fixed(milliseconds) => Duration::Fixed(-milliseconds),
                    other => Duration::Minus(Box::new(other)),
                })
            }
            Token::Sign("+") => {
                self.advance();
                self.duration_operand()
            }
            Token::Sign("(") => {
                self.advance();
                let inner = self.duration(0)?;
                self.expect(")", "to close the duration expression")?;
                Ok(Duration::Paren(Box::new(inner)))
            }
            Token::Word(word) => self.duration_function(&word),
            _ => Err(self.unexpected("a duration, for example 5m")),
        }
    }

    fn duration_function(&mut self, word: &str) -> Result<Duration, Error> {
        let lower = word.to_ascii_lowercase();
        match lower.as_str() {
            "step" | "range" => {
                self.advance();
                self.expect("(", "after step or range")?;
                self.expect(")", "after step( or range(")?;
                Ok(if lower == "step" { Duration::Step } else { Duration::Range })
            }
            "min_of" | "max_of" | "min" | "max" => {
                self.advance();
                self.expect("(", "before two durations")?;
                let left = self.duration(0)?;
                self.expect(",", "between two durations")?;
                let right = self.duration(0)?;
                self.expect(")", "after two durations")?;
                let op = if lower.starts_with("min") { DurationOp::Min } else { DurationOp::Max };
                Ok(Duration::Compute(op, Box::new(left), Box::new(right)))
            }
            _ => Err(self.unexpected("a duration, step(), range(), min_of() or max_of()")),
        }
    }
}
