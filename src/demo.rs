//! Everything on loopback with simulated customers, so that a newcomer sees it work and break.
//!
//! The product in it is the product: the same rooms, started from a configuration like anyone's. Only the outside
//! world is played: customers (`belfry-kit`), the portal behind the edge, and PagerDuty.

pub mod backend;
pub mod customers;
pub mod plan;
pub mod report;
pub mod site;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use belfry_kit::PagerDuty;
use belfry_pipeline::{Counts, PipelineHandle};
use belfry_query::{CallFilter, Reader};
use belfry_signal::now_unix_nanos;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::runtime::{Builder, Handle};
use tokio::time::Instant;

use crate::admin::Order;
use crate::app::{App, Surroundings};
use crate::cli::{DemoArguments, Fault};
use crate::commands::{complain, say};
use crate::config::Config;
use crate::run::{Heard, Obeyed, Runtimes, refuse};
use crate::terminal;
use backend::Backend;
use customers::Customers;
use plan::{FaultWindow, Turn, timetable};
use site::{DOMAIN, Doors, ROUTING_KEY, ROUTING_KEY_FILE};

/// The share of packets that the fault `media-loss` drops, in parts per million.
const LOSS_PPM: u32 = 80_000;
/// How late the portal answers under the fault `edge-slow`.
const PORTAL_DELAY: Duration = Duration::from_millis(900);
/// How late the registrar answers under the fault `registrar-slow`.
const REGISTRAR_DELAY: Duration = Duration::from_millis(1200);

/// How long the report waits for records that are still on their way, and how often it looks.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);
const SETTLE_STEP: Duration = Duration::from_millis(20);
/// How many of the last calls the report's scores are made of.
const CALLS_SCORED_MAX: usize = 1000;

/// Runs a demo to its end.
///
/// # Errors
/// When it cannot be started, or the report cannot be written.
pub fn run(arguments: &DemoArguments) -> anyhow::Result<ExitCode> {
    let kept = arguments.data.clone();
    let fresh = tempfile::Builder::new().prefix("belfry-demo-").tempdir().context("make a data directory")?;
    let data = kept.unwrap_or_else(|| fresh.path().to_owned());
    std::fs::create_dir_all(&data).with_context(|| format!("make the data directory {}", data.display()))?;
    write_routing_key(&data)?;
    let doors = Doors::new(arguments.port_offset);
    let text = site::configuration(&data, doors);
    let config = match Config::parse("the demo's configuration", &text, &[]) {
        Ok(config) => config,
        Err(faults) => return Ok(refuse(&faults)),
    };
    let set_log_level = terminal::install(&config.node.log)?;
    let runtimes = Runtimes::new(config.node.data_threads, config.node.tower_threads)?;
    let surroundings = Surroundings {
        data: runtimes.data.handle().clone(),
        tower: runtimes.tower.handle().clone(),
        set_log_level,
        has_faults: true,
    };
    // The customers have threads of their own: the product's runtimes carry nothing but the product.
    let customers_runtime = Builder::new_multi_thread().thread_name("customers").enable_all().build()?;
    let customers = customers_runtime.handle().clone();
    let demo = async {
        let scene = Box::pin(Scene::set(config, &text, surroundings, doors, &data, &customers)).await?;
        Box::pin(scene.play(arguments)).await
    };
    let ended = runtimes.tower.block_on(demo);
    customers_runtime.shutdown_background();
    ended
}

/// A demo that runs.
struct Scene {
    app: App,
    customers: Customers,
    backend: Backend,
    pagerduty: PagerDuty,
    doors: Doors,
    obeyed: Obeyed,
    started: Instant,
    started_unix_nanos: u64,
    windows: Vec<FaultWindow>,
}

impl Scene {
    async fn set(
        config: Config,
        text: &str,
        surroundings: Surroundings,
        doors: Doors,
        data: &Path,
        customers_runtime: &Handle,
    ) -> anyhow::Result<Self> {
        let progress = progress();
        progress.set_message("the outside world: a portal and a stand-in for PagerDuty");
        let obeyed = Obeyed::new().context("listen for signals")?;
        let backend = Backend::start(doors.backend())
            .await
            .with_context(|| format!("listen on {}: another demo? try --port-offset 100", doors.backend()))?;
        let pagerduty = PagerDuty::start(doors.pagerduty(), &[ROUTING_KEY]).await.with_context(|| {
            format!("listen on {}: another demo? try --port-offset 100", doors.pagerduty())
        })?;
        progress.set_message("the rooms: observe, alerts, dashboard, media, core, edge");
        let app = Box::pin(App::start(config, text, surroundings))
            .await
            .context("start the rooms (is a port taken? try --port-offset 100)")?;
        progress.set_message("the customers: subscribing and registering them");
        app.subscribe(customers::subscribers(DOMAIN)).await?;
        let ca = std::fs::read(ca_file(data)).with_context(|| format!("read {}", ca_file(data).display()))?;
        let customers = Customers::start(doors, &ca, customers_runtime).await?;
        progress.finish_and_clear();
        let scene = Self {
            app,
            customers,
            backend,
            pagerduty,
            doors,
            obeyed,
            started: Instant::now(),
            started_unix_nanos: now_unix_nanos(),
            windows: Vec::new(),
        };
        scene.say_where(data);
        Ok(scene)
    }

    /// Runs until the time is over or somebody says stop; then stops in order and reports.
    async fn play(mut self, arguments: &DemoArguments) -> anyhow::Result<ExitCode> {
        let mut turns: Vec<Turn> = timetable(&arguments.faults);
        let end = arguments.seconds.map(|seconds| self.started + Duration::from_secs(seconds));
        loop {
            let next_turn = turns.first().map(|turn| self.started + turn.at);
            let wake = [next_turn, end].into_iter().flatten().min();
            let heard = tokio::select! {
                heard = self.obeyed.next_or(self.app.next_order()) => heard,
                () = sleep_until(wake) => {
                    if end.is_some_and(|end| Instant::now() >= end) {
                        break;
                    }
                    let turn = turns.remove(0);
                    self.switch(turn.fault, turn.is_on).await?;
                    continue;
                }
            };
            match heard {
                Heard::Order(Some(Order::Fault(fault, is_on))) => self.switch(fault, is_on).await?,
                Heard::Stop | Heard::Order(Some(Order::Drain) | None) => break,
                Heard::Reload => {
                    say("the demo's configuration is made by the demo; there is nothing to reload")
                }
            }
        }
        Box::pin(self.finish(arguments.report.clone())).await
    }

    async fn switch(&mut self, fault: Fault, is_on: bool) -> anyhow::Result<()> {
        let seconds = self.started.elapsed().as_secs_f64();
        let open =
            self.windows.iter_mut().find(|window| window.fault == fault && window.until_seconds.is_none());
        match (open, is_on) {
            (None, true) => {
                self.windows.push(FaultWindow { fault, from_seconds: seconds, until_seconds: None });
            }
            (Some(window), false) => window.until_seconds = Some(seconds),
            // Switching on what is on, or off what is off, changes nothing.
            (Some(_), true) | (None, false) => return Ok(()),
        }
        match fault {
            Fault::CoreErrors => self.app.faults.core.set_answer_503(is_on),
            Fault::MediaLoss => self.app.faults.relay.set_loss(if is_on { LOSS_PPM } else { 0 }),
            Fault::EdgeSlow => self.backend.set_delay(if is_on { PORTAL_DELAY } else { Duration::ZERO }),
            Fault::RegistrarSlow => {
                self.app.faults.core.set_register_delay(if is_on { REGISTRAR_DELAY } else { Duration::ZERO });
            }
            Fault::CoreDown if is_on => self.app.stop_core().await,
            Fault::CoreDown => self.app.start_core().await?,
        }
        self.app.note_fault(fault.as_str(), is_on);
        say(&format!("{seconds:6.1} s  fault {} {}", fault.as_str(), if is_on { "on" } else { "off" }));
        Ok(())
    }

    async fn finish(mut self, report: Option<PathBuf>) -> anyhow::Result<ExitCode> {
        let seconds = self.started.elapsed().as_secs();
        say("ending the calls that are under way");
        let tally = self.customers.stop().await;
        let pages = report::pages(&self.pagerduty.inbox().incidents, self.started_unix_nanos, &self.windows);
        let Some(observe) = &self.app.observe else { bail!("the demo's configuration has no [observe]") };
        let counts = settled(&observe.pipeline).await;
        let signals =
            report::Signals { emitted: counts.emitted, stored: counts.stored, dropped: counts.dropped };
        let mos = scores(&observe.reader).await;
        let told = report::Report {
            seconds,
            calls: tally.calls(&self.windows, self.started),
            registrations: tally.registrations,
            http: tally.http,
            mos,
            signals,
            pages,
        };
        let drained = self.app.drain(self.obeyed.stop()).await;
        for straggler in &drained.stragglers {
            complain(&format!("did not finish: {straggler}"));
        }
        let json = serde_json::to_string_pretty(&told)?;
        match report {
            Some(path) => {
                std::fs::write(&path, format!("{json}\n"))
                    .with_context(|| format!("write {}", path.display()))?;
                say(&format!("report written to {}", path.display()));
            }
            None => say(&json),
        }
        Ok(ExitCode::SUCCESS)
    }

    fn say_where(&self, data: &Path) {
        let doors = self.doors;
        let login = self.app.dashboard.as_ref().and_then(belfry_dashboard::DashboardHandle::login_link);
        let login = login.unwrap_or_else(|| format!("http://{}", doors.page()));
        let admin =
            if doors.admin().port() == 9901 { String::new() } else { format!(" --admin {}", doors.admin()) };
        let api = if doors.api().port() == 9090 { String::new() } else { format!(" --api {}", doors.api()) };
        let me = std::env::args().next().unwrap_or_else(|| "belfry".to_owned());
        say(&format!(
            "\n  Belfry is running, with {} simulated customers in three countries.\n\n  \
             control tower   {login}\n  \
             pages arrive    http://{}/inbox   (a stand-in for PagerDuty)\n  \
             edge            https://{}   sip:{} (udp, tcp)   sips:{}\n  \
             read APIs       http://{}   admin http://{}\n  \
             data            {}\n\n  \
             look            {me} slo{api}\n  \
             break           {me} fault core-errors on{admin}    (and off; others: media-loss, edge-slow, core-down, registrar-slow)\n  \
             stop            Ctrl-C\n",
            customers::count(),
            doors.pagerduty(),
            doors.tls(),
            doors.sip(),
            doors.sips(),
            doors.api(),
            doors.admin(),
            data.display(),
        ));
    }
}

/// What became of all records. The house goes on telling for a moment after its last customer has left: a record
/// that came between a flush and the count is in the next flush. What is lost stays missing, and is reported.
async fn settled(pipeline: &PipelineHandle) -> Counts {
    let until = Instant::now() + SETTLE_TIMEOUT;
    loop {
        pipeline.flush().await;
        let counts = pipeline.counts();
        let is_settled = counts.emitted == counts.stored + counts.dropped;
        if is_settled || Instant::now() >= until {
            return counts;
        }
        tokio::time::sleep(SETTLE_STEP).await;
    }
}

/// Scores of the last thousand calls, as the relay measured them.
async fn scores(reader: &Reader) -> report::Scores {
    let filter = CallFilter { limit: CALLS_SCORED_MAX, ..CallFilter::default() };
    let mut scores: Vec<f64> = match reader.calls(filter).await {
        Ok(found) => found.rows.iter().filter_map(|row| row.call.mos_mean).collect(),
        Err(error) => {
            complain(&format!("the calls cannot be read: {error}"));
            Vec::new()
        }
    };
    report::Scores { p5: report::quantile(&mut scores, 0.05), p50: report::quantile(&mut scores, 0.5) }
}

/// Where the edge's local authority keeps the certificate that clients trust.
fn ca_file(data: &Path) -> PathBuf {
    data.join("edge/tls/ca.pem")
}

fn write_routing_key(data: &Path) -> anyhow::Result<()> {
    let path = data.join(ROUTING_KEY_FILE);
    let folder = path.parent().unwrap_or(data);
    std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    std::fs::write(&path, ROUTING_KEY).with_context(|| format!("write {}", path.display()))
}

fn progress() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => std::future::pending().await,
    }
}
