//! What the programs that load the stores share: a realistic stream of our own records.
//!
//! `belfry-load-events` measures what telemetry costs; `belfry-load-crash` kills a store and looks whether anything
//! that was acknowledged is missing or there twice. Neither is part of the product.

#![allow(clippy::expect_used, reason = "a measuring program may end when something is not as it expects")]

pub mod metrics;
pub mod stream;
