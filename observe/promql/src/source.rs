//! What the engine reads: series of floats and histograms behind one trait.

use std::sync::Arc;

use crate::error::Error;
use crate::histogram::Histogram;
use crate::labels::Labels;
use crate::matcher::Matcher;

/// The bits of the NaN that says "this series ended here".
pub const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;

/// Whether a value is the staleness marker.
pub fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE_NAN_BITS
}

/// The staleness marker.
pub fn stale_marker() -> f64 {
    f64::from_bits(STALE_NAN_BITS)
}

/// One sample value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A float.
    Float(f64),
    /// A native histogram.
    Histogram(Arc<Histogram>),
}

/// A series with its points. Both lists are sorted by time (Unix milliseconds) without duplicates, and no time
/// is in both.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SeriesData {
    /// All labels, `__name__` among them.
    pub labels: Labels,
    /// Float points. Staleness markers are among them.
    pub floats: Vec<(i64, f64)>,
    /// Native histogram points.
    pub histograms: Vec<(i64, Arc<Histogram>)>,
}

/// Where series come from.
pub trait Series {
    /// Every series that passes all matchers, with its points in `from_ms..=to_ms`. A series without a point
    /// in there may be left out.
    ///
    /// # Errors
    /// `Error::Source` if the store cannot answer.
    fn select(&self, matchers: &[Matcher], from_ms: i64, to_ms: i64) -> Result<Vec<SeriesData>, Error>;
}
