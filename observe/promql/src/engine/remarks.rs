//! The wording of warnings and infos.

use super::Evaluator;
use crate::annotation::Severity;
use crate::ast::Span;
use crate::text::{format_short, quote};

fn for_metric(name: &str) -> String {
    if name.is_empty() { String::new() } else { format!(" for metric name {}", quote(name)) }
}

impl Evaluator<'_> {
    fn warn(&mut self, span: Span, message: String) {
        self.annotations.add(Severity::Warning, self.text, span, message);
    }

    fn inform(&mut self, span: Span, message: String) {
        self.annotations.add(Severity::Info, self.text, span, message);
    }

    pub(super) fn invalid_quantile(&mut self, span: Span, q: f64) {
        self.warn(span, format!("quantile value should be between 0 and 1, got {}", format_short(q)));
    }

    pub(super) fn invalid_ratio(&mut self, span: Span, ratio: f64, used: f64) {
        let (ratio, used) = (format_short(ratio), format_short(used));
        self.warn(span, format!("ratio value should be between -1 and 1, got {ratio}, capping to {used}"));
    }

    pub(super) fn mixed_floats_and_histograms(&mut self, span: Span, name: &str) {
        self.warn(span, format!("encountered a mix of histograms and floats{}", for_metric(name)));
    }

    pub(super) fn mixed_aggregation(&mut self, span: Span) {
        self.warn(span, "encountered a mix of histograms and floats for aggregation".to_owned());
    }

    pub(super) fn mixed_schemas(&mut self, span: Span, name: &str) {
        let place = for_metric(name);
        self.warn(
            span,
            format!("vector contains a mix of histograms with exponential and custom buckets schemas{place}"),
        );
    }

    pub(super) fn not_a_counter(&mut self, span: Span, name: &str) {
        self.warn(span, format!("this native histogram metric is not a counter: {}", quote(name)));
    }

    pub(super) fn not_a_gauge(&mut self, span: Span, name: &str) {
        self.warn(span, format!("this native histogram metric is not a gauge: {}", quote(name)));
    }

    pub(super) fn bad_bucket_label(&mut self, span: Span, name: &str, value: &str) {
        let (value, place) = (quote(value), for_metric(name));
        self.warn(span, format!("bucket label \"le\" is missing or has a malformed value of {value}{place}"));
    }

    pub(super) fn mixed_classic_and_native(&mut self, span: Span, name: &str) {
        self.warn(
            span,
            format!("vector contains a mix of classic and native histograms{}", for_metric(name)),
        );
    }

    pub(super) fn incompatible_buckets(&mut self, span: Span, operator: &str) {
        self.warn(span, format!("incompatible bucket layout encountered for binary operator {operator}"));
    }

    pub(super) fn reset_conflict(&mut self, span: Span, operation: &str) {
        self.warn(span, format!("conflicting counter resets during histogram {operation}"));
    }

    pub(super) fn reconciled(&mut self, span: Span, operation: &str) {
        self.inform(span, format!("mismatched custom buckets were reconciled during {operation}"));
    }

    pub(super) fn maybe_not_a_counter(&mut self, span: Span, name: &str) {
        let message = "metric might not be a counter, name does not end in _total/_sum/_count/_bucket";
        self.inform(span, format!("{message}: {}", quote(name)));
    }

    pub(super) fn forced_monotonicity(&mut self, span: Span, name: &str) {
        let place = for_metric(name);
        self.inform(span, format!("input to histogram_quantile needed to be fixed for monotonicity (see https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile){place}"));
    }

    pub(super) fn incompatible_types(&mut self, span: Span, left: &str, operator: &str, right: &str) {
        let operator = quote(operator);
        self.inform(span, format!("incompatible sample types encountered for binary operator {operator}: {left} {operator} {right}"));
    }

    pub(super) fn ignored_in_aggregation(&mut self, span: Span, aggregation: &str) {
        self.inform(span, format!("ignored histogram in {aggregation} aggregation"));
    }

    pub(super) fn ignored_in_range(&mut self, span: Span, name: &str) {
        let place = for_metric(name);
        self.inform(
            span,
            format!("ignored histograms in a range containing both floats and histograms{place}"),
        );
    }

    pub(super) fn nan_quantile(&mut self, span: Span, name: &str, is_result: bool) {
        let effect = if is_result { "result is NaN" } else { "result is skewed higher" };
        self.inform(
            span,
            format!("input to histogram_quantile has NaN observations, {effect}{}", for_metric(name)),
        );
    }

    pub(super) fn nan_fraction(&mut self, span: Span, name: &str) {
        let place = for_metric(name);
        self.inform(span, format!("input to histogram_fraction has NaN observations, which are excluded from all fractions{place}"));
    }
}
