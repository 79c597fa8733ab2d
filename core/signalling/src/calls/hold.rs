//! What a call holds of limits and budgets, and gives back when it is over.

use belfry_routing::{Admitted, Cost, Subject, TrunkPass};

use crate::core::{Core, unix_seconds};
use crate::exchange::TrunkWay;

/// What a call holds. Places in limits are given back when this is dropped, whatever the way.
#[derive(Debug, Default)]
pub(crate) struct Hold {
    /// Its places in the limits of caller, called, tenant and calling trunk.
    pub(crate) admitted: Option<Admitted>,
    /// The trunk that it left by.
    pub(crate) on_trunk: Option<OnTrunk>,
    /// Who is watched while it lasts.
    pub(crate) meter: Option<Meter>,
}

/// A trunk that a call left by.
#[derive(Debug)]
pub(crate) struct OnTrunk {
    pub(crate) way: TrunkWay,
    /// The call's place on it.
    pub(crate) _pass: TrunkPass,
}

/// What runs up while a call lasts.
#[derive(Debug)]
pub(crate) struct Meter {
    pub(crate) subjects: Vec<Subject>,
    /// A minute's.
    pub(crate) cost: Cost,
}

impl Core {
    /// A call is over: what it held in limits comes back, and it costs no more.
    pub(crate) fn release(&mut self, hold: Hold, was_answered: bool) {
        let Hold { admitted, on_trunk, meter } = hold;
        if let (Some(meter), true, true) = (meter, on_trunk.is_some(), was_answered) {
            self.guard.ended(&meter.subjects, meter.cost, unix_seconds());
        }
        drop((admitted, on_trunk));
    }
}
