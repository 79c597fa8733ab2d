use belfry_promql::Labels;

use super::*;

const FILE: &str = r#"
global:
  resolve_timeout: 10m
  smtp_smarthost: mail.example:25
route:
  receiver: noc
  group_by: [alertname, site]
  group_wait: 15s
  routes:
  - matchers: ['severity="page"', team=~"voice|media"]
    receiver: voice
    continue: true
    routes:
    - match: {site: fra-1}
      group_by: ['...']
      mute_time_intervals: [nights]
  - match_re: {severity: page|critical}
    receiver: all
    repeat_interval: 1h
inhibit_rules:
- source_matchers: [severity="page"]
  target_match: {severity: ticket}
  equal: [site]
time_intervals:
- name: nights
  time_intervals:
  - times: [{start_time: '22:00', end_time: '24:00'}, {start_time: '00:00', end_time: '06:00'}]
    weekdays: ['monday:friday']
    location: Europe/Berlin
receivers:
- name: noc
- name: voice
  pagerduty_configs:
  - routing_key_file: /etc/belfry/voice.key
    severity: '{{ if .CommonLabels.severity }}critical{{ else }}warning{{ end }}'
    details: {firing: '{{ .Alerts.Firing | len }}'}
- name: all
  webhook_configs:
  - url: https://hooks.example/secret-path
    max_alerts: 10
    http_config: {authorization: {credentials: s3cret}}
"#;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied())
}

#[test]
fn a_file_is_read_and_alerts_find_their_routes() {
    let config = Config::parse(FILE).expect("right");
    let receivers = |pairs: &[(&str, &str)]| -> Vec<String> {
        config.routes_of(&labels(pairs)).iter().map(|place| config.routes[*place].receiver.clone()).collect()
    };
    assert_eq!(receivers(&[("severity", "ticket")]), ["noc"]);
    assert_eq!(receivers(&[("severity", "page"), ("team", "voice")]), ["voice", "all"]);
    assert_eq!(receivers(&[("severity", "critical")]), ["all"]);
    let place = config.routes_of(&labels(&[("severity", "page"), ("team", "media"), ("site", "fra-1")]))[0];
    let route = &config.routes[place];
    assert_eq!(
        (&route.group_by, route.group_wait_ms, route.receiver.as_str()),
        (&GroupBy::All, 15_000, "voice")
    );
    assert_eq!(route.key, "{}/{severity=\"page\",team=~\"voice|media\"}/{site=\"fra-1\"}");
    assert_eq!(config.resolve_timeout_ms, 600_000);
    // Friday the 20th of November 2026, 21:30 UTC is 22:30 in Berlin.
    assert!(config.is_within(&["nights".to_owned()], 1_795_210_200_000));
    assert!(!config.is_within(&["nights".to_owned()], 1_795_170_600_000), "half past eleven in the morning");
    assert!(!config.is_within(&["nights".to_owned()], 1_795_296_600_000), "a Saturday");
    let shown = &config.shown;
    assert!(
        !shown.contains("s3cret") && !shown.contains("secret-path") && shown.contains("<secret>"),
        "{shown}"
    );
    assert!(!format!("{config:?}").contains("s3cret"), "secrets do not print");
    // Without secrets it still is a configuration, but for addresses.
    assert!(Config::parse(&shown.replace("url: <secret>", "url: http://x")).is_ok(), "{shown}");
}

#[test]
fn without_a_file_pages_go_to_the_services() {
    let config = Config::default();
    let route = |severity| {
        let place = config.routes_of(&labels(&[("severity", severity)]))[0];
        config.receiver(&config.routes[place].receiver).map(|receiver| receiver.integrations.len())
    };
    assert_eq!((route("page"), route("ticket")), (Some(1), Some(0)));
}

#[test]
fn every_mistake_is_named_with_its_place() {
    for (before, after, words) in [
        ("receiver: voice\n", "receiver: voize\n", "undefined receiver \"voize\""),
        ("[nights]", "[days]", "undefined time interval \"days\""),
        ("group_wait: 15s", "group_wate: 15s", "unknown field"),
        ("team=~\"voice|media\"", "team=~\"(\"", "bad regular expression"),
        ("monday:friday", "friday:monday", "no range"),
        ("'22:00'", "'25:00'", "no time of day"),
        ("Europe/Berlin", "Europe/Berlun", "no time zone"),
        (
            "- name: noc\n",
            "- name: noc\n  slack_configs: [{channel: x}]\n",
            "set either api_url or api_url_file",
        ),
        (
            "- name: noc\n",
            "- name: noc\n  slack_configs: [{api_url: 'https://s', actions: [{}]}]\n",
            "actions is not supported",
        ),
        (
            "- name: noc\n",
            "- name: noc\n  email_configs: [{to: x}]\n",
            "email_configs of receiver \"noc\" is not supported",
        ),
        ("routing_key_file: /etc/belfry/voice.key", "service_key: abc", "Events API v1"),
        ("{{ .Alerts.Firing | len }}", "{{ nope }}", "function \"nope\" not defined"),
        ("- name: noc\n", "- name: all\n", "receiver \"all\" is there twice"),
        ("https://hooks.example/secret-path", "ftp://x", "must begin with http://"),
        ("route:\n  receiver: noc\n", "route:\n", "the root route needs a receiver"),
    ] {
        let wrong = FILE.replacen(before, after, 1);
        let error = Config::parse(&wrong).expect_err(after).to_string();
        assert!(error.contains(words), "{after}: {error}");
        assert!(
            error.split(':').next().is_some_and(|line| line.parse::<u64>().is_ok()),
            "it has a place: {error}"
        );
    }
    assert!(Config::parse("").is_err());
}
