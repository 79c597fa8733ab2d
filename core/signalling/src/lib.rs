//! The signalling core's shell: registrar, stateful proxy, call records.

pub mod handle;
