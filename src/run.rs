//! `belfry run`: start what the configuration names, obey signals, stop in order.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::admin::Order;
use crate::app::{App, Surroundings};
use crate::commands::{complain, say};
use crate::config::{Config, Fault};
use crate::terminal;

/// The exit code for a wrong configuration (`EX_CONFIG` of sysexits).
pub const EXIT_CONFIG: u8 = 78;

/// Tasks that run before a busy thread looks whether a socket has something: those of a message's way, once each.
const TASKS_PER_LOOK: u32 = 4;

/// The two runtimes of the process, by what must not disturb what.
pub struct Runtimes {
    /// Carries calls.
    pub data: Runtime,
    /// Watches.
    pub tower: Runtime,
}

impl Runtimes {
    /// Builds both.
    ///
    /// # Errors
    /// When the system refuses threads.
    pub fn new(data_threads: usize, tower_threads: usize) -> anyhow::Result<Self> {
        let build = |name: &str, threads: usize| {
            Builder::new_multi_thread()
                .worker_threads(threads)
                .thread_name(name)
                // Tasks here are long, a batch of messages each: sockets are looked at after a round of them.
                .event_interval(TASKS_PER_LOOK)
                .enable_all()
                .build()
        };
        Ok(Self { data: build("belfry-data", data_threads)?, tower: build("belfry-tower", tower_threads)? })
    }
}

/// Runs a configuration until it is told to stop.
///
/// # Errors
/// When a room cannot be started.
pub fn run(path: &Path) -> anyhow::Result<ExitCode> {
    let (config, text) = match load(path) {
        Ok(loaded) => loaded,
        Err(faults) => return Ok(refuse(&faults)),
    };
    let set_log_level = terminal::install(&config.node.log)?;
    std::fs::create_dir_all(&config.node.data)
        .with_context(|| format!("make the data directory {}", config.node.data.display()))?;
    let runtimes = Runtimes::new(config.node.data_threads, config.node.tower_threads)?;
    let surroundings = Surroundings {
        data: runtimes.data.handle().clone(),
        tower: runtimes.tower.handle().clone(),
        set_log_level,
        has_faults: false,
    };
    runtimes.tower.block_on(serve(config, &text, surroundings, path.to_owned()))
}

/// Reads a configuration file with the environment over it, and keeps its text for `/config`.
///
/// # Errors
/// Every fault of the file.
pub fn load(path: &Path) -> Result<(Config, String), Vec<Fault>> {
    let environment: Vec<(String, String)> = std::env::vars().collect();
    let config = Config::load(path, &environment)?;
    let text = std::fs::read_to_string(path).unwrap_or_default();
    Ok((config, text))
}

/// Names every fault of a configuration.
#[must_use]
pub fn refuse(faults: &[Fault]) -> ExitCode {
    for fault in faults {
        complain(&fault.to_string());
    }
    ExitCode::from(EXIT_CONFIG)
}

/// What the main loop was told.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGHUP.
    Reload,
    /// Through the admin door; absent when the door is gone.
    Order(Option<Order>),
}

/// The signals that a running Belfry obeys.
pub struct Obeyed {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Obeyed {
    /// Begins to listen for them.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for a signal or an order, whichever comes first.
    pub async fn next_or(&mut self, order: impl Future<Output = Option<Order>>) -> Heard {
        tokio::select! {
            _ = self.terminate.recv() => Heard::Stop,
            _ = self.interrupt.recv() => Heard::Stop,
            _ = self.hang_up.recv() => Heard::Reload,
            order = order => Heard::Order(order),
        }
    }

    /// Waits for a signal that means stop.
    pub async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

async fn serve(
    config: Config,
    text: &str,
    surroundings: Surroundings,
    path: PathBuf,
) -> anyhow::Result<ExitCode> {
    let mut obeyed = Obeyed::new().context("listen for signals")?;
    let mut app = Box::pin(App::start(config, text, surroundings)).await?;
    say_where(&app);
    loop {
        match obeyed.next_or(app.next_order()).await {
            Heard::Reload => {
                for fault in app.reload(load(&path)).await {
                    complain(&fault);
                }
            }
            Heard::Stop | Heard::Order(Some(Order::Drain) | None) => break,
            // The admin door refuses faults outside a demo.
            Heard::Order(Some(Order::Fault(..))) => {}
        }
    }
    say("draining; a second signal stops at once");
    let drained = app.drain(obeyed.stop()).await;
    for straggler in &drained.stragglers {
        complain(&format!("did not finish: {straggler}"));
    }
    Ok(if drained.stragglers.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Says where the doors are, once, on standard output.
fn say_where(app: &App) {
    if let Some(gateway) = &app.gateway {
        for (listener, address) in gateway.addresses() {
            say(&format!("edge {listener}: {address}"));
        }
    }
    if let Some(api) = &app.api {
        say(&format!("read APIs: http://{}", api.local_addr()));
    }
    for (door, address) in app.ingest.iter().flat_map(|doors| doors.addresses()) {
        say(&format!("telemetry by {door}: {address}"));
    }
    if let Some(dashboard) = &app.dashboard {
        say(&format!("control tower: http://{}", dashboard.local_addr()));
        if let Some(link) = dashboard.login_link() {
            say(&format!("first login: {link}"));
        }
    }
    say(&format!("admin: http://{}", app.admin.local_addr()));
}
