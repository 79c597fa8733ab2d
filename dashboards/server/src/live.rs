//! The live stream: what is on the wall, each second, to everybody who looks.
//!
//! A stream sends `trend` once, `snapshot` with every look of the engine, `point` with every trend step and
//! `heartbeat` on its own clock, so that a viewer can tell a silent engine from a lost connection.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use belfry_signal::GaugeGuard;
use futures_util::stream;
use http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use crate::access::{InSession, refusal};
use crate::handle::stopped;
use crate::json::{Heartbeat, millis};
use crate::routes::App;
use crate::sessions::TokenHash;
use crate::signals::Bounded;
use crate::status::View;

/// Viewers that miss two of these say STALE.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// `GET /api/live`.
pub(crate) async fn live(State(app): State<Arc<App>>, Extension(session): Extension<InSession>) -> Response {
    let Ok(permit) = Arc::clone(&app.live_streams).try_acquire_owned() else {
        app.signals.bound_reached(Bounded::LiveStream);
        return refusal(StatusCode::SERVICE_UNAVAILABLE, "too many live streams are open");
    };
    let viewer = Viewer::new(&app, session.0, permit);
    let events = stream::unfold(viewer, |mut viewer| async move {
        let event = viewer.next().await?;
        Some((Ok::<_, Infallible>(event), viewer))
    });
    Sse::new(events).into_response()
}

/// One open stream.
struct Viewer {
    app: Arc<App>,
    session: TokenHash,
    views: watch::Receiver<Arc<View>>,
    stop: watch::Receiver<bool>,
    heartbeats: Interval,
    /// What is still to be sent of the last look: at most a trend, a point and a snapshot.
    waiting: VecDeque<Event>,
    /// The trend step that was sent last.
    step: u64,
    _permit: OwnedSemaphorePermit,
    _open: GaugeGuard,
}

impl Viewer {
    fn new(app: &Arc<App>, session: TokenHash, permit: OwnedSemaphorePermit) -> Self {
        let mut views = app.views.clone();
        let view = Arc::clone(&views.borrow_and_update());
        let mut heartbeats = interval(HEARTBEAT);
        heartbeats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            app: Arc::clone(app),
            session,
            views,
            stop: app.stop.clone(),
            heartbeats,
            waiting: VecDeque::from([event("trend", &view.trend), event("snapshot", &view.snapshot)]),
            step: view.step,
            _permit: permit,
            _open: app.signals.live_stream_opened(),
        }
    }

    /// The next event; none when the session ended or we stop.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Some(event);
            }
            tokio::select! {
                biased;
                () = stopped(&mut self.stop) => return None,
                now = self.heartbeats.tick() => return self.beat(now),
                // When the engine is gone the sender is too; heartbeats go on and the figures visibly age.
                Ok(()) = self.views.changed() => self.look(),
            }
        }
    }

    /// An open page counts as use of its session, and ends with it.
    fn beat(&self, now: Instant) -> Option<Event> {
        if !self.app.sessions.touch(self.session, now) {
            return None;
        }
        let at_ms = millis(belfry_signal::now_unix_nanos());
        let interval_ms = u64::try_from(HEARTBEAT.as_millis()).unwrap_or(u64::MAX);
        let beat = Heartbeat { at_ms, interval_ms, page: self.app.assets.version() };
        Event::default().event("heartbeat").json_data(beat).ok()
    }

    fn look(&mut self) {
        let view = Arc::clone(&self.views.borrow_and_update());
        if view.step == self.step + 1 {
            self.waiting.push_back(event("point", &view.point));
        } else if view.step != self.step {
            self.waiting.push_back(event("trend", &view.trend));
        }
        self.step = view.step;
        self.waiting.push_back(event("snapshot", &view.snapshot));
    }
}

fn event(name: &str, json: &str) -> Event {
    Event::default().event(name).data(json)
}
