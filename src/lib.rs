//! The front door: wires the rooms of the house together and decides nothing else.

pub mod admin;
pub mod app;
pub mod ask;
pub mod billing;
pub mod catalog;
pub mod cli;
pub mod commands;
pub mod config;
pub mod demo;
pub mod drain;
pub mod limits;
pub mod live;
pub mod live_table;
pub mod logs;
pub mod promql;
pub mod records;
pub mod route;
pub mod rule_tests;
pub mod run;
pub mod series;
pub mod signals;
pub mod sip_line;
pub mod slo;
pub mod slo_table;
pub mod terminal;
pub mod upkeep;
