//! Built next.
