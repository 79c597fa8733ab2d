//! What goes out: a notice for one way of telling one receiver about one group.

use belfry_promql::Labels;
use belfry_ruler::{Context, Template, TemplateValue};
use serde::{Deserialize, Serialize};

use crate::config::{Integration, IntegrationKind};

/// What a notice does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Act {
    /// Opens an incident, or says more about it.
    Trigger,
    /// Closes it.
    Resolve,
}

/// One notice. It is offered until it is taken; its incident and number name it, so that a receiver of notices sees a
/// repetition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    /// Its place in the order of everything.
    pub seq: u64,
    /// The receiver.
    pub receiver: String,
    /// Which way, as [`Integration::target`].
    pub target: String,
    /// The group, readable.
    pub group_key: String,
    /// The incident: one from its first trigger to its resolve.
    pub incident: String,
    /// How many notices of the incident came before this one.
    pub number: u64,
    /// What it does.
    pub act: Act,
    /// The labels that name the group.
    pub group_labels: Vec<(String, String)>,
    /// Labels that all of its alerts have.
    pub common_labels: Vec<(String, String)>,
    /// Annotations that all of its alerts have.
    pub common_annotations: Vec<(String, String)>,
    /// Its alerts, firing ones first.
    pub alerts: Vec<NoticeAlert>,
    /// Alerts that are left out.
    pub truncated: usize,
    /// Texts of the receiver, filled in.
    pub texts: Vec<(String, String)>,
    /// When it was decided, in Unix milliseconds.
    pub at_ms: i64,
}

/// An alert of a notice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NoticeAlert {
    /// Whether it fires.
    pub is_firing: bool,
    /// What identifies it.
    pub labels: Vec<(String, String)>,
    /// What it says.
    pub annotations: Vec<(String, String)>,
    /// Since when.
    pub starts_at_ms: i64,
    /// Until when.
    pub ends_at_ms: Option<i64>,
    /// Where it comes from.
    pub generator_url: String,
    /// Its stable name.
    pub fingerprint: String,
}

/// How many alerts a notice carries at most.
pub(crate) const ALERTS_MAX: usize = 100;

impl Notice {
    /// Fills in what all alerts share, and the receiver's texts.
    pub(crate) fn complete(&mut self, integration: Option<&Integration>, external_url: &str) {
        self.common_labels = shared(self.alerts.iter().map(|alert| &alert.labels));
        self.common_annotations = shared(self.alerts.iter().map(|alert| &alert.annotations));
        let Some(integration) = integration else { return };
        match &integration.kind {
            IntegrationKind::Pagerduty(pagerduty) => {
                self.texts = self.expanded(&pagerduty.texts, external_url)
            }
            IntegrationKind::Slack(slack) => self.texts = self.expanded(&slack.texts, external_url),
            IntegrationKind::Webhook(webhook)
                if webhook.max_alerts > 0 && self.alerts.len() > webhook.max_alerts =>
            {
                self.truncated += self.alerts.len() - webhook.max_alerts;
                self.alerts.truncate(webhook.max_alerts);
            }
            IntegrationKind::Webhook(_) | IntegrationKind::Service(_) => {}
        }
    }

    /// Texts of a receiver about this notice.
    fn expanded(&self, texts: &[(String, Template)], external_url: &str) -> Vec<(String, String)> {
        let context = self.context(external_url);
        let expanded = texts.iter().map(|(name, template)| {
            let text = template
                .expand(&context)
                .unwrap_or_else(|error| format!("<error expanding template: {error}>"));
            (name.clone(), text)
        });
        expanded.collect()
    }

    /// What templates of receivers see.
    fn context(&self, external_url: &str) -> Context {
        let texts = |pairs: &[(String, String)]| {
            TemplateValue::texts(pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())))
        };
        let map = |pairs: Vec<(&str, TemplateValue)>| {
            TemplateValue::Map(pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
        };
        let status = |is_firing: bool| TemplateValue::from(if is_firing { "firing" } else { "resolved" });
        let alerts = self.alerts.iter().map(|alert| {
            map(vec![
                ("Status", status(alert.is_firing)),
                ("Labels", texts(&alert.labels)),
                ("Annotations", texts(&alert.annotations)),
                ("StartsAt", TemplateValue::Time(alert.starts_at_ms)),
                ("EndsAt", alert.ends_at_ms.map_or(TemplateValue::Nil, TemplateValue::Time)),
                ("GeneratorURL", alert.generator_url.as_str().into()),
                ("Fingerprint", alert.fingerprint.as_str().into()),
            ])
        });
        let dot = map(vec![
            ("Receiver", self.receiver.as_str().into()),
            ("Status", status(self.act == Act::Trigger)),
            ("Alerts", TemplateValue::List(alerts.collect())),
            ("GroupLabels", texts(&self.group_labels)),
            ("CommonLabels", texts(&self.common_labels)),
            ("CommonAnnotations", texts(&self.common_annotations)),
            ("ExternalURL", external_url.into()),
        ]);
        Context { dot, variables: Vec::new(), external_url: external_url.to_owned() }
    }
}

/// What all of them have with the same value.
fn shared<'a>(mut sets: impl Iterator<Item = &'a Vec<(String, String)>>) -> Vec<(String, String)> {
    let Some(mut common) = sets.next().cloned() else { return Vec::new() };
    for set in sets {
        common.retain(|pair| set.contains(pair));
    }
    common
}

/// The labels of a row.
pub(crate) fn labels_of(pairs: &[(String, String)]) -> Labels {
    Labels::from_pairs(pairs.iter().map(|(name, value)| (name, value)))
}
