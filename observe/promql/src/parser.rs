//! Tokens to syntax tree: a Pratt parser. Every error says where it is and what was expected.

mod check;
mod selector;

use crate::ast::{Aggregate, AggregateOp, Binary, BinaryOp, Expr, Group, Matching, Node, Span};
use crate::error::Error;
use crate::functions;
use crate::lexer::{self, Token};

/// How deep expressions may nest: a bound on the stack, far above what a person writes.
const DEPTH_MAX: usize = 100;

/// How many operators one query may have: `a + a + ...` nests as deep as it is long.
const OPERATORS_MAX: usize = 400;

/// Parses a query.
///
/// # Errors
/// `Error::Parse` with line and column if the text is not PromQL or its types do not fit.
pub fn parse(text: &str) -> Result<Expr, Error> {
    let mut parser = Parser { text, tokens: lexer::tokens(text)?, at: 0, depth: 0, operators: 0 };
    if parser.peek() == &Token::End {
        return Err(parser.unexpected("an expression"));
    }
    let expr = parser.expression(0)?;
    if parser.peek() != &Token::End {
        return Err(parser.unexpected("an operator or the end of the query"));
    }
    check::types(text, &expr)?;
    Ok(expr)
}

/// Parses a series as `metric{label="value"}`, as test scripts write it; gives the labels and the rest.
pub(crate) fn series_head(text: &str) -> Result<(Vec<crate::matcher::Matcher>, usize), Error> {
    let end = series_head_length(text);
    let mut parser = Parser { text, tokens: lexer::tokens(&text[..end])?, at: 0, depth: 0, operators: 0 };
    let matchers = parser.selector_matchers()?;
    Ok((matchers, end))
}

/// Up to the first blank outside braces and quotes.
fn series_head_length(text: &str) -> usize {
    let mut quote = None;
    let mut braces = 0;
    let mut is_escaped = false;
    for (at, letter) in text.char_indices() {
        match quote {
            Some(open) if letter == open && !is_escaped => quote = None,
            Some(_) => {}
            None if matches!(letter, '"' | '\'' | '`') => quote = Some(letter),
            None if letter == '{' => braces += 1,
            None if letter == '}' => braces -= 1,
            None if letter.is_whitespace() && braces == 0 => return at,
            None => {}
        }
        is_escaped = letter == '\\' && !is_escaped;
    }
    text.len()
}

pub(crate) struct Parser<'a> {
    pub(crate) text: &'a str,
    tokens: Vec<(Token, Span)>,
    at: usize,
    depth: usize,
    operators: usize,
}

impl Parser<'_> {
    pub(crate) fn peek(&self) -> &Token {
        &self.tokens[self.at].0
    }

    fn peek_second(&self) -> &Token {
        &self.tokens[(self.at + 1).min(self.tokens.len() - 1)].0
    }

    pub(crate) fn span(&self) -> Span {
        self.tokens[self.at].1
    }

    /// The end of the token before this one.
    pub(crate) fn end(&self) -> usize {
        self.tokens[self.at.saturating_sub(1)].1.end
    }

    pub(crate) fn advance(&mut self) -> Token {
        let token = self.tokens[self.at].0.clone();
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
        token
    }

    pub(crate) fn unexpected(&self, expected: &str) -> Error {
        Error::parse(
            self.text,
            self.span(),
            format!("unexpected {}, expected {expected}", self.peek().describe()),
        )
    }

    pub(crate) fn fail<T>(&self, span: Span, message: impl Into<String>) -> Result<T, Error> {
        Err(Error::parse(self.text, span, message))
    }

    pub(crate) fn is_sign(&self, sign: &str) -> bool {
        matches!(self.peek(), Token::Sign(held) if *held == sign)
    }

    pub(crate) fn accept(&mut self, sign: &str) -> bool {
        let is_there = self.is_sign(sign);
        if is_there {
            self.advance();
        }
        is_there
    }

    pub(crate) fn expect(&mut self, sign: &str, context: &str) -> Result<(), Error> {
        if self.accept(sign) { Ok(()) } else { Err(self.unexpected(&format!("{sign:?} {context}"))) }
    }

    pub(crate) fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Token::Word(held) if held.eq_ignore_ascii_case(word))
    }

    pub(crate) fn accept_word(&mut self, word: &str) -> bool {
        let is_there = self.is_word(word);
        if is_there {
            self.advance();
        }
        is_there
    }

    /// An expression whose operators bind tighter than `strength_min`.
    pub(crate) fn expression(&mut self, strength_min: u8) -> Result<Expr, Error> {
        self.deeper()?;
        let mut left = self.operand()?;
        while let Some(op) = self.binary_op().filter(|op| op.strength() > strength_min) {
            self.one_more_operator()?;
            self.advance();
            let (returns_bool, matching) = self.binary_modifiers(op)?;
            // Power binds to the right: 2^3^2 is 2^(3^2).
            let right_strength = if op == BinaryOp::Pow { op.strength() - 1 } else { op.strength() };
            let right = self.expression(right_strength)?;
            let span = Span { start: left.span.start, end: right.span.end };
            let binary = Binary { op, left, right, returns_bool, matching };
            left = Expr { node: Node::Binary(Box::new(binary)), span };
        }
        self.shallower();
        Ok(left)
    }

    /// Every recursion passes here and takes its level back when it returns.
    pub(crate) fn deeper(&mut self) -> Result<(), Error> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return self.fail(self.span(), format!("nested deeper than {DEPTH_MAX} levels"));
        }
        Ok(())
    }

    pub(crate) fn shallower(&mut self) {
        self.depth -= 1;
    }

    pub(crate) fn one_more_operator(&mut self) -> Result<(), Error> {
        self.operators += 1;
        if self.operators > OPERATORS_MAX {
            return self.fail(self.span(), format!("more than {OPERATORS_MAX} operators"));
        }
        Ok(())
    }

    fn binary_op(&self) -> Option<BinaryOp> {
        match self.peek() {
            Token::Sign(sign) => BinaryOp::from_text(sign),
            Token::Word(word) => BinaryOp::from_text(word),
            _ => None,
        }
    }

    fn binary_modifiers(&mut self, op: BinaryOp) -> Result<(bool, Matching), Error> {
        let bool_span = self.span();
        let returns_bool = self.accept_word("bool");
        if returns_bool && !op.is_comparison() {
            return self.fail(bool_span, "bool modifier can only be used on comparison operators");
        }
        let mut matching = Matching::default();
        if self.is_word("on") || self.is_word("ignoring") {
            matching.is_on = self.is_word("on");
            self.advance();
            matching.labels = self.label_list()?;
        }
        let group_span = self.span();
        for (word, group) in [("group_left", Group::Left), ("group_right", Group::Right)] {
            if self.accept_word(word) {
                matching.group = group;
                if self.is_sign("(") {
                    matching.include = self.label_list()?;
                }
            }
        }
        if matching.group != Group::None && op.is_set() {
            return self.fail(group_span, format!("no grouping allowed for {:?} operation", op.text()));
        }
        while let Some(word) = ["fill", "fill_left", "fill_right"].into_iter().find(|word| self.is_word(word))
        {
            let span = self.span();
            if self.peek_second() != &Token::Sign("(") {
                break;
            }
            if op.is_set() {
                return self.fail(span, format!("fill modifiers cannot be used with {:?}", op.text()));
            }
            self.advance();
            self.expect("(", "after a fill modifier")?;
            let value = self.signed_number("a number to fill with")?;
            self.expect(")", "after the fill value")?;
            if word != "fill_right" {
                matching.fill_left = Some(value);
            }
            if word != "fill_left" {
                matching.fill_right = Some(value);
            }
        }
        Ok((returns_bool, matching))
    }

    pub(crate) fn signed_number(&mut self, expected: &str) -> Result<f64, Error> {
        let mut is_minus = false;
        while self.is_sign("-") || self.is_sign("+") {
            is_minus ^= self.is_sign("-");
            self.advance();
        }
        let value = match self.peek() {
            Token::Number(value) => *value,
            Token::Duration(milliseconds) => *milliseconds as f64 / 1000.0,
            _ => return Err(self.unexpected(expected)),
        };
        self.advance();
        Ok(if is_minus { -value } else { value })
    }

    fn operand(&mut self) -> Result<Expr, Error> {
        let start = self.span().start;
        if self.is_sign("-") || self.is_sign("+") {
            let is_minus = self.is_sign("-");
            self.advance();
            let operand = Box::new(self.expression(BinaryOp::UNARY_STRENGTH)?);
            let span = Span { start, end: operand.span.end };
            return Ok(match operand.node {
                // A signed number is a number.
                Node::Number(value) => {
                    Expr { node: Node::Number(if is_minus { -value } else { value }), span }
                }
                _ => Expr { node: Node::Unary { is_minus, operand }, span },
            });
        }
        let node = self.primary()?;
        let expr = Expr { node, span: Span { start, end: self.end() } };
        self.postfix(expr)
    }

    fn primary(&mut self) -> Result<Node, Error> {
        match self.peek().clone() {
            Token::Number(value) => {
                self.advance();
                Ok(Node::Number(value))
            }
            // A duration where a number stands is its seconds.
            Token::Duration(milliseconds) => {
                self.advance();
                Ok(Node::Number(milliseconds as f64 / 1000.0))
            }
            Token::Text(value) => {
                self.advance();
                Ok(Node::Text(value))
            }
            Token::Sign("(") => {
                self.advance();
                let inner = self.expression(0)?;
                self.expect(")", "to close the parenthesis")?;
                Ok(Node::Paren(Box::new(inner)))
            }
            Token::Sign("{") => self.vector_selector(),
            Token::Word(word) => {
                let is_call = self.peek_second() == &Token::Sign("(");
                let is_grouped = matches!(self.peek_second(), Token::Word(next)
                    if next.eq_ignore_ascii_case("by") || next.eq_ignore_ascii_case("without"));
                match AggregateOp::from_text(&word) {
                    Some(op) if is_call || is_grouped => self.aggregate(op),
                    _ if is_call => self.call(&word),
                    _ => self.vector_selector(),
                }
            }
            _ => Err(self.unexpected("a selector, a function, a number, a string or \"(\"")),
        }
    }

    fn call(&mut self, name: &str) -> Result<Node, Error> {
        let span = self.span();
        let Some(function) = functions::find(name) else {
            return self.fail(span, format!("unknown function with name {name:?}"));
        };
        self.advance();
        let arguments = self.arguments()?;
        check::argument_count(self.text, span, function, arguments.len())?;
        Ok(Node::Call(function, arguments))
    }

    fn arguments(&mut self) -> Result<Vec<Expr>, Error> {
        self.expect("(", "before the arguments")?;
        let mut arguments = Vec::new();
        while !self.accept(")") {
            if !arguments.is_empty() {
                self.expect(",", "between the arguments or \")\" after them")?;
            }
            arguments.push(self.expression(0)?);
        }
        Ok(arguments)
    }

    fn aggregate(&mut self, op: AggregateOp) -> Result<Node, Error> {
        let span = self.span();
        self.advance();
        let mut grouping = self.grouping()?;
        let mut arguments = self.arguments()?;
        if grouping.is_none() {
            grouping = self.grouping()?;
        }
        let (is_without, labels) = grouping.unwrap_or_default();
        let wanted = 1 + usize::from(op.parameter().is_some());
        let found = arguments.len();
        let message =
            format!("wrong number of arguments for {}: expected {wanted}, found {found}", op.text());
        if found != wanted {
            return self.fail(span, message);
        }
        let Some(inner) = arguments.pop() else { return self.fail(span, message) };
        let parameter = arguments.pop();
        Ok(Node::Aggregate(Box::new(Aggregate { op, parameter, inner, is_without, labels })))
    }

    fn grouping(&mut self) -> Result<Option<(bool, Vec<String>)>, Error> {
        if !self.is_word("by") && !self.is_word("without") {
            return Ok(None);
        }
        let is_without = self.is_word("without");
        self.advance();
        Ok(Some((is_without, self.label_list()?)))
    }

    fn label_list(&mut self) -> Result<Vec<String>, Error> {
        self.expect("(", "before a list of labels")?;
        let mut labels = Vec::new();
        while !self.accept(")") {
            if !labels.is_empty() {
                self.expect(",", "between labels or \")\" after them")?;
                if self.accept(")") {
                    break;
                }
            }
            match self.peek().clone() {
                Token::Word(label) | Token::Text(label) if crate::labels::is_valid_label_name(&label) => {
                    labels.push(label);
                    self.advance();
                }
                _ => return Err(self.unexpected("a label name")),
            }
        }
        Ok(labels)
    }
}

#[cfg(test)]
mod tests;
