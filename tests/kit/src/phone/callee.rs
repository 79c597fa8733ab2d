//! Being called: ringing, then the plan of the phone: answer, refuse, or ring until the caller gives up.

use std::sync::Arc;
use std::time::Duration;

use belfry_sip_proto::{HeaderName, OwnedMessage, build};
use tokio::time::{Instant, sleep_until};

use super::AnswerPlan;
use super::caller::answer_within_call;
use super::dialog::Dialog;
use super::endpoint::{Endpoint, Requests, T1, T2, token};
use super::hang_up::hang_up;
use super::report::{CallOutcome, CallReport};
use crate::error::Error;
use crate::media::{Media, Remote, Sound};
use crate::tone::Tone;

/// How long a 2xx is sent again without an ACK: 64 times T1 (RFC 3261 section 13.3.1.4).
const ACK_AFTER_MAX: Duration = Duration::from_secs(32);
/// How long a phone rings that nobody answers.
const RING_MAX: Duration = Duration::from_secs(180);

struct Callee<'a> {
    endpoint: &'a Arc<Endpoint>,
    invite: OwnedMessage,
    requests: Requests,
    tag: String,
    start: Instant,
    report: CallReport,
}

/// Takes a call from its INVITE to its end.
pub(super) async fn take(endpoint: &Arc<Endpoint>, invite: OwnedMessage, requests: Requests) -> CallReport {
    let report = CallReport::new(invite.call_id().unwrap_or_default(), false);
    let mut callee = Callee { endpoint, invite, requests, tag: token(), start: Instant::now(), report };
    let outcome = match callee.run().await {
        Ok(outcome) => outcome,
        Err(Error::Timeout) => CallOutcome::TimedOut,
        Err(error) => CallOutcome::Failed(error.reason()),
    };
    callee.report.ended(outcome)
}

impl Callee<'_> {
    async fn run(&mut self) -> Result<CallOutcome, Error> {
        let contact = self.endpoint.contact();
        let ringing =
            build::response_to(&self.invite, 180, None, Some(&self.tag), &[(HeaderName::Contact, &contact)]);
        self.endpoint.answer(&self.invite, ringing).await?;
        self.report.post_dial = Some(self.start.elapsed());
        let (ring, talk) = match self.endpoint.config.answer {
            AnswerPlan::Answer { ring } => (ring, None),
            AnswerPlan::AnswerAndHangUp { ring, talk } => (ring, Some(talk)),
            AnswerPlan::Reject { ring, .. } => (ring, None),
            AnswerPlan::Ring => (RING_MAX, None),
        };
        if self.is_cancelled_within(ring).await? {
            return self.refuse(487, CallOutcome::Cancelled).await;
        }
        match self.endpoint.config.answer {
            AnswerPlan::Reject { status, .. } => self.refuse(status, CallOutcome::Rejected(status)).await,
            AnswerPlan::Ring => self.refuse(480, CallOutcome::Rejected(480)).await,
            _ => self.answer(talk).await,
        }
    }

    /// Rings; whether the caller took the call back meanwhile.
    async fn is_cancelled_within(&mut self, ring: Duration) -> Result<bool, Error> {
        let until = Instant::now() + ring;
        loop {
            tokio::select! {
                () = sleep_until(until) => return Ok(false),
                request = self.requests.next() => {
                    let request = request.ok_or(Error::ConnectionLost)?;
                    if request.method() == "CANCEL" {
                        let ok = build::response_to(&request, 200, None, Some(&self.tag), &[]);
                        self.endpoint.answer(&request, ok).await?;
                        return Ok(true);
                    }
                }
            }
        }
    }

    /// Refuses, and sends the refusal again over UDP until it is acknowledged.
    async fn refuse(&mut self, status: u16, outcome: CallOutcome) -> Result<CallOutcome, Error> {
        self.report.status = status;
        let response = build::response_to(&self.invite, status, None, Some(&self.tag), &[]);
        self.insist(response).await?;
        Ok(outcome)
    }

    async fn answer(&mut self, talk: Option<Duration>) -> Result<CallOutcome, Error> {
        let Some(remote) = Remote::from_description(self.invite.body()) else {
            return self.refuse(488, CallOutcome::Rejected(488)).await;
        };
        let media = Media::bind(self.endpoint.config.source).await?;
        let description = media.description();
        let ok = build::response(&self.invite, 200, None, Some(&self.tag))
            .header(HeaderName::Contact, &self.endpoint.contact())
            .header(HeaderName::Allow, "INVITE, ACK, BYE, CANCEL, OPTIONS")
            .header(HeaderName::ContentType, "application/sdp")
            .finish_with_body(description.as_bytes());
        self.report.status = 200;
        let answered = Instant::now();
        self.report.answered_after = Some(answered - self.start);
        let every = self.endpoint.config.report_interval;
        let sound = media.start(remote, Tone::CALLEE, Tone::CALLER, every);
        let talked = match self.insist(ok).await {
            Ok(true) => Ok(true),
            Ok(false) => self.talk(talk, &description).await,
            Err(error) => Err(error),
        };
        self.report.talked = answered.elapsed();
        self.report.heard = Sound::stop(sound).await;
        if talked? {
            return Ok(CallOutcome::Ended);
        }
        let dialog = Dialog::of_callee(&self.invite, &self.tag);
        hang_up(self.endpoint, dialog.ok_or(Error::Protocol("the call has no contact"))?).await
    }

    /// Sends a final response until its ACK comes; whether the call ended instead.
    async fn insist(&mut self, response: Vec<u8>) -> Result<bool, Error> {
        self.endpoint.answer(&self.invite, response.clone()).await?;
        let deadline = Instant::now() + ACK_AFTER_MAX;
        let mut pause = T1;
        let mut again = Instant::now() + pause;
        loop {
            tokio::select! {
                () = sleep_until(again) => {
                    if again >= deadline {
                        return Err(Error::Timeout);
                    }
                    self.endpoint.send(response.clone()).await?;
                    pause = (pause * 2).min(T2);
                    again = (Instant::now() + pause).min(deadline);
                }
                request = self.requests.next() => {
                    let request = request.ok_or(Error::ConnectionLost)?;
                    if request.method() == "ACK" {
                        return Ok(false);
                    }
                    if answer_within_call(self.endpoint, &request, None).await? {
                        return Ok(true);
                    }
                }
            }
        }
    }

    /// Talks until the caller hangs up, or the plan says so; whether it was the caller.
    async fn talk(&mut self, talk: Option<Duration>, description: &str) -> Result<bool, Error> {
        let until = talk.map(|talk| Instant::now() + talk);
        loop {
            tokio::select! {
                () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => return Ok(false),
                request = self.requests.next() => {
                    let request = request.ok_or(Error::ConnectionLost)?;
                    if answer_within_call(self.endpoint, &request, Some(description)).await? {
                        return Ok(true);
                    }
                }
            }
        }
    }
}
