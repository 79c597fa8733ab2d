//! Starts the alert room: the outbox, the desk that knows rules and routes, the engine that judges SLOs.
//!
//! The desk knows neither the store of series nor the pipeline; the seam here brings them together.

use std::sync::Arc;

use anyhow::Context;
use belfry_engine::{DeskDeps, Engine, EngineDeps, EngineHandle, Metrics, start_desk};
use belfry_notify::{Notify, NotifyHandle};
use belfry_series::PromqlSource;
use belfry_signal::Registry;

use super::observe::Observe;
use crate::config;

/// The store of series as rules need it.
pub(super) fn metrics(observe: &Observe, external_labels: Vec<(String, String)>) -> Metrics {
    let (pipeline, series) = (observe.pipeline.clone(), observe.series.clone());
    Metrics {
        read: Arc::new(move |cancel, work| work(&PromqlSource::strict(&series, cancel))),
        write: Arc::new(move |batch| {
            let pipeline = pipeline.clone();
            Box::pin(async move {
                let written = pipeline.write(batch).await.map_err(|error| error.to_string())?;
                match written.refused.first() {
                    Some((reason, count)) => Err(format!("{count} points were refused: {reason}")),
                    None => Ok(()),
                }
            })
        }),
        external_labels,
    }
}

/// Starts the room. Call it inside a tokio runtime.
pub(super) fn start(
    config: config::Alerts,
    registry: Registry,
    metrics: Option<Metrics>,
) -> anyhow::Result<(NotifyHandle, EngineHandle)> {
    let config::Alerts { engine, mut routing, notify } = config;
    routing.external_url.clone_from(&notify.public_url);
    let sources = routing.read().context("read the rules and routes of alerts")?;
    let notify = Notify::start_with_targets(notify, &sources.targets(), &registry).context("start notify")?;
    let deps = DeskDeps {
        routing,
        sources,
        directory: engine.directory.clone(),
        registry: registry.clone(),
        notify: notify.clone(),
        metrics: metrics.clone(),
    };
    let desk = start_desk(deps).context("start the alert desk")?;
    let deps = EngineDeps { registry, notify: notify.clone(), desk: Some(desk), metrics };
    let engine = Engine::start(engine, deps).context("start the alert engine")?;
    Ok((notify, engine))
}

/// Takes other rules and routes into force.
pub(super) async fn reload(
    engine: &EngineHandle,
    notify: &NotifyHandle,
    config: &config::Alerts,
) -> anyhow::Result<()> {
    let sources = config.routing.read()?;
    notify.set_targets(&sources.targets()).await?;
    if let Some(desk) = engine.desk() {
        desk.reload(sources).await;
    }
    Ok(())
}
