//! The syntax tree: what a query says, with the place of each part in the text.

use crate::functions::Function;
use crate::matcher::Matcher;

/// A stretch of the query's text, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

/// What an expression yields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueType {
    /// One float per time.
    Scalar,
    /// A text.
    Text,
    /// A set of series with one value per time.
    InstantVector,
    /// A set of series with a stretch of points per time.
    RangeVector,
}

impl ValueType {
    /// The name used in messages.
    pub fn name(self) -> &'static str {
        match self {
            ValueType::Scalar => "scalar",
            ValueType::Text => "string",
            ValueType::InstantVector => "instant vector",
            ValueType::RangeVector => "range vector",
        }
    }
}

/// An expression and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Expr {
    /// What it is.
    pub node: Node,
    /// Where it stands.
    pub span: Span,
}

/// The kinds of expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// `1.5`
    Number(f64),
    /// `"text"`
    Text(String),
    /// `up{job="x"}`
    Vector(Selector),
    /// `up{job="x"}[5m]`
    Range(Selector, Duration),
    /// `expr[1h:5m]`
    Subquery(Box<Subquery>),
    /// `(expr)`
    Paren(Box<Expr>),
    /// `-expr` or `+expr`
    Unary {
        /// Whether the sign is a minus.
        is_minus: bool,
        /// What it stands before.
        operand: Box<Expr>,
    },
    /// `a + b`
    Binary(Box<Binary>),
    /// `sum by (x) (expr)`
    Aggregate(Box<Aggregate>),
    /// `rate(x[5m])`
    Call(&'static Function, Vec<Expr>),
}

/// A duration as written: fixed, or computed from the query's step and range.
#[derive(Clone, Debug, PartialEq)]
pub enum Duration {
    /// A literal, in milliseconds.
    Fixed(i64),
    /// `step()`
    Step,
    /// `range()`
    Range,
    /// `-d`
    Minus(Box<Duration>),
    /// `(d)`
    Paren(Box<Duration>),
    /// `a + b` and the like, and `min_of(a, b)`, `max_of(a, b)`. Plain numbers in it are seconds.
    Compute(DurationOp, Box<Duration>, Box<Duration>),
}

/// Arithmetic on durations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DurationOp {
    /// `+`
    Add,
    /// `-`
    Sub,
    /// `*`
    Mul,
    /// `/`
    Div,
    /// `%`
    Mod,
    /// `^`
    Pow,
    /// `min_of`
    Min,
    /// `max_of`
    Max,
}

/// The `@` modifier.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum At {
    /// A Unix time in milliseconds.
    Millis(i64),
    /// `@ start()`
    Start,
    /// `@ end()`
    End,
}

/// `anchored` and `smoothed` after a range selector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Extension {
    /// Neither.
    #[default]
    None,
    /// The last point before the range counts too.
    Anchored,
    /// The values at both edges are interpolated.
    Smoothed,
}

/// Which series, and at which time.
#[derive(Clone, Debug, PartialEq)]
pub struct Selector {
    /// All conditions, the metric name among them.
    pub matchers: Vec<Matcher>,
    /// `offset`
    pub offset: Option<Duration>,
    /// `@`
    pub at: Option<At>,
    /// `anchored` or `smoothed`
    pub extension: Extension,
}

/// An expression evaluated on its own steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Subquery {
    /// What is evaluated.
    pub inner: Expr,
    /// How far back.
    pub range: Duration,
    /// At which steps; the engine's default if absent.
    pub step: Option<Duration>,
    /// `offset`
    pub offset: Option<Duration>,
    /// `@`
    pub at: Option<At>,
}

/// Binary operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BinaryOp {
    /// `or`
    Or,
    /// `and`
    And,
    /// `unless`
    Unless,
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `<=`
    LessEqual,
    /// `<`
    Less,
    /// `>=`
    GreaterEqual,
    /// `>`
    Greater,
    /// `</`: the part of a histogram at or below a value.
    TrimUpper,
    /// `>/`: the part of a histogram above a value.
    TrimLower,
    /// `+`
    Add,
    /// `-`
    Sub,
    /// `*`
    Mul,
    /// `/`
    Div,
    /// `%`
    Mod,
    /// `atan2`
    Atan2,
    /// `^`
    Pow,
}

impl BinaryOp {
    /// Every operator with its spelling and how tightly it binds.
    const TABLE: &[(BinaryOp, &'static str, u8)] = &[
        (BinaryOp::Or, "or", 1),
        (BinaryOp::And, "and", 2),
        (BinaryOp::Unless, "unless", 2),
        (BinaryOp::Equal, "==", 3),
        (BinaryOp::NotEqual, "!=", 3),
        (BinaryOp::LessEqual, "<=", 3),
        (BinaryOp::Less, "<", 3),
        (BinaryOp::GreaterEqual, ">=", 3),
        (BinaryOp::Greater, ">", 3),
        (BinaryOp::TrimUpper, "</", 3),
        (BinaryOp::TrimLower, ">/", 3),
        (BinaryOp::Add, "+", 4),
        (BinaryOp::Sub, "-", 4),
        (BinaryOp::Mul, "*", 5),
        (BinaryOp::Div, "/", 5),
        (BinaryOp::Mod, "%", 5),
        (BinaryOp::Atan2, "atan2", 5),
        (BinaryOp::Pow, "^", 6),
    ];

    /// How tightly a sign before an operand binds: as multiplication.
    pub(crate) const UNARY_STRENGTH: u8 = 5;

    pub(crate) fn from_text(text: &str) -> Option<BinaryOp> {
        let lower = text.to_ascii_lowercase();
        BinaryOp::TABLE.iter().find(|(_, spelling, _)| *spelling == lower).map(|(op, _, _)| *op)
    }

    /// As written in a query.
    pub fn text(self) -> &'static str {
        BinaryOp::TABLE.iter().find(|(op, _, _)| *op == self).map_or("", |(_, spelling, _)| spelling)
    }

    pub(crate) fn strength(self) -> u8 {
        BinaryOp::TABLE.iter().find(|(op, _, _)| *op == self).map_or(0, |(_, _, strength)| *strength)
    }

    pub(crate) fn is_set(self) -> bool {
        self.strength() <= 2
    }

    pub(crate) fn is_comparison(self) -> bool {
        self.strength() == 3 && !self.is_trim()
    }

    pub(crate) fn is_trim(self) -> bool {
        matches!(self, BinaryOp::TrimUpper | BinaryOp::TrimLower)
    }
}

/// A binary expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Binary {
    /// The operator.
    pub op: BinaryOp,
    /// The left operand.
    pub left: Expr,
    /// The right operand.
    pub right: Expr,
    /// `bool`: a comparison yields 0 or 1 instead of filtering.
    pub returns_bool: bool,
    /// How series find each other.
    pub matching: Matching,
}

/// How series of two vectors find each other.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Matching {
    /// Whether `labels` are those to match on; else those to ignore.
    pub is_on: bool,
    /// Labels of `on` or `ignoring`.
    pub labels: Vec<String>,
    /// How many may find one.
    pub group: Group,
    /// Labels of `group_left` or `group_right`: taken over from the "one" side.
    pub include: Vec<String>,
    /// `fill` or `fill_left`: the value of a missing left side.
    pub fill_left: Option<f64>,
    /// `fill` or `fill_right`: the value of a missing right side.
    pub fill_right: Option<f64>,
}

/// Cardinality of a vector match.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Group {
    /// One to one.
    #[default]
    None,
    /// `group_left`: many on the left.
    Left,
    /// `group_right`: many on the right.
    Right,
}

/// Aggregation operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AggregateOp {
    /// `sum`
    Sum,
    /// `avg`
    Avg,
    /// `count`
    Count,
    /// `min`
    Min,
    /// `max`
    Max,
    /// `group`
    Group,
    /// `stddev`
    Stddev,
    /// `stdvar`
    Stdvar,
    /// `topk`
    Topk,
    /// `bottomk`
    Bottomk,
    /// `count_values`
    CountValues,
    /// `quantile`
    Quantile,
    /// `limitk`
    Limitk,
    /// `limit_ratio`
    LimitRatio,
}

impl AggregateOp {
    const TABLE: &[(AggregateOp, &'static str)] = &[
        (AggregateOp::Sum, "sum"),
        (AggregateOp::Avg, "avg"),
        (AggregateOp::Count, "count"),
        (AggregateOp::Min, "min"),
        (AggregateOp::Max, "max"),
        (AggregateOp::Group, "group"),
        (AggregateOp::Stddev, "stddev"),
        (AggregateOp::Stdvar, "stdvar"),
        (AggregateOp::Topk, "topk"),
        (AggregateOp::Bottomk, "bottomk"),
        (AggregateOp::CountValues, "count_values"),
        (AggregateOp::Quantile, "quantile"),
        (AggregateOp::Limitk, "limitk"),
        (AggregateOp::LimitRatio, "limit_ratio"),
    ];

    pub(crate) fn from_text(text: &str) -> Option<AggregateOp> {
        let lower = text.to_ascii_lowercase();
        AggregateOp::TABLE.iter().find(|(_, name)| *name == lower).map(|(op, _)| *op)
    }

    /// As written in a query.
    pub fn text(self) -> &'static str {
        AggregateOp::TABLE.iter().find(|(op, _)| *op == self).map_or("", |(_, name)| name)
    }

    /// The type of the parameter before the vector, if there is one.
    pub(crate) fn parameter(self) -> Option<ValueType> {
        match self {
            AggregateOp::CountValues => Some(ValueType::Text),
            AggregateOp::Topk
            | AggregateOp::Bottomk
            | AggregateOp::Quantile
            | AggregateOp::Limitk
            | AggregateOp::LimitRatio => Some(ValueType::Scalar),
            _ => None,
        }
    }
}

/// An aggregation.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    /// The operator.
    pub op: AggregateOp,
    /// The parameter before the vector.
    pub parameter: Option<Expr>,
    /// What is aggregated.
    pub inner: Expr,
    /// Whether `labels` are those to leave out; else those to group by.
    pub is_without: bool,
    /// Labels of `by` or `without`.
    pub labels: Vec<String>,
}

impl Expr {
    /// What the expression yields.
    pub fn value_type(&self) -> ValueType {
        match &self.node {
            Node::Number(_) => ValueType::Scalar,
            Node::Text(_) => ValueType::Text,
            Node::Vector(_) | Node::Aggregate(_) => ValueType::InstantVector,
            Node::Range(..) | Node::Subquery(_) => ValueType::RangeVector,
            Node::Paren(inner) => inner.value_type(),
            Node::Unary { operand, .. } => operand.value_type(),
            Node::Binary(binary) => {
                let is_scalar = |side: &Expr| side.value_type() == ValueType::Scalar;
                if is_scalar(&binary.left) && is_scalar(&binary.right) {
                    ValueType::Scalar
                } else {
                    ValueType::InstantVector
                }
            }
            Node::Call(function, _) => function.returns,
        }
    }

    /// Every selector in the expression, in the order of the text.
    pub fn selectors(&self) -> Vec<&Selector> {
        match &self.node {
            Node::Number(_) | Node::Text(_) => Vec::new(),
            Node::Vector(selector) | Node::Range(selector, _) => vec![selector],
            Node::Subquery(subquery) => subquery.inner.selectors(),
            Node::Paren(inner) | Node::Unary { operand: inner, .. } => inner.selectors(),
            Node::Binary(binary) => {
                [&binary.left, &binary.right].into_iter().flat_map(Expr::selectors).collect()
            }
            Node::Aggregate(aggregate) => {
                aggregate.parameter.iter().chain([&aggregate.inner]).flat_map(Expr::selectors).collect()
            }
            Node::Call(_, arguments) => arguments.iter().flat_map(Expr::selectors).collect(),
        }
    }

    /// The expression inside any parentheses.
    pub fn unwrapped(&self) -> &Expr {
        match &self.node {
            Node::Paren(inner) => inner.unwrapped(),
            _ => self,
        }
    }
}
