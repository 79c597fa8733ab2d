//! Placing a call: INVITE, a challenge if there is one, ringing, answer, sound, BYE; or CANCEL.

use std::sync::Arc;
use std::time::Duration;

use belfry_sip_proto::build::{self, Writer};
use belfry_sip_proto::{HeaderName, Limits, OwnedMessage};
use tokio::time::{Instant, sleep_until, timeout};

use super::CallPlan;
use super::dialog::Dialog;
use super::endpoint::{Endpoint, Requests, Responses, branch, token};
use super::hang_up::hang_up;
use super::register::{answer, answer_header, best_challenge};
use super::report::{CallOutcome, CallReport};
use crate::error::Error;
use crate::media::{Media, Remote, Sound};
use crate::tone::Tone;

/// How long the 487 of a cancelled INVITE may take.
const CANCELLED_AFTER_MAX: Duration = Duration::from_secs(5);

/// What an INVITE led to.
enum Invited {
    Answered { ok: OwnedMessage, sequence: u32, branch: String },
    Ended(CallOutcome),
}

struct Caller<'a> {
    endpoint: &'a Arc<Endpoint>,
    target: &'a str,
    plan: CallPlan,
    call_id: String,
    from: String,
    start: Instant,
    report: CallReport,
}

/// Calls, talks, hangs up.
pub(super) async fn place(endpoint: &Arc<Endpoint>, target: &str, plan: CallPlan) -> CallReport {
    let call_id = token();
    let mut caller = Caller {
        endpoint,
        target,
        plan,
        from: format!("<{}>;tag={}", endpoint.address_of_record(), token()),
        start: Instant::now(),
        report: CallReport::new(&call_id, true),
        call_id,
    };
    let outcome = match caller.run().await {
        Ok(outcome) => outcome,
        Err(Error::Timeout) => CallOutcome::TimedOut,
        Err(error) => CallOutcome::Failed(error.reason()),
    };
    caller.report.ended(outcome)
}

impl Caller<'_> {
    async fn run(&mut self) -> Result<CallOutcome, Error> {
        let media = Media::bind(self.endpoint.config.source).await?;
        let mut requests = self.endpoint.follow(&self.call_id);
        let offer = media.description();
        let (ok, sequence, branch) = match self.invite(&offer).await? {
            Invited::Answered { ok, sequence, branch } => (ok, sequence, branch),
            Invited::Ended(outcome) => return Ok(outcome),
        };
        let answered = Instant::now();
        self.report.answered_after = Some(answered - self.start);
        let dialog = Dialog::of_caller(&ok, sequence).ok_or(Error::Protocol("the answer has no contact"))?;
        let ack = dialog.ack(self.endpoint, &super::endpoint::branch());
        self.endpoint.acknowledge(&branch, ack).await?;
        let Some(remote) = Remote::from_description(ok.body()) else {
            hang_up(self.endpoint, dialog).await?;
            return Ok(CallOutcome::Failed("no_session_description"));
        };
        let every = self.endpoint.config.report_interval;
        let sound = media.start(remote, Tone::CALLER, Tone::CALLEE, every);
        let talked = self.talk(&mut requests, answered).await;
        // Who hangs up neither speaks nor listens while the BYE is under way (RFC 3261 section 15.1.1).
        self.report.talked = answered.elapsed();
        self.report.heard = Sound::stop(sound).await;
        if talked? { Ok(CallOutcome::Ended) } else { hang_up(self.endpoint, dialog).await }
    }

    /// Talks until the plan or the other side ends the call; whether it was the other side.
    async fn talk(&mut self, requests: &mut Requests, answered: Instant) -> Result<bool, Error> {
        let until = answered + self.plan.talk;
        loop {
            tokio::select! {
                () = sleep_until(until) => return Ok(false),
                request = requests.next() => {
                    let request = request.ok_or(Error::ConnectionLost)?;
                    if answer_within_call(self.endpoint, &request, None).await? {
                        return Ok(true);
                    }
                }
            }
        }
    }

    /// Sends the INVITE, and once more with credentials when it is challenged.
    async fn invite(&mut self, offer: &str) -> Result<Invited, Error> {
        let mut authorization = None;
        for sequence in 1..=2 {
            let branch = branch();
            let bytes = self.write(&branch, sequence, offer, authorization.as_ref());
            let invite = OwnedMessage::parse(bytes.clone(), &Limits::default())
                .map_err(|_| Error::Protocol("our own request is malformed"))?;
            let mut responses = self.endpoint.begin(bytes).await?;
            let last = match self.wait(&mut responses, &invite).await? {
                Some(last) => last,
                None => return Ok(Invited::Ended(CallOutcome::Cancelled)),
            };
            let status = last.status().unwrap_or(0);
            self.report.status = status;
            if status < 300 {
                return Ok(Invited::Answered { ok: last, sequence, branch });
            }
            self.endpoint.acknowledge(&branch, build::ack_to(&invite, &last)).await?;
            if !matches!(status, 401 | 407) || sequence == 2 {
                return Ok(Invited::Ended(CallOutcome::Rejected(status)));
            }
            let challenge = best_challenge(&last).ok_or(Error::Protocol("no challenge we can answer"))?;
            let credentials = answer(self.endpoint, &challenge, 1, "INVITE", self.target);
            authorization = Some((answer_header(&last), credentials));
        }
        Ok(Invited::Ended(CallOutcome::Failed("challenged_twice")))
    }

    /// Waits for the final response; none when the call was cancelled.
    async fn wait(
        &mut self,
        responses: &mut Responses,
        invite: &OwnedMessage,
    ) -> Result<Option<OwnedMessage>, Error> {
        let give_up = self.start + self.plan.give_up_after;
        let mut deadline = give_up;
        let mut is_provisional = false;
        loop {
            let response = match responses.next(deadline).await {
                Ok(response) => response,
                // Only an INVITE that somebody works on can be cancelled (RFC 3261 section 9.1).
                Err(Error::Timeout) if is_provisional => {
                    let planned = deadline < give_up;
                    return self.cancel(responses, invite, planned).await;
                }
                Err(error) => return Err(error),
            };
            let status = response.status().unwrap_or(0);
            if status > 100 && !matches!(status, 401 | 407) {
                self.report.post_dial.get_or_insert(self.start.elapsed());
            }
            if status >= 200 {
                return Ok(Some(response));
            }
            is_provisional = true;
            if status > 100
                && let Some(after) = self.plan.cancel_after
            {
                deadline = deadline.min(Instant::now() + after);
            }
        }
    }

    /// Cancels and waits for the INVITE's end. An answer that crosses the CANCEL still counts.
    async fn cancel(
        &mut self,
        responses: &mut Responses,
        invite: &OwnedMessage,
        is_planned: bool,
    ) -> Result<Option<OwnedMessage>, Error> {
        let cancel = self.endpoint.transact(build::cancel_of(invite));
        let until = Instant::now() + CANCELLED_AFTER_MAX;
        // Whatever is answered to the CANCEL, only the INVITE's own end matters.
        drop(timeout(CANCELLED_AFTER_MAX, cancel).await);
        loop {
            let response = responses.next(until).await?;
            match response.status().unwrap_or(0) {
                ..200 => {}
                200..300 => return Ok(Some(response)),
                status => {
                    self.report.status = status;
                    let branch = invite.top_via().and_then(|via| via.branch()).unwrap_or_default();
                    self.endpoint.acknowledge(branch, build::ack_to(invite, &response)).await?;
                    return if is_planned { Ok(None) } else { Err(Error::Timeout) };
                }
            }
        }
    }

    fn write(
        &self,
        branch: &str,
        sequence: u32,
        offer: &str,
        authorization: Option<&(HeaderName, String)>,
    ) -> Vec<u8> {
        let mut writer = Writer::request("INVITE", self.target)
            .header(HeaderName::Via, &self.endpoint.via(branch))
            .header(HeaderName::MaxForwards, "70")
            .header(HeaderName::From, &self.from)
            .header(HeaderName::To, &format!("<{}>", self.target))
            .header(HeaderName::CallId, &self.call_id)
            .header(HeaderName::CSeq, &format!("{sequence} INVITE"))
            .header(HeaderName::Contact, &self.endpoint.contact())
            .header(HeaderName::Allow, "INVITE, ACK, BYE, CANCEL, OPTIONS")
            .header(HeaderName::Supported, "path, outbound")
            .header(HeaderName::UserAgent, "belfry-kit");
        if let Some((name, value)) = authorization {
            writer = writer.header(*name, value);
        }
        writer.header(HeaderName::ContentType, "application/sdp").finish_with_body(offer.as_bytes())
    }
}

/// Answers a request inside a call; whether it ended the call.
pub(super) async fn answer_within_call(
    endpoint: &Endpoint,
    request: &OwnedMessage,
    description: Option<&str>,
) -> Result<bool, Error> {
    match request.method() {
        "ACK" => return Ok(false),
        "BYE" => {
            endpoint.answer(request, build::response_to(request, 200, None, None, &[])).await?;
            return Ok(true);
        }
        "INVITE" | "UPDATE" => {
            let writer =
                build::response(request, 200, None, None).header(HeaderName::Contact, &endpoint.contact());
            let response = match description {
                Some(description) => writer
                    .header(HeaderName::ContentType, "application/sdp")
                    .finish_with_body(description.as_bytes()),
                None => writer.finish(),
            };
            endpoint.answer(request, response).await?;
        }
        "CANCEL" => {
            endpoint.answer(request, build::response_to(request, 481, None, None, &[])).await?;
        }
        _ => endpoint.answer(request, build::response_to(request, 200, None, None, &[])).await?,
    }
    Ok(false)
}
