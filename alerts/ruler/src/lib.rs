//! Prometheus' rule files: reading, evaluating, and the unit tests that promtool defines for them.
//!
//! Series come in through `belfry_promql::Series` and the time as an argument; what rules find goes out as points
//! and alerts. No clock, no socket, no store: a day of evaluations is tested in milliseconds.
//!
//! Not here: when to evaluate for whom, keeping state on disk (the engine), and who is told (`belfry_dispatch`).

mod alerting;
mod file;
mod group;
mod recent;
mod schedule;
mod template;
mod unit;
pub mod yaml;

pub use alerting::{Active, AlertState, Kept};
pub use file::{AlertSpec, GroupSpec, RuleKind, RuleSpec, parse_rules};
pub use group::{Environment, Evaluated, Group, Health, Limits, Point, RuleStatus};
pub use schedule::{Schedule, Turn};
pub use template::{Context, Template, Value as TemplateValue};
pub use unit::{UnitReport, rule_file_patterns, run_unit_tests};
pub use yaml::{Fault, Faults};
