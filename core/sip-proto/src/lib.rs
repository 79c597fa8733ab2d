//! Built next.

pub mod timer;
pub mod transaction;
