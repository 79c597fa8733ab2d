//! What an operator sees on the terminal of a running Belfry: log lines with private values redacted.

use std::sync::Arc;

use anyhow::Context;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

use crate::admin::SetLogLevel;

/// Installs the subscriber, once per process; returns the switch behind `/log-level`.
///
/// # Errors
/// When the filter cannot be read, or a subscriber is installed already.
pub fn install(filter: &str) -> anyhow::Result<SetLogLevel> {
    let parsed = EnvFilter::try_new(filter).with_context(|| format!("read the log filter {filter:?}"))?;
    let (layer, handle) = reload::Layer::new(parsed);
    tracing_subscriber::registry()
        .with(layer)
        .with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false))
        .try_init()
        .context("install the log subscriber")?;
    // Libraries that log through `log` (Pingora, Tantivy) come to the same place.
    tracing_log::LogTracer::init().context("bridge the libraries' log lines")?;
    Ok(Arc::new(move |filter: &str| {
        let parsed = EnvFilter::try_new(filter)
            .map_err(|error| format!("{error}; write LEVEL or TARGET=LEVEL, as in warn,belfry=debug"))?;
        handle.reload(parsed).map_err(|error| error.to_string())
    }))
}
