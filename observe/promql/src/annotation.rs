//! Warnings and infos beside a result: what the engine noticed and the reader should know.

use std::collections::BTreeSet;

use crate::ast::Span;
use crate::error::line_and_column;

/// How serious an annotation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The result is probably not what was meant.
    Warning,
    /// Worth knowing.
    Info,
}

/// One remark on a query.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Annotation {
    /// How serious it is.
    pub severity: Severity,
    /// The remark, without severity and place.
    pub message: String,
    /// Line in the query, from 1.
    pub line: usize,
    /// Column in the query, from 1, in bytes.
    pub column: usize,
}

impl std::fmt::Display for Annotation {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let severity = match self.severity {
            Severity::Warning => "warning",
            Severity::Info => "info",
        };
        write!(out, "PromQL {severity}: {} ({}:{})", self.message, self.line, self.column)
    }
}

/// All remarks of a query, each once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Annotations(BTreeSet<Annotation>);

impl Annotations {
    pub(crate) fn add(&mut self, severity: Severity, text: &str, span: Span, message: String) {
        let (line, column) = line_and_column(text, span.start);
        self.0.insert(Annotation { severity, message, line, column });
    }

    /// The remarks of one severity.
    pub fn of(&self, severity: Severity) -> impl Iterator<Item = &Annotation> {
        self.0.iter().filter(move |annotation| annotation.severity == severity)
    }

    /// All remarks, warnings first.
    pub fn iter(&self) -> impl Iterator<Item = &Annotation> {
        self.0.iter()
    }
}
