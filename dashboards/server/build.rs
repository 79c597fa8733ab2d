//! Builds the page through npm and writes the table of everything that is compiled in: assets and runbooks.
//!
//! Without npm, or when npm cannot fetch its packages, a plain page takes the place of the real one and the build
//! warns. `BELFRY_UI=plain` asks for that on purpose. A page that is broken (types, bundling) fails the build.

use std::error::Error;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const PLAIN_PAGE: &str = include_str!("src/plain.html");

/// What the page is made of, beside `package-lock.json`; a change of any of them builds it anew.
const UI_SOURCES: [&str; 7] =
    ["src", "public", "index.html", "package.json", "package-lock.json", "vite.config.ts", "tsconfig.json"];

fn main() -> Result<(), Box<dyn Error>> {
    let here = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let ui = here.join("../ui");
    let runbooks = here.join("../../runbooks");
    for source in UI_SOURCES {
        println!("cargo::rerun-if-changed={}", ui.join(source).display());
    }
    println!("cargo::rerun-if-changed={}", runbooks.display());
    println!("cargo::rerun-if-env-changed=BELFRY_UI");

    let dist = out.join("ui");
    if let Some(why) = build_ui(&ui, &dist)? {
        println!("cargo::warning=the control-tower page is not built in: {why}");
        // A file that is never there makes cargo look again at the next build: npm may have come meanwhile.
        println!("cargo::rerun-if-changed={}", out.join("try-again").display());
        plain_page(&dist, &why)?;
    }
    let mut table = String::new();
    write_assets(&mut table, &dist)?;
    write_runbooks(&mut table, &runbooks)?;
    fs::write(out.join("embedded.rs"), table)?;
    Ok(())
}

/// `Some` says why the page was left out.
fn build_ui(ui: &Path, dist: &Path) -> Result<Option<String>, Box<dyn Error>> {
    if std::env::var("BELFRY_UI").is_ok_and(|value| value == "plain") {
        return Ok(Some("BELFRY_UI=plain is set".to_owned()));
    }
    if !npm(ui, &["--version"]).is_ok_and(|output| output.status.success()) {
        return Ok(Some(
            "npm was not found; install Node.js 20 or later with npm, then build again".to_owned(),
        ));
    }
    // Two profiles can build at once, and both would write into node_modules.
    let lock = File::open(ui.join("package.json"))?;
    lock.lock()?;
    if !packages_are_fresh(ui) {
        let output = npm(ui, &["ci", "--no-audit", "--no-fund"])?;
        if !output.status.success() {
            return Ok(Some(format!("npm ci failed in dashboards/ui: {}", last_lines(&output))));
        }
    }
    let dist = dist.to_string_lossy();
    let output = npm(ui, &["run", "build", "--", "--outDir", &dist, "--emptyOutDir", "--logLevel", "warn"])?;
    if output.status.success() {
        return Ok(None);
    }
    let hint = "BELFRY_UI=plain builds without the page";
    Err(format!("npm run build failed in dashboards/ui ({hint}): {}", last_lines(&output)).into())
}

fn npm(ui: &Path, arguments: &[&str]) -> std::io::Result<Output> {
    Command::new("npm").args(arguments).current_dir(ui).output()
}

/// npm writes this file at the end of an install.
fn packages_are_fresh(ui: &Path) -> bool {
    let changed = |path: PathBuf| fs::metadata(path).and_then(|meta| meta.modified());
    match (changed(ui.join("node_modules/.package-lock.json")), changed(ui.join("package-lock.json"))) {
        (Ok(installed), Ok(wanted)) => installed >= wanted,
        _ => false,
    }
}

fn last_lines(output: &Output) -> String {
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(12)..].join(" | ")
}

fn plain_page(dist: &Path, why: &str) -> Result<(), Box<dyn Error>> {
    let why = why.replace('&', "&amp;").replace('<', "&lt;");
    if dist.exists() {
        fs::remove_dir_all(dist)?;
    }
    fs::create_dir_all(dist)?;
    fs::write(dist.join("index.html"), PLAIN_PAGE.replace("{why}", &why))?;
    Ok(())
}

fn write_assets(table: &mut String, dist: &Path) -> Result<(), Box<dyn Error>> {
    let mut files = Vec::new();
    collect(dist, &mut files)?;
    writeln!(table, "pub(crate) static ASSETS: &[Asset] = &[")?;
    for file in &files {
        if file.extension().is_some_and(|extension| extension == "gz") {
            continue;
        }
        let path = file.strip_prefix(dist)?.to_string_lossy().replace('\\', "/");
        let packed = PathBuf::from(format!("{}.gz", file.display()));
        let gzip =
            if packed.exists() { format!("Some(include_bytes!({packed:?}))") } else { "None".to_owned() };
        writeln!(table, "    Asset {{ path: {path:?}, bytes: include_bytes!({file:?}), gzip: {gzip} }},")?;
    }
    writeln!(table, "];")?;
    Ok(())
}

fn write_runbooks(table: &mut String, runbooks: &Path) -> Result<(), Box<dyn Error>> {
    let mut files = Vec::new();
    if runbooks.exists() {
        collect(runbooks, &mut files)?;
    }
    writeln!(table, "pub(crate) static RUNBOOKS: &[(&str, &str)] = &[")?;
    for file in files {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if file.extension().is_some_and(|extension| extension == "md") && name != "README" {
            writeln!(table, "    ({name:?}, include_str!({:?})),", fs::canonicalize(&file)?)?;
        }
    }
    writeln!(table, "];")?;
    Ok(())
}

/// Every file below a directory, in a stable order.
fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    let mut entries = fs::read_dir(directory)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}
