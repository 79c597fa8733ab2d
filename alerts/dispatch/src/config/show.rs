//! A configuration as YAML that Alertmanager's tools read, without secrets.

use std::fmt::Write;

use super::{Config, GroupBy, Integration, IntegrationKind, Route};

/// What stands where a secret is.
const HIDDEN: &str = "<secret>";

/// The configuration, normalised.
pub(super) fn yaml(config: &Config) -> String {
    let mut text = String::new();
    let _infallible = write!(text, "global:\n  resolve_timeout: {}\n", duration(config.resolve_timeout_ms));
    text.push_str("route:\n");
    if !config.routes.is_empty() {
        route(config, 0, 1, &mut text);
    }
    if !config.inhibit_rules.is_empty() {
        text.push_str("inhibit_rules:\n");
    }
    for rule in &config.inhibit_rules {
        let matchers = |matchers: &crate::matchers::Matchers| quoted(&matchers.to_string());
        let equal: Vec<String> = rule.equal.iter().map(|name| quoted(name)).collect();
        let _infallible = write!(
            text,
            "- source_matchers: [{}]\n  target_matchers: [{}]\n  equal: [{}]\n",
            matchers(&rule.source),
            matchers(&rule.target),
            equal.join(", ")
        );
    }
    text.push_str("receivers:\n");
    for receiver in &config.receivers {
        let _infallible = writeln!(text, "- name: {}", quoted(&receiver.name));
        for (key, secret) in
            [("pagerduty_configs", "routing_key"), ("slack_configs", "api_url"), ("webhook_configs", "url")]
        {
            let of_key = |other: &&Integration| shown_as(&other.kind) == key;
            let shown: Vec<_> = receiver.integrations.iter().filter(of_key).collect();
            if shown.is_empty() {
                continue;
            }
            let _infallible = writeln!(text, "  {key}:");
            for integration in shown {
                let _infallible = writeln!(
                    text,
                    "  - {secret}: {HIDDEN}\n    send_resolved: {}",
                    integration.send_resolved
                );
            }
        }
    }
    text
}

/// Under which key a way is shown; services of our own configuration are PagerDuty's.
fn shown_as(kind: &IntegrationKind) -> &'static str {
    match kind {
        IntegrationKind::Pagerduty(_) | IntegrationKind::Service(_) => "pagerduty_configs",
        IntegrationKind::Slack(_) => "slack_configs",
        IntegrationKind::Webhook(_) => "webhook_configs",
    }
}

fn route(config: &Config, place: usize, depth: usize, text: &mut String) {
    let Route { receiver, group_by, matchers, .. } = &config.routes[place];
    let route = &config.routes[place];
    let indent = "  ".repeat(depth);
    let group_by = match group_by {
        GroupBy::All => "'...'".to_owned(),
        GroupBy::Labels(names) => names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", "),
    };
    let _infallible = write!(
        text,
        "{indent}receiver: {}\n{indent}group_by: [{group_by}]\n{indent}group_wait: {}\n{indent}group_interval: {}\n{indent}repeat_interval: {}\n",
        quoted(receiver),
        duration(route.group_wait_ms),
        duration(route.group_interval_ms),
        duration(route.repeat_interval_ms)
    );
    if place != 0 {
        let _infallible = write!(
            text,
            "{indent}matchers: [{}]\n{indent}continue: {}\n",
            quoted(&matchers.to_string()),
            route.continues
        );
    }
    if !route.children.is_empty() {
        let _infallible = writeln!(text, "{indent}routes:");
        for child in &route.children {
            let _infallible = writeln!(text, "{indent}-");
            self::route(config, *child, depth + 1, text);
        }
    }
}

/// A text between single quotes.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// As Prometheus writes durations.
fn duration(millis: i64) -> String {
    for (unit, size) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if millis != 0 && millis % size == 0 {
            return format!("{}{unit}", millis / size);
        }
    }
    if millis == 0 { "0s".to_owned() } else { format!("{millis}ms") }
}
