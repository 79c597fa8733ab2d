//! Results of PromQL as Prometheus writes them: times in seconds, values as text.
//!
//! Written straight into bytes: a range query has many points, and a tree of JSON values would hold each of them a
//! second time.

use std::io::Write as _;

use belfry_promql::{Bucket, Data, Histogram, Labels, Sample, SeriesData, Value};

/// `{"resultType": ..., "result": ...}`, and whether nothing was left out because of the limit.
pub(super) struct Rendered {
    pub(super) bytes: Vec<u8>,
    pub(super) is_whole: bool,
}

/// The data as JSON; nothing if that is longer than `bytes_max` by more than one series.
pub(super) fn data(data: &Data, limit: Option<usize>, bytes_max: usize) -> Option<Rendered> {
    let mut out = Vec::new();
    let limit = limit.unwrap_or(usize::MAX);
    let (name, length) = match data {
        Data::Scalar(..) => ("scalar", 0),
        Data::Text(..) => ("string", 0),
        Data::Vector(samples) => ("vector", samples.len()),
        Data::Matrix(series) => ("matrix", series.len()),
    };
    out.extend_from_slice(format!("{{\"resultType\":\"{name}\",\"result\":").as_bytes());
    match data {
        Data::Scalar(time, value) => point(&mut out, *time, |out| number(out, *value)),
        Data::Text(time, value) => point(&mut out, *time, |out| text(out, value)),
        Data::Vector(samples) => within(bytes_max, &mut out, samples.iter().take(limit), sample)?,
        Data::Matrix(matrix) => within(bytes_max, &mut out, matrix.iter().take(limit), series)?,
    }
    out.push(b'}');
    Some(Rendered { bytes: out, is_whole: length <= limit })
}

/// As [`list`], until there is too much.
fn within<T>(
    bytes_max: usize,
    out: &mut Vec<u8>,
    items: impl Iterator<Item = T>,
    mut one: impl FnMut(&mut Vec<u8>, T),
) -> Option<()> {
    let mut is_too_much = false;
    list(out, items, |out, item| {
        is_too_much |= out.len() > bytes_max;
        if !is_too_much {
            one(out, item);
        }
    });
    (!is_too_much && out.len() <= bytes_max).then_some(())
}

fn sample(out: &mut Vec<u8>, sample: &Sample) {
    out.extend_from_slice(b"{\"metric\":");
    labels(out, &sample.labels);
    match &sample.value {
        Value::Float(value) => {
            out.extend_from_slice(b",\"value\":");
            point(out, sample.unix_millis, |out| number(out, *value));
        }
        Value::Histogram(value) => {
            out.extend_from_slice(b",\"histogram\":");
            point(out, sample.unix_millis, |out| histogram(out, value));
        }
    }
    out.push(b'}');
}

fn series(out: &mut Vec<u8>, series: &SeriesData) {
    out.extend_from_slice(b"{\"metric\":");
    labels(out, &series.labels);
    if !series.floats.is_empty() {
        out.extend_from_slice(b",\"values\":");
        list(out, series.floats.iter(), |out, (time, value)| point(out, *time, |out| number(out, *value)));
    }
    if !series.histograms.is_empty() {
        out.extend_from_slice(b",\"histograms\":");
        list(out, series.histograms.iter(), |out, (time, value)| {
            point(out, *time, |out| histogram(out, value));
        });
    }
    out.push(b'}');
}

fn list<T>(out: &mut Vec<u8>, items: impl Iterator<Item = T>, mut one: impl FnMut(&mut Vec<u8>, T)) {
    out.push(b'[');
    for (at, item) in items.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        one(out, item);
    }
    out.push(b']');
}

fn labels(out: &mut Vec<u8>, labels: &Labels) {
    out.push(b'{');
    for (at, (name, value)) in labels.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        text(out, name);
        out.push(b':');
        text(out, value);
    }
    out.push(b'}');
}

/// `[seconds, ...]`
fn point(out: &mut Vec<u8>, unix_millis: i64, value: impl FnOnce(&mut Vec<u8>)) {
    let sign = if unix_millis < 0 { "-" } else { "" };
    let (seconds, millis) = (unix_millis.unsigned_abs() / 1000, unix_millis.unsigned_abs() % 1000);
    // Writing to memory cannot fail.
    let _written = write!(out, "[{sign}{seconds}");
    if millis > 0 {
        let _written = write!(out, ".{millis:03}");
    }
    out.push(b',');
    value(out);
    out.push(b']');
}

fn histogram(out: &mut Vec<u8>, histogram: &Histogram) {
    out.extend_from_slice(b"{\"count\":");
    number(out, histogram.count);
    out.extend_from_slice(b",\"sum\":");
    number(out, histogram.sum);
    let buckets = histogram.buckets();
    if !buckets.is_empty() {
        out.extend_from_slice(b",\"buckets\":");
        list(out, buckets.iter(), |out, bucket| {
            let _written = write!(out, "[{}", boundary_rule(bucket));
            for value in [bucket.lower, bucket.upper, bucket.count] {
                out.push(b',');
                number(out, value);
            }
            out.push(b']');
        });
    }
    out.push(b'}');
}

/// Which bounds belong to a bucket: 0 the upper, 1 the lower, 2 none, 3 both.
fn boundary_rule(bucket: &Bucket) -> u8 {
    match (bucket.has_lower, bucket.has_upper) {
        (false, true) => 0,
        (true, false) => 1,
        (false, false) => 2,
        (true, true) => 3,
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    // A text can always be written, and so can memory.
    let _written = serde_json::to_writer(out, text);
}

/// A number as text: the shortest that reads back, with an exponent where Prometheus has one.
fn number(out: &mut Vec<u8>, value: f64) {
    let magnitude = value.abs();
    let is_plain = value == 0.0 || !value.is_finite() || (1e-6..1e21).contains(&magnitude);
    if is_plain {
        let _written = write!(out, "\"{}\"", belfry_promql::format_float(value));
        return;
    }
    let text = format!("{value:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
    let _written = write!(out, "\"{mantissa}e{sign}{digits:0>2}\"");
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn rendered(data: &Data, limit: Option<usize>) -> (String, bool) {
        let Rendered { bytes, is_whole } = super::data(data, limit, 10_000).expect("short enough");
        serde_json::from_slice::<serde_json::Value>(&bytes).expect("JSON");
        (String::from_utf8(bytes).expect("text"), is_whole)
    }

    #[test]
    fn numbers_and_times_are_written_as_prometheus_writes_them() {
        let cases = [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (0.1, "0.1"),
            (-2.5e-7, "-2.5e-07"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (1.5e300, "1.5e+300"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (f64::NAN, "NaN"),
        ];
        for (value, written) in cases {
            let (text, _) = rendered(&Data::Scalar(1_500, value), None);
            assert_eq!(text, format!("{{\"resultType\":\"scalar\",\"result\":[1.500,\"{written}\"]}}"));
        }
        assert!(rendered(&Data::Text(-7, "a\"b".to_owned()), None).0.contains("[-0.007,\"a\\\"b\"]"));
    }

    #[test]
    fn series_hold_values_and_histograms_in_their_shapes() {
        let histogram = Histogram {
            hint: belfry_promql::CounterReset::Unknown,
            schema: 0,
            zero_threshold: 0.5,
            zero_count: 1.0,
            count: 4.0,
            sum: 6.5,
            positive: vec![(1, 2.0)],
            negative: vec![(1, 1.0)],
            custom_bounds: Arc::from([]),
        };
        let labels = Labels::from_pairs([("__name__", "a"), ("b", "ü")]);
        let series = SeriesData {
            labels: labels.clone(),
            floats: vec![(1000, 1.0), (2000, f64::NAN)],
            histograms: vec![(3000, Arc::new(histogram.clone()))],
        };
        let shape = "{\"count\":\"4\",\"sum\":\"6.5\",\"buckets\":[[1,\"-2\",\"-1\",\"1\"],[3,\"-0.5\",\"0.5\",\"1\"],\
            [0,\"1\",\"2\",\"2\"]]}";
        let (text, is_whole) = rendered(&Data::Matrix(vec![series.clone(), series]), Some(1));
        assert!(!is_whole);
        assert_eq!(
            text,
            format!(
                "{{\"resultType\":\"matrix\",\"result\":[{{\"metric\":{{\"__name__\":\"a\",\"b\":\"ü\"}},\
                 \"values\":[[1,\"1\"],[2,\"NaN\"]],\"histograms\":[[3,{shape}]]}}]}}"
            )
        );
        let sample = Sample { labels, unix_millis: 5, value: Value::Histogram(Arc::new(histogram)) };
        let (text, is_whole) = rendered(&Data::Vector(vec![sample]), Some(1));
        assert!(is_whole && text.contains(&format!("\"histogram\":[0.005,{shape}]")), "{text}");
    }

    #[test]
    fn an_answer_that_is_too_long_is_none() {
        let series =
            SeriesData { labels: Labels::default(), floats: vec![(1000, 1.0); 100], histograms: Vec::new() };
        let matrix = Data::Matrix(vec![series; 50]);
        let whole = super::data(&matrix, None, usize::MAX).expect("no bound").bytes.len();
        assert!(super::data(&matrix, None, whole).is_some());
        assert!(super::data(&matrix, None, whole - 2).is_none());
        assert!(super::data(&matrix, Some(3), whole / 10).is_some());
    }
}
