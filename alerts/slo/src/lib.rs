//! Service level objectives: exact counts, budgets, burn windows and the state of an alert.
//!
//! Sans-IO: counts go in with the second they belong to, judgements come out. Good and bad events are whole
//! numbers, objectives are parts per million, and every comparison that decides something is made on integers.
//! A second that nobody sampled is *unmeasured*: neither good nor bad, and shown as missing coverage.
//!
//! Not here: clocks, sampling, storage, evidence, notification (the engine and notify crates).

mod alert;
mod binomial;
mod budget;
mod burn;
mod calendar;
mod duration;
mod history;
mod meter;
mod openslo;
mod rules;
mod series;
#[cfg(test)]
mod shipped_rules;
mod source;

pub use alert::{Alert, Condition, State, Transition};
pub use binomial::lower_bound_exceeds;
pub use budget::{Budget, Objective, PPM};
pub use burn::{BurnPair, Guard, PairReading, Severity, Threshold, WORKBOOK_PERIOD_SECONDS, workbook_pairs};
pub use calendar::{Calendar, CalendarPeriod, Unit};
pub use duration::{BadDuration, parse_seconds};
pub use history::{
    CLOCK_STEP_SECONDS_MAX, Counts, GAP_SECONDS_MAX, Grain, HOURS_MAX, History, MINUTES_MAX, SECONDS_MAX,
    Window,
};
pub use meter::{ELEMENTS_MAX, Element, Meter, MeterError, Metered};
pub use openslo::{CheckQuery, DOCUMENTS_MAX, OpenSlo, parse_openslo};
pub use rules::{BAD_EVENTS_MIN, Fault, PAIRS_MAX, RulesError, SLOS_MAX, Slo, parse_rules};
pub use series::{Assessment, Series};
pub use source::{
    ALL, Action, Commitment, Comparison, GROUPS_DEFAULT, GROUPS_MAX, Grouping, Indicator, Method, OTHER,
    PolicyStep, Reading, Source,
};
