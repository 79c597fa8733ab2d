//! `belfry slo`: objectives for people at a terminal, as they are, and as they would have been.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use belfry_engine::{Backtest, ReplayedPage, Stretch, backtest};
use belfry_promql::{Labels, Matcher, Series, SeriesData};
use hyper::Method;
use serde_json::{Value, json};

use crate::ask::{Token, ask, post_form};
use crate::cli::{BacktestArguments, Site, SloArguments, SloCommand};
use crate::commands::{block_on, complain, say};
use crate::slo_table::{self, aligned, in_words};

/// How long a running Belfry may take for one of many questions.
const PATIENCE: Duration = Duration::from_secs(130);

/// Runs the command.
///
/// # Errors
/// When nobody can be asked, or nothing can be replayed.
pub fn run(arguments: &SloArguments) -> anyhow::Result<ExitCode> {
    match &arguments.command {
        None => show(&arguments.site),
        Some(SloCommand::Gate { site }) => gate(site),
        Some(SloCommand::Check { files }) => Ok(check(files)),
        Some(SloCommand::Backtest(arguments)) => replay(arguments),
    }
}

fn show(site: &Site) -> anyhow::Result<ExitCode> {
    let token = Token::of(site.token_file.as_deref())?;
    let json = block_on(ask(Method::GET, site.api, "/api/v1/slos", &token))?;
    say(slo_table::render(&json)?.trim_end());
    Ok(ExitCode::SUCCESS)
}

fn gate(site: &Site) -> anyhow::Result<ExitCode> {
    let token = Token::of(site.token_file.as_deref())?;
    let json = block_on(ask(Method::GET, site.api, "/api/v1/slos/gate", &token))?;
    let answer: Value = serde_json::from_str(&json).context("read the gate")?;
    let closed = answer["closed_by"].as_array().context("read the gate: nobody says by whom it is closed")?;
    for one in closed {
        let text = |key: &str| one[key].as_str().unwrap_or("-");
        say(&format!(
            "closed by {} in {}: {} % of its budget is gone",
            text("slo"),
            text("region"),
            one["spent_percent"]
        ));
    }
    if closed.is_empty() {
        say("open");
        return Ok(ExitCode::SUCCESS);
    }
    Ok(ExitCode::FAILURE)
}

fn check(files: &[PathBuf]) -> ExitCode {
    let mut is_good = true;
    for file in files {
        match belfry_engine::check_slo_file(file) {
            Ok((objectives, remarks)) => {
                say(&format!("{}: {objectives} objectives", file.display()));
                remarks.iter().for_each(|remark| complain(&format!("{}: {remark}", file.display())));
            }
            Err(message) => {
                complain(&message);
                is_good = false;
            }
        }
    }
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn replay(arguments: &BacktestArguments) -> anyhow::Result<ExitCode> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let stretch = Stretch { from: second(&arguments.from, now)?, to: second(&arguments.to, now)? };
    let work = |series: &dyn Series| {
        let one = |file: &str| backtest(file, series, stretch).map_err(anyhow::Error::msg);
        let against = arguments.against.as_deref().map(one).transpose()?;
        Ok((one(&arguments.file)?, against))
    };
    let (found, against) = if arguments.store || arguments.place.directory.is_some() {
        crate::series::with_reader(&arguments.place, work)?
    } else {
        let token = Token::of(arguments.token_file.as_deref())?;
        work(&Running { url: arguments.url.clone(), token })?
    };
    if arguments.json {
        let mut answer = serde_json::to_value(&found)?;
        if let Some(against) = &against {
            answer["against"] = serde_json::to_value(against)?;
        }
        say(&serde_json::to_string_pretty(&answer)?);
        return Ok(ExitCode::SUCCESS);
    }
    say(replayed(&found, stretch.to).trim_end());
    if let Some(against) = &against {
        let name = |file: &str| {
            Path::new(file).file_name().map_or(file.into(), |name| name.to_string_lossy().into_owned())
        };
        let names = [name(&arguments.file), name(arguments.against.as_deref().unwrap_or_default())];
        say(&format!("\n{}", compared(&found, against, &names, stretch.to).trim_end()));
    }
    Ok(ExitCode::SUCCESS)
}

fn second(text: &str, now: f64) -> anyhow::Result<u64> {
    let moment = crate::promql::moment(text, now);
    if let Ok(seconds) = moment.parse::<f64>() {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "cut to what a time can be"
        )]
        return Ok(seconds as u64);
    }
    let time: jiff::Timestamp = moment.parse().with_context(|| {
        format!("{text:?} is not a time: write -6h, 2026-11-20T08:30:00Z or Unix seconds")
    })?;
    Ok(u64::try_from(time.as_second()).unwrap_or(0))
}

/// Objectives, and below them the pages.
fn replayed(found: &Backtest, end: u64) -> String {
    let mut rows = vec![
        ["SLO", "PLACE", "OBJECTIVE", "GOOD", "BAD", "BUDGET SPENT", "COVERAGE", "WARNING"]
            .map(str::to_owned),
    ];
    for slo in &found.slos {
        rows.push([
            slo.slo.clone(),
            slo.place.clone(),
            format!("{} %", f64::from(slo.objective_ppm) / 10_000.0),
            slo.good.to_string(),
            slo.bad.to_string(),
            format!("{:.2} %", slo.budget_spent_ratio * 100.0),
            format!("{:.2} %", slo.coverage_ratio * 100.0),
            if slo.warning_seconds == 0 { "-".to_owned() } else { in_words(whole(slo.warning_seconds)) },
        ]);
    }
    let mut pages = vec![["PAGE", "PLACES", "FROM", "TO", "FOR"].map(str::to_owned)];
    pages.extend(found.pages.iter().map(|page| row(page, end)));
    format!("{}\n{}\n{} pages\n", aligned(&rows), aligned(&pages), found.pages.len())
}

fn row(page: &ReplayedPage, end: u64) -> [String; 5] {
    [
        page.slo.clone(),
        page.places.join(", "),
        time(page.from),
        page.to.map_or("goes on".to_owned(), time),
        in_words(whole(page.to.unwrap_or(end).saturating_sub(page.from))),
    ]
}

/// Which pages only one of two files would have sent.
fn compared(found: &Backtest, against: &Backtest, names: &[String; 2], end: u64) -> String {
    let overlap = |a: &ReplayedPage, b: &ReplayedPage| {
        a.slo == b.slo && a.from <= b.to.unwrap_or(end) && b.from <= a.to.unwrap_or(end)
    };
    let mut rows = vec![["ONLY", "PAGE", "PLACES", "FROM", "TO", "FOR"].map(str::to_owned)];
    let mut only = |name: &str, these: &Backtest, those: &Backtest| {
        let alone = these.pages.iter().filter(|page| !those.pages.iter().any(|other| overlap(page, other)));
        let mut count = 0;
        for page in alone {
            let [slo, places, from, to, length] = row(page, end);
            rows.push([name.to_owned(), slo, places, from, to, length]);
            count += 1;
        }
        these.pages.len() - count
    };
    let both = only(&names[0], found, against);
    only(&names[1], against, found);
    let woken = |these: &Backtest| -> u64 {
        these.pages.iter().map(|page| page.to.unwrap_or(end).saturating_sub(page.from)).sum()
    };
    format!(
        "{}\n{}: {} pages, {} of paging; {}: {} pages, {} of paging; {both} in both\n",
        aligned(&rows),
        names[0],
        found.pages.len(),
        in_words(whole(woken(found))),
        names[1],
        against.pages.len(),
        in_words(whole(woken(against))),
    )
}

fn time(second: u64) -> String {
    let time = i64::try_from(second).ok().and_then(|second| jiff::Timestamp::from_second(second).ok());
    time.map_or_else(|| second.to_string(), |time| time.to_string())
}

#[expect(clippy::cast_precision_loss, reason = "seconds of a run")]
fn whole(seconds: u64) -> f64 {
    seconds as f64
}

/// The series of a running Belfry, or of any Prometheus, as its own points.
struct Running {
    url: String,
    token: Token,
}

impl Series for Running {
    fn select(
        &self,
        matchers: &[Matcher],
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Vec<SeriesData>, belfry_promql::Error> {
        let selector: Vec<String> = matchers.iter().map(ToString::to_string).collect();
        // A range leaves its first moment out, a selection has it.
        let length = to_ms.saturating_sub(from_ms).saturating_add(1).max(1);
        let query = format!("{{{}}}[{length}ms]", selector.join(","));
        let at = json!(to_ms as f64 / 1_000.0).to_string();
        let form = [("query", query.as_str()), ("time", at.as_str())];
        let asked = block_on(post_form(&self.url, "/api/v1/query", &form, &self.token, PATIENCE)).and_then(
            |(status, text)| points(&text).with_context(|| format!("{} answered {status}", self.url)),
        );
        asked.map_err(|error| belfry_promql::Error::Source(format!("{error:#}")))
    }
}

/// The series of an answer with their points.
fn points(text: &str) -> anyhow::Result<Vec<SeriesData>> {
    let answer: Value = serde_json::from_str(text).with_context(|| text.trim().to_owned())?;
    if answer["status"] != "success" {
        bail!("{}", answer["error"].as_str().unwrap_or(text));
    }
    let mut found = Vec::new();
    for one in answer["data"]["result"].as_array().context("there is no result")? {
        if one["histograms"].as_array().is_some_and(|histograms| !histograms.is_empty()) {
            bail!(
                "native histograms cannot be replayed from outside: read the store itself with --store or --directory"
            );
        }
        let metric = one["metric"].as_object().context("a series has labels")?;
        let labels = metric.iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap_or_default()));
        let mut floats = Vec::new();
        for point in one["values"].as_array().into_iter().flatten() {
            let (at, value) = (point[0].as_f64(), point[1].as_str().and_then(|value| value.parse().ok()));
            let (Some(at), Some(value)) = (at, value) else { bail!("{point} is not a point") };
            #[expect(clippy::cast_possible_truncation, reason = "milliseconds of a time")]
            floats.push(((at * 1_000.0).round() as i64, value));
        }
        found.push(SeriesData { labels: Labels::from_pairs(labels), floats, histograms: Vec::new() });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(slo: &str, from: u64, to: Option<u64>) -> ReplayedPage {
        ReplayedPage { slo: slo.into(), alert: "CallSetupBudgetBurn", places: vec!["eu".into()], from, to }
    }

    #[test]
    fn two_files_are_compared_by_the_pages_that_only_one_sends() {
        let old =
            Backtest { slos: vec![], pages: vec![page("calls", 100, Some(700)), page("calls", 5_000, None)] };
        let new = Backtest {
            slos: vec![],
            pages: vec![page("calls", 400, Some(500)), page("http", 9_000, Some(9_060))],
        };
        let text = compared(&new, &old, &["new.yaml".into(), "old.toml".into()], 10_000);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("new.yaml  http   eu") && lines[1].ends_with("1 min"), "{text}");
        assert!(lines[2].starts_with("old.toml  calls  eu") && lines[2].contains("goes on"), "{text}");
        assert!(
            text.contains(
                "new.yaml: 2 pages, 3 min of paging; old.toml: 2 pages, 1.6 h of paging; 1 in both"
            ),
            "{text}"
        );
    }

    #[test]
    fn answers_of_a_prometheus_become_points_and_anything_else_is_said() {
        let text = r#"{"status":"success","data":{"resultType":"matrix","result":[
            {"metric":{"__name__":"x_total","region":"eu"},"values":[[1795163417.5,"7"],[1795163427.5,"9"]]}]}}"#;
        let found = points(text).expect("points");
        assert_eq!(found[0].floats, [(1_795_163_417_500, 7.0), (1_795_163_427_500, 9.0)]);
        assert_eq!(found[0].labels.get("region"), "eu");
        for (text, words) in [
            (r#"{"status":"error","error":"too many samples"}"#, "too many samples"),
            (
                r#"{"status":"success","data":{"result":[{"metric":{},"histograms":[[1,{}]]}]}}"#,
                "--directory",
            ),
            ("<html>", "<html>"),
        ] {
            let error = format!("{:#}", points(text).expect_err("wrong"));
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn times_are_moments_or_said_to_be_none() {
        assert_eq!(second("-1h", 10_000.0).expect("a time"), 6_400);
        assert_eq!(second("2026-11-20T08:30:17Z", 0.0).expect("a time"), 1_795_163_417);
        assert_eq!(second("1795163417", 0.0).expect("a time"), 1_795_163_417);
        assert!(second("yesterday", 0.0).is_err());
    }
}
