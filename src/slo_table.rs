//! `belfry slo`: the objectives of a running Belfry as a table for a terminal.

use anyhow::Context;
use serde_json::Value;

/// Lays out the answer of `/api/v1/slos`.
///
/// # Errors
/// When it is not the JSON that a Belfry of this version gives.
pub fn render(json: &str) -> anyhow::Result<String> {
    let answer: Value = serde_json::from_str(json).context("read the objectives")?;
    let slos = answer["slos"].as_array().context("read the objectives: no list of them")?;
    let mut rows = vec![
        [
            "SLO",
            "REGION",
            "OBJECTIVE",
            "GOOD",
            "BAD",
            "BUDGET LEFT",
            "BURN 1h",
            "BURN 6h",
            "EXHAUSTED IN",
            "COVERAGE",
            "SAYS",
        ]
        .map(str::to_owned),
    ];
    for slo in slos {
        let text = |key: &str| slo[key].as_str().unwrap_or("-").to_owned();
        let count = |key: &str| slo[key].as_u64().map_or("-".to_owned(), |count| count.to_string());
        let percent =
            |key: &str| slo[key].as_f64().map_or("-".to_owned(), |ratio| format!("{:.2} %", ratio * 100.0));
        let burn = |key: &str| slo[key].as_f64().map_or("-".to_owned(), |burn| format!("{burn:.1}x"));
        let objective =
            slo["objective_ppm"].as_f64().map_or("-".to_owned(), |ppm| format!("{} %", ppm / 10_000.0));
        let exhaustion = slo["exhaustion_seconds"].as_f64().map_or("not in sight".to_owned(), in_words);
        rows.push([
            text("name"),
            text("region"),
            objective,
            count("good"),
            count("bad"),
            percent("budget_remaining_ratio"),
            burn("burn_1h"),
            burn("burn_6h"),
            exhaustion,
            percent("coverage_ratio"),
            remarks(slo).join(", "),
        ]);
    }
    Ok(aligned(&rows))
}

/// What a figure alone does not say: that it is of the past, by contract, or calls for something.
fn remarks(slo: &Value) -> Vec<String> {
    let mut remarks = Vec::new();
    if slo["is_blind"] == true {
        remarks.push("BLIND".to_owned());
    }
    if slo["commitment"] == "sla" {
        remarks.push("sla".to_owned());
    }
    if slo["excluded_bad"].as_u64().is_some_and(|bad| bad > 0)
        || slo["excluded_good"].as_u64().is_some_and(|good| good > 0)
    {
        remarks.push("corrected".to_owned());
    }
    if let Some(beyond) = slo["groups_beyond"].as_u64().filter(|beyond| *beyond > 0) {
        remarks.push(format!("{beyond} groups together"));
    }
    for step in slo["policy"].as_array().into_iter().flatten().filter(|step| step["is_reached"] == true) {
        remarks.push(format!("{} % gone: {}", step["spent_percent"], step["action"].as_str().unwrap_or("-")));
    }
    remarks
}

/// A time in the two largest units that a person would say.
pub(crate) fn in_words(seconds: f64) -> String {
    let minutes = seconds / 60.0;
    match minutes {
        _ if minutes < 1.0 => format!("{seconds:.0} s"),
        _ if minutes < 60.0 => format!("{minutes:.0} min"),
        _ if minutes < 48.0 * 60.0 => format!("{:.1} h", minutes / 60.0),
        _ => format!("{:.1} days", minutes / 60.0 / 24.0),
    }
}

/// Rows as lines with their columns below each other.
pub fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    rows.iter()
        .map(|row| {
            let cells: Vec<String> =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            format!("{}\n", cells.join("  ").trim_end())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objectives_are_laid_out_in_columns() {
        let json = r#"{"slos":[{"name":"call-setup","region":"eu","objective_ppm":999000,"good":998,"bad":2,
            "budget_remaining_ratio":-1.0,"burn_1h":2.0,"burn_6h":null,"exhaustion_seconds":7200,"coverage_ratio":0.5}]}"#;
        let table = render(json).expect("laid out");
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines[1].starts_with("call-setup  eu      99.9 %     998   2    -100.00 %"), "{table}");
        assert!(lines[1].ends_with("2.0x     -        2.0 h         50.00 %"), "{table}");
        let json = json.replace("\"bad\":2,", r#""bad":2,"is_blind":true,"commitment":"sla","excluded_bad":1,"groups_beyond":3,
            "policy":[{"spent_percent":50,"action":"notice","is_reached":true},{"spent_percent":75,"action":"change_gate","is_reached":false}],"#);
        let table = render(&json).expect("laid out");
        assert!(
            table.trim_end().ends_with("BLIND, sla, corrected, 3 groups together, 50 % gone: notice"),
            "{table}"
        );
        assert!(render("{}").is_err() && render("<html>").is_err());
    }
}
