//! An alerting rule's alerts: pending, firing, over. As Prometheus has it, but what fired and what was pending
//! survives a restart to the millisecond.

use std::collections::BTreeMap;

use belfry_promql::{Data, Labels, METRIC_NAME, Value};
use serde::{Deserialize, Serialize};

use crate::file::{AlertSpec, RuleSpec};
use crate::group::{Environment, Point};
use crate::template::{Context, Template, Value as TemplateValue};

/// How an alert stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum AlertState {
    /// Its expression found it, not for long enough yet.
    Pending,
    /// Somebody is to be told.
    Firing,
}

impl AlertState {
    /// As the API has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Firing => "firing",
        }
    }
}

/// One alert of a rule. Times are Unix milliseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Active {
    /// Its labels, `alertname` among them.
    pub labels: Labels,
    /// What it says.
    pub annotations: Vec<(String, String)>,
    /// How it stands.
    pub state: AlertState,
    /// Since when its expression has found it.
    pub active_at_ms: i64,
    /// Since when it fires.
    pub fired_at_ms: Option<i64>,
    /// Since when it fires only because it is to fire on.
    pub keep_firing_since_ms: Option<i64>,
    /// What its expression found.
    pub value: f64,
}

/// An alert as it is kept over a restart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// Which rule of the group.
    pub rule: String,
    /// Its labels.
    pub labels: Vec<(String, String)>,
    /// What it says.
    pub annotations: Vec<(String, String)>,
    /// How it stands.
    pub state: AlertState,
    /// Since when its expression has found it.
    pub active_at_ms: i64,
    /// Since when it fires.
    pub fired_at_ms: Option<i64>,
    /// Since when it fires only because it is to fire on.
    pub keep_firing_since_ms: Option<i64>,
    /// What its expression found.
    pub value: f64,
}

/// The alerts of one rule.
#[derive(Clone, Debug, Default)]
pub(crate) struct Alerting {
    pub(crate) active: BTreeMap<Labels, Active>,
}

/// What an evaluation of a rule changed and found.
#[derive(Debug, Default)]
pub(crate) struct Turned {
    pub(crate) points: Vec<Point>,
    /// An alert came, went or fired.
    pub(crate) has_changed: bool,
}

/// Values and annotations of what an expression found, by the labels of the alerts that it becomes.
type Found = BTreeMap<Labels, (f64, Vec<(String, String)>)>;

impl Alerting {
    /// Takes what the expression found at a time.
    ///
    /// # Errors
    /// When two results become the same alert, or there are too many: the alerts then stay as they were.
    pub(crate) fn turn(
        &mut self,
        rule: &RuleSpec,
        spec: &AlertSpec,
        found: Data,
        (now_ms, stamp_ms): (i64, i64),
        limit: usize,
        environment: &Environment,
    ) -> Result<Turned, String> {
        let found = self.found(rule, spec, found, environment)?;
        let before: Vec<(Labels, AlertState)> =
            self.active.values().map(|alert| (alert.labels.clone(), alert.state)).collect();
        let mut next = BTreeMap::new();
        for (labels, (value, annotations)) in &found {
            let mut alert = self.active.get(labels).cloned().unwrap_or_else(|| Active {
                labels: labels.clone(),
                annotations: Vec::new(),
                state: AlertState::Pending,
                active_at_ms: now_ms,
                fired_at_ms: None,
                keep_firing_since_ms: None,
                value: 0.0,
            });
            (alert.value, alert.annotations) = (*value, annotations.clone());
            alert.keep_firing_since_ms = None;
            // A clock that stepped back must not keep an alert pending for as long as it stepped.
            alert.active_at_ms = alert.active_at_ms.min(now_ms);
            next.insert(labels.clone(), alert);
        }
        for (labels, alert) in &self.active {
            if found.contains_key(labels) || alert.state != AlertState::Firing || spec.keep_firing_for_ms <= 0
            {
                continue;
            }
            let since = alert.keep_firing_since_ms.unwrap_or(now_ms).min(now_ms);
            if now_ms - since < spec.keep_firing_for_ms {
                next.insert(labels.clone(), Active { keep_firing_since_ms: Some(since), ..alert.clone() });
            }
        }
        if limit > 0 && next.len() > limit {
            return Err(format!("exceeded limit of {limit} with {} alerts", next.len()));
        }
        for alert in next.values_mut() {
            if alert.state == AlertState::Pending && now_ms - alert.active_at_ms >= spec.for_ms {
                alert.state = AlertState::Firing;
                alert.fired_at_ms = Some(now_ms);
            }
        }
        self.active = next;
        let after = self.active.values().map(|alert| (alert.labels.clone(), alert.state));
        Ok(Turned { has_changed: !after.eq(before), points: self.points(stamp_ms) })
    }

    /// The labels, values and texts of what the expression found.
    fn found(
        &self,
        rule: &RuleSpec,
        spec: &AlertSpec,
        found: Data,
        environment: &Environment,
    ) -> Result<Found, String> {
        let mut alerts = BTreeMap::new();
        for (labels, value) in samples(found)? {
            let value = match value {
                Value::Float(value) => value,
                Value::Histogram(_) => 0.0,
            };
            let context = context(&labels, value, environment);
            let expand = |template: &Template| {
                template.expand(&context).unwrap_or_else(|error| {
                    format!(
                        "<error expanding template: error executing template __alert_{}: {error}>",
                        rule.name()
                    )
                })
            };
            let own = spec.label_templates.iter().map(|(name, template)| (name.clone(), expand(template)));
            let named = labels.iter().filter(|(name, _)| *name != METRIC_NAME);
            let named = named.map(|(name, value)| (name.to_owned(), value.to_owned()));
            let alertname = [("alertname".to_owned(), spec.name.clone())];
            let all = Labels::from_pairs(named.chain(own).chain(alertname));
            let annotations =
                spec.annotation_templates.iter().map(|(name, template)| (name.clone(), expand(template)));
            // By name, as a map has them: a file that is only put in another order changes no alert.
            let annotations = annotations.collect::<BTreeMap<_, _>>().into_iter().collect();
            if alerts.insert(all, (value, annotations)).is_some() {
                let message = "vector contains metrics with the same labelset after applying alert labels";
                return Err(message.to_owned());
            }
        }
        Ok(alerts)
    }

    /// `ALERTS` and `ALERTS_FOR_STATE`.
    fn points(&self, stamp_ms: i64) -> Vec<Point> {
        let mut points = Vec::with_capacity(self.active.len() * 2);
        for alert in self.active.values() {
            let with =
                |extra: &[(&str, &str)]| Labels::from_pairs(alert.labels.iter().chain(extra.iter().copied()));
            let state = [(METRIC_NAME, "ALERTS"), ("alertstate", alert.state.as_str())];
            points.push(Point { labels: with(&state), unix_millis: stamp_ms, value: Value::Float(1.0) });
            let since = (alert.active_at_ms.div_euclid(1_000)) as f64;
            let labels = with(&[(METRIC_NAME, "ALERTS_FOR_STATE")]);
            points.push(Point { labels, unix_millis: stamp_ms, value: Value::Float(since) });
        }
        points
    }

    pub(crate) fn kept<'a>(&'a self, rule: &'a str) -> impl Iterator<Item = Kept> + 'a {
        let owned = |labels: &Labels| labels.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
        self.active.values().map(move |alert| Kept {
            rule: rule.to_owned(),
            labels: owned(&alert.labels),
            annotations: alert.annotations.clone(),
            state: alert.state,
            active_at_ms: alert.active_at_ms,
            fired_at_ms: alert.fired_at_ms,
            keep_firing_since_ms: alert.keep_firing_since_ms,
            value: alert.value,
        })
    }

    /// Puts a kept alert back. The time that nobody judged, `down_ms`, counts neither for nor against it.
    pub(crate) fn restore(&mut self, kept: Kept, down_ms: i64) {
        let labels = Labels::from_pairs(kept.labels);
        let shift = if kept.state == AlertState::Pending { down_ms } else { 0 };
        let alert = Active {
            labels: labels.clone(),
            annotations: kept.annotations,
            state: kept.state,
            active_at_ms: kept.active_at_ms.saturating_add(shift),
            fired_at_ms: kept.fired_at_ms,
            keep_firing_since_ms: kept.keep_firing_since_ms.map(|since| since.saturating_add(down_ms)),
            value: kept.value,
        };
        self.active.insert(labels, alert);
    }
}

/// What an instant query found, as labels and values.
pub(crate) fn samples(found: Data) -> Result<Vec<(Labels, Value)>, String> {
    match found {
        Data::Vector(samples) => {
            Ok(samples.into_iter().map(|sample| (sample.labels, sample.value)).collect())
        }
        Data::Scalar(_, value) => Ok(vec![(Labels::default(), Value::Float(value))]),
        Data::Text(..) | Data::Matrix(_) => Err("rule result is not a vector or scalar".to_owned()),
    }
}

fn context(labels: &Labels, value: f64, environment: &Environment) -> Context {
    let labels = TemplateValue::texts(labels.iter());
    let external = TemplateValue::texts(environment.external_labels.iter());
    let (url, value) = (TemplateValue::from(environment.external_url.as_str()), TemplateValue::Float(value));
    let named = [
        ("Labels", labels.clone()),
        ("ExternalLabels", external.clone()),
        ("ExternalURL", url.clone()),
        ("Value", value.clone()),
    ];
    Context {
        dot: TemplateValue::Map(named.map(|(name, value)| (name.to_owned(), value)).into()),
        variables: vec![
            ("$labels", labels),
            ("$externalLabels", external),
            ("$externalURL", url),
            ("$value", value),
        ],
        external_url: environment.external_url.clone(),
    }
}
