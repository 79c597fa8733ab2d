//! The whole product, as a user runs it: the binary, real clients, crashes.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "tests")]

mod alerting;
mod binary;
mod crash;
mod curves;
mod demo;
mod differential;
mod doors;
mod flows;
mod indicators;
mod metric_doors;
mod operators;
mod prepaid;
mod promql;
mod read_api;
mod real_clients;
mod records;
mod rooms_apart;
mod routes;
mod running;
mod senders;
mod sipp;
mod store_crash;
