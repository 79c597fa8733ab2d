//! Who may call whom, by which way, at what price: a sans-IO table of tenants, numbers, trunks and rules, with the
//! counting of limits and the watch for fraud; [`rating`], the prices of calls; and [`prepaid`], the money that is left
//! for them.
//!
//! A [`Plan`] is what an operator writes; [`Table::compile`] makes it fast; [`Table::decide`] answers a [`Question`]
//! with a plain [`Decision`] and, when asked, every rule that it looked at. [`Usage`] counts calls against limits,
//! [`Guard`] judges what calling looks like. Time and randomness are arguments.
//!
//! Not here: SIP messages, where subscribers are registered, files and databases.

mod cost;
mod decision;
mod fraud;
mod import;
mod number;
mod plan;
pub mod prepaid;
mod probe;
pub mod rating;
mod table;
mod trie;
mod usage;
mod window;

pub use cost::{Cost, CostError};
pub use decision::{
    Caller, Decision, Explain, Hop, Local, Outcome, Question, Reason, Refusal, Step, TrunkId,
};
pub use fraud::{Alert, Guard, Judgement, Subject, Suspicion};
pub use import::{Imported, RowFault, read_rows};
pub use number::{DialPlan, Dialled, Number, NumberFormat, bare_digits};
pub use plan::{
    Alias, Block, Emergency, Fraud, FraudLimits, Gateway, Identity, Location, Order, Outside, Plan,
    PrefixPlan, PrefixRow, ProbePlan, Side, SubscriberPlan, Tenant, Trunk,
};
pub use probe::{Change, GatewayKey, Health, Probes, Turn};
pub use table::{DEFAULT_TENANT, GatewayEntry, Table, TableError, TableSize, TenantLimits, TrunkEntry};
pub use usage::{Admitted, Full, Slot, TrunkPass, Usage};
pub use window::WindowPlan;
