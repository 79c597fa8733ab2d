//! Alerting as an operator has it: rule tests with promtool's verdicts, amtool and Prometheus against a running site,
//! and what the stand-in for PagerDuty is told.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use belfry_kit::{IncidentState, PagerDuty};
use serde_json::Value;

use crate::running::{Guarded, Ports, Running, belfry, eventually, free_port, signal, site_config, tool};

const KEY: &str = "0123456789abcdef0123456789abcdef";

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn printed(output: &Output) -> String {
    let all = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success(), "{}: {all}", output.status);
    all
}

const RULES: &str = r#"
groups:
- name: first
  rules:
  - {record: 'job:up:sum', expr: 'sum by (job) (up)'}
  - alert: Down
    expr: up == 0
    for: 2m
    keep_firing_for: 3m
    labels: {severity: page, share: '{{ $value | humanizePercentage }}'}
    annotations:
      summary: '{{ $labels.instance | stripPort }} of {{ $labels.job | title }} ({{ $externalLabels.site }}) {{ printf "%.3f" $value }}'
      more: '{{ with $labels.nothing }}{{ . }}{{ else }}none{{ end }} {{ if eq $labels.job "api" }}a{{ else }}b{{ end }} {{ humanizeDuration 3725.5 }} {{ humanize1024 123456 }} {{ humanizeTimestamp 1234567890.43 }} {{ 1e21 }} {{ 0.00001 }}'
- name: second
  rules:
  - {alert: FewUp, expr: 'job:up:sum < 2'}
  - {alert: Same, expr: 'label_replace(up, "instance", "x", "", "")'}
"#;

/// Tests of those rules.
fn unit_tests() -> Vec<String> {
    let head = "rule_files: [rules.yaml]\nevaluation_interval: 1m\ngroup_eval_order: [first, second]\ntests:\n- interval: 1m\n  \
        external_labels: {site: fra-1}\n  input_series:\n  - {series: 'up{job=\"api\",instance=\"a:9100\"}', values: '1x3 0x5 1+0x20'}\n  \
        - {series: 'up{job=\"api\",instance=\"b:9100\"}', values: '1 1 _ _ 1x4 stale 1x3'}\n";
    let down = "      - exp_labels: {severity: page, share: '0%', job: api, instance: 'a:9100'}\n        exp_annotations:\n          \
        summary: 'a of Api (fra-1) 0.000'\n          more: 'none a 1h 2m 5s 120.6ki 2009-02-13 23:31:30.43 +0000 UTC 1e+21 1e-05'\n";
    let alert = |at: &str, name: &str, expected: &str| {
        let expected =
            if expected.is_empty() { String::new() } else { format!("      exp_alerts:\n{expected}") };
        format!("    - eval_time: {at}\n      alertname: {name}\n{expected}")
    };
    let alerts = |lines: String| format!("{head}  alert_rule_test:\n{lines}");
    let query = |expr: &str, at: &str, samples: &str| {
        format!(
            "{head}  promql_expr_test:\n  - {{expr: '{expr}', eval_time: {at}, exp_samples: [{samples}]}}\n"
        )
    };
    vec![
        alerts(alert("5m", "Down", "")).replace("[first, second]", "[second, first]"),
        query("job:up:sum", "2m", "{labels: 'job:up:sum{job=\"api\"}', value: 2}"),
        query("1", "0", "{labels: '{}', value: 1}"),
        alerts(alert("6m", "Down", down)),
        alerts(alert("5m", "FewUp", "      - exp_labels: {job: api}\n")),
    ]
}

/// Rules without the one that always fails.
fn rules_that_work() -> String {
    RULES.lines().filter(|line| !line.contains("alert: Same")).collect::<Vec<_>>().join("\n")
}

#[test]
fn unit_tests_of_rules_get_promtools_verdicts() {
    let directory = tempfile::tempdir().unwrap();
    let place = |name: &str| directory.path().join(name);
    let verdicts = |name: &str| {
        let path = place(name).to_string_lossy().into_owned();
        let theirs =
            Command::new(tool("promtool")).args(["test", "rules", &path]).output().expect("promtool runs");
        let ours = belfry(&["test", "rules", &path]);
        let said = format!(
            "{}{}\n---\n{}{}",
            text(&theirs.stdout),
            text(&theirs.stderr),
            text(&ours.stdout),
            text(&ours.stderr)
        );
        (theirs.status.success(), ours.status.success(), said)
    };
    // A rule that fails fails every test.
    std::fs::write(place("rules.yaml"), RULES).unwrap();
    for case in unit_tests() {
        std::fs::write(place("case.yaml"), &case).unwrap();
        let (theirs, ours, said) = verdicts("case.yaml");
        assert_eq!((theirs, ours), (false, false), "{case}\n{said}");
    }
    std::fs::write(place("rules.yaml"), rules_that_work()).unwrap();
    let (mut held, mut failed) = (0, 0);
    for case in unit_tests() {
        for at in ["0", "1m", "5m", "6m", "8m", "9m", "11m", "12m"] {
            for wrong in [false, true] {
                let mut case = case.replace("eval_time: 5m", &format!("eval_time: {at}"));
                case = case
                    .replace("eval_time: 6m", &format!("eval_time: {at}"))
                    .replace("eval_time: 2m", &format!("eval_time: {at}"));
                if wrong {
                    case = case.replace("share: '0%'", "share: '1%'").replace("value: 2", "value: 3");
                }
                std::fs::write(place("case.yaml"), &case).unwrap();
                let (theirs, ours, said) = verdicts("case.yaml");
                assert_eq!(theirs, ours, "{case}\n{said}");
                if ours { held += 1 } else { failed += 1 }
            }
        }
    }
    assert!(held >= 10 && failed >= 10, "both verdicts are seen: {held} held, {failed} failed");
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("alerts/rules/health.test.yaml");
    let shipped = shipped.to_string_lossy().into_owned();
    printed(&belfry(&["test", "rules", &shipped]));
    printed(
        &Command::new(tool("promtool")).args(["test", "rules", &shipped]).output().expect("promtool runs"),
    );
    let missing = belfry(&["test", "rules", "/nowhere.yaml"]);
    assert_eq!(missing.status.code(), Some(1));
}

/// A site that tells the stand-in; `routes` is the Alertmanager configuration.
fn site(directory: &Path, rules: &str, routes: &str) -> Running {
    let ports = Ports::free();
    std::fs::write(directory.join("rules.yaml"), rules).unwrap();
    std::fs::write(directory.join("alertmanager.yml"), routes).unwrap();
    let config = site_config(directory, &ports)
        + &format!(
            "[observe.pipeline]\nsample_interval = \"1s\"\n[alerts.engine]\n[alerts.notify]\n[alerts.routing]\nrule_files = [\"{0}/rules.yaml\"]\nalertmanager_file = \"{0}/alertmanager.yml\"\nposts_wait = \"2s\"\n",
            directory.display()
        );
    Running::start(directory, ports, &config)
}

fn routes(pagerduty: &PagerDuty) -> String {
    format!(
        "route:\n  receiver: nobody\n  group_by: [alertname]\n  routes:\n  - matchers: [severity=\"page\"]\n    receiver: noc\n    group_wait: 1s\n    group_interval: 1s\n\
         receivers:\n- name: nobody\n- name: noc\n  pagerduty_configs:\n  - routing_key: {KEY}\n    url: {}\n    description: '{{{{ .CommonLabels.alertname }}}} on {{{{ .GroupLabels.alertname }}}} [{{{{ .Status }}}}]'\n",
        pagerduty.enqueue_url()
    )
}

const OWN_RULES: &str = "groups:\n- name: own\n  interval: 1s\n  rules:\n  - {record: 'own:one', expr: 'vector(1)'}\n  \
    - {alert: OwnMetric, expr: 'own:one == 1 and on () (series_head_series > 0)', for: 2s, labels: {severity: page}}\n";

#[test]
fn amtool_works_unchanged_and_the_pager_is_told_once() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let pagerduty = runtime.block_on(PagerDuty::start(([127, 0, 0, 1], 0).into(), &[KEY])).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let site = site(directory.path(), OWN_RULES, &routes(&pagerduty));
    let url = format!("--alertmanager.url=http://127.0.0.1:{}", site.ports.api);
    let amtool = |arguments: &[&str]| {
        let output = Command::new(tool("amtool")).args(arguments).arg(&url).output().expect("amtool runs");
        printed(&output);
        // It warns on stderr that we are no Alertmanager of its own version.
        text(&output.stdout)
    };
    // Our own rule fires, is told, and stands in both APIs.
    eventually("the rule is told", || {
        pagerduty.inbox().open().any(|incident| incident.summary.contains("OwnMetric")).then_some(())
    });
    let (status, body) = site.api("/api/v1/rules?type=alert&rule_name[]=OwnMetric");
    let rules: Value = serde_json::from_str(&body).unwrap();
    let rule = &rules["data"]["groups"][0]["rules"][0];
    assert_eq!(
        (status, &rule["state"], &rule["type"]),
        (200, &Value::from("firing"), &Value::from("alerting")),
        "{body}"
    );
    assert_eq!(
        (&rule["duration"], &rule["alerts"][0]["value"]),
        (&Value::from(2.0), &Value::from("1e+00")),
        "{body}"
    );
    eventually("ALERTS is written", || {
        site.api("/api/v1/query?query=ALERTS%7Balertname=%22OwnMetric%22%7D")
            .1
            .contains("firing")
            .then_some(())
    });
    // amtool: alerts, silences, routes.
    amtool(&[
        "alert",
        "add",
        "alertname=Posted",
        "severity=page",
        "instance=x",
        "--annotation=summary=hello",
    ]);
    let query = || amtool(&["alert", "query", "alertname=Posted"]);
    eventually("amtool sees it", || query().contains("Posted").then_some(()));
    eventually("it is told", || {
        pagerduty.inbox().open().any(|incident| incident.summary.contains("Posted")).then_some(())
    });
    let id = amtool(&[
        "silence",
        "add",
        "alertname=Posted",
        "instance=~x|y",
        "--duration=1h",
        "--author=ann",
        "--comment=test",
    ]);
    let id = id.trim().to_owned();
    assert!(!query().contains("Posted"), "a silenced alert is not active");
    assert!(amtool(&["alert", "query", "--silenced", "alertname=Posted"]).contains("Posted"));
    assert!(amtool(&["silence", "query"]).contains("ann"));
    let saved = Command::new(tool("amtool")).args(["silence", "query", "-o", "json", &url]).output().unwrap();
    amtool(&["silence", "update", "--duration=2h", "--comment=longer", &id]);
    amtool(&["silence", "expire", &id]);
    assert!(query().contains("Posted"));
    std::fs::write(directory.path().join("silences.json"), &saved.stdout).unwrap();
    amtool(&["silence", "import", "--force", &directory.path().join("silences.json").to_string_lossy()]);
    assert!(!query().contains("Posted"), "imported");
    let again = amtool(&["silence", "query", "-q"]);
    amtool(&["silence", "expire", again.trim()]);
    assert_eq!(amtool(&["config", "routes", "test", "severity=page"]).trim(), "noc");
    assert!(amtool(&["config", "routes", "show"]).contains("severity=\"page\""));
    assert!(!amtool(&["config", "show"]).contains(KEY), "secrets are not shown");
    printed(
        &Command::new(tool("amtool"))
            .args(["check-config", &directory.path().join("alertmanager.yml").to_string_lossy()])
            .output()
            .unwrap(),
    );
    // A restart by force: nothing is told twice, and the end is told once although it is silenced by then.
    let (ports, config) = (site.ports, site.config.clone());
    site.kill();
    let site = Running::start_again(directory.path(), ports, config);
    amtool(&["silence", "add", "alertname=Posted", "--duration=1h", "--author=ann", "--comment=noise"]);
    amtool(&[
        "alert",
        "add",
        "alertname=Posted",
        "severity=page",
        "instance=x",
        "--end=2026-01-01T00:00:00Z",
    ]);
    std::fs::write(directory.path().join("rules.yaml"), "groups: []\n").unwrap();
    signal(site.id(), "HUP");
    // After a restart those who post are waited for, so that nothing is told before its inhibitor is heard.
    eventually("both are ended", || (pagerduty.inbox().open().count() == 0).then_some(()));
    let inbox = pagerduty.inbox();
    assert_eq!(inbox.rejected, [], "every event is right");
    for name in ["OwnMetric", "Posted"] {
        let of: Vec<_> = inbox.incidents.iter().filter(|incident| incident.summary.contains(name)).collect();
        assert_eq!(
            of.iter().map(|incident| (incident.resolves, incident.triggers >= 1)).collect::<Vec<_>>(),
            [(1, true)],
            "{name}"
        );
    }
    assert_eq!(site.stop(), Some(0));
}

#[test]
fn prometheus_posts_its_alerts_to_us() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let pagerduty = runtime.block_on(PagerDuty::start(([127, 0, 0, 1], 0).into(), &[KEY])).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let site = site(directory.path(), "groups: []\n", &routes(&pagerduty));
    let place = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
    let rules = "groups:\n- name: g\n  rules:\n  - {alert: FromPrometheus, expr: 'vector(1)', labels: {severity: page}}\n";
    std::fs::write(place("theirs.yaml"), rules).unwrap();
    let config = format!(
        "global: {{evaluation_interval: 1s}}\nrule_files: [theirs.yaml]\nalerting:\n  alertmanagers:\n  - static_configs: [{{targets: ['127.0.0.1:{}']}}]\n",
        site.ports.api
    );
    std::fs::write(place("prometheus.yml"), config).unwrap();
    let child = Command::new(tool("prometheus"))
        .args([
            format!("--config.file={}", place("prometheus.yml")),
            format!("--storage.tsdb.path={}", place("tsdb")),
            format!("--web.listen-address=127.0.0.1:{}", free_port()),
            // It finds us after five seconds only; what fired before is said again after this.
            "--rules.alert.resend-delay=1s".to_owned(),
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("prometheus runs");
    let _prometheus = Guarded::new(child);
    eventually("its alert is told", || {
        pagerduty.inbox().open().any(|incident| incident.summary.contains("FromPrometheus")).then_some(())
    });
    assert!(site.metric("alerts_posted_total", "") >= 1.0);
    assert_eq!(site.stop(), Some(0));
}

/// What our API says about who works on the incident of the rule.
fn worked_on(site: &Running) -> Value {
    let (_, body) = site.api("/api/v2/alerts/groups");
    let groups: Value = serde_json::from_str(&body).unwrap();
    groups[0]["incidents"][0].clone()
}

/// Posts with curl; the status of the answer.
fn posted(site: &Running, path: &str, body: &str) -> String {
    let url = format!("http://127.0.0.1:{}{path}", site.ports.api);
    let output = Command::new(tool("curl"))
        .args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "-d", body, &url])
        .output();
    text(&output.expect("curl runs").stdout)
}

#[test]
fn what_people_do_at_pagerduty_shows_here_and_the_other_way_round() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let pagerduty = runtime.block_on(PagerDuty::start(([127, 0, 0, 1], 0).into(), &[KEY])).unwrap();
    pagerduty.set_rest_token("rest-token");
    let directory = tempfile::tempdir().unwrap();
    let place = |name: &str| directory.path().join(name);
    for (name, content) in
        [("key", KEY), ("secrets", "old\nnew\n"), ("token", "rest-token"), ("rules.yaml", OWN_RULES)]
    {
        std::fs::write(place(name), content).unwrap();
    }
    std::fs::write(
        place("alertmanager.yml"),
        "route: {receiver: noc, group_by: [alertname], group_wait: 1s, group_interval: 1s, repeat_interval: 3s}\nreceivers:\n- {name: noc, service_configs: [{service: noc}]}\n",
    )
    .unwrap();
    let ports = Ports::free();
    let config = site_config(directory.path(), &ports)
        + &format!(
            "[observe.pipeline]\nsample_interval = \"1s\"\n[alerts.engine]\n[alerts.notify]\n[[alerts.notify.services]]\nname = \"noc\"\n\
             url = \"{url}\"\nrouting_key_file = \"{d}/key\"\n[alerts.notify.services.back]\nwebhook_secrets_file = \"{d}/secrets\"\n\
             rest_url = \"http://{rest}\"\nrest_token_file = \"{d}/token\"\nlook_every = \"1s\"\n\
             [alerts.routing]\nrule_files = [\"{d}/rules.yaml\"]\nalertmanager_file = \"{d}/alertmanager.yml\"\nposts_wait = \"2s\"\n",
            url = pagerduty.enqueue_url(),
            d = directory.path().display(),
            rest = pagerduty.address,
        );
    let site = Running::start(directory.path(), ports, &config);
    {
        let _within = runtime.enter();
        pagerduty.hook(&format!("http://127.0.0.1:{}/hooks/pagerduty", site.ports.api), &["new", "newer"]);
    }
    let key = eventually("the rule is told", || {
        pagerduty.inbox().open().next().map(|incident| incident.dedup_key.clone())
    });
    assert_eq!(worked_on(&site)["acknowledgement"], Value::Null);
    let act = |to| {
        let _within = runtime.enter();
        assert!(pagerduty.act(&key, "Ann", to));
    };
    act(IncidentState::Acknowledged);
    eventually("the webhook is seen", || (worked_on(&site)["acknowledgement"]["by"] == "Ann").then_some(()));
    assert!(site.metric("notify_reports_total", "outcome=\"changed\"") >= 1.0);
    // Hooks are off: looking sees it all the same.
    pagerduty.unhook();
    act(IncidentState::Triggered);
    eventually("the look is seen", || worked_on(&site)["acknowledgement"].is_null().then_some(()));
    // And from here to there.
    let incident = worked_on(&site)["incident"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/incidents/{incident}/acknowledgement");
    assert_eq!(posted(&site, &path, "{\"by\":\"bob\",\"comment\":\"on it\"}"), "200");
    eventually("it is told", || {
        pagerduty.inbox().open().any(|incident| incident.state == IncidentState::Acknowledged).then_some(())
    });
    assert_eq!(pagerduty.inbox().open().map(|incident| incident.acknowledges).collect::<Vec<_>>(), [1]);
    assert_eq!(worked_on(&site)["acknowledgement"]["by"], "bob");
    // Nobody else may say such things.
    assert_eq!(posted(&site, "/hooks/pagerduty", "{}"), "401");
    assert_eq!(pagerduty.inbox().rejected, []);
    assert_eq!(site.stop(), Some(0));
}
