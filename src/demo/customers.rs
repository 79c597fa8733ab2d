//! The demo's customers: phones in three countries that register and call each other over UDP, TLS and WSS with real
//! sound, and visitors of the portal over HTTPS. What they do is real; only who they are is played.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use belfry_kit::https::{Connection, HttpsConfig};
use belfry_kit::{AnswerPlan, CallPlan, Phone, PhoneConfig, Transport, Trust};
use belfry_state::Subscriber;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::plan::FaultWindow;
use super::report;
use super::site::{DOMAIN, Doors, LANDS, Land};

/// Phones that call, per country.
const CALLERS: u8 = 8;
/// Phones that answer, per country.
const CALLEES: u8 = 8;
/// Visitors of the portal, per country.
const VISITORS: u8 = 6;
/// The password of every simulated customer.
const PASSWORD: &str = "a-demo-password";
/// Milliseconds of talk.
const TALK_MS: std::ops::Range<u64> = 2_500..4_000;
/// Milliseconds between two calls of one phone.
const PAUSE_MS: std::ops::Range<u64> = 300..1_200;
/// Milliseconds between two registrations of one phone.
const REGISTER_MS: std::ops::Range<u64> = 8_000..12_000;
/// Milliseconds between two requests of one visitor.
const VISIT_MS: std::ops::Range<u64> = 900..1_300;
/// How long the calls that are under way at the end may take.
const LAST_CALLS: Duration = Duration::from_secs(15);
/// How long the customers may take to register at the start.
const FIRST_REGISTRATIONS: Duration = Duration::from_secs(30);

/// How many customers there are.
#[must_use]
pub fn count() -> usize {
    usize::from(CALLERS + CALLEES + VISITORS) * LANDS.len()
}

/// Those of them who may register.
#[must_use]
pub fn subscribers(domain: &str) -> Vec<Subscriber> {
    LANDS
        .iter()
        .flat_map(|land| {
            let callers = (1..=CALLERS).map(|number| user("caller", land, number));
            callers.chain((1..=CALLEES).map(|number| user("callee", land, number)))
        })
        .map(|user| Subscriber::new(&user, domain, PASSWORD))
        .collect()
}

fn user(kind: &str, land: &Land, number: u8) -> String {
    format!("{kind}-{}-{number}", land.region)
}

/// One call that is over.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Done {
    from: Instant,
    until: Instant,
    is_completed: bool,
}

/// What the customers did.
#[derive(Debug, Default)]
struct Counts {
    calls: Mutex<Vec<Done>>,
    registrations_tried: AtomicU64,
    registrations_ok: AtomicU64,
    requests: AtomicU64,
    requests_ok: AtomicU64,
}

/// What the customers did, told at the end.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    calls: Vec<Done>,
    /// Registrations.
    pub registrations: report::Attempts,
    /// Visits of the portal.
    pub http: report::Requests,
}

impl Tally {
    /// Calls, and how many were completed of those that met no fault; the windows are counted from `started`.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts of calls")]
    pub fn calls(&self, windows: &[FaultWindow], started: Instant) -> report::Calls {
        let seconds = |at: Instant| at.saturating_duration_since(started).as_secs_f64();
        let count = |calls: &mut dyn Iterator<Item = &Done>| -> (u64, u64) {
            calls.fold((0, 0), |(tried, completed), call| {
                (tried + 1, completed + u64::from(call.is_completed))
            })
        };
        let meets =
            |call: &&Done| windows.iter().any(|window| window.meets(seconds(call.from), seconds(call.until)));
        let (tried, completed) = count(&mut self.calls.iter());
        let (outside, completed_outside) = count(&mut self.calls.iter().filter(|call| !meets(call)));
        let completed_ratio_outside_faults =
            if outside == 0 { 1.0 } else { completed_outside as f64 / outside as f64 };
        report::Calls { tried, completed, completed_ratio_outside_faults }
    }
}

/// The customers, busy until they are told to stop.
pub struct Customers {
    tasks: JoinSet<()>,
    stop: CancellationToken,
    counts: Arc<Counts>,
}

/// What every customer needs to know.
#[derive(Clone)]
struct World {
    doors: Doors,
    trust: Trust,
    stop: CancellationToken,
    counts: Arc<Counts>,
}

impl Customers {
    /// Registers all phones, then lets everybody go about their business on `runtime`.
    ///
    /// # Errors
    /// When the edge's authority cannot be read, or a phone cannot register.
    pub async fn start(doors: Doors, ca_pem: &[u8], runtime: &Handle) -> anyhow::Result<Self> {
        let world = World {
            doors,
            trust: Trust::from_pem(ca_pem).context("read the edge's authority")?,
            stop: CancellationToken::new(),
            counts: Arc::default(),
        };
        let mut ready = JoinSet::new();
        for land in LANDS {
            for number in 1..=CALLEES {
                ready.spawn_on(world.clone().registered("callee", land, number), runtime);
            }
            for number in 1..=CALLERS {
                ready.spawn_on(world.clone().registered("caller", land, number), runtime);
            }
        }
        let mut tasks = JoinSet::new();
        let all_registered = async {
            while let Some(phone) = ready.join_next().await {
                let (kind, phone) = phone.context("register a customer")??;
                match kind {
                    "callee" => tasks.spawn_on(world.clone().answer(phone), runtime),
                    _ => tasks.spawn_on(world.clone().call(phone), runtime),
                };
            }
            anyhow::Ok(())
        };
        timeout(FIRST_REGISTRATIONS, all_registered)
            .await
            .context("the customers did not register in time")??;
        for land in LANDS {
            for number in 1..=VISITORS {
                tasks.spawn_on(world.clone().visit(land, number), runtime);
            }
        }
        Ok(Self { tasks, stop: world.stop, counts: world.counts })
    }

    /// Lets the calls that are under way end, and tells what was done.
    pub async fn stop(mut self) -> Tally {
        self.stop.cancel();
        let all_home = async { while self.tasks.join_next().await.is_some() {} };
        // Whoever is not home by then is cut off with the runtime; the calls so far are counted.
        let _in_time = timeout(LAST_CALLS, all_home).await;
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Tally {
            calls: self.counts.calls.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            registrations: report::Attempts {
                tried: load(&self.counts.registrations_tried),
                ok: load(&self.counts.registrations_ok),
            },
            http: report::Requests {
                requests: load(&self.counts.requests),
                ok: load(&self.counts.requests_ok),
            },
        }
    }
}

impl World {
    /// A phone that is switched on and registered, over the transport that its number gives it.
    async fn registered(
        self,
        kind: &'static str,
        land: Land,
        number: u8,
    ) -> anyhow::Result<(&'static str, Seat)> {
        let (transport, edge) = match number % 3 {
            0 => (Transport::Wss, self.doors.tls()),
            1 => (Transport::Udp, self.doors.sip()),
            _ => (Transport::Tls, self.doors.sips()),
        };
        let config = PhoneConfig {
            transport,
            server_name: "localhost".to_owned(),
            websocket_path: "/ws".to_owned(),
            trust: Some(self.trust.clone()),
            source: land.address(if kind == "caller" { number } else { 100 + number }),
            answer: AnswerPlan::Answer { ring: Duration::from_millis(rand::random_range(100..300)) },
            ..PhoneConfig::new(&user(kind, &land, number), DOMAIN, PASSWORD, edge)
        };
        let seat = Seat { phone: Phone::start(config.clone()).await?, config };
        self.counts.registrations_tried.fetch_add(1, Ordering::Relaxed);
        seat.phone
            .register()
            .await
            .with_context(|| format!("register {}", seat.phone.address_of_record()))?;
        self.counts.registrations_ok.fetch_add(1, Ordering::Relaxed);
        Ok((kind, seat))
    }

    /// Keeps a phone registered; it answers calls by itself.
    async fn answer(self, mut seat: Seat) {
        while self.pause(REGISTER_MS).await {
            self.register(&mut seat).await;
        }
        // Those who call finish their calls first; a phone that went off would spoil them.
        sleep(Duration::from_millis(TALK_MS.end + 1_000)).await;
    }

    /// Calls one phone after the other, and registers from time to time.
    async fn call(self, mut seat: Seat) {
        let mut register_at = Instant::now() + milliseconds(REGISTER_MS);
        // Not all at once.
        let mut goes_on = self.pause(0..TALK_MS.end).await;
        while goes_on {
            if Instant::now() >= register_at {
                register_at = Instant::now() + milliseconds(REGISTER_MS);
                self.register(&mut seat).await;
            }
            let callee =
                user("callee", &LANDS[rand::random_range(0..LANDS.len())], rand::random_range(1..=CALLEES));
            let from = Instant::now();
            let plan = CallPlan::talk(milliseconds(TALK_MS));
            let report = seat.phone.call(&format!("sip:{callee}@{DOMAIN}"), plan).await;
            let done = Done { from, until: Instant::now(), is_completed: report.is_completed() };
            self.counts.calls.lock().unwrap_or_else(PoisonError::into_inner).push(done);
            goes_on = self.pause(PAUSE_MS).await;
        }
    }

    /// Visits the portal, by h2 or HTTP/1.1.
    async fn visit(self, land: Land, number: u8) {
        let config = HttpsConfig {
            edge: self.doors.tls(),
            server_name: "localhost".to_owned(),
            source: land.address(200 + number),
            trust: self.trust.clone(),
            is_http2: number.is_multiple_of(2),
            timeout: Duration::from_secs(5),
        };
        let mut open: Option<Connection> = None;
        while self.pause(VISIT_MS).await {
            self.counts.requests.fetch_add(1, Ordering::Relaxed);
            let mut connection = match open.take() {
                Some(connection) => connection,
                None => match Connection::open(config.clone()).await {
                    Ok(connection) => connection,
                    Err(_) => continue,
                },
            };
            // A connection that failed is not used again.
            if let Ok(answer) = connection.get("/account", &[]).await {
                self.counts.requests_ok.fetch_add(u64::from(answer.status == 200), Ordering::Relaxed);
                open = Some(connection);
            }
        }
    }

    async fn register(&self, seat: &mut Seat) {
        self.counts.registrations_tried.fetch_add(1, Ordering::Relaxed);
        if !seat.phone.is_connected() {
            match Phone::start(seat.config.clone()).await {
                Ok(phone) => seat.phone = phone,
                Err(_) => return,
            }
        }
        if seat.phone.register().await.is_ok() {
            self.counts.registrations_ok.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits a random time; false when the demo is over.
    async fn pause(&self, range: std::ops::Range<u64>) -> bool {
        tokio::select! {
            () = sleep(milliseconds(range)) => true,
            () = self.stop.cancelled() => false,
        }
    }
}

/// A phone with what is needed to switch it on again.
struct Seat {
    phone: Phone,
    config: PhoneConfig,
}

fn milliseconds(range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(rand::random_range(range))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Fault;

    #[test]
    fn only_calls_that_met_no_fault_count_against_us() {
        let started = Instant::now();
        let done = |from: u64, until: u64, is_completed| Done {
            from: started + Duration::from_secs(from),
            until: started + Duration::from_secs(until),
            is_completed,
        };
        let calls = vec![done(0, 3, true), done(5, 8, false), done(21, 22, false), done(50, 53, true)];
        let tally = Tally { calls, ..Tally::default() };
        let window = FaultWindow { fault: Fault::CoreErrors, from_seconds: 20.0, until_seconds: Some(45.0) };
        let calls = tally.calls(&[window], started);
        assert_eq!((calls.tried, calls.completed), (4, 2));
        assert!((calls.completed_ratio_outside_faults - 2.0 / 3.0).abs() < 1e-9);
    }
}
