//! The alert engine: every second it samples the exact journey counts, judges every SLO in every region, and
//! turns what burns into pages with evidence.
//!
//! One task owns everything. Pages and counts are on disk, so a restart neither forgets that a resolve is owed
//! nor pages twice, and budgets survive it. Regions that trip together become one page.
//!
//! Beside it the desk evaluates rules on metrics and decides who is told of every alert, wherever it came from.
//!
//! Not here: the arithmetic (`belfry_slo`), what rules and routes mean (`belfry_ruler`, `belfry_dispatch`), sending (`belfry_notify`), drawing (the dashboard).

mod backtest;
mod clock;
pub mod config;
mod corrections;
mod delivery;
mod desk;
mod error;
mod evidence;
mod handle;
mod handling;
mod judge;
mod pages;
mod policy;
mod queries;
mod routes;
mod rules;
mod run;
mod signals;
mod status;
mod store;

pub use backtest::{Backtest, Replayed, ReplayedPage, Stretch, backtest};
pub use config::Config;
pub use desk::{DeskHandle, GroupStatus, Metrics, Read, Routing, Sources, Write};
pub use error::Error;
pub use handle::{DeskDeps, Engine, EngineDeps, EngineHandle, start_desk};
pub use handling::HOOK_PATH;
pub use rules::check_slo_file;
pub use status::{
    Cell, CellState, Change, Handled, Page, PageState, PairStatus, PolicyStatus, SloStatus, Status, Watchdog,
    Window as WindowStatus,
};

pub use belfry_notify::{AlertName, Place, StandingState};

/// Registers the crate's metric families, for the catalogue of a process that does not run it.
pub fn describe(registry: &belfry_signal::Registry) {
    signals::Signals::register(registry);
}
