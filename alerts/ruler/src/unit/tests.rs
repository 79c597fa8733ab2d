use super::*;
use crate::file::parse_rules;

const RULES: &str = r#"
groups:
- name: calls
  rules:
  - record: job:errors:rate5m
    expr: sum by (job) (rate(errors_total[5m]))
  - alert: Errors
    expr: job:errors:rate5m > 0.5
    for: 2m
    keep_firing_for: 3m
    labels: {severity: '{{ if gt $value 1.0 }}page{{ else }}ticket{{ end }}'}
    annotations:
      summary: '{{ $labels.job }} has {{ $value | humanize }} errors a second at {{ $externalLabels.site }}'
"#;

fn run(tests: &str) -> UnitReport {
    run_unit_tests(tests, &parse_rules("rules.yaml", RULES).expect("right")).expect("readable")
}

fn test(body: &str) -> String {
    format!(
        "rule_files: [rules.yaml]\nevaluation_interval: 1m\ntests:\n- interval: 1m\n  external_labels: {{site: fra-1}}\n  \
         input_series:\n  - series: 'errors_total{{job=\"api\",instance=\"a\"}}'\n    values: '0x4 60+60x9 600x20'\n{body}"
    )
}

#[test]
fn alerts_are_pending_fire_and_fire_on() {
    let fires = |at: &str| {
        format!(
            "  - eval_time: {at}\n    alertname: Errors\n    exp_alerts:\n    - exp_labels: {{job: api, severity: ticket}}\n      \
             exp_annotations: {{summary: 'api has 1 errors a second at fra-1'}}\n"
        )
    };
    let silent = |at: &str| format!("  - eval_time: {at}\n    alertname: Errors\n");
    // The rate passes 0.5 in the eighth minute, so it fires two minutes later.
    let body =
        format!("  alert_rule_test:\n{}{}{}{}", silent("5m"), silent("8m"), fires("11m"), silent("40m"));
    let report = run(&test(&body));
    assert_eq!(report, UnitReport { passed: 4, failed: vec![] });
    let wrong = run(&test(&format!("  alert_rule_test:\n{}", fires("5m"))));
    assert_eq!((wrong.passed, wrong.failed.len()), (0, 1));
    assert!(
        wrong.failed[0].contains("alertname: Errors, time: 5m, \n  exp:[\n    0: Labels:"),
        "{}",
        wrong.failed[0]
    );
    assert!(wrong.failed[0].ends_with("got:[]"), "{}", wrong.failed[0]);
}

#[test]
fn queries_see_what_rules_recorded() {
    let body = "  promql_expr_test:\n  - expr: job:errors:rate5m\n    eval_time: 12m\n    exp_samples:\n    \
                - labels: 'job:errors:rate5m{job=\"api\"}'\n      value: 1\n  \
                - {expr: 'ALERTS{alertstate=\"firing\"}', eval_time: 12m, exp_samples: \
                [{labels: 'ALERTS{alertname=\"Errors\",alertstate=\"firing\",job=\"api\",severity=\"ticket\"}', value: 1}]}\n  \
                - {expr: 'ALERTS_FOR_STATE > 0', eval_time: 12m, exp_samples: \
                [{labels: 'ALERTS_FOR_STATE{alertname=\"Errors\",job=\"api\",severity=\"ticket\"}', value: 420}]}\n  \
                - {expr: '1 + 1', eval_time: 0, exp_samples: [{labels: '{}', value: 2}]}\n  \
                - {expr: 'nope', eval_time: 1m}\n";
    assert_eq!(run(&test(body)), UnitReport { passed: 5, failed: vec![] });
    let wrong = run(&test(
        "  promql_expr_test:\n  - {expr: '1 + 1', eval_time: 0, exp_samples: [{labels: '{}', value: 3}]}\n",
    ));
    assert_eq!(wrong.failed, ["expr: \"1 + 1\", time: 0s,\n  exp: {} 3\n  got: {} 2"]);
}

#[test]
fn a_file_of_tests_is_read_strictly() {
    let groups = parse_rules("rules.yaml", RULES).expect("right");
    for (text, words) in [
        ("tests:\n- inputs: []\n", "2:3: unknown field"),
        ("tests:\n- input_series: [{series: 'up{', values: '1'}]\n", "2:27: series: "),
        ("tests:\n- input_series: [{series: up, values: '1y'}]\n", "2:39: values: "),
        ("tests:\n- alert_rule_test: [{eval_time: 1x, alertname: A}]\n", "2:33: \"1x\" is not a duration"),
        ("tests:\n- alert_rule_test: [{eval_time: 1m}]\n", "misses required attribute alertname"),
        ("group_eval_order: [a, a]\n", "repeated in evaluation order: a"),
    ] {
        let error = run_unit_tests(text, &groups).expect_err(text).to_string();
        assert!(error.contains(words), "{text}: {error}");
    }
    assert_eq!(rule_file_patterns("rule_files: [a.yaml, 'b/*.yaml']\n").map(|names| names.len()), Ok(2));
}
