//! `belfry test rules`: unit tests of rule files, in promtool's format.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use belfry_ruler::{GroupSpec, UnitReport, parse_rules, rule_file_patterns, run_unit_tests};

use crate::commands::{complain, say};

/// Runs the tests of all files.
///
/// # Errors
/// Never; tests that fail and files that cannot be read are an exit code.
pub fn run(files: &[PathBuf]) -> anyhow::Result<ExitCode> {
    let mut is_good = true;
    for file in files {
        match test(file) {
            Ok(report) => {
                say(&format!("{}: {} passed, {} failed", file.display(), report.passed, report.failed.len()));
                for failure in &report.failed {
                    say(&format!("  {}", failure.replace('\n', "\n  ")));
                }
                is_good &= report.failed.is_empty();
            }
            Err(error) => {
                complain(&format!("{error:#}"));
                is_good = false;
            }
        }
    }
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the tests of one file.
///
/// # Errors
/// When it or a rule file that it names cannot be read, with the place.
pub fn test(file: &Path) -> anyhow::Result<UnitReport> {
    let place = |faults| anyhow::anyhow!("{}:{faults}", file.display());
    let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let folder = file.parent().unwrap_or(Path::new(""));
    let mut groups: Vec<GroupSpec> = Vec::new();
    for pattern in rule_file_patterns(&text).map_err(place)? {
        let found = matching(&folder.join(&pattern))?;
        if found.is_empty() {
            complain(&format!("{}: no file matches pattern {pattern}", file.display()));
        }
        for path in found {
            let name = path.display().to_string();
            let text = std::fs::read_to_string(&path).with_context(|| format!("read {name}"))?;
            groups.extend(parse_rules(&name, &text).map_err(|faults| anyhow::anyhow!("{name}:{faults}"))?);
        }
    }
    run_unit_tests(&text, &groups).map_err(place)
}

/// The files whose name is like the pattern's last part, by name.
fn matching(pattern: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let name = pattern.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if !name.contains(['*', '?']) {
        return Ok(vec![pattern.to_owned()]);
    }
    let folder = pattern.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = std::fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| is_like(entry.file_name().to_string_lossy().as_bytes(), name.as_bytes()))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    Ok(found)
}

/// Whether a name is like a pattern with `*` and `?`.
fn is_like(name: &[u8], pattern: &[u8]) -> bool {
    match (name, pattern) {
        ([], []) => true,
        (_, [b'*', rest @ ..]) => (0..=name.len()).any(|taken| is_like(&name[taken..], rest)),
        ([_, names @ ..], [b'?', rest @ ..]) => is_like(names, rest),
        ([letter, names @ ..], [wanted, rest @ ..]) => letter == wanted && is_like(names, rest),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_name_files() {
        for (name, pattern, is_match) in
            [("a.yaml", "*.yaml", true), ("a.yml", "*.yaml", false), ("ab.y", "a?.y", true), ("", "*", true)]
        {
            assert_eq!(is_like(name.as_bytes(), pattern.as_bytes()), is_match, "{name} {pattern}");
        }
    }

    #[test]
    fn the_shipped_rules_pass_their_tests() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("alerts/rules/health.test.yaml");
        let report = test(&file).expect("readable");
        assert_eq!(report.failed, Vec::<String>::new());
        assert!(report.passed >= 18, "each alert fires once and is silent once: {report:?}");
    }
}
