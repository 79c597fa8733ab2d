//! The world's clock is the story's: everything on this thread that asks what time it is gets the time of tokio's paused
//! clock, so that registrations run out and calls are as long as the story says.

use std::cell::Cell;

use belfry_signal::simulate_clock;
use tokio::time::Instant;

/// What the clock shows at the beginning: long after any clock of a machine that runs this, because threads of the stores
/// have theirs.
const BEGIN_UNIX_NANOS: u64 = 4_000_000_000_000_000_000;

thread_local! {
    static BEGAN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// As long as it is held, this thread has the story's time.
pub(crate) struct Clock(());

pub(crate) fn begin() -> Clock {
    BEGAN.set(Some(Instant::now()));
    simulate_clock(Some(now));
    Clock(())
}

impl Drop for Clock {
    fn drop(&mut self) {
        simulate_clock(None);
    }
}

fn now() -> u64 {
    let passed = BEGAN.get().map_or(0, |began| began.elapsed().as_nanos());
    BEGIN_UNIX_NANOS + u64::try_from(passed).unwrap_or_default()
}
