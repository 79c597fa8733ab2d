//! The search language: what people type, as a tree.
//!
//! ```text
//! handshake failed                     both words, anywhere in a record
//! "no route to host"                   the words in a row; so is alice@example.com
//! hand*                                words that begin so
//! component:edge_gateway severity:>=warn
//! call_id:"a84b4c76e66710@pc33"  trace_id:4bf92f3577b34da6a3ce929d0e0e4736
//! sip.method:INVITE  attributes.reason:busy  rtc.mos:<3.5  rtc.mos:2..3.5
//! ~"card (declined|expired)"  host.name:~"^edge-[0-9]+$"    regular expressions, in either case
//! invite AND NOT (busy OR -cancel)     OR binds weaker than AND; a space is AND; -x is NOT x
//! ```
//!
//! One parser, two back ends: [`evaluate`] says of a record whether it meets the condition, [`compile`] asks the index
//! of a split which blocks can hold one that does; [`prune`] says as much of a split. A test holds that nothing is lost
//! on the way. Not here: time ranges and limits, which stand beside the text.

pub(crate) mod compile;
pub(crate) mod evaluate;
mod lex;
mod parse;
pub(crate) mod prune;

use std::sync::Arc;

use belfry_signal::{Severity, TraceId};

use crate::facts::RecordKind;
use crate::words::Phrase;

pub(crate) use parse::parse;

/// Why a search text cannot be understood, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at character {position}: {message}")]
pub struct BadQuery {
    /// The character where it goes wrong, counted from 1.
    pub position: usize,
    /// What is wrong and what would be right.
    pub message: String,
}

impl BadQuery {
    fn new(position: usize, message: impl Into<String>) -> Self {
        Self { position, message: message.into() }
    }
}

/// A condition on a record.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Expr {
    /// Every record.
    All,
    /// The phrase stands in one of the record's texts.
    Text(Phrase),
    /// The record is of one of these kinds.
    Kind(Vec<RecordKind>),
    /// It has one of these severities.
    Severity(Vec<Severity>),
    /// A name that the configuration or the code gave, compared whole.
    Keyword(Keyword, Word),
    /// It belongs to the trace.
    Trace(TraceId),
    /// It belongs to the call.
    Call(String),
    /// The phrase stands in an attribute of that name.
    Attribute(String, Phrase),
    /// The expression fits a part of one of the record's texts, or of an attribute of that name.
    Regex(Option<String>, Pattern),
    /// An attribute of that name is a number in that relation.
    Compare(String, Comparison, f64),
    /// It does not hold.
    Not(Box<Expr>),
    /// All hold.
    And(Vec<Expr>),
    /// One holds at least.
    Or(Vec<Expr>),
}

/// Fields that are compared whole, not word by word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keyword {
    Component,
    Node,
    Region,
}

/// A whole value in lower case, or its beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) text: String,
    pub(crate) is_prefix: bool,
}

/// A regular expression; the library's take time in the length of the text, whatever they are.
#[derive(Clone, Debug)]
pub(crate) struct Pattern(pub(crate) Arc<regex::Regex>);

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

/// Relations between numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Expr {
    /// Bytes that stand in every record that meets the condition, when there are some for certain.
    pub(crate) fn needle(&self) -> Option<&[u8]> {
        match self {
            Self::Call(call_id) => Some(call_id.as_bytes()),
            Self::Trace(trace_id) => Some(&trace_id.0),
            Self::And(parts) => parts.iter().find_map(Self::needle),
            _ => None,
        }
    }

    /// Both conditions.
    pub(crate) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::All, one) | (one, Self::All) => one,
            (one, two) => Self::And(vec![one, two]),
        }
    }

    /// The severities from `least` up.
    pub(crate) fn severity_at_least(least: Severity) -> Self {
        Self::Severity(SEVERITIES.into_iter().filter(|severity| *severity >= least).collect())
    }
}

pub(crate) const SEVERITIES: [Severity; 4] =
    [Severity::Debug, Severity::Info, Severity::Warn, Severity::Error];
