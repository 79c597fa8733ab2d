//! The formulas of the indicators, as they stand in the core's README, over the metrics of the recorded scenario of the
//! core's tests: what a clerk computes from the messages is what an operator gets.

use std::fmt::Write as _;

use crate::running::belfry;

const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/core/README.md");
const METRICS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/indicators.txt");

/// What registrations would have left: four, each of which took 0.2 s, and one that we failed. Those of the scenario
/// take as long as the machine does.
const REGISTRATIONS: &str = "core_registration_seconds_sum{region=\"eu\"} 0.8\n\
    core_registration_seconds_count{region=\"eu\"} 4\n\
    core_registrations_total{outcome=\"challenged\",region=\"eu\"} 5\n\
    core_registrations_total{outcome=\"bound\",region=\"eu\"} 4\n\
    core_registrations_total{outcome=\"failed\",region=\"eu\"} 1\n";

/// The table of the README: indicator and formula.
fn formulas() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(README).expect("the README");
    let section =
        text.split("## Indicators").nth(1).expect("a section").split("\n## ").next().expect("its end");
    let rows = section.lines().filter_map(|line| {
        let line = line.replace("\\|", "\u{1}");
        let mut cells = line.trim_matches('|').split('|').map(str::trim);
        let (name, formula) = (cells.next()?, cells.next()?);
        let formula = formula.strip_prefix('`')?.strip_suffix('`')?;
        Some((name.split([' ', ',']).next()?.to_owned(), formula.replace('\u{1}', "|")))
    });
    rows.collect()
}

/// Every series as it was for half of the time before the scenario, at 0, and after it.
fn load() -> String {
    let metrics = std::fs::read_to_string(METRICS).expect("the metrics");
    let mut script = "load 15s\n".to_owned();
    for line in metrics.lines().chain(REGISTRATIONS.lines()) {
        let (series, value) = line.rsplit_once(' ').expect("a sample");
        writeln!(script, "  {series} 0x10 {value}x10").expect("text");
    }
    script
}

/// What one set of families gives: for each indicator its quotient by hand, SRD for answered and failed calls.
struct ByHand {
    set: &'static str,
    label: &'static str,
    value: &'static str,
    quotients: &'static [(&'static str, &'static str)],
    request_delays: [&'static str; 2],
}

const BY_HAND: [ByHand; 4] = [
    ByHand {
        set: "core_",
        label: "region",
        value: "eu",
        quotients: &[
            ("RRD", "0.8 / 4"),
            ("IRA", "1 / 5"),
            ("SDD", "0.76 / 5"),
            ("SDT", "100.5 / 5"),
            ("SER", "5 / 11"),
            ("SEER", "9 / 11"),
            ("ISA", "1 / 12"),
            ("SCR", "5 / 12"),
            ("ASR", "5 / 12"),
            ("NER", "9 / 12"),
        ],
        request_delays: ["6.75 / 5", "7.25 / 7"],
    },
    ByHand {
        set: "core_tenant_",
        label: "tenant",
        value: "acme",
        quotients: &[
            ("SDD", "0.76 / 5"),
            ("SDT", "100.5 / 5"),
            ("SER", "5 / 10"),
            ("SEER", "9 / 10"),
            ("ISA", "1 / 11"),
            ("SCR", "5 / 11"),
            ("ASR", "5 / 11"),
            ("NER", "9 / 11"),
        ],
        request_delays: ["6.75 / 5", "7.25 / 6"],
    },
    ByHand {
        set: "core_calling_trunk_",
        label: "trunk",
        value: "one",
        quotients: &[
            ("SDD", "0.07 / 1"),
            ("SDT", "20 / 1"),
            ("SER", "1 / 2"),
            ("SEER", "1 / 2"),
            ("SCR", "1 / 2"),
            ("ASR", "1 / 2"),
            ("NER", "1 / 2"),
        ],
        request_delays: ["2 / 1", "0 / 1"],
    },
    ByHand {
        set: "core_called_trunk_",
        label: "trunk",
        value: "one",
        quotients: &[
            ("SDD", "0.05 / 1"),
            ("SDT", "10 / 1"),
            ("SER", "1 / 2"),
            ("SEER", "2 / 2"),
            ("SCR", "1 / 2"),
            ("ASR", "1 / 2"),
            ("NER", "2 / 2"),
        ],
        request_delays: ["1 / 1", "0.5 / 1"],
    },
];

fn quotient(text: &str) -> f64 {
    let (upper, lower) = text.split_once(" / ").expect("a quotient");
    upper.parse::<f64>().expect("a number") / lower.parse::<f64>().expect("a number")
}

#[test]
fn the_formulas_of_the_readme_give_what_a_clerk_computes() {
    let formulas = formulas();
    assert_eq!(formulas.len(), 11, "{formulas:?}");
    let mut script = load();
    let mut count = 0;
    for ByHand { set, label, value, quotients, request_delays } in &BY_HAND {
        let of = |name: &str| {
            let (_, formula) = formulas.iter().find(|(known, _)| known == name).expect("in the table");
            formula.replace("core_", set).replace("region", label)
        };
        for (name, by_hand) in *quotients {
            // Only this label's value: the other tenant has nothing but a call to nobody.
            let only = format!("{{{label}=\"{value}\"}}");
            let by_hand = quotient(by_hand);
            let formula = of(name);
            writeln!(
                script,
                "eval instant at 285s ({formula}) and on ({label}) {}",
                selector(set, label, value)
            )
            .expect("text");
            writeln!(script, "  {only} {by_hand}").expect("text");
            count += 1;
        }
        let formula = of("SRD");
        writeln!(script, "eval instant at 285s ({formula}) and on ({label}) {}", selector(set, label, value))
            .expect("text");
        for (result, by_hand) in ["answered", "failed"].iter().zip(request_delays) {
            let by_hand = quotient(by_hand);
            writeln!(script, "  {{{label}=\"{value}\",result=\"{result}\"}} {by_hand}").expect("text");
        }
        count += 1;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("indicators.test").to_string_lossy().into_owned();
    std::fs::write(&file, &script).expect("written");
    let output = belfry(&["promql", "test", &file]);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{told}{}\n{script}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(told, format!("{file}: {count} passed, 0 failed\n"));
}

/// Something that is there for this value of the label alone.
fn selector(set: &str, label: &str, value: &str) -> String {
    format!("{set}call_attempts_total{{{label}=\"{value}\"}}")
}
