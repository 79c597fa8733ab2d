//! What accounts that pay in advance tell the world. Their names are in logs as `Pii`, never in labels.

use belfry_routing::prepaid::{Level, Refusal, Renewal};
use belfry_signal::record::Attributes;
use belfry_signal::{Component, Counter, CounterHandle, Emitter, Gauge, Pii, Severity, label_enum};

use super::PrepaidError;
use crate::signals::COMPONENT;

label_enum! {
    /// What an account said to a call.
    pub(crate) enum ChargeOutcome("outcome") {
        /// It pays.
        Granted = "granted",
        /// The number costs nothing.
        Free = "free",
        /// It has not enough money.
        NoCredit = "no_credit",
        /// It is blocked.
        Blocked = "blocked",
        /// The number has no price.
        NoPrice = "no_price",
        /// Its balance is not known yet.
        NotReady = "not_ready",
    }
}

impl From<Refusal> for ChargeOutcome {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NoCredit => Self::NoCredit,
            Refusal::Blocked => Self::Blocked,
            Refusal::NoPrice => Self::NoPrice,
            Refusal::NotReady => Self::NotReady,
        }
    }
}

label_enum! {
    /// What became of a call whose slice ended.
    pub(crate) enum Renewed("outcome") {
        /// Another slice is paid for.
        Extended = "extended",
        /// The rest of the money is.
        Last = "last",
        /// Nothing is left, and it was cut off.
        CutOff = "cut_off",
    }
}

impl Renewed {
    /// What a renewal that brought something is called.
    pub(crate) fn of(renewal: Renewal) -> Option<Self> {
        match renewal {
            Renewal::Extended => Some(Self::Extended),
            Renewal::Last => Some(Self::Last),
            Renewal::Nothing => None,
        }
    }
}

label_enum! {
    /// How well an account is off.
    pub(crate) enum LevelName("level") {
        /// Nothing is free of it.
        Empty = "empty",
        /// Less than the threshold.
        Low = "low",
        /// Enough.
        Funded = "funded",
    }
}

impl From<Level> for LevelName {
    fn from(level: Level) -> Self {
        match level {
            Level::Empty => Self::Empty,
            Level::Low => Self::Low,
            Level::Funded => Self::Funded,
        }
    }
}

/// Metric handles and the way out for log lines.
#[derive(Clone, Debug)]
pub(crate) struct PrepaidSignals {
    emitter: Emitter,
    decisions: Counter<(ChargeOutcome,)>,
    renewals: Counter<(Renewed,)>,
    reached: Counter<(LevelName,)>,
    accounts: Gauge<(LevelName,)>,
    is_ready: Gauge<()>,
    failures: CounterHandle,
}

impl PrepaidSignals {
    pub(crate) fn register(c: &Component) -> Self {
        let failures = "Looks at the ledger that failed: balances and prices are as of before.";
        Self {
            emitter: c.emitter(),
            decisions: c.counter("prepaid_decisions_total", "Calls of accounts, by what the account said."),
            renewals: c
                .counter("prepaid_renewals_total", "Slices of calls that ended, by what became of the call."),
            reached: c.counter("prepaid_levels_reached_total", "Accounts that came to a level."),
            accounts: c.gauge("prepaid_accounts", "Accounts that pay in advance, by how well they are off."),
            is_ready: c
                .gauge("prepaid_ready", "Whether balances are known; without, paid calls are refused."),
            failures: c.counter::<()>("prepaid_ledger_failures_total", failures).handle(()),
        }
    }

    /// An account was asked to pay for a call.
    pub(crate) fn asked(&self, outcome: ChargeOutcome) {
        self.decisions.inc((outcome,));
    }

    /// A call's slice ended.
    pub(crate) fn renewed(&self, renewed: Renewed) {
        self.renewals.inc((renewed,));
    }

    /// An account came to a level.
    pub(crate) fn level_reached(&self, level: Level, account: &str) {
        self.reached.inc((level.into(),));
        let message = match level {
            Level::Empty => "an account is empty",
            Level::Low => "an account runs low",
            Level::Funded => "an account has money again",
        };
        let attributes = vec![("account".into(), Pii::new(account.to_owned()).into())];
        self.log(Severity::Info, message, attributes);
    }

    /// How accounts are off now: empty, low, funded.
    pub(crate) fn levels(&self, [empty, low, funded]: [usize; 3], is_ready: bool) {
        for (level, count) in [(LevelName::Empty, empty), (LevelName::Low, low), (LevelName::Funded, funded)]
        {
            self.accounts.set((level,), to_i64(count));
        }
        self.is_ready.set((), i64::from(is_ready));
    }

    /// Balances are known.
    pub(super) fn opened(&self, accounts: usize, owed: usize) {
        if accounts > 0 {
            let attributes = vec![
                ("accounts".into(), to_i64(accounts).into()),
                ("calls_not_charged_yet".into(), to_i64(owed).into()),
            ];
            self.log(Severity::Info, "balances of accounts are known", attributes);
        }
    }

    /// The ledger could not be looked at; told once.
    pub(super) fn following_failed(&self, error: &PrepaidError, was_failing: bool) {
        self.failures.inc();
        if !was_failing {
            // A profile's fault may name numbers.
            let fault = Pii::new(error.to_string());
            let attributes = vec![("reason".into(), error.reason().into()), ("fault".into(), fault.into())];
            let message = "the ledger of accounts cannot be followed; balances are as of before";
            self.log(Severity::Error, message, attributes);
        }
    }

    /// The ledger can be looked at again.
    pub(super) fn following_went_on(&self) {
        self.log(Severity::Info, "the ledger of accounts is followed again", vec![]);
    }

    fn log(&self, severity: Severity, message: &'static str, attributes: Attributes) {
        self.emitter.log(COMPONENT, severity, message, attributes, None, None);
    }
}

fn to_i64(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
