//! Stopping in order: what carries calls first, what watches last, and whoever does not finish is named.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use crate::signals::Signals;

type Draining = Pin<Box<dyn Future<Output = Vec<String>> + Send>>;

/// One room's part in the drain.
pub struct Step {
    name: &'static str,
    deadline: Duration,
    start: Box<dyn FnOnce(Duration) -> Draining + Send>,
}

impl Step {
    /// A room that stops accepting, finishes within the deadline, and returns the names of what did not.
    pub fn new<F>(
        name: &'static str,
        deadline: Duration,
        start: impl FnOnce(Duration) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = Vec<String>> + Send + 'static,
    {
        Self { name, deadline, start: Box::new(move |deadline| Box::pin(start(deadline))) }
    }
}

/// How a drain ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Drained {
    /// `room: straggler` of everything that did not finish in time.
    pub stragglers: Vec<String>,
    /// Whether somebody said now.
    pub was_cut_short: bool,
}

/// Drains the steps one after the other; when `now` ends, the rest gets no more time.
pub async fn drain(steps: Vec<Step>, signals: &Signals, now: impl Future<Output = ()>) -> Drained {
    let mut drained = Drained { stragglers: Vec::new(), was_cut_short: false };
    tokio::pin!(now);
    for step in steps {
        let deadline = if drained.was_cut_short { Duration::ZERO } else { step.deadline };
        let mut draining = (step.start)(deadline);
        let stragglers = tokio::select! {
            stragglers = &mut draining => stragglers,
            () = &mut now, if !drained.was_cut_short => {
                drained.was_cut_short = true;
                vec!["cut short by a second signal".to_owned()]
            }
        };
        signals.room_drained(step.name, &stragglers);
        drained
            .stragglers
            .extend(stragglers.into_iter().map(|straggler| format!("{}: {straggler}", step.name)));
    }
    drained
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use belfry_signal::Registry;

    use super::*;

    fn step(name: &'static str, takes: Duration, log: &Arc<Mutex<Vec<&'static str>>>) -> Step {
        let log = log.clone();
        Step::new(name, Duration::from_secs(10), move |deadline| async move {
            log.lock().unwrap().push(name);
            if takes > deadline {
                tokio::time::sleep(deadline).await;
                return vec!["2 calls".to_owned()];
            }
            tokio::time::sleep(takes).await;
            Vec::new()
        })
    }

    #[tokio::test(start_paused = true)]
    async fn rooms_drain_in_order_and_stragglers_are_named() {
        let log = Arc::default();
        let steps = vec![
            step("edge", Duration::from_secs(1), &log),
            step("core", Duration::from_secs(60), &log),
            step("observe", Duration::from_secs(1), &log),
        ];
        let drained = drain(steps, &Signals::register(&Registry::for_test()), std::future::pending()).await;
        assert_eq!(*log.lock().unwrap(), ["edge", "core", "observe"]);
        assert_eq!(drained, Drained { stragglers: vec!["core: 2 calls".into()], was_cut_short: false });
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_signal_means_now() {
        let log = Arc::default();
        let steps =
            vec![step("edge", Duration::from_secs(9), &log), step("core", Duration::from_secs(9), &log)];
        let started = tokio::time::Instant::now();
        let now = tokio::time::sleep(Duration::from_secs(2));
        let drained = drain(steps, &Signals::register(&Registry::for_test()), now).await;
        assert_eq!(started.elapsed(), Duration::from_secs(2));
        assert!(drained.was_cut_short);
        assert_eq!(drained.stragglers, ["edge: cut short by a second signal", "core: 2 calls"]);
    }
}
