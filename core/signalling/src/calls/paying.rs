//! Calls that are paid for in advance: asked for before they leave, paid slice by slice while they last, cut off at the
//! second their money ends.
//!
//! The slice ahead is paid for `renew_ahead` before the one before ends. What counts is the core's own clock, from the
//! moment in which the answer went on to the caller; the record's end never lies beyond what was paid, however late a
//! busy core is to hang up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use belfry_routing::prepaid::{Credit, Refusal, Renewal, Terms};
use belfry_routing::rating::Profile;
use belfry_routing::{Decision as Routed, Outcome};
use belfry_signal::{Cause, Pii, Room, now_unix_nanos};
use belfry_sip_proto::timer::TimerKey;
use belfry_sip_proto::transaction::TransactionId;
use belfry_state::{CallRecord, Prepaid};

use super::{Call, Phase};
use crate::core::{Alarm, Core, now};
use crate::exchange::{CallKey, Failure};
use crate::location::Aor;
use crate::prepaid::{ChargeOutcome, Renewed};
use crate::signals::{CallCause, Decision};

/// What a call holds of an account.
#[derive(Debug)]
pub(crate) struct Paying {
    credit: Credit,
    /// When the answer went on to the caller.
    answered: Option<Instant>,
    /// Looks after the end of the slice.
    alarm: Option<TimerKey>,
}

impl Paying {
    /// Since the answer, so many seconds are paid for.
    pub(crate) fn seconds(&self) -> u64 {
        self.credit.seconds()
    }

    /// When what is paid for ends.
    fn end(&self) -> Option<Instant> {
        Some(self.answered? + Duration::from_secs(self.credit.seconds()))
    }
}

impl Call {
    /// A call that is paid for in advance ended with its money at the latest, and one that was cut off exactly then.
    pub(super) fn keep_within_credit(&mut self) {
        if let (Some(paying), Some(answer)) = (&self.paying, self.answer_unix_nanos) {
            let paid = paying.credit.seconds().saturating_mul(1_000_000_000);
            let last = answer.saturating_add(paid);
            let is_cut = self.ending.cause == CallCause::NoCredit;
            self.end_unix_nanos = if is_cut { last } else { self.end_unix_nanos.min(last) };
        }
    }
}

impl Core {
    fn credit_terms(&self) -> Terms {
        Terms {
            slice_seconds: self.config.prepaid.slice.as_secs(),
            call_seconds_max: self.config.call_lifetime.as_secs(),
        }
    }

    /// Asks the caller's account, if it has one, to pay for a call that is about to leave. Calls for help are nobody's.
    ///
    /// # Errors
    /// How the call is refused.
    pub(crate) fn take_credit(
        &mut self,
        id: TransactionId,
        caller: &Aor,
        dialled: &str,
        decision: &Routed,
    ) -> Result<(), Failure> {
        let subscriber = caller.key();
        let Some(payer) = self.accounts.payer(&subscriber, &decision.tenant).map(str::to_owned) else {
            return Ok(());
        };
        let number = decision.called.map(|number| number.to_string());
        let dialled = number.as_deref().unwrap_or(dialled);
        let table = self.tariffs.of(&caller.uri());
        let asked = self.accounts.authorise(&payer, table, dialled, now_unix_nanos(), self.credit_terms());
        let is_inside = matches!(decision.outcome, Outcome::Local(_));
        let (outcome, credit) = match asked {
            Ok(None) => (ChargeOutcome::Free, None),
            // Nobody has set a price on calls inside.
            Err(Refusal::NoPrice) if is_inside => (ChargeOutcome::Free, None),
            Ok(Some(credit)) => (ChargeOutcome::Granted, Some(credit)),
            Err(refusal) => {
                let outcome = ChargeOutcome::from(refusal);
                self.signals.prepaid.asked(outcome);
                self.decided(id, Decision::Charge, outcome.as_str());
                return Err(failure_of(refusal));
            }
        };
        self.signals.prepaid.asked(outcome);
        self.decided(id, Decision::Charge, outcome.as_str());
        // A call that costs nothing is rated by the prices that it was let in by, too.
        let prepaid = table.map(|table| prepaid(&payer, table.profile()));
        let key = self.exchanges.get(&id).and_then(|exchange| exchange.call.clone());
        if let Some(call) = key.and_then(|key| self.calls.get_mut(&key)) {
            call.prepaid = prepaid.map(Box::new);
            call.paying = credit.map(|credit| Box::new(Paying { credit, answered: None, alarm: None }));
        }
        self.tell_level(&payer);
        Ok(())
    }

    /// A call was answered: from now on its money runs.
    pub(crate) fn begin_paying(&mut self, key: &CallKey) {
        let Some(call) = self.calls.get_mut(key) else { return };
        let (Some(paying), Some(answer_unix_nanos)) = (&mut call.paying, call.answer_unix_nanos) else {
            return;
        };
        paying.answered = Some(now());
        let renewal = paying.credit.answered(answer_unix_nanos);
        self.watch_credit(key, renewal);
    }

    /// Sets the alarm for the next look: ahead of the end of a slice, or at the end of the money.
    fn watch_credit(&mut self, key: &CallKey, renewal: Renewal) {
        let ahead = self.config.prepaid.renew_ahead;
        let Some(paying) = self.calls.get_mut(key).and_then(|call| call.paying.as_mut()) else { return };
        let Some(end) = paying.end() else { return };
        let at = match renewal {
            Renewal::Extended => end.checked_sub(ahead).unwrap_or(end).max(now()),
            Renewal::Last | Renewal::Nothing => end,
        };
        if let Some(alarm) = paying.alarm.take() {
            self.timers.stop(alarm);
        }
        paying.alarm = Some(self.timers.set(at, Alarm::Credit(Arc::clone(key))));
    }

    /// A slice ends soon, or the money has come to its end.
    pub(crate) fn on_credit_due(&mut self, key: &CallKey) {
        let Some(call) = self.calls.get_mut(key).filter(|call| call.phase == Phase::Talking) else { return };
        let root = call.root;
        let Some(paying) = &mut call.paying else { return };
        paying.alarm = None;
        let renewal = paying.credit.renew();
        let is_over = paying.end().is_none_or(|end| end <= now());
        let account = paying.credit.account().to_owned();
        let renewed = Renewed::of(renewal).or(is_over.then_some(Renewed::CutOff));
        if let Some(renewed) = renewed {
            self.signals.prepaid.renewed(renewed);
            self.signals.decided(Decision::Charge, renewed.as_str(), root, key);
        }
        self.tell_level(&account);
        if renewal == Renewal::Nothing && is_over {
            return self.hang_up(key, CallCause::NoCredit);
        }
        self.watch_credit(key, renewal);
    }

    /// The record of a call says what it costs: that is owed until the ledger has it, and the rest is free.
    pub(super) fn settle_credit(&mut self, paying: Option<Box<Paying>>, record: &CallRecord) {
        let Some(paying) = paying else { return };
        let account = paying.credit.account().to_owned();
        if record.answer_unix_nanos.is_some() {
            paying.credit.owe(&record.charge_key(), record.end_unix_nanos);
        } else {
            drop(paying);
        }
        self.tell_level(&account);
    }

    /// A call is over: nobody looks after its slices any more. What it holds stays held until its record says what it
    /// costs.
    pub(super) fn stop_paying(&mut self, epoch: u64) {
        let paying = self.calls.closing(epoch).and_then(|call| call.paying.as_mut());
        if let Some(alarm) = paying.and_then(|paying| paying.alarm.take()) {
            self.timers.stop(alarm);
        }
    }
}

/// Who pays for a call, and by which prices, as its record says it.
fn prepaid(payer: &str, profile: &Profile) -> Prepaid {
    let account = Pii::new(payer.to_owned());
    Prepaid { account, profile: profile.name.clone(), profile_version: profile.version }
}

/// How a call is refused that nobody pays for: the field says 402 to who has no money, and 403 to who may not.
fn failure_of(refusal: Refusal) -> Failure {
    match refusal {
        Refusal::NoCredit => Failure::plain(402, CallCause::NoCredit),
        Refusal::Blocked | Refusal::NoPrice => Failure::plain(403, CallCause::NotCharged),
        Refusal::NotReady => Failure::ours(503, Room::Core, Cause::Store, CallCause::ServerError),
    }
}
