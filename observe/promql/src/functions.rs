//! The functions of PromQL: their names and signatures. What they compute is in `engine`.

use crate::ast::ValueType;
use crate::ast::ValueType::{InstantVector, RangeVector, Scalar, Text};

/// The signature of a function.
#[derive(Debug, PartialEq)]
pub struct Function {
    /// As written in a query.
    pub name: &'static str,
    /// Types of the arguments; the last stands for all further ones.
    pub arguments: &'static [ValueType],
    /// At least as many arguments.
    pub arguments_min: usize,
    /// At most as many arguments.
    pub arguments_max: usize,
    /// What it yields.
    pub returns: ValueType,
    /// Whether it needs `Options::experimental`.
    pub is_experimental: bool,
}

/// Looks a function up by name.
pub(crate) fn find(name: &str) -> Option<&'static Function> {
    FUNCTIONS.iter().find(|function| function.name == name)
}

/// All functions, for completion in a user interface.
pub fn all() -> &'static [Function] {
    FUNCTIONS
}

const MANY: usize = usize::MAX;

const fn vector(name: &'static str, arguments: &'static [ValueType], min: usize, max: usize) -> Function {
    Function {
        name,
        arguments,
        arguments_min: min,
        arguments_max: max,
        returns: InstantVector,
        is_experimental: false,
    }
}

const fn exact(name: &'static str, arguments: &'static [ValueType]) -> Function {
    vector(name, arguments, arguments.len(), arguments.len())
}

const fn over_range(name: &'static str) -> Function {
    exact(name, &[RangeVector])
}

const fn per_sample(name: &'static str) -> Function {
    exact(name, &[InstantVector])
}

const fn date(name: &'static str) -> Function {
    vector(name, &[InstantVector], 0, 1)
}

const fn scalar(name: &'static str, arguments: &'static [ValueType]) -> Function {
    Function {
        name,
        arguments,
        arguments_min: arguments.len(),
        arguments_max: arguments.len(),
        returns: Scalar,
        is_experimental: false,
    }
}

const fn experimental(function: Function) -> Function {
    Function { is_experimental: true, ..function }
}

static FUNCTIONS: &[Function] = &[
    per_sample("abs"),
    per_sample("absent"),
    over_range("absent_over_time"),
    per_sample("acos"),
    per_sample("acosh"),
    per_sample("asin"),
    per_sample("asinh"),
    per_sample("atan"),
    per_sample("atanh"),
    over_range("avg_over_time"),
    per_sample("ceil"),
    over_range("changes"),
    exact("clamp", &[InstantVector, Scalar, Scalar]),
    exact("clamp_max", &[InstantVector, Scalar]),
    exact("clamp_min", &[InstantVector, Scalar]),
    per_sample("cos"),
    per_sample("cosh"),
    over_range("count_over_time"),
    date("day_of_month"),
    date("day_of_week"),
    date("day_of_year"),
    date("days_in_month"),
    per_sample("deg"),
    over_range("delta"),
    over_range("deriv"),
    experimental(exact("double_exponential_smoothing", &[RangeVector, Scalar, Scalar])),
    experimental(scalar("end", &[])),
    per_sample("exp"),
    experimental(over_range("first_over_time")),
    per_sample("floor"),
    per_sample("histogram_avg"),
    per_sample("histogram_count"),
    exact("histogram_fraction", &[Scalar, Scalar, InstantVector]),
    exact("histogram_quantile", &[Scalar, InstantVector]),
    experimental(vector("histogram_quantiles", &[InstantVector, Text, Scalar], 3, MANY)),
    per_sample("histogram_stddev"),
    per_sample("histogram_stdvar"),
    per_sample("histogram_sum"),
    date("hour"),
    over_range("idelta"),
    over_range("increase"),
    experimental(vector("info", &[InstantVector, InstantVector], 1, 2)),
    over_range("irate"),
    vector("label_join", &[InstantVector, Text, Text, Text], 3, MANY),
    exact("label_replace", &[InstantVector, Text, Text, Text, Text]),
    over_range("last_over_time"),
    per_sample("ln"),
    per_sample("log10"),
    per_sample("log2"),
    experimental(over_range("mad_over_time")),
    experimental(scalar("max_of", &[Scalar, Scalar])),
    over_range("max_over_time"),
    experimental(scalar("min_of", &[Scalar, Scalar])),
    over_range("min_over_time"),
    date("minute"),
    date("month"),
    scalar("pi", &[]),
    exact("predict_linear", &[RangeVector, Scalar]),
    over_range("present_over_time"),
    exact("quantile_over_time", &[Scalar, RangeVector]),
    per_sample("rad"),
    experimental(scalar("range", &[])),
    over_range("rate"),
    over_range("resets"),
    vector("round", &[InstantVector, Scalar], 1, 2),
    scalar("scalar", &[InstantVector]),
    per_sample("sgn"),
    per_sample("sin"),
    per_sample("sinh"),
    per_sample("sort"),
    experimental(vector("sort_by_label", &[InstantVector, Text], 2, MANY)),
    experimental(vector("sort_by_label_desc", &[InstantVector, Text], 2, MANY)),
    per_sample("sort_desc"),
    per_sample("sqrt"),
    experimental(scalar("start", &[])),
    over_range("stddev_over_time"),
    over_range("stdvar_over_time"),
    experimental(scalar("step", &[])),
    over_range("sum_over_time"),
    per_sample("tan"),
    per_sample("tanh"),
    scalar("time", &[]),
    per_sample("timestamp"),
    experimental(over_range("ts_of_first_over_time")),
    experimental(over_range("ts_of_last_over_time")),
    experimental(over_range("ts_of_max_over_time")),
    experimental(over_range("ts_of_min_over_time")),
    exact("vector", &[Scalar]),
    date("year"),
];
