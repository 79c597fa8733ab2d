//! The end of a call: the relay reports, the record is written, and only then does the last answer leave.

use belfry_relay_api::{Leg, LegReport, Request, SessionKey, SessionReport};
use belfry_signal::{Pii, SpanContext, SpanId, TraceId, record};
use belfry_sip_proto::transaction::TransactionId;
use belfry_state::{CallRecord, Kept, Lost, Told};

use super::{Call, Ending, Phase, Whose};
use crate::core::{Alarm, Core, Done, Then, now};
use crate::exchange::CallKey;
use crate::signals::{AttemptResult, CallCause, RecordOutcome};

impl Core {
    /// A call is over, answered or not: frees its media and closes its books. Gives the epoch under which its
    /// books are found until they are closed; `None` when it was over before.
    pub(crate) fn end_call(&mut self, key: &CallKey, status: u16, cause: CallCause) -> Option<u64> {
        let epoch = self.calls.ended(key, Ending { status, cause }, self.moment(), now())?;
        let call = self.calls.closing(epoch)?;
        for timer in [call.lifetime.take(), call.watch.alarm.take()].into_iter().flatten() {
            self.timers.stop(timer);
        }
        let (hold, was_answered) = (std::mem::take(&mut call.hold), call.answer_unix_nanos.is_some());
        let relay = call.relay.clone();
        self.release(hold, was_answered);
        self.stop_paying(epoch);
        let Some(relay) = relay else {
            self.write_record(epoch);
            return Some(epoch);
        };
        let request = Request::Delete { session: SessionKey(key.to_string()) };
        if self.ask_relay(&relay, request, Then::Close { epoch }).is_err() {
            self.write_record(epoch);
        }
        Some(epoch)
    }

    /// The relay has closed the session of a call that is over, or could not.
    pub(crate) fn on_session_closed(&mut self, epoch: u64, report: Option<SessionReport>) {
        if let Some(call) = self.calls.closing(epoch) {
            call.report = report;
            self.write_record(epoch);
        }
    }

    fn write_record(&mut self, epoch: u64) {
        let node = self.signals.node().to_owned();
        let Some(call) = self.calls.closing(epoch) else { return };
        call.settle_end();
        call.keep_within_credit();
        let record = call_record(call, node);
        let (book, paying) = (call.book, call.paying.take());
        self.settle_credit(paying, &record);
        // The books take it now and keep it, whatever becomes of whoever waits for their word.
        let too_late = self.timers.set(now() + self.config.store_timeout, Alarm::Record(epoch));
        if let Some(call) = self.calls.closing(epoch) {
            call.lifetime = Some(too_late);
        }
        self.records_awaited += 1;
        self.state.books().close_call_among(book, record, epoch, &self.told_sender);
    }

    /// The books have spoken.
    pub(crate) fn on_records(&mut self, told: impl Iterator<Item = Told>) {
        for (epoch, outcome) in told {
            self.records_awaited = self.records_awaited.saturating_sub(1);
            self.on_record_written(epoch, outcome.map_err(|error| error.reason()));
        }
    }

    /// The record is safe, or nobody waits any longer: the books are closed and what waited for it goes out.
    pub(crate) fn on_record_written(&mut self, epoch: u64, outcome: Result<Kept, &'static str>) {
        let Some(call) = self.calls.close(epoch) else { return };
        if let Some(timer) = call.lifetime {
            self.timers.stop(timer);
        }
        let label = match outcome {
            Ok(Kept::Spooled | Kept::Stored) => RecordOutcome::Written,
            Ok(Kept::InMemory) => RecordOutcome::InMemory,
            Err(reason) => {
                self.signals.store_failed(reason);
                RecordOutcome::Failed
            }
        };
        self.signals.record_written(label, &call.key);
        let scope = self.scope(&call.region, &call.whose);
        self.signals.call_ended(shown_call(&call), call.talked(), call.ending.cause, call.root, &scope);
        for (id, status, bytes) in call.held {
            // The transaction may have been given up meanwhile.
            let _ = self.transactions.respond(id, status, bytes, now());
        }
    }

    /// Asks the books to close what a core left open that is gone.
    pub(crate) fn close_lost_calls(&mut self, which: Lost) {
        let closing = self.state.books().close_lost_calls(which);
        self.jobs.spawn(async move { Done::Lost(closing.await) });
    }

    /// Calls of a core that is gone have their records.
    pub(crate) fn on_lost_calls(&mut self, records: Vec<CallRecord>) {
        for record in records {
            let trace_id = TraceId::parse(&record.trace_id).unwrap_or_else(TraceId::random);
            let root = SpanContext { trace_id, span_id: SpanId::random(), sampled: true };
            let whose = Whose {
                tenant: record.tenant.as_deref().map(Into::into),
                calling_trunk: record.calling_trunk.as_deref().map(Into::into),
                called_trunk: record.called_trunk.as_deref().map(Into::into),
                ..Whose::default()
            };
            let region = record.region.clone();
            let scope = self.scope(&region, &whose);
            self.signals.call_lost(lost_call(record, trace_id), root, &scope);
        }
    }

    /// Keeps the final answer to a BYE back until the record of its call is durable; gives it back when there is
    /// nothing to wait for.
    pub(crate) fn hold_for_record(
        &mut self,
        epoch: u64,
        id: TransactionId,
        status: u16,
        bytes: Vec<u8>,
    ) -> Option<Vec<u8>> {
        match self.calls.closing(epoch) {
            Some(call) => {
                call.held.push((id, status, bytes));
                None
            }
            None => Some(bytes),
        }
    }

    /// A call outlived every sensible call.
    pub(crate) fn on_lifetime_over(&mut self, key: &CallKey) {
        if self.calls.get(key).is_some_and(|call| call.phase == Phase::Talking) {
            self.hang_up(key, CallCause::LifetimeOver);
        }
    }
}

/// What the store keeps.
fn call_record(call: &Call, node: String) -> CallRecord {
    CallRecord {
        call_id: Pii::new(call.key.to_string()),
        from_tag: call.caller.tag.clone().unwrap_or_default(),
        to_tag: call.callee.tag.clone().unwrap_or_default(),
        // Its start tells it from other calls of its Call-ID, and is the same however often the record is written.
        epoch: call.start_unix_nanos,
        trace_id: call.root.trace_id.to_string(),
        start_unix_nanos: call.start_unix_nanos,
        answer_unix_nanos: call.answer_unix_nanos,
        end_unix_nanos: call.end_unix_nanos,
        caller: Pii::new(call.caller.uri.clone()),
        callee: Pii::new(call.callee.uri.clone()),
        region: call.region.clone(),
        country: call.country.clone(),
        transport: call.transport.uri_token().into(),
        tenant: owned(call.whose.tenant.as_deref()),
        calling_trunk: owned(call.whose.calling_trunk.as_deref()),
        called_trunk: owned(call.whose.called_trunk.as_deref()),
        called_number: call.whose.called_number.map(|number| Pii::new(number.to_string())),
        is_emergency: call.whose.is_emergency,
        prepaid: call.prepaid.as_deref().cloned(),
        status_code: call.ending.status,
        outcome: outcome_of(call).into(),
        cause: call.ending.cause.as_str().into(),
        node,
        charge: None,
    }
}

/// The record of a call of which nothing more is heard: billed up to the last sign of life, which the books add.
pub(super) fn record_if_lost(call: &Call, node: &str) -> CallRecord {
    let mut record = call_record(call, node.to_owned());
    let is_answered = call.answer_unix_nanos.is_some();
    let outcome = if is_answered { AttemptResult::Answered } else { AttemptResult::Ineffective };
    record.status_code = if is_answered { 200 } else { 0 };
    record.outcome = outcome.record_outcome().into();
    record.cause = CallCause::NodeLost.as_str().into();
    record.end_unix_nanos = call.answer_unix_nanos.unwrap_or(call.start_unix_nanos);
    record
}

/// What the pipeline and the call page get of a call that was lost.
fn lost_call(record: CallRecord, trace_id: TraceId) -> record::Call {
    record::Call {
        call_id: record.call_id,
        trace_id,
        start_unix_nanos: record.start_unix_nanos,
        answer_unix_nanos: record.answer_unix_nanos,
        caller: record.caller,
        callee: record.callee,
        region: record.region,
        country: record.country,
        transport: record.transport,
        tenant: record.tenant,
        calling_trunk: record.calling_trunk,
        called_trunk: record.called_trunk,
        outcome: record.outcome,
        status_code: record.status_code,
        cause: record.cause,
        post_dial_seconds: None,
        mos_min: None,
        mos_mean: None,
        silent_legs: Vec::new(),
    }
}

/// What the pipeline and the call page get.
fn shown_call(call: &Call) -> record::Call {
    let report = call.report.as_ref();
    let scores = |pick: fn(&LegReport) -> Option<f64>| -> Vec<f64> {
        let legs = report.map(|report| [pick(&report.caller), pick(&report.callee)]);
        legs.into_iter().flatten().flatten().collect()
    };
    let lowest = scores(|leg| leg.mos_min.or(leg.mos)).into_iter().reduce(f64::min);
    let means = scores(|leg| leg.mos);
    #[expect(clippy::cast_precision_loss, reason = "at most two legs")]
    let mean = (!means.is_empty()).then(|| means.iter().sum::<f64>() / means.len() as f64);
    record::Call {
        call_id: Pii::new(call.key.to_string()),
        trace_id: call.root.trace_id,
        start_unix_nanos: call.start_unix_nanos,
        answer_unix_nanos: call.answer_unix_nanos,
        caller: Pii::new(call.caller.uri.clone()),
        callee: Pii::new(call.callee.uri.clone()),
        region: call.region.clone(),
        country: call.country.clone(),
        transport: call.transport.uri_token().into(),
        tenant: owned(call.whose.tenant.as_deref()),
        calling_trunk: owned(call.whose.calling_trunk.as_deref()),
        called_trunk: owned(call.whose.called_trunk.as_deref()),
        outcome: outcome_of(call).into(),
        status_code: call.ending.status,
        cause: call.ending.cause.as_str().into(),
        post_dial_seconds: call.post_dial.map(|delay| delay.as_secs_f64()),
        mos_min: lowest,
        mos_mean: mean,
        silent_legs: silent_legs(call).into_iter().map(|leg| leg.as_str().into()).collect(),
    }
}

fn owned(name: Option<&str>) -> Option<String> {
    name.map(str::to_owned)
}

fn outcome_of(call: &Call) -> &'static str {
    if call.answer_unix_nanos.is_some() {
        return AttemptResult::Answered.record_outcome();
    }
    match call.ending.cause {
        CallCause::NoAnswer => AttemptResult::Unavailable.record_outcome(),
        _ => AttemptResult::of(call.ending.status).record_outcome(),
    }
}

/// Legs of an answered call from which no packet came, by the relay's notice or its report.
fn silent_legs(call: &Call) -> Vec<Leg> {
    let Some(report) = call.report.as_ref().filter(|_| call.answer_unix_nanos.is_some()) else {
        return call.silent_legs.clone();
    };
    let legs = [(Leg::Caller, &report.caller), (Leg::Callee, &report.callee)];
    legs.into_iter().filter(|(_, leg)| leg.packets == 0).map(|(leg, _)| leg).collect()
}
