//! The engine's snapshot as JSON, for `belfry slo` and other programs.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use tokio::sync::watch;

use crate::policy::{Closed, closed_by};
use crate::status::{Cell, Change, Page, SloStatus, Status, Watchdog};

type Snapshots = watch::Receiver<Arc<Status>>;

#[derive(Serialize)]
struct Slos<'a> {
    unix_nanos: u64,
    slos: &'a [SloStatus],
}

#[derive(Serialize)]
struct Gate {
    unix_nanos: u64,
    is_open: bool,
    closed_by: Vec<Closed>,
}

#[derive(Serialize)]
struct Cells<'a> {
    unix_nanos: u64,
    cells: &'a [Cell],
}

#[derive(Serialize)]
struct Pages<'a> {
    unix_nanos: u64,
    watchdog: &'a Watchdog,
    pages: &'a [Page],
}

#[derive(Serialize)]
struct Changes<'a> {
    unix_nanos: u64,
    changes: &'a [Change],
}

pub(crate) fn router(snapshots: Snapshots) -> Router {
    Router::new()
        .route("/api/v1/slos", get(slos))
        .route("/api/v1/slos/gate", get(gate))
        .route("/api/v1/cells", get(cells))
        .route("/api/v1/pages", get(pages))
        .route("/api/v1/changes", get(changes))
        .with_state(snapshots)
}

async fn slos(State(snapshots): State<Snapshots>) -> Response {
    let status = snapshots.borrow().clone();
    Json(Slos { unix_nanos: status.unix_nanos, slos: &status.slos }).into_response()
}

/// Whether changes may go out, and if not because of whom.
async fn gate(State(snapshots): State<Snapshots>) -> Response {
    let status = snapshots.borrow().clone();
    let closed_by = closed_by(&status.slos);
    Json(Gate { unix_nanos: status.unix_nanos, is_open: closed_by.is_empty(), closed_by }).into_response()
}

async fn cells(State(snapshots): State<Snapshots>) -> Response {
    let status = snapshots.borrow().clone();
    Json(Cells { unix_nanos: status.unix_nanos, cells: &status.cells }).into_response()
}

async fn pages(State(snapshots): State<Snapshots>) -> Response {
    let status = snapshots.borrow().clone();
    Json(Pages { unix_nanos: status.unix_nanos, watchdog: &status.watchdog, pages: &status.pages })
        .into_response()
}

async fn changes(State(snapshots): State<Snapshots>) -> Response {
    let status = snapshots.borrow().clone();
    Json(Changes { unix_nanos: status.unix_nanos, changes: &status.changes }).into_response()
}
