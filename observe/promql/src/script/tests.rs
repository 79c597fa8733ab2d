use super::*;

#[test]
fn points_expand_as_documented() {
    let values = |text: &str| {
        let points = points::parse(text).unwrap();
        points
            .into_iter()
            .map(|point| match point {
                Point::Missing => "_".to_owned(),
                Point::Sample { value: Value::Float(value), .. } => format!("{value}"),
                Point::Sample { value: Value::Histogram(histogram), .. } => histogram.to_string(),
            })
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(values("5 2+3x2 _x2 1-1x1"), "5 2 5 8 _ _ 1 0");
    assert_eq!(values("0x2 -Inf NaN 1e-3"), "0 0 0 -inf NaN 0.001");
    assert_eq!(
        values("{{count:1 buckets:[1]}}+{{count:2}}x1"),
        "{count:1, sum:0, (0.5,1]:1} {count:3, sum:0, (0.5,1]:1}"
    );
    assert!(points::parse("5y").is_err());
}

#[test]
fn a_script_says_which_line_failed() {
    let report = run_script(
        "load 1m\n  a 1 2 3\n\neval instant at 1m a\n  a 2\n\neval instant at 1m a\n  a 7\n\neval instant at 1m a b\n",
    );
    assert_eq!(report.passed, 1);
    assert_eq!(report.failed.iter().map(|failure| failure.line).collect::<Vec<_>>(), [7, 10]);
}
