//! Alertmanager's configuration file: routes, inhibition, time intervals, receivers. What we do not have is refused.

mod receiver;
mod route;
mod show;

use std::collections::{BTreeMap, BTreeSet};

use belfry_ruler::yaml::{self, Collector, Faults};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_saphyr::Spanned;

use crate::inhibit::InhibitRule;
use crate::interval::{IntervalText, TimeInterval};
use crate::matchers::{Matchers, PlainMatcher, parse_matchers};

pub use receiver::{
    Authorization, Integration, IntegrationKind, Pagerduty, Receiver, Secret, Slack, Webhook,
};
pub use route::{GroupBy, Route};

#[cfg(test)]
mod tests;

/// A configuration that holds together.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// All routes; the first is the root.
    pub routes: Vec<Route>,
    /// All receivers.
    pub receivers: Vec<Receiver>,
    /// What inhibits what.
    pub inhibit_rules: Vec<InhibitRule>,
    /// Named times.
    pub time_intervals: Vec<TimeInterval>,
    /// An alert that was posted without an end is over after so long.
    pub resolve_timeout_ms: i64,
    /// The file as it may be shown: without secrets.
    pub shown: String,
}

/// What holds without a file: alerts whose severity is `page` or `critical` go to the configured services, and all
/// others stand on our own page.
const DEFAULT: &str = r#"
route:
  receiver: page-only
  group_by: [alertname]
  group_wait: 10s
  routes:
    - matchers: [severity=~"page|critical"]
      receiver: services
receivers:
  - name: page-only
  - name: services
    service_configs: [{}]
"#;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileText {
    #[serde(default)]
    global: GlobalText,
    route: Option<Spanned<route::RouteText>>,
    #[serde(default)]
    inhibit_rules: Option<Vec<InhibitText>>,
    #[serde(default)]
    receivers: Vec<Spanned<receiver::ReceiverText>>,
    #[serde(default)]
    templates: Vec<Spanned<String>>,
    #[serde(default)]
    mute_time_intervals: Vec<IntervalText>,
    #[serde(default)]
    time_intervals: Vec<IntervalText>,
}

/// Settings of receivers that we do not have are read over: without such a receiver they mean nothing.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct GlobalText {
    resolve_timeout: Option<Spanned<String>>,
    pagerduty_url: Option<Spanned<String>>,
    http_config: Option<receiver::HttpText>,
    smtp_from: Option<IgnoredAny>,
    smtp_hello: Option<IgnoredAny>,
    smtp_smarthost: Option<IgnoredAny>,
    smtp_auth_username: Option<IgnoredAny>,
    smtp_auth_password: Option<IgnoredAny>,
    smtp_auth_password_file: Option<IgnoredAny>,
    smtp_auth_identity: Option<IgnoredAny>,
    smtp_auth_secret: Option<IgnoredAny>,
    smtp_require_tls: Option<IgnoredAny>,
    slack_api_url: Option<Spanned<String>>,
    slack_api_url_file: Option<Spanned<String>>,
    opsgenie_api_url: Option<IgnoredAny>,
    opsgenie_api_key: Option<IgnoredAny>,
    victorops_api_url: Option<IgnoredAny>,
    victorops_api_key: Option<IgnoredAny>,
    telegram_api_url: Option<IgnoredAny>,
    webex_api_url: Option<IgnoredAny>,
    wechat_api_url: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InhibitText {
    #[serde(default)]
    source_match: BTreeMap<String, String>,
    #[serde(default)]
    source_match_re: BTreeMap<String, String>,
    #[serde(default)]
    source_matchers: Vec<Spanned<String>>,
    #[serde(default)]
    target_match: BTreeMap<String, String>,
    #[serde(default)]
    target_match_re: BTreeMap<String, String>,
    #[serde(default)]
    target_matchers: Vec<Spanned<String>>,
    #[serde(default)]
    equal: Vec<String>,
}

impl Default for Config {
    fn default() -> Config {
        // A test reads it: it cannot fail.
        Config::parse(DEFAULT).unwrap_or_else(|_| Config {
            routes: Vec::new(),
            receivers: Vec::new(),
            inhibit_rules: Vec::new(),
            time_intervals: Vec::new(),
            resolve_timeout_ms: 300_000,
            shown: String::new(),
        })
    }
}

impl Config {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// Every mistake with its place; also receivers that we do not have.
    pub fn parse(text: &str) -> Result<Config, Faults> {
        let read: FileText = yaml::read(text)?;
        let mut faults = Collector::default();
        for template in &read.templates {
            faults.on(template, "files of templates are not read: write the text into the receiver");
        }
        let resolve_timeout_ms =
            read.global.resolve_timeout.as_ref().map_or(300_000, |text| yaml::duration(text, &mut faults));
        let time_intervals: Vec<TimeInterval> = read
            .mute_time_intervals
            .iter()
            .chain(&read.time_intervals)
            .map(|interval| TimeInterval::read(interval, &mut faults))
            .collect();
        let mut names = BTreeSet::new();
        let receivers: Vec<Receiver> = read
            .receivers
            .iter()
            .map(|text| {
                if !names.insert(text.value.name.value.clone()) {
                    let message = format!("receiver {:?} is there twice", text.value.name.value);
                    faults.on(&text.value.name, message);
                }
                let global = receiver::Global {
                    pagerduty_url: read.global.pagerduty_url.as_ref().map(|url| url.value.as_str()),
                    slack_url: receiver::secret(&read.global.slack_api_url, &read.global.slack_api_url_file),
                    http: read.global.http_config.as_ref(),
                };
                text.value.read(&global, &mut faults)
            })
            .collect();
        let known = route::Known {
            receivers: names,
            intervals: time_intervals.iter().map(|interval| interval.name.clone()).collect(),
        };
        let mut routes = Vec::new();
        match &read.route {
            Some(root) => route::read_root(root, &known, &mut routes, &mut faults),
            None => return Err(fault("no route provided in config: it needs route with a receiver")),
        }
        let inhibit_rules =
            read.inhibit_rules.iter().flatten().map(|rule| inhibit_rule(rule, &mut faults)).collect();
        let mut config = Config {
            routes,
            receivers,
            inhibit_rules,
            time_intervals,
            resolve_timeout_ms,
            shown: String::new(),
        };
        config.shown = show::yaml(&config);
        faults.finish(config)
    }

    /// The receiver of a name.
    #[must_use]
    pub fn receiver(&self, name: &str) -> Option<&Receiver> {
        self.receivers.iter().find(|receiver| receiver.name == name)
    }

    /// Whether one of these intervals is now.
    pub(crate) fn is_within(&self, names: &[String], now_ms: i64) -> bool {
        let named = self.time_intervals.iter().filter(|interval| names.contains(&interval.name));
        named.into_iter().any(|interval| interval.contains(now_ms))
    }
}

fn fault(message: &str) -> Faults {
    Faults(vec![yaml::Fault { line: 0, column: 0, message: message.to_owned() }])
}

fn inhibit_rule(text: &InhibitText, faults: &mut Collector) -> InhibitRule {
    InhibitRule {
        source: matchers(&text.source_match, &text.source_match_re, &text.source_matchers, faults),
        target: matchers(&text.target_match, &text.target_match_re, &text.target_matchers, faults),
        equal: text.equal.clone(),
    }
}

/// Matchers in their three forms.
fn matchers(
    equal: &BTreeMap<String, String>,
    patterns: &BTreeMap<String, String>,
    texts: &[Spanned<String>],
    faults: &mut Collector,
) -> Matchers {
    let plain = |(name, value): (&String, &String), is_regex| PlainMatcher {
        name: name.clone(),
        value: value.clone(),
        is_regex,
        is_equal: true,
    };
    let mut all: Vec<PlainMatcher> = equal.iter().map(|pair| plain(pair, false)).collect();
    all.extend(patterns.iter().map(|pair| plain(pair, true)));
    for text in texts {
        match parse_matchers(&text.value).and_then(|found| Matchers::of(&found).map(|_| found)) {
            Ok(found) => all.extend(found),
            Err(error) => faults.on(text, error),
        }
    }
    Matchers::of(&all).unwrap_or_else(|error| {
        match texts.first() {
            Some(text) => faults.on(text, error),
            None => faults.at(serde_saphyr::Location::UNKNOWN, error),
        }
        Matchers::default()
    })
}
