//! Where the engine gets the time from: the wall clock, or a test.

use std::fmt;
use std::sync::Arc;

/// Nanoseconds since the epoch, on request.
#[derive(Clone)]
pub(crate) struct Clock(Arc<dyn Fn() -> u64 + Send + Sync>);

impl Clock {
    /// The wall clock.
    pub(crate) fn wall() -> Self {
        Self(Arc::new(belfry_signal::now_unix_nanos))
    }

    pub(crate) fn unix_nanos(&self) -> u64 {
        (self.0)()
    }

    /// A clock that follows tokio's paused time from a beginning on.
    #[cfg(test)]
    pub(crate) fn paused(began_unix_nanos: u64) -> Self {
        let began = tokio::time::Instant::now();
        Self(Arc::new(move || {
            began_unix_nanos + u64::try_from(began.elapsed().as_nanos()).expect("a test is short")
        }))
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}
