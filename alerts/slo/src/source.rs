//! Where an SLO's events come from, and what else an SLO may say beside its budget.

/// How good time is told from bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Every event counts.
    Occurrences,
    /// Every slice of time counts once: it is good when enough of its events were.
    Timeslices {
        /// The length of a slice.
        slice_seconds: u64,
        /// The share of a slice's events that must be good, in parts per million (1 000 000 is all of them).
        target_ppm: u32,
    },
}

/// To whom something is promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commitment {
    /// To ourselves: it warns before customers are owed anything.
    Objective,
    /// To customers, by contract: it is accounted for, and pages only when its file asks for it.
    Agreement,
}

/// Where events come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// The exact counts of this process, taken each second.
    Journey,
    /// Queries of metrics, asked again and again.
    Queries(Box<Indicator>),
}

/// How queries become good and bad events.
#[derive(Clone, Debug, PartialEq)]
pub struct Indicator {
    /// What is asked.
    pub reading: Reading,
    /// How often.
    pub interval_seconds: u64,
    /// What is judged apart.
    pub groups: Grouping,
}

/// What a metric says.
#[derive(Clone, Debug, PartialEq)]
pub enum Reading {
    /// Counts of events.
    Counts {
        /// The part: good or bad events.
        part: String,
        /// The part is the bad events.
        is_part_bad: bool,
        /// All events.
        total: String,
        /// Counters that only grow; otherwise each answer is the number of events of one interval.
        is_counter: bool,
        /// The part is always there when the total is, as a bucket of a histogram: without it nothing is known.
        needs_part: bool,
    },
    /// A ratio that somebody else worked out: each interval weighs the same, whatever its traffic.
    Ratio {
        /// The ratio, 0 to 1.
        query: String,
        /// It is that of failures.
        is_failure: bool,
    },
    /// A number that has to be on the right side of a mark: each element of each interval is one event.
    Threshold {
        /// The number.
        query: String,
        /// The side.
        comparison: Comparison,
        /// The mark.
        mark: f64,
    },
}

/// Which side of a mark is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// At most.
    AtMost,
    /// At least.
    AtLeast,
    /// Below.
    Below,
    /// Above.
    Above,
}

/// What of an indicator is judged apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grouping {
    /// The label whose values are judged apart; `None` judges everything together.
    pub label: Option<String>,
    /// The values that are; everything else is judged together as [`OTHER`].
    pub listed: Vec<String>,
    /// Values that are not listed are judged apart too, as they come, as far as [`Grouping::groups_max`] goes.
    /// Whoever sets it says that the label holds configured names, which may leave the region.
    pub is_open: bool,
    /// How many are judged apart at most.
    pub groups_max: usize,
}

/// What is called for when so much of a budget is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyStep {
    /// The share of the budget that is gone, in percent.
    pub spent_percent: u32,
    /// What then.
    pub action: Action,
}

/// What a budget policy calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// The team is told.
    Notice,
    /// Changes wait, but for those that mend.
    ChangeGate,
    /// A report is owed.
    Report,
}

/// The group of everything where nothing is judged apart.
pub const ALL: &str = "all";
/// The group of what is not judged apart.
pub const OTHER: &str = "other";
/// Groups of one SLO, where its file does not say.
pub const GROUPS_DEFAULT: usize = 20;
/// Groups of one SLO at most.
pub const GROUPS_MAX: usize = 100;

impl Comparison {
    /// Whether a number is on the good side.
    #[must_use]
    pub fn is_good(self, number: f64, mark: f64) -> bool {
        match self {
            Self::AtMost => number <= mark,
            Self::AtLeast => number >= mark,
            Self::Below => number < mark,
            Self::Above => number > mark,
        }
    }
}

impl Reading {
    /// Its queries: the part (or the only one) first, then all events.
    #[must_use]
    pub fn queries(&self) -> Vec<&str> {
        match self {
            Self::Counts { part, total, .. } => vec![part, total],
            Self::Ratio { query, .. } | Self::Threshold { query, .. } => vec![query],
        }
    }
}

impl Commitment {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Objective => "slo",
            Self::Agreement => "sla",
        }
    }
}

impl Action {
    /// Every action.
    pub const ALL: [Self; 3] = [Self::Notice, Self::ChangeGate, Self::Report];

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Notice => "notice",
            Self::ChangeGate => "change_gate",
            Self::Report => "report",
        }
    }
}

/// What is called for where a file does not say.
pub(crate) fn house_policy() -> Vec<PolicyStep> {
    let step = |spent_percent, action| PolicyStep { spent_percent, action };
    vec![step(50, Action::Notice), step(75, Action::ChangeGate), step(100, Action::Report)]
}
