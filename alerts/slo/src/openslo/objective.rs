//! SLO documents: windows of time, targets, and what burns.

use serde_saphyr::Location;

use super::annotations::{Annotations, SLO_KEYS};
use super::indicator::Sli;
use super::policy::Policy;
use super::tree::{Node, Value};
use super::{Object, Reader};
use crate::budget::{Objective, PPM};
use crate::burn::{BurnPair, Guard, WORKBOOK_PERIOD_SECONDS, scaled, workbook_pairs};
use crate::calendar::{Calendar, Unit};
use crate::rules::{BAD_EVENTS_MIN, PAIRS_MAX, PERIOD_SECONDS_MAX, PERIOD_SECONDS_MIN, Slo, is_alert_name};
use crate::source::{Commitment, Comparison, Indicator, Method, Reading, Source, house_policy};

/// The journey of an SLO that names none.
const JOURNEY_DEFAULT: &str = "service";
/// The alert of an SLO that names none.
const ALERT_DEFAULT: &str = "SloBudgetBurn";
/// How long nothing may burn before an alert ends, for a period of 30 days.
const RESOLVE_AFTER_SECONDS: u64 = 180;
/// How often queries are asked where a file does not say.
const INTERVAL_SECONDS: u64 = 10;
/// The longest interval.
const INTERVAL_SECONDS_MAX: u64 = 3_600;

/// What all objectives of a document share.
struct Frame {
    name: String,
    at: Location,
    period_seconds: u64,
    calendar: Option<Calendar>,
    is_timeslices: bool,
    policies: Vec<Policy>,
    sli: Option<Sli>,
    /// An indicator stands there, readable or not.
    has_indicator: bool,
}

/// One of its objectives.
struct Aim {
    at: Location,
    objective: Objective,
    method: Method,
    threshold: Option<(Comparison, f64)>,
    sli: Sli,
}

impl Reader<'_> {
    pub(super) fn slo(&mut self, object: Object) {
        let Object { name, at, mut annotations, mut spec, .. } = object;
        let service = spec.need(&mut self.notes, "service");
        let (inline, reference) = (spec.take("indicator"), spec.take("indicatorRef"));
        let window = spec.take("timeWindow");
        let budgeting = spec.need(&mut self.notes, "budgetingMethod");
        let objectives = spec.need(&mut self.notes, "objectives");
        let policies = spec.take("alertPolicies");
        spec.done(&mut self.notes);
        if let Some(service) = service {
            self.service(&service);
        }
        let has_indicator = inline.is_some() || reference.is_some();
        let sli = self.indicator(at, inline, reference);
        let policies = policies.map(|node| self.policies(node)).unwrap_or_default();
        let period = match window {
            Some(node) => self.window(node),
            None => Some((WORKBOOK_PERIOD_SECONDS, None)),
        };
        let is_timeslices = budgeting.and_then(|node| self.is_timeslices(&node));
        let objectives = objectives.and_then(|node| self.notes.list("objectives", node)).unwrap_or_default();
        let (Some((period_seconds, calendar)), Some(is_timeslices)) = (period, is_timeslices) else { return };
        let frame = Frame { name, at, period_seconds, calendar, is_timeslices, policies, sli, has_indicator };
        let aims: Vec<Aim> = objectives.into_iter().filter_map(|node| self.aim(&frame, node)).collect();
        let is_one = aims.len() == 1;
        let shared = self.shared(&frame, &mut annotations);
        annotations.done(&mut self.notes, &SLO_KEYS);
        if aims.is_empty() && self.notes.faults.is_empty() {
            self.notes.fault(at, "there is no objective that can be judged");
        }
        for (number, aim) in (1..).zip(aims) {
            let at = aim.at;
            if let Some(mut slo) = self.judged(&frame, &shared, aim) {
                if !is_one {
                    slo.name = format!("{}-{number}", slo.name);
                }
                self.push(at, slo);
            }
        }
    }

    fn service(&mut self, node: &Node) {
        let known = self.library.services.iter().map(|name| (name.clone(), ())).collect();
        if self.library.services.is_empty() {
            self.notes.text("service", node);
        } else {
            let _known = Self::refer(&mut self.notes, "Service", node, &known);
        }
    }

    fn indicator(&mut self, at: Location, inline: Option<Node>, reference: Option<Node>) -> Option<Sli> {
        match (inline, reference) {
            (Some(node), None) => {
                let fields = self.notes.fields("indicator", node)?;
                let object = self.inline("SLI", fields)?;
                self.sli(object)
            }
            (None, Some(node)) => Self::refer(&mut self.notes, "SLI", &node, &self.library.slis),
            (Some(_), Some(_)) => {
                self.notes.fault(at, "either indicator or indicatorRef");
                None
            }
            // Each objective may have its own.
            (None, None) => None,
        }
    }

    fn policies(&mut self, node: Node) -> Vec<Policy> {
        let nodes = self.notes.list("alertPolicies", node).unwrap_or_default();
        let mut policies = Vec::new();
        for node in nodes {
            let policy = match &node.value {
                Value::Text(_) => Self::refer(&mut self.notes, "AlertPolicy", &node, &self.library.policies),
                _ => self.notes.fields("an alert policy", node).and_then(|mut fields| {
                    if let Some(reference) = fields.take("alertPolicyRef") {
                        fields.done(&mut self.notes);
                        return Self::refer(
                            &mut self.notes,
                            "AlertPolicy",
                            &reference,
                            &self.library.policies,
                        );
                    }
                    let object = self.inline("AlertPolicy", fields)?;
                    self.policy(object)
                }),
            };
            policies.extend(policy);
        }
        policies
    }

    fn is_timeslices(&mut self, node: &Node) -> Option<bool> {
        match self.notes.text("budgetingMethod", node)?.as_str() {
            "Occurrences" => Some(false),
            "Timeslices" => Some(true),
            other => {
                self.notes
                    .fault(node.at, format!("budgetingMethod is Occurrences or Timeslices, not {other:?}"));
                None
            }
        }
    }

    /// The period's length at most, and the calendar that it follows.
    fn window(&mut self, node: Node) -> Option<(u64, Option<Calendar>)> {
        let at = node.at;
        let mut nodes = self.notes.list("timeWindow", node)?;
        if nodes.len() != 1 {
            self.notes.fault(at, format!("{} time windows: exactly one", nodes.len()));
        }
        let mut fields = self.notes.fields("a time window", nodes.pop()?)?;
        let duration = fields.need(&mut self.notes, "duration");
        let calendar = fields.take("calendar");
        let rolling = fields.take("isRolling").and_then(|node| self.notes.flag("isRolling", &node));
        fields.done(&mut self.notes);
        let duration = duration?;
        let (number, unit) = self.shorthand_parts("duration", &duration)?;
        let (seconds, calendar) = match (calendar, rolling.unwrap_or(false)) {
            (Some(node), false) => {
                let calendar = self.calendar(node, &duration, number, unit)?;
                (calendar.seconds_max(), Some(calendar))
            }
            (None, true) => (self.shorthand("duration", &duration)?, None),
            (Some(_), true) => {
                self.notes.fault(at, "a window that follows a calendar does not roll");
                return None;
            }
            (None, false) => {
                self.notes.fault(at, "a window has isRolling: true or a calendar");
                return None;
            }
        };
        if (PERIOD_SECONDS_MIN..=PERIOD_SECONDS_MAX).contains(&seconds) {
            return Some((seconds, calendar));
        }
        self.notes.fault(duration.at, "a period lasts from 10m to 93d: so long are counts kept");
        None
    }

    fn calendar(&mut self, node: Node, duration: &Node, number: u64, unit: char) -> Option<Calendar> {
        let at = node.at;
        let mut fields = self.notes.fields("calendar", node)?;
        let start = fields.need(&mut self.notes, "startTime");
        let zone = fields.need(&mut self.notes, "timeZone");
        fields.done(&mut self.notes);
        let start = self.notes.text("startTime", &start?)?;
        let zone = self.notes.text("timeZone", &zone?)?;
        let (unit, number) = match unit {
            'h' => (Unit::Hour, number),
            'd' => (Unit::Day, number),
            'w' => (Unit::Week, number),
            'M' => (Unit::Month, number),
            'Q' => (Unit::Quarter, number),
            'Y' => (Unit::Month, number.saturating_mul(12)),
            _ => {
                self.notes.fault(duration.at, "a calendar goes by h, d, w, M or Q");
                return None;
            }
        };
        let calendar = Calendar::new(&start, &zone, unit, u32::try_from(number).unwrap_or(u32::MAX));
        calendar.map_err(|message| self.notes.fault(at, message)).ok()
    }

    fn aim(&mut self, frame: &Frame, node: Node) -> Option<Aim> {
        let mut fields = self.notes.fields("an objective", node)?;
        let at = fields.at;
        fields.text(&mut self.notes, "displayName");
        let (op, value) = (fields.take("op"), fields.take("value"));
        let (target, percent) = (fields.take("target"), fields.take("targetPercent"));
        let (slice_target, slice_window) = (fields.take("timeSliceTarget"), fields.take("timeSliceWindow"));
        let (inline, reference) = (fields.take("indicator"), fields.take("indicatorRef"));
        if let Some(node) = fields.take("compositeWeight") {
            self.notes.fault(
                node.at,
                "weights of composites are not of OpenSLO v1: objectives with their own indicators are judged each",
            );
        }
        fields.done(&mut self.notes);
        let objective = self.target_of(at, target, percent);
        let method = self.method(frame, at, slice_target, slice_window);
        let sli = if inline.is_some() || reference.is_some() {
            self.indicator(at, inline, reference)
        } else {
            if !frame.has_indicator {
                self.notes.fault(at, "there is no indicator, neither here nor in the SLO");
            }
            frame.sli.clone()
        };
        let is_threshold = matches!(sli, Some(Sli::Threshold { .. }));
        let threshold = match (op, value) {
            (Some(op), Some(value)) if is_threshold => {
                Some((self.comparison(&op)?, self.notes.number("value", &value)?))
            }
            (None, None) if !is_threshold => None,
            _ if is_threshold => {
                self.notes.fault(at, "a thresholdMetric needs op and value");
                return None;
            }
            _ => {
                self.notes.fault(at, "op and value belong to a thresholdMetric");
                return None;
            }
        };
        Some(Aim { at, objective: objective?, method: method?, threshold, sli: sli? })
    }

    fn comparison(&mut self, node: &Node) -> Option<Comparison> {
        match self.notes.text("op", node)?.as_str() {
            "lte" => Some(Comparison::AtMost),
            "gte" => Some(Comparison::AtLeast),
            "lt" => Some(Comparison::Below),
            "gt" => Some(Comparison::Above),
            other => {
                self.notes.fault(node.at, format!("op is lte, gte, lt or gt, not {other:?}"));
                None
            }
        }
    }

    fn target_of(&mut self, at: Location, target: Option<Node>, percent: Option<Node>) -> Option<Objective> {
        let (node, key, whole) = match (target, percent) {
            (Some(node), None) => (node, "target", 1.0),
            (None, Some(node)) => (node, "targetPercent", 100.0),
            _ => {
                self.notes.fault(at, "an objective has either target or targetPercent");
                return None;
            }
        };
        let number = self.notes.number(key, &node)?;
        let objective = ppm_of(number / whole).and_then(Objective::from_ppm);
        if objective.is_none() {
            self.notes.fault(
                node.at,
                format!("{key} is above 0 and below {whole}, in whole parts per million: 99.95 % is 999500 of them"),
            );
        }
        objective
    }

    fn method(
        &mut self,
        frame: &Frame,
        at: Location,
        target: Option<Node>,
        window: Option<Node>,
    ) -> Option<Method> {
        if !frame.is_timeslices {
            if target.is_some() || window.is_some() {
                self.notes
                    .fault(at, "timeSliceTarget and timeSliceWindow belong to budgetingMethod: Timeslices");
            }
            return Some(Method::Occurrences);
        }
        let (Some(target), Some(window)) = (target, window) else {
            self.notes.fault(at, "Timeslices need timeSliceTarget and timeSliceWindow");
            return None;
        };
        let number = self.notes.number("timeSliceTarget", &target)?;
        let target_ppm = ppm_of(number).filter(|ppm| (1..=PPM).contains(ppm));
        if target_ppm.is_none() {
            self.notes
                .fault(target.at, "timeSliceTarget is above 0 and at most 1, in whole parts per million");
        }
        let slice_seconds = match window.value {
            // A bare number is of minutes, says the specification.
            Value::Number(minutes) if minutes >= 1.0 && minutes.fract() == 0.0 && minutes <= 1_440.0 => {
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above")]
                let minutes = minutes as u64;
                minutes * 60
            }
            Value::Text(_) => self.shorthand("timeSliceWindow", &window)?,
            _ => 0,
        };
        if slice_seconds == 0 || slice_seconds > 86_400 || 86_400 % slice_seconds != 0 {
            self.notes.fault(window.at, "a slice is a whole part of a day, 1m to 1d");
            return None;
        }
        Some(Method::Timeslices { slice_seconds, target_ppm: target_ppm? })
    }

    /// What every objective of the document has alike; its name, source, objective and method follow.
    fn shared(&mut self, frame: &Frame, annotations: &mut Annotations) -> Shared {
        let notes = &mut self.notes;
        let commitment = annotations.commitment(notes);
        let journey = annotations.take("journey").map_or(JOURNEY_DEFAULT.to_owned(), |(_, name)| name);
        let alert = match annotations.take("alert") {
            Some((at, name)) => {
                if !is_alert_name(&name) {
                    notes.fault(at, "an alert is named in capitals and letters, as CallSetupBudgetBurn");
                }
                name
            }
            None => ALERT_DEFAULT.to_owned(),
        };
        let windows = annotations.windows(notes);
        let bad_events_min = annotations.count(notes, "bad-events-min", u64::MAX).unwrap_or(BAD_EVENTS_MIN);
        let resolve_after = annotations.seconds(notes, "resolve-after").map(|(_, seconds)| seconds);
        let interval = annotations.seconds(notes, "interval");
        let policy = annotations.policy(notes).unwrap_or_else(house_policy);
        let grouping = annotations.grouping(notes);
        let mut asked: Vec<BurnPair> = windows
            .unwrap_or_default()
            .into_iter()
            .map(|pair| pair.scaled_to(frame.period_seconds))
            .collect();
        for policy in &frame.policies {
            asked.extend(policy.pairs.iter().copied());
            asked.extend(policy.scaled.iter().map(|pair| pair.scaled_to(frame.period_seconds)));
        }
        if asked.len() > PAIRS_MAX {
            notes.fault(frame.at, format!("{} pairs of windows: {PAIRS_MAX} at most", asked.len()));
        }
        let is_asked = !asked.is_empty() || !frame.policies.is_empty();
        if !is_asked && commitment == Commitment::Objective {
            asked = workbook_pairs().into_iter().map(|pair| pair.scaled_to(frame.period_seconds)).collect();
        }
        Shared {
            commitment,
            journey,
            alert,
            pairs: asked,
            is_asked,
            bad_events_min,
            resolve_after_seconds: scaled(
                resolve_after.unwrap_or(RESOLVE_AFTER_SECONDS),
                frame.period_seconds,
            ),
            interval,
            policy,
            grouping,
            description: annotations.description.clone(),
        }
    }

    fn judged(&mut self, frame: &Frame, shared: &Shared, aim: Aim) -> Option<Slo> {
        let step_seconds = match aim.method {
            Method::Occurrences => 1,
            Method::Timeslices { slice_seconds, .. } => slice_seconds,
        };
        let mut pairs = Vec::new();
        for pair in &shared.pairs {
            let is_right = pair.threshold(aim.objective).is_reachable() && pair.short_seconds >= step_seconds;
            if is_right && pair.short_seconds < pair.long_seconds {
                pairs.push(*pair);
            } else if shared.is_asked {
                self.notes.fault(
                    aim.at,
                    format!(
                        "the pair of {} s and {} s cannot burn here: its burn is above what this target allows, or its \
                         short window is shorter than a slice",
                        pair.long_seconds, pair.short_seconds
                    ),
                );
            }
        }
        let (source, is_sample) = self.source_of(shared, &aim, &pairs)?;
        let is_slices = matches!(aim.method, Method::Timeslices { .. });
        let journey = match &aim.sli {
            Sli::Journey(name) => name.clone(),
            _ => shared.journey.clone(),
        };
        Some(Slo {
            name: frame.name.clone(),
            journey,
            alert: shared.alert.clone(),
            description: shared.description.clone(),
            objective: aim.objective,
            period_seconds: frame.period_seconds,
            calendar: frame.calendar.clone(),
            method: aim.method,
            commitment: shared.commitment,
            source,
            pairs,
            guard: if is_sample && !is_slices {
                Guard { bad_events_min: shared.bad_events_min, is_sample: true }
            } else {
                Guard { bad_events_min: 1, is_sample: false }
            },
            resolve_after_seconds: shared.resolve_after_seconds,
            policy: shared.policy.clone(),
            is_paged_when_blind: frame.policies.iter().any(|policy| policy.is_paged_when_blind),
        })
    }

    /// Where events come from, and whether they are a sample of traffic, in which few mean little.
    fn source_of(&mut self, shared: &Shared, aim: &Aim, pairs: &[BurnPair]) -> Option<(Source, bool)> {
        let reading = match (&aim.sli, aim.threshold) {
            (Sli::Journey(_), _) => {
                if let Some((at, _)) = shared.interval {
                    self.notes.fault(at, "a journey is counted each second: it has no belfry/interval");
                }
                if shared.grouping.label.is_some() {
                    self.notes.fault(aim.at, "a journey is judged in each region: it has no belfry/group-by");
                }
                return Some((Source::Journey, true));
            }
            (Sli::Counts { part, is_part_bad, total, is_counter, needs_part }, _) => Reading::Counts {
                part: part.clone(),
                is_part_bad: *is_part_bad,
                total: total.clone(),
                is_counter: *is_counter,
                needs_part: *needs_part,
            },
            (Sli::Ratio { query, is_failure }, _) => {
                Reading::Ratio { query: query.clone(), is_failure: *is_failure }
            }
            (Sli::Threshold { query }, Some((comparison, mark))) => {
                Reading::Threshold { query: query.clone(), comparison, mark }
            }
            (Sli::Threshold { .. }, None) => return None,
        };
        let shortest = pairs.iter().map(|pair| pair.short_seconds).min().unwrap_or(INTERVAL_SECONDS_MAX);
        let shortest = match aim.method {
            Method::Timeslices { slice_seconds, .. } => shortest.min(slice_seconds),
            Method::Occurrences => shortest,
        };
        let interval_seconds = match shared.interval {
            Some((at, seconds)) if seconds > shortest.min(INTERVAL_SECONDS_MAX) => {
                self.notes.fault(
                    at,
                    format!("an interval is not longer than the shortest window or slice, {shortest} s"),
                );
                return None;
            }
            Some((_, seconds)) => seconds,
            None => INTERVAL_SECONDS.min(shortest).max(1),
        };
        let is_sample = matches!(reading, Reading::Counts { .. });
        let indicator = Indicator { reading, interval_seconds, groups: shared.grouping.clone() };
        Some((Source::Queries(Box::new(indicator)), is_sample))
    }

    /// `5m`, `4w`, `1M`: a whole number and a unit.
    fn shorthand_parts(&mut self, key: &str, node: &Node) -> Option<(u64, char)> {
        let text = self.notes.text(key, node)?;
        let unit = text.chars().last().filter(|unit| "mhdwMQY".contains(*unit));
        let number = unit.and_then(|unit| text.strip_suffix(unit)?.parse::<u64>().ok());
        match (number, unit) {
            (Some(number), Some(unit)) if number > 0 || key == "alertAfter" => Some((number, unit)),
            _ => {
                self.notes.fault(
                    node.at,
                    format!(
                        "{key} is a whole number and one of m, h, d, w, M, Q, Y, as 5m or 4w, not {text:?}"
                    ),
                );
                None
            }
        }
    }

    /// The same in seconds, with months of 30 days, quarters of 90 and years of 365.
    pub(super) fn shorthand(&mut self, key: &str, node: &Node) -> Option<u64> {
        let (number, unit) = self.shorthand_parts(key, node)?;
        let seconds: u64 = match unit {
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            'w' => 7 * 86_400,
            'M' => 30 * 86_400,
            'Q' => 90 * 86_400,
            _ => 365 * 86_400,
        };
        Some(number.saturating_mul(seconds))
    }
}

/// What objectives of one document share.
struct Shared {
    commitment: Commitment,
    journey: String,
    alert: String,
    pairs: Vec<BurnPair>,
    /// The file asked for these windows: one that cannot burn is a mistake.
    is_asked: bool,
    bad_events_min: u64,
    resolve_after_seconds: u64,
    interval: Option<(Location, u64)>,
    policy: Vec<crate::source::PolicyStep>,
    grouping: crate::source::Grouping,
    description: String,
}

/// A share in parts per million, when it is a whole number of them.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be in range")]
fn ppm_of(share: f64) -> Option<u32> {
    let parts = (share * f64::from(PPM)).round();
    let is_whole = (share * f64::from(PPM) - parts).abs() < 1e-4;
    (is_whole && (0.0..=f64::from(PPM)).contains(&parts)).then_some(parts as u32)
}
