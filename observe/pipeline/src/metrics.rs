//! Doors for metrics that others measured: bytes come in, [`belfry_signal::SeriesBatch`] goes out.
//!
//! What reads bytes is pure: no clock, no socket. [`receive`] serves what is pushed, [`scrape`] fetches what is asked for,
//! [`send`] hands on what is stored. All of them end in [`crate::PipelineHandle::write`], or begin at the log.

pub mod collect;
pub mod exposition;
pub mod families;
pub mod labels;
pub mod receive;
pub mod relabel;
pub mod remote_write;
pub mod scrape;
pub mod send;
pub mod signals;

#[cfg(test)]
mod tests;
