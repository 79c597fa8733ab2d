//! What is asked, and what is decided: plain values.

use std::fmt;
use std::sync::Arc;

use crate::cost::Cost;
use crate::number::Number;

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller<'q> {
    /// A subscriber, authenticated.
    Subscriber {
        /// User part of the address of record.
        user: &'q str,
        /// Domain of the address of record.
        domain: &'q str,
    },
    /// Another network, identified, with the number that it asserts of its caller.
    Trunk {
        /// Which.
        trunk: TrunkId,
        /// The user part of what it says of its caller.
        claimed: Option<&'q str>,
    },
}

/// A question to the table.
#[derive(Clone, Copy, Debug)]
pub struct Question<'q> {
    /// Who calls.
    pub caller: Caller<'q>,
    /// The user part of the Request-URI, unescaped, or the number of a `tel:` URI; empty for a URN.
    pub user: &'q str,
    /// The domain of ours that the Request-URI names; the first one for `tel:`.
    pub domain: &'q str,
    /// Whether it is meant as a telephone number: `tel:` or `user=phone`.
    pub is_telephone: bool,
    /// `phone-context` (RFC 3966 section 5.1.5).
    pub context: Option<&'q str>,
    /// Whether the Request-URI is `urn:service:sos` or below (RFC 5031).
    pub is_emergency_urn: bool,
    /// Now.
    pub unix_seconds: i64,
    /// Decides among equals; the same number decides the same.
    pub random: u64,
}

/// A trunk's place in its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrunkId(pub u16);

/// What is to be done with a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Where it goes.
    pub outcome: Outcome,
    /// Whose limits count, by name.
    pub tenant: Arc<str>,
    /// Whether it passes before every limit, block and overload.
    pub is_emergency: bool,
    /// The called number, when it is one.
    pub called: Option<Number>,
    /// The caller's number, when it is known.
    pub caller: Option<Number>,
}

/// Where a call goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// To a subscriber of ours.
    Local(Local),
    /// To other networks, tried in this order.
    Trunks(Vec<Hop>),
    /// Nowhere.
    Refused(Refusal),
}

/// A subscriber of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// User part of the address of record.
    pub user: String,
    /// Its domain.
    pub domain: String,
}

/// One way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The trunk.
    pub trunk: TrunkId,
    /// The gateway's place among the trunk's.
    pub gateway: u8,
    /// The called number as the trunk wants it.
    pub called: String,
    /// The caller's number as the trunk wants it.
    pub caller: Option<String>,
    /// What a minute costs.
    pub cost: Cost,
    /// The matched prefix's length; 0 when the trunk serves all.
    pub prefix_length: u8,
}

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The number that was dialled is none.
    NumberInvalid,
    /// Nobody here has it, and the trunk that asks may not leave by another.
    NumberUnknown,
    /// No trunk serves it now.
    NoTrunk,
    /// The called number is blocked for everybody.
    CalledBlocked,
    /// The called number is blocked for the tenant.
    CalledBlockedByTenant,
    /// The caller is blocked for everybody.
    CallerBlocked,
    /// The caller is blocked for the tenant.
    CallerBlockedByTenant,
    /// The subscriber may not call such numbers.
    Barred,
    /// The caller has as many calls as it may.
    SubscriberFull,
    /// The called subscriber has as many calls as it may.
    CalledFull,
    /// The tenant has as many calls as it may.
    TenantFull,
    /// The tenant makes calls faster than it may.
    TenantRate,
    /// The calling trunk has as many calls as it may.
    TrunkFull,
    /// The calling trunk makes calls faster than it may.
    TrunkRate,
    /// More emergency calls than any bound allows.
    EmergencyFull,
    /// The call looks like fraud.
    Fraud,
}

impl Reason {
    /// All.
    pub const ALL: [Self; 16] = [
        Self::NumberInvalid,
        Self::NumberUnknown,
        Self::NoTrunk,
        Self::CalledBlocked,
        Self::CalledBlockedByTenant,
        Self::CallerBlocked,
        Self::CallerBlockedByTenant,
        Self::Barred,
        Self::SubscriberFull,
        Self::CalledFull,
        Self::TenantFull,
        Self::TenantRate,
        Self::TrunkFull,
        Self::TrunkRate,
        Self::EmergencyFull,
        Self::Fraud,
    ];

    /// A bounded name for labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NumberInvalid => "number_invalid",
            Self::NumberUnknown => "number_unknown",
            Self::NoTrunk => "no_trunk",
            Self::CalledBlocked => "called_blocked",
            Self::CalledBlockedByTenant => "called_blocked_by_tenant",
            Self::CallerBlocked => "caller_blocked",
            Self::CallerBlockedByTenant => "caller_blocked_by_tenant",
            Self::Barred => "barred",
            Self::SubscriberFull => "subscriber_full",
            Self::CalledFull => "called_full",
            Self::TenantFull => "tenant_full",
            Self::TenantRate => "tenant_rate",
            Self::TrunkFull => "trunk_full",
            Self::TrunkRate => "trunk_rate",
            Self::EmergencyFull => "emergency_full",
            Self::Fraud => "fraud",
        }
    }

    /// The SIP status of the refusal (RFC 3261 section 21).
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::NumberInvalid => 484,
            Self::NumberUnknown | Self::NoTrunk => 404,
            Self::CalledBlocked
            | Self::CalledBlockedByTenant
            | Self::CallerBlocked
            | Self::CallerBlockedByTenant
            | Self::Barred
            | Self::Fraud => 403,
            Self::CalledFull => 486,
            Self::SubscriberFull | Self::TenantFull | Self::TenantRate => 480,
            Self::TrunkFull | Self::TrunkRate | Self::EmergencyFull => 503,
        }
    }

    /// In words.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::NumberInvalid => "what was dialled is not a number",
            Self::NumberUnknown => "nobody here has this number",
            Self::NoTrunk => "no trunk serves this number now",
            Self::CalledBlocked => "the called number is blocked",
            Self::CalledBlockedByTenant => "the called number is blocked for the tenant",
            Self::CallerBlocked => "the caller is blocked",
            Self::CallerBlockedByTenant => "the caller is blocked for the tenant",
            Self::Barred => "the subscriber may not call such numbers",
            Self::SubscriberFull => "the caller has as many calls as it may have",
            Self::CalledFull => "the called subscriber has as many calls as it may have",
            Self::TenantFull => "the tenant has as many calls as it may have",
            Self::TenantRate => "the tenant makes calls faster than it may",
            Self::TrunkFull => "the trunk has as many calls as it may have",
            Self::TrunkRate => "the trunk makes calls faster than it may",
            Self::EmergencyFull => "there are more emergency calls than the bound allows",
            Self::Fraud => "the call looks like fraud",
        }
    }
}

/// A refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
}

impl Refusal {
    /// The SIP status.
    #[must_use]
    pub fn status(self) -> u16 {
        self.reason.status()
    }
}

/// One rule that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which kind of rule.
    pub rule: &'static str,
    /// What it said, with the numbers: for the operator who asked, never for a log.
    pub detail: String,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<12} {}", self.rule, self.detail)
    }
}

/// Takes the steps of a decision; `()` takes none and costs nothing.
pub trait Explain {
    /// A rule was looked at.
    fn step(&mut self, rule: &'static str, detail: impl FnOnce() -> String);
}

impl Explain for () {
    fn step(&mut self, _: &'static str, _: impl FnOnce() -> String) {}
}

impl Explain for Vec<Step> {
    fn step(&mut self, rule: &'static str, detail: impl FnOnce() -> String) {
        self.push(Step { rule, detail: detail() });
    }
}
