//! Scraping: pages of metrics that we fetch, from targets that are found and rewritten as a `prometheus.yml` says.
//!
//! One task per target, at its own place within the interval, so that targets are spread over it and keep their place over
//! a restart. One bound on all that are under way at once. What a page came to is written like everything else that
//! comes from outside; a series that is not on the page any more is marked as ended.

mod api;
mod client;
pub mod config;
mod discovery;
mod manager;
mod masked;
mod page;
mod target;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use belfry_signal::Registry;
use serde::Deserialize;

use self::config::FileConfig;
use self::manager::Manager;
use super::signals::ScrapeSignals;
use crate::handle::PipelineHandle;

pub(crate) use self::client::{Client, HttpConfig, unzipped};
pub use self::discovery::MeshNode;

/// The `[observe.scrape]` section of `belfry.toml`: what we fetch.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// A file as Prometheus has it, with `global`, `scrape_configs` and `remote_write`; none: nothing is scraped.
    pub file: Option<PathBuf>,
    /// Targets over all jobs; more are counted and not scraped.
    pub targets_max: usize,
    /// Scrapes under way at once; others wait within their interval.
    pub scrapes_max: usize,
    /// Bytes of a page, where a job says nothing else.
    pub page_bytes_max: usize,
}

impl Config {
    /// The defaults of `belfry.toml`, for tools and tests.
    #[must_use]
    pub fn shipped() -> Self {
        Self { file: None, targets_max: 10_000, scrapes_max: 64, page_bytes_max: 64 << 20 }
    }

    /// Every fault: the key inside the section, and what is wrong with it and what is allowed.
    #[must_use]
    pub fn check(&self) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        let mut expect = |is_good: bool, key: &str, text: &str| {
            if !is_good {
                faults.push((key.to_owned(), text.to_owned()));
            }
        };
        expect((1..=1_000_000).contains(&self.targets_max), "targets_max", "use 1 to 1000000 targets");
        expect((1..=10_000).contains(&self.scrapes_max), "scrapes_max", "use 1 to 10000 scrapes");
        expect(
            (1024..=1 << 30).contains(&self.page_bytes_max),
            "page_bytes_max",
            "use 1024 to 1073741824 bytes",
        );
        faults
    }

    /// What is wrong with the file, with its place.
    #[must_use]
    pub fn check_file(&self) -> Option<String> {
        self.file.as_deref().and_then(|path| FileConfig::load(path).err())
    }
}

/// What tells the nodes of this mesh, for `mesh_sd_configs`.
pub type MeshNodes = Arc<dyn Fn() -> Vec<MeshNode> + Send + Sync>;

/// What is scraped, as the root holds it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Scraper {
    manager: Arc<Manager>,
}

impl Scraper {
    /// Starts scraping what the file says. Needs a runtime.
    ///
    /// # Errors
    /// What is wrong with the file, with its place.
    pub fn start(
        config: Config,
        pipeline: PipelineHandle,
        registry: &Registry,
        nodes: MeshNodes,
    ) -> Result<Self, String> {
        let signals = ScrapeSignals::register(registry);
        let manager = Manager::new(config, pipeline, signals, nodes);
        manager.apply()?;
        Ok(Self { manager: Arc::new(manager) })
    }

    /// Reads the file again: jobs that did not change go on undisturbed.
    ///
    /// # Errors
    /// What is wrong with the file; then everything stays as it is.
    pub fn reload(&self) -> Result<(), String> {
        self.manager.apply()
    }

    /// Ends all scraping. What was on the pages is not marked as ended: it is only not looked at any more.
    pub fn stop(&self) {
        self.manager.stop();
    }

    /// `GET /api/v1/targets`, `targets/metadata`, `scrape_pools` and `status/config`, in the shapes of Prometheus.
    pub fn router(&self) -> axum::Router {
        api::router(Arc::clone(&self.manager))
    }
}

/// Milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
}
