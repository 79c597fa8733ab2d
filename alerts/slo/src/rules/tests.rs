//! Rule files, right and wrong.

use super::*;

const RIGHT: &str = r#"
[[slo]]
name = "call_setup"
journey = "call_setup"
alert = "CallSetupBudgetBurn"
description = "Calls are set up."
objective_ppm = 999_000
period = "12h"
resolve_after = "3m"
"#;

fn check(text: &str, expected: &[(usize, usize, &str)]) {
    let faults = parse_rules(text).expect_err("it has mistakes").faults;
    let found: Vec<_> = faults.iter().map(|fault| (fault.line, fault.column)).collect();
    let places: Vec<_> = expected.iter().map(|(line, column, _)| (*line, *column)).collect();
    assert_eq!(found, places, "{faults:?}");
    for (fault, (_, _, words)) in faults.iter().zip(expected) {
        assert!(fault.message.contains(words), "{fault} does not say {words:?}");
    }
}

#[test]
fn a_file_without_windows_gets_those_of_the_workbook_scaled() {
    let slos = parse_rules(RIGHT).expect("right");
    assert_eq!(slos.len(), 1);
    assert_eq!(slos[0].objective.ppm(), 999_000);
    assert_eq!(slos[0].period_seconds, 43_200);
    assert_eq!(slos[0].resolve_after_seconds, 3);
    assert_eq!(slos[0].guard.bad_events_min, 3);
    assert_eq!(slos[0].pairs.len(), 4);
    assert_eq!((slos[0].pairs[0].long_seconds, slos[0].pairs[0].short_seconds), (60, 5));
}

#[test]
fn an_slo_may_have_its_own_windows() {
    let text =
        format!("{RIGHT}windows = [{{ severity = \"page\", long = \"2h\", short = \"10m\", burn = 7.2 }}]\n");
    let slos = parse_rules(&text).expect("right");
    assert_eq!(
        slos[0].pairs,
        [BurnPair { severity: Severity::Page, long_seconds: 120, short_seconds: 10, factor_milli: 7_200 }]
    );
}

#[test]
fn every_mistake_is_named_with_its_place() {
    let text = RIGHT
        .replace("name = \"call_setup\"", "name = \"Call Setup\"")
        .replace("999_000", "1_000_000")
        .replace("12h", "12 hours")
        .replace("3m", "soon");
    check(
        &text,
        &[
            (3, 8, "a-z"),
            (7, 17, "parts per million"),
            (8, 10, "not a length of time"),
            (9, 17, "not a length of time"),
        ],
    );
}

#[test]
fn windows_are_checked() {
    let with = |windows: &str| format!("{RIGHT}windows = [{windows}]\n");
    check(
        &with(r#"{ severity = "wake", long = "1h", short = "2h", burn = 14.4444 }"#),
        &[(10, 25, "\"page\" or \"ticket\""), (10, 67, "three decimals"), (10, 54, "shorter")],
    );
    check(
        &with(r#"{ severity = "page", long = "1h", short = "5m", burn = 1000 }"#),
        &[(10, 67, "this fast")],
    );
    check(&with(""), &[(3, 8, "0 pairs")]);
}

#[test]
fn unknown_keys_doubles_and_broken_toml_are_mistakes() {
    check(&format!("{RIGHT}goal = 3\n"), &[(10, 1, "unknown field")]);
    check(&format!("{RIGHT}{RIGHT}"), &[(12, 8, "second SLO")]);
    check("[[slo]\n", &[(1, 7, "")]);
    check("", &[(1, 1, "missing field")]);
}
