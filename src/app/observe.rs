//! Starts the observe room: stores, pipeline, read APIs.
//!
//! The stores know nothing of the pipeline and the pipeline nothing of the stores; the two adapters here bring them
//! together.

use std::sync::Arc;

use belfry_door::{Pushes, Tokens};
use belfry_events::{EventsReader, EventsWriter};
use belfry_mesh::{Mesh, PeerConfig};
use belfry_pipeline::metrics::{receive, scrape, send};
use belfry_pipeline::{Entry, Pipeline, PipelineHandle, Store, StoreError, numbered};
use belfry_query::Reader;
use belfry_series::{SeriesReader, SeriesWriter};
use belfry_signal::{RecordReceiver, Registry, Written};

use tokio::runtime::Handle;

use crate::config;

/// What web pages of other sites may ask for once they are invited: questions of Prometheus' API, nothing that changes.
pub(super) const QUERY_PATHS: &[&str] = &[
    "/api/v1/query",
    "/api/v1/query_range",
    "/api/v1/query_exemplars",
    "/api/v1/format_query",
    "/api/v1/parse_query",
    "/api/v1/series",
    "/api/v1/labels",
    "/api/v1/label/",
    "/api/v1/metadata",
    "/api/v1/functions",
    "/api/v1/rules",
    "/api/v1/status/buildinfo",
];

/// Where in the log's directory it is noted how far other stores have it.
const SENT: &str = "sent";

/// The running room.
#[derive(Clone)]
pub struct Observe {
    /// WAL and delivery.
    pub pipeline: PipelineHandle,
    /// Reading.
    pub reader: Reader,
    /// Work on the blocks of metrics.
    pub maintenance: belfry_series::Maintenance,
    /// Reading metrics alone, for rules.
    pub series: SeriesReader,
}

/// Opens the stores and starts the pipeline.
///
/// # Errors
/// When a store or the WAL cannot be opened.
pub fn start(
    config: &config::Observe,
    registry: &Registry,
    records: RecordReceiver,
    tower: &Handle,
) -> anyhow::Result<Observe> {
    let _in_tower = tower.enter();
    let (mut series_writer, series_reader): (SeriesWriter, SeriesReader) =
        belfry_series::Series::open(config.series.clone(), registry)?;
    series_writer.compact_in_background()?;
    let maintenance = series_writer.maintenance();
    let (events_writer, events_reader): (EventsWriter, EventsReader) =
        belfry_events::Events::open(config.events.clone(), registry)?;
    let mut stores: Vec<Box<dyn Store>> =
        vec![Box::new(EventsStore(events_writer)), Box::new(SeriesStore::new(series_writer))];
    if let Some(file) = &config.scrape.file {
        let positions = config.pipeline.directory.join(SENT);
        let senders = send::senders(file, &positions, registry).map_err(anyhow::Error::msg)?;
        stores.extend(senders.into_iter().map(|sender| Box::new(sender) as Box<dyn Store>));
    }
    let pipeline = Pipeline::start(config.pipeline.clone(), registry.clone(), records, stores)?;
    let reader = Reader::new(events_reader, series_reader.clone(), config.query.clone(), registry)
        .with_experimental_promql(config.promql_experimental);
    Ok(Observe { pipeline, reader, maintenance, series: series_reader })
}

/// Starts scraping what the file says, and what others push comes in by the router that this gives too.
///
/// # Errors
/// When the file cannot be used.
pub fn start_doors(
    config: &config::Observe,
    observe: &Observe,
    registry: &Registry,
    peers: &[PeerConfig],
    mesh: &Mesh,
) -> anyhow::Result<(scrape::Scraper, axum::Router)> {
    let pipeline = observe.pipeline.clone();
    let nodes = mesh_nodes(peers.to_vec(), mesh.clone());
    let scraper = scrape::Scraper::start(config.scrape.clone(), pipeline.clone(), registry, nodes);
    let scraper = scraper.map_err(anyhow::Error::msg)?;
    let pushed = receive::router(config.receive.clone(), pipeline, registry).map_err(anyhow::Error::msg)?;
    let router = pushed.merge(scraper.router());
    Ok((scraper, router))
}

/// Where others push metrics, when that asks for tokens of its own.
///
/// # Errors
/// When the token file cannot be used.
pub fn pushes(config: &config::Observe) -> Result<Option<Pushes>, belfry_door::Error> {
    let Some(file) = &config.write_token_file else { return Ok(None) };
    Ok(Some(Pushes { tokens: Arc::new(Tokens::open(file)?), paths: receive::PATHS }))
}

/// The other nodes of the mesh that have an address.
fn mesh_nodes(peers: Vec<PeerConfig>, mesh: Mesh) -> scrape::MeshNodes {
    Arc::new(move || {
        let health = mesh.peers();
        let node = |peer: &PeerConfig| {
            let (host, _port) = peer.address.as_deref()?.rsplit_once(':')?;
            let mut links = health.iter().filter(|link| link.name == peer.name).peekable();
            let is_up = links.peek().is_some().then(|| links.any(|link| link.up));
            Some(scrape::MeshNode { name: peer.name.clone(), host: host.to_owned(), is_up })
        };
        peers.iter().filter_map(node).collect()
    })
}

/// Events as a store of the pipeline.
pub struct EventsStore(pub EventsWriter);

impl Store for EventsStore {
    fn name(&self) -> &'static str {
        "events"
    }

    fn apply(&mut self, position: u64, entries: &[Entry]) -> Result<(), StoreError> {
        let records: Vec<_> = entries
            .iter()
            .filter_map(|entry| match entry {
                Entry::Record(record) => Some(record),
                Entry::Samples { .. } | Entry::Series(_) => None,
            })
            .collect();
        self.0.apply(position, &records).map_err(|error| StoreError::new(error.reason(), error.to_string()))
    }

    fn checkpoint(&self) -> u64 {
        self.0.checkpoint()
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.0.flush().map_err(|error| StoreError::new(error.reason(), error.to_string()))
    }

    fn tick(&mut self, unix_millis: i64) {
        self.0.tick(unix_millis);
    }
}

/// Series as a store of the pipeline.
pub struct SeriesStore {
    writer: SeriesWriter,
    /// What became of the points of the last batch, by position.
    written: Vec<(u64, Written)>,
}

impl SeriesStore {
    /// The store behind this writer.
    #[must_use]
    pub fn new(writer: SeriesWriter) -> Self {
        Self { writer, written: Vec::new() }
    }
}

impl Store for SeriesStore {
    fn name(&self) -> &'static str {
        "series"
    }

    fn apply(&mut self, position: u64, entries: &[Entry]) -> Result<(), StoreError> {
        // A block that cannot be sealed is an error, but its samples are taken: the rest of the batch must be too.
        let mut first_error = None;
        self.written.clear();
        for (position, entry) in numbered(position, entries) {
            let taken = match entry {
                Entry::Record(_) => Ok(()),
                Entry::Samples { unix_millis, samples } => {
                    self.writer.append(position, *unix_millis, samples)
                }
                Entry::Series(batch) => {
                    let (written, sealed) = self.writer.write(position, batch);
                    self.written.push((position, written));
                    sealed
                }
            };
            if let Err(error) = taken {
                first_error.get_or_insert(StoreError::new(error.reason(), error.to_string()).but_taken());
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    fn take_written(&mut self) -> Vec<(u64, Written)> {
        std::mem::take(&mut self.written)
    }

    fn checkpoint(&self) -> u64 {
        self.writer.checkpoint()
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.writer.flush().map_err(|error| StoreError::new(error.reason(), error.to_string()))
    }

    fn tick(&mut self, unix_millis: i64) {
        self.writer.tick(unix_millis);
    }
}
