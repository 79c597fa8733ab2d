//! The house rules as tests, so that `cargo test` is the whole gate.
//!
//! What is checked: who imports whom, what each file may be called upon to hold, sizes, where signals are named,
//! that alerts and runbooks belong together, and that rules and runbooks speak of metrics that exist.

#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "tidy/panels.rs"]
mod panels;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::Visit;

/// Who may import whom: the table of ARCHITECTURE.md.
const IMPORTS: &[(&str, &[&str])] = &[
    ("belfry-signal", &[]),
    ("belfry-sip-proto", &[]),
    ("belfry-rtp-proto", &[]),
    ("belfry-relay-api", &[]),
    ("belfry-steering", &[]),
    ("belfry-slo", &[]),
    ("belfry-promql", &[]),
    ("belfry-routing", &[]),
    ("belfry-ledger", &[]),
    ("belfry-wire", &["belfry-signal"]),
    ("belfry-pipeline", &["belfry-signal", "belfry-door", "belfry-sip-proto", "belfry-wire"]),
    ("belfry-series", &["belfry-signal", "belfry-promql"]),
    ("belfry-events", &["belfry-signal"]),
    ("belfry-door", &["belfry-signal"]),
    ("belfry-query", &["belfry-signal", "belfry-promql", "belfry-series", "belfry-events", "belfry-wire"]),
    ("belfry-mesh", &["belfry-signal"]),
    ("belfry-state", &["belfry-signal"]),
    ("belfry-relay", &["belfry-signal", "belfry-rtp-proto", "belfry-relay-api"]),
    (
        "belfry-signalling",
        &[
            "belfry-signal",
            "belfry-sip-proto",
            "belfry-routing",
            "belfry-mesh",
            "belfry-state",
            "belfry-relay-api",
        ],
    ),
    ("belfry-gateway", &["belfry-signal", "belfry-mesh", "belfry-steering", "belfry-signalling"]),
    ("belfry-ruler", &["belfry-promql"]),
    ("belfry-dispatch", &["belfry-promql", "belfry-ruler"]),
    ("belfry-notify", &["belfry-signal", "belfry-ledger"]),
    (
        "belfry-engine",
        &[
            "belfry-signal",
            "belfry-ledger",
            "belfry-promql",
            "belfry-slo",
            "belfry-ruler",
            "belfry-dispatch",
            "belfry-notify",
        ],
    ),
    ("belfry-dashboard", &["belfry-signal", "belfry-door", "belfry-query", "belfry-engine", "belfry-mesh"]),
    (
        "belfry-sim",
        &[
            "belfry-signal",
            "belfry-sip-proto",
            "belfry-routing",
            "belfry-mesh",
            "belfry-state",
            "belfry-relay-api",
            "belfry-signalling",
        ],
    ),
    ("belfry-load", &["belfry-signal", "belfry-pipeline", "belfry-events"]),
    ("belfry-kit", &["belfry-sip-proto", "belfry-rtp-proto", "belfry-relay-api", "belfry-signal"]),
];

/// Only this crate knows that library.
const ONLY_ONE_KNOWS: &[(&str, &str)] = &[
    ("pingora", "belfry-gateway"),
    ("tantivy", "belfry-events"),
    ("sqlx", "belfry-state"),
    ("mio", "belfry-relay"),
];

/// Crates without clock, socket, random and telemetry.
const SANS_IO: &[&str] = &[
    "core/sip-proto",
    "core/routing",
    "media/rtp-proto",
    "edge/steering",
    "alerts/slo",
    "alerts/ruler",
    "alerts/dispatch",
    "observe/promql",
];

/// Lines of code in a file before its tests.
const FILE_LINES_MAX: usize = 600;
/// Lines of a function.
const FUNCTION_LINES_MAX: usize = 70;

/// Words that may not stand in product code.
const BANNED_WORDS: &[&str] = &["todo!(", "unimplemented!(", "dbg!(", "#[ignore", "#[should_panic"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every source file of ours, with its text, by path from the root.
fn sources() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for room in ["src", "edge", "core", "media", "observe", "alerts", "dashboards", "tests"] {
        collect(&root().join(room), "rs", &mut found);
    }
    assert!(found.len() > 50, "the walk finds the sources");
    found
}

fn collect(folder: &Path, extension: &str, found: &mut BTreeMap<String, String>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() {
            if name != "node_modules" && name != "target" && name != "dist" {
                collect(&path, extension, found);
            }
        } else if path.extension().is_some_and(|e| e == extension) {
            let text = fs::read_to_string(&path).expect("a readable source");
            let key = path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
            found.insert(key, text);
        }
    }
}

/// The part before the in-file tests.
fn before_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod ").next().unwrap_or(text)
}

fn is_test_file(path: &str) -> bool {
    path.starts_with("tests/")
        || path.ends_with("/tests.rs")
        || path.contains("/tests/")
        || path.contains("/examples/")
}

fn manifests() -> BTreeMap<String, (PathBuf, toml::Table)> {
    let workspace: toml::Table =
        fs::read_to_string(root().join("Cargo.toml")).expect("Cargo.toml").parse().expect("valid");
    workspace["workspace"]["members"]
        .as_array()
        .expect("members")
        .iter()
        .map(|member| {
            let folder = root().join(member.as_str().expect("a path"));
            let manifest: toml::Table =
                fs::read_to_string(folder.join("Cargo.toml")).expect("a manifest").parse().expect("valid");
            (manifest["package"]["name"].as_str().expect("a name").to_owned(), (folder, manifest))
        })
        .collect()
}

fn no_faults(rule: &str, faults: &[String]) {
    assert!(faults.is_empty(), "{rule}\n  {}", faults.join("\n  "));
}

#[test]
fn crates_import_only_what_the_table_allows() {
    let table: BTreeMap<&str, &[&str]> = IMPORTS.iter().copied().collect();
    let mut faults = Vec::new();
    for (name, (_, manifest)) in manifests() {
        let Some(allowed) = table.get(name.as_str()) else {
            faults.push(format!("{name} is not in the table"));
            continue;
        };
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(section) = manifest.get(section).and_then(toml::Value::as_table) else { continue };
            for dependency in section.keys() {
                // The kit is for tests and for the demo; the demo is in the root.
                if dependency.starts_with("belfry-") && !allowed.contains(&dependency.as_str()) {
                    faults.push(format!("{name} may not import {dependency}"));
                }
                for (library, only) in ONLY_ONE_KNOWS {
                    let is_of_library =
                        dependency == library || dependency.starts_with(&format!("{library}-"));
                    if is_of_library && name != *only {
                        faults.push(format!("only {only} may know {library}, not {name}"));
                    }
                }
            }
        }
    }
    no_faults("imports follow the table in ARCHITECTURE.md", &faults);
}

#[test]
fn every_module_says_what_it_is() {
    let faults: Vec<String> = sources()
        .iter()
        .filter(|(path, text)| {
            let is_own_tests = path.ends_with("/tests.rs") && !path.starts_with("tests/");
            !is_own_tests && !text.starts_with("//!")
        })
        .map(|(path, _)| path.clone())
        .collect();
    no_faults("every file starts with //!", &faults);
}

#[test]
fn files_fit_a_sitting() {
    let faults: Vec<String> = sources()
        .iter()
        .filter(|(path, _)| !is_test_file(path))
        .map(|(path, text)| (path, before_tests(text).lines().count()))
        .filter(|(_, lines)| *lines > FILE_LINES_MAX)
        .map(|(path, lines)| format!("{path}: {lines} lines before its tests"))
        .collect();
    no_faults("a file past 600 lines wants two names", &faults);
}

/// Finds functions that are too long.
struct LongFunctions<'a> {
    path: &'a str,
    faults: Vec<String>,
}

impl LongFunctions<'_> {
    fn check(&mut self, name: &syn::Ident, block: &syn::Block) {
        let lines =
            block.brace_token.span.close().start().line - block.brace_token.span.open().start().line + 1;
        if lines > FUNCTION_LINES_MAX {
            self.faults.push(format!("{}: {name} has {lines} lines", self.path));
        }
    }
}

impl<'ast> Visit<'ast> for LongFunctions<'_> {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.check(&function.sig.ident, &function.block);
        syn::visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.check(&function.sig.ident, &function.block);
        syn::visit::visit_impl_item_fn(self, function);
    }
}

#[test]
fn functions_fit_a_screen() {
    let mut faults = Vec::new();
    for (path, text) in sources().iter().filter(|(path, _)| !is_test_file(path)) {
        let file = syn::parse_file(before_tests(text)).unwrap_or_else(|error| panic!("{path}: {error}"));
        let mut visitor = LongFunctions { path, faults: Vec::new() };
        visitor.visit_file(&file);
        faults.extend(visitor.faults);
    }
    no_faults("a function has at most 70 lines", &faults);
}

#[test]
fn logs_are_named_in_signals_files_only() {
    let macros = ["tracing::info!", "tracing::warn!", "tracing::error!", " info!(", " warn!(", " error!("];
    let mut faults = Vec::new();
    for (path, text) in sources() {
        let is_allowed =
            path.ends_with("signals.rs") || path == "observe/signal/src/emitter.rs" || is_test_file(&path);
        if is_allowed {
            continue;
        }
        for (number, line) in before_tests(&text).lines().enumerate() {
            if macros.iter().any(|name| line.contains(name)) && !line.trim_start().starts_with("//") {
                faults.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    no_faults("a log line at info or above is named in signals.rs", &faults);
}

#[test]
fn metric_families_are_named_in_signals_files_only() {
    let mut faults = Vec::new();
    for (path, text) in sources() {
        let is_allowed =
            path.ends_with("signals.rs") || path.starts_with("observe/signal/") || is_test_file(&path);
        if is_allowed {
            continue;
        }
        for (number, line) in before_tests(&text).lines().enumerate() {
            if [".counter(\"", ".gauge(\"", ".histogram(\""].iter().any(|name| line.contains(name)) {
                faults.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    no_faults("a metric is named in signals.rs", &faults);
}

#[test]
fn protocol_crates_have_no_clock_no_socket_and_no_telemetry() {
    let banned = [
        "Instant::now",
        "SystemTime::now",
        "tokio::",
        "std::net::UdpSocket",
        "std::net::TcpStream",
        "rand::rng",
        "rand::random",
        "tracing::",
        "belfry_signal",
        "std::thread",
    ];
    let mut faults = Vec::new();
    for (path, text) in sources() {
        if !SANS_IO.iter().any(|folder| path.starts_with(&format!("{folder}/src"))) || is_test_file(&path) {
            continue;
        }
        for (number, line) in before_tests(&text).lines().enumerate() {
            let is_comment = line.trim_start().starts_with("//");
            if !is_comment && banned.iter().any(|word| line.contains(word)) {
                faults.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    no_faults("time and randomness are arguments of sans-IO crates", &faults);
}

#[test]
fn nothing_is_left_undone_or_switched_off() {
    let mut faults = Vec::new();
    for (path, text) in sources() {
        if path == "tests/tidy.rs" {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let is_comment = line.trim_start().starts_with("//");
            if !is_comment && BANNED_WORDS.iter().any(|word| line.contains(word)) {
                faults.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    no_faults("no ignored test, no leftover", &faults);
}

#[test]
fn unsafe_stays_where_it_is_documented() {
    let faults: Vec<String> = sources()
        .iter()
        .filter(|(path, text)| {
            *path != "tests/tidy.rs" && text.contains("unsafe {") && !path.starts_with("media/relay/")
        })
        .map(|(path, _)| path.clone())
        .collect();
    no_faults("unsafe is for a named module of the media data path", &faults);
}

#[test]
fn there_is_one_of_each_library_that_must_be_one() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock");
    for library in ["webrtc-util", "rustls", "tantivy", "zstd-sys", "ring", "tokio", "hyper"] {
        let count = lock.matches(&format!("name = \"{library}\"\n")).count();
        assert_eq!(count, 1, "{library} stands {count} times in Cargo.lock");
    }
    assert!(!lock.contains("name = \"openssl-sys\""), "TLS is rustls everywhere");
    assert!(!lock.contains("name = \"webrtc\"\n"), "the webrtc facade leaks per connection");
}

/// Alert names that the shipped rules define.
fn shipped_alerts() -> BTreeSet<String> {
    let mut texts = BTreeMap::new();
    collect(&root().join("alerts/rules"), "toml", &mut texts);
    let mut alerts = BTreeSet::from(["Watchdog".to_owned()]);
    for (path, text) in texts.iter().filter(|(path, _)| !path.ends_with(".test.toml")) {
        let table: toml::Table = text.parse().unwrap_or_else(|error| panic!("{path}: {error}"));
        let slos =
            table.get("slo").and_then(toml::Value::as_array).unwrap_or_else(|| panic!("{path} has [[slo]]"));
        for slo in slos {
            alerts
                .insert(slo["alert"].as_str().unwrap_or_else(|| panic!("{path}: an alert name")).to_owned());
        }
    }
    // The alert of objectives that name none, in OpenSLO; the engine knows it whoever raises it.
    alerts.insert("SloBudgetBurn".to_owned());
    alerts.extend(metric_rules().into_iter().map(|(_, rule)| rule.name().to_owned()));
    alerts
}

/// Every shipped rule on metrics, with its file.
fn metric_rules() -> Vec<(String, belfry_ruler::RuleSpec)> {
    let mut texts = BTreeMap::new();
    collect(&root().join("alerts/rules"), "yaml", &mut texts);
    let rules =
        texts.iter().filter(|(path, _)| !path.ends_with(".test.yaml") && !path.ends_with(".openslo.yaml"));
    let rules = rules.flat_map(|(path, text)| {
        let groups = belfry_ruler::parse_rules(path, text).unwrap_or_else(|error| panic!("{path}:{error}"));
        groups.into_iter().flat_map(|group| group.rules).map(|rule| (path.clone(), rule))
    });
    rules.collect()
}

#[test]
fn rules_on_metrics_name_metrics_that_exist_and_each_has_a_test() {
    let catalogue = fs::read_to_string(root().join("tests/golden/catalog.txt")).expect("the catalogue");
    let known: BTreeSet<&str> = catalogue.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let mut faults = Vec::new();
    for (path, rule) in metric_rules() {
        let tests = fs::read_to_string(root().join(path.replace(".yaml", ".test.yaml"))).unwrap_or_default();
        if !tests.contains(&format!("alertname: {}", rule.name())) {
            faults.push(format!("{path}: {} has no unit test", rule.name()));
        }
        let words = rule.text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let is_metric = |word: &&str| word.contains('_') && !word.ends_with("_over_time");
        for word in words.filter(is_metric).filter(|word| !known.contains(word)) {
            faults.push(format!("{path}: {} speaks of {word}, which is no metric", rule.name()));
        }
    }
    no_faults("shipped rules speak of metrics that exist, and are tested", &faults);
}

#[test]
fn every_alert_has_its_runbook_and_every_runbook_its_alert() {
    let mut runbooks = BTreeMap::new();
    collect(&root().join("runbooks"), "md", &mut runbooks);
    let names: BTreeSet<String> = runbooks
        .keys()
        .map(|path| path.trim_start_matches("runbooks/").trim_end_matches(".md").to_owned())
        .filter(|name| name != "README")
        .collect();
    assert_eq!(names, shipped_alerts(), "alerts/rules and runbooks belong together");
    let mut faults = Vec::new();
    for (path, text) in runbooks.iter().filter(|(path, _)| !path.ends_with("README.md")) {
        for section in ["## Meaning", "## Impact", "## Diagnosis", "## Mitigation"] {
            if !text.contains(section) {
                faults.push(format!("{path} lacks {section:?}"));
            }
        }
        if !text.contains("```query") {
            faults.push(format!("{path} has no live query"));
        }
    }
    no_faults("a runbook has four sections and live queries", &faults);
}

#[test]
fn rooms_have_a_page_and_the_house_its_documents() {
    for path in [
        "README.md",
        "ARCHITECTURE.md",
        "STYLE.md",
        "CHANGELOG.md",
        "LICENSE",
        "belfry.toml",
        "deny.toml",
        "Makefile",
        "edge/README.md",
        "core/README.md",
        "media/README.md",
        "observe/README.md",
        "alerts/README.md",
        "dashboards/README.md",
        "tests/README.md",
        "runbooks/README.md",
    ] {
        let length = fs::metadata(root().join(path)).map_or(0, |metadata| metadata.len());
        assert!(length > 200, "{path} is missing or says nothing");
    }
}
