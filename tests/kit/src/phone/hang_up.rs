//! Hanging up: BYE, and again when it was not the other side that refused it.

use std::sync::Arc;
use std::time::Duration;

use belfry_sip_proto::{HeaderName, OwnedMessage};
use tokio::time::sleep;

use super::dialog::Dialog;
use super::endpoint::{Endpoint, T2, branch};
use super::report::CallOutcome;
use crate::error::Error;

/// How often a BYE is sent again that reached nobody.
const RETRIES_MAX: usize = 5;
/// The longest pause that a server may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(10);

/// Ends a dialog with BYE. To its customer the phone is idle then, whatever comes of it; one that reached nobody (no
/// answer, or 503 with Retry-After) is sent again some times, and then given up.
pub(super) async fn hang_up(endpoint: &Arc<Endpoint>, mut dialog: Dialog) -> Result<CallOutcome, Error> {
    let answer = bye(endpoint, &mut dialog).await;
    if let Some(pause) = pause_before_retry(&answer) {
        tokio::spawn(insist(Arc::clone(endpoint), dialog, pause));
    }
    let is_ended = answer?.status() == Some(200);
    Ok(if is_ended { CallOutcome::Ended } else { CallOutcome::Failed("bye_refused") })
}

async fn insist(endpoint: Arc<Endpoint>, mut dialog: Dialog, mut pause: Duration) {
    for _ in 0..RETRIES_MAX {
        tokio::select! {
            () = endpoint.stop.cancelled() => return,
            () = sleep(pause) => {}
        }
        match pause_before_retry(&bye(&endpoint, &mut dialog).await) {
            Some(next) => pause = next,
            None => return,
        }
    }
}

async fn bye(endpoint: &Arc<Endpoint>, dialog: &mut Dialog) -> Result<OwnedMessage, Error> {
    let request = dialog.request(endpoint, "BYE", &branch());
    endpoint.transact(request).await
}

/// How long to wait before the next BYE; none when there should not be one.
fn pause_before_retry(answer: &Result<OwnedMessage, Error>) -> Option<Duration> {
    match answer {
        Ok(answer) if answer.status() == Some(503) => {
            let text = answer.header_text(HeaderName::RetryAfter)?;
            let seconds = text.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
            Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
        }
        Err(Error::Timeout) => Some(T2),
        _ => None,
    }
}
