mod simulation;

use super::*;
use crate::matchers::parse_matchers;
use crate::notice::Act;

const FILE: &str = "
route:
  receiver: a
  group_by: [alertname]
  group_wait: 10s
  group_interval: 60s
  repeat_interval: 600s
  routes:
  - {matchers: ['severity=\"info\"'], receiver: nobody}
receivers:
- {name: a, webhook_configs: [{url: 'http://a'}]}
- {name: nobody}
inhibit_rules:
- {source_matchers: ['alertname=\"Outage\"'], target_matchers: ['alertname!=\"Outage\"'], equal: [site]}
";

fn bounds() -> Bounds {
    Bounds {
        alerts_max: 20_000,
        posted_max: 20_000,
        posted_ahead_max_ms: 86_400_000,
        groups_max: 100,
        silences_max: 3,
        notices_max: 100,
        external_url: "https://belfry.example".into(),
        own_ways: vec!["slo".into()],
    }
}

fn dispatch() -> Dispatch {
    Dispatch::new(Arc::new(Config::parse(FILE).expect("right")), bounds())
}

fn alert(name: &str, instance: &str) -> Incoming {
    Incoming {
        labels: Labels::from_pairs([("alertname", name), ("instance", instance), ("site", "x")]),
        annotations: vec![],
        starts_at_ms: None,
        ends_at_ms: None,
        generator_url: String::new(),
    }
}

/// What was told up to a second: the second, what, and how many alerts fire in it.
fn until(dispatch: &mut Dispatch, from: i64, to: i64) -> Vec<(i64, Act, usize)> {
    let mut told = Vec::new();
    for second in from..=to {
        dispatch.tick(second * 1_000);
        let notices: Vec<Notice> = dispatch.notices().cloned().collect();
        for notice in notices {
            let firing = notice.alerts.iter().filter(|alert| alert.is_firing).count();
            told.push((second, notice.act, firing));
            dispatch.taken(notice.seq);
        }
    }
    told
}

#[test]
fn a_group_waits_tells_what_is_new_and_says_when_it_is_over() {
    let mut dispatch = dispatch();
    dispatch.sync("rules", vec![alert("Down", "1")], 0);
    assert_eq!(until(&mut dispatch, 0, 5), []);
    dispatch.sync("rules", vec![alert("Down", "1"), alert("Down", "2")], 5_000);
    assert_eq!(until(&mut dispatch, 5, 69), [(10, Act::Trigger, 2)]);
    dispatch.sync("rules", vec![alert("Down", "1"), alert("Down", "2"), alert("Down", "3")], 69_000);
    assert_eq!(until(&mut dispatch, 69, 129), [(70, Act::Trigger, 3)]);
    dispatch.sync("rules", vec![alert("Down", "3")], 129_000);
    assert_eq!(until(&mut dispatch, 129, 700), [(130, Act::Trigger, 1)]);
    assert_eq!(
        until(&mut dispatch, 701, 740),
        [(730, Act::Trigger, 1)],
        "told again after the repeat interval"
    );
    dispatch.sync("rules", vec![], 741_000);
    assert_eq!(until(&mut dispatch, 741, 3_000), [(790, Act::Resolve, 0)]);
    assert_eq!(dispatch.sizes(), (0, 0, 0), "nothing is left in memory");
}

#[test]
fn what_ends_before_it_was_told_is_not_told() {
    let mut dispatch = dispatch();
    dispatch.sync("rules", vec![alert("Down", "1")], 0);
    dispatch.sync("rules", vec![], 3_000);
    assert_eq!(until(&mut dispatch, 3, 200), []);
    dispatch.sync("slo", vec![alert("Budget", "1")], 200_000);
    assert_eq!(until(&mut dispatch, 200, 400), [], "this source has a way of its own");
    assert_eq!(dispatch.alerts(400_000).len(), 1, "and is shown all the same");
}

#[test]
fn posted_alerts_end_when_nobody_says_them_again() {
    let mut dispatch = dispatch();
    assert_eq!(dispatch.post(vec![alert("Down", "1")], 0), Taken { taken: 1, refused: 0 });
    assert_eq!(until(&mut dispatch, 0, 200), [(10, Act::Trigger, 1)]);
    dispatch.post(vec![alert("Down", "1")], 200_000);
    assert_eq!(until(&mut dispatch, 200, 490), [], "five minutes from the last time");
    assert_eq!(until(&mut dispatch, 490, 600), [(550, Act::Resolve, 0)]);
    let over = Incoming { ends_at_ms: Some(1), ..alert("Down", "1") };
    dispatch.post(vec![over], 600_000);
    assert_eq!(until(&mut dispatch, 600, 800), [], "what was over before it was heard of");
}

fn silence(text: &str, from_s: i64, to_s: i64) -> SilenceRequest {
    SilenceRequest {
        id: None,
        matchers: parse_matchers(text).expect("right"),
        starts_at_ms: from_s * 1_000,
        ends_at_ms: to_s * 1_000,
        created_by: "ann".into(),
        comment: "maintenance".into(),
    }
}

#[test]
fn a_silence_takes_the_noise_and_never_the_resolve() {
    let mut dispatch = dispatch();
    dispatch.sync("rules", vec![alert("Down", "1")], 0);
    assert_eq!(until(&mut dispatch, 0, 20), [(10, Act::Trigger, 1)]);
    dispatch.set_silence(silence("instance=\"1\"", 20, 2_000), "s1", 20_000).expect("taken");
    assert_eq!(dispatch.alerts(21_000)[0].muted.silenced_by, ["s1"]);
    assert_eq!(until(&mut dispatch, 21, 1_500), [], "it is not told again");
    dispatch.sync("rules", vec![], 1_500_000);
    assert_eq!(until(&mut dispatch, 1_501, 1_600), [(1_510, Act::Resolve, 0)]);
    // What begins silenced is told when the silence is over, and ends once.
    dispatch.sync("rules", vec![alert("Down", "1")], 1_600_000);
    assert_eq!(until(&mut dispatch, 1_600, 1_999), []);
    assert_eq!(until(&mut dispatch, 2_000, 2_100), [(2_030, Act::Trigger, 1)]);
    // Told, another silenced: the end of the first is the end.
    dispatch.set_silence(silence("instance=\"2\"", 2_100, 9_000), "s2", 2_100_000).expect("taken");
    dispatch.sync("rules", vec![alert("Down", "1"), alert("Down", "2")], 2_100_000);
    assert_eq!(until(&mut dispatch, 2_100, 2_200), []);
    dispatch.sync("rules", vec![alert("Down", "2")], 2_200_000);
    assert_eq!(until(&mut dispatch, 2_200, 2_300), [(2_210, Act::Resolve, 0)]);
    dispatch.expire_silence("s2", 2_300_000).expect("was in force");
    assert_eq!(until(&mut dispatch, 2_300, 2_400), [(2_330, Act::Trigger, 1)]);
}

#[test]
fn silences_are_checked_changed_and_bounded() {
    let mut dispatch = dispatch();
    for (text, words) in
        [("a=~\".*\"", "empty string"), ("", "at least one matcher"), ("a=~\"(\"", "regular expression")]
    {
        let error = dispatch.set_silence(silence(text, 0, 10), "x", 0).expect_err(text).to_string();
        assert!(error.contains(words), "{text}: {error}");
    }
    assert!(dispatch.set_silence(silence("a=b", 0, 10), "x", 11_000).is_err(), "over before it begins");
    let first = dispatch.set_silence(silence("a=b", 0, 100), "one", 0).expect("taken");
    let longer = SilenceRequest { id: Some(first.clone()), ..silence("a=b", 0, 200) };
    assert_eq!(dispatch.set_silence(longer, "unused", 1_000).as_deref(), Ok("one"), "the same, for longer");
    let other = SilenceRequest { id: Some(first), ..silence("a=c", 0, 200) };
    assert_eq!(dispatch.set_silence(other, "two", 2_000).as_deref(), Ok("two"), "another takes its place");
    assert_eq!(dispatch.silence("one").map(|silence| silence.ends_at_ms), Some(2_000));
    dispatch.set_silence(silence("a=d", 2, 100), "three", 2_000).expect("taken");
    assert_eq!(dispatch.set_silence(silence("a=e", 2, 100), "four", 2_000), Err(SilenceError::Full(3)));
    assert_eq!(dispatch.expire_silence("nope", 0), Err(SilenceError::NotFound("nope".into())));
    dispatch.tick(500 * 3_600_000);
    assert_eq!(dispatch.silences().count(), 0, "what is long over is forgotten");
}

#[test]
fn nothing_is_told_while_it_is_inhibited_also_right_after_a_restart() {
    let mut before = dispatch();
    before.sync("rules", vec![alert("Outage", "0"), alert("Down", "1")], 0);
    assert_eq!(until(&mut before, 0, 100), [(10, Act::Trigger, 1)], "the outage alone");
    assert_eq!(before.alerts(100_000).iter().filter(|alert| alert.muted.is_audible()).count(), 1);
    let all = before.take_changes();
    let restored = Restored {
        alerts: all.alerts.into_iter().filter_map(|(_, row)| row).collect(),
        groups: all.groups.into_iter().filter_map(|(_, row)| row).collect(),
        ..Restored::default()
    };
    let resume = Resume {
        awaited: ["rules".to_owned()].into(),
        wait_max_ms: 120_000,
        posts_wait_ms: 60_000,
        down_ms: 50_000,
    };
    let config = Arc::new(Config::parse(FILE).expect("right"));
    let (mut after, _) = Dispatch::resume(config.clone(), bounds(), restored.clone(), &resume, 150_000);
    assert_eq!(until(&mut after, 150, 200), [], "the rules have not spoken");
    after.sync("rules", vec![alert("Outage", "0"), alert("Down", "1")], 200_000);
    assert_eq!(until(&mut after, 200, 500), []);
    // The outage ended while nobody was here: its resolve is owed, and the other is heard at last.
    let (mut after, _) = Dispatch::resume(config.clone(), bounds(), restored.clone(), &resume, 150_000);
    after.sync("rules", vec![alert("Down", "1")], 160_000);
    let mut told = until(&mut after, 160, 300);
    told.sort_by_key(|(_, act, _)| *act == Act::Resolve);
    assert_eq!(told.iter().map(|(_, act, _)| *act).collect::<Vec<_>>(), [Act::Trigger, Act::Resolve]);
    // Whatever inhibits began while nobody was here: what one source says waits for the other.
    let both = Resume { awaited: ["rules".to_owned(), "others".to_owned()].into(), ..resume.clone() };
    let (mut after, _) = Dispatch::resume(config.clone(), bounds(), Restored::default(), &both, 150_000);
    after.sync("others", vec![alert("Down", "1")], 150_000);
    assert_eq!(until(&mut after, 150, 199), []);
    after.sync("rules", vec![alert("Outage", "0")], 200_000);
    assert_eq!(until(&mut after, 200, 500), [(210, Act::Trigger, 1)], "the outage alone");
    // A source that never speaks is not waited for without end.
    let (mut after, _) = Dispatch::resume(config, bounds(), restored, &resume, 150_000);
    until(&mut after, 150, 271);
    assert!(!after.is_settling());
}

#[test]
fn a_clock_that_steps_back_holds_nothing_up() {
    let mut dispatch = dispatch();
    dispatch.sync("rules", vec![alert("Down", "1")], 10_000_000);
    assert_eq!(until(&mut dispatch, 10_000, 10_020), [(10_010, Act::Trigger, 1)]);
    assert_eq!(until(&mut dispatch, 400, 410), []);
    dispatch.sync("rules", vec![], 411_000);
    assert_eq!(until(&mut dispatch, 411, 500), [(460, Act::Resolve, 0)], "within the group's interval");
}

#[test]
fn a_route_that_goes_ends_what_it_told() {
    let mut dispatch = dispatch();
    dispatch.sync("rules", vec![alert("Down", "1")], 0);
    assert_eq!(until(&mut dispatch, 0, 20), [(10, Act::Trigger, 1)]);
    let other = FILE.replace("receiver: a\n", "receiver: b\n").replace("name: a,", "name: b,");
    dispatch.reconfigure(Arc::new(Config::parse(&other).expect("right")), 20_000);
    assert_eq!(until(&mut dispatch, 20, 40), [(20, Act::Resolve, 0), (20, Act::Trigger, 1)]);
    dispatch.sync("rules", vec![], 41_000);
    assert_eq!(until(&mut dispatch, 41, 200), [(80, Act::Resolve, 0)]);
}

#[test]
fn ten_thousand_alerts_are_few_notices_and_bounds_hold() {
    let mut dispatch = dispatch();
    let storm: Vec<Incoming> =
        (0..10_000).map(|n| alert(["Down", "Slow", "Full"][n % 3], &n.to_string())).collect();
    dispatch.sync("rules", storm.clone(), 0);
    let told = until(&mut dispatch, 0, 60);
    assert_eq!(told.len(), 3, "one of each name");
    assert!(told.iter().all(|(_, act, firing)| (*act, *firing) == (Act::Trigger, 100)), "{told:?}");
    dispatch.sync("rules", vec![], 61_000);
    assert_eq!(until(&mut dispatch, 61, 200).len(), 3);
    let many: Vec<Incoming> = (0..25_000).map(|n| alert(&n.to_string(), "x")).collect();
    assert_eq!(dispatch.post(many, 200_000), Taken { taken: 20_000, refused: 5_000 });
    assert_eq!((dispatch.sizes().1, dispatch.groups_refused()), (100, 19_900));
}

#[test]
fn an_acknowledged_incident_is_not_told_again() {
    let mut dispatch = dispatch();
    dispatch.sync("rules", vec![alert("Down", "1")], 0);
    dispatch.tick(10_000);
    let incident = dispatch.notices().next().map(|notice| notice.incident.clone()).expect("told");
    dispatch.taken(0);
    let acknowledgement =
        Acknowledgement { by: "ann".into(), comment: String::new(), at_ms: 1, until_ms: Some(1_500_000) };
    assert!(dispatch.acknowledge(&incident, Some(&acknowledgement)));
    assert!(!dispatch.acknowledge("nope", None));
    assert_eq!(until(&mut dispatch, 11, 1_499), []);
    assert_eq!(until(&mut dispatch, 1_500, 1_600), [(1_510, Act::Trigger, 1)], "its time is over");
    dispatch.acknowledge(&incident, Some(&Acknowledgement { until_ms: None, ..acknowledgement }));
    dispatch.sync("rules", vec![], 1_700_000);
    assert_eq!(until(&mut dispatch, 1_700, 9_000), [(1_700, Act::Resolve, 0)]);
}

#[test]
fn an_alert_that_no_group_had_room_for_is_told_when_there_is_room() {
    let config = FILE.replace("[alertname]", "[alertname, instance]");
    let few = Bounds { groups_max: 1, ..bounds() };
    let mut dispatch = Dispatch::new(Arc::new(Config::parse(&config).expect("right")), few);
    dispatch.sync("rules", vec![alert("Down", "1"), alert("Down", "2"), alert("Down", "3")], 0);
    assert_eq!(until(&mut dispatch, 0, 60), [(10, Act::Trigger, 1)]);
    assert_eq!(dispatch.groups_refused(), 2);
    // The first is over, and so is the second, which nobody was told of.
    dispatch.sync("rules", vec![alert("Down", "3")], 61_000);
    assert_eq!(until(&mut dispatch, 61, 100), [(70, Act::Resolve, 0), (71, Act::Trigger, 1)]);
    assert_eq!(dispatch.sizes().1, 1);
}

#[test]
fn what_is_posted_neither_crowds_out_nor_takes_over_what_rules_find() {
    let mut dispatch =
        Dispatch::new(Arc::new(Config::parse(FILE).expect("right")), Bounds { posted_max: 2, ..bounds() });
    dispatch.sync("rules", vec![alert("Down", "1")], 0);
    let posted = ["1", "2", "3", "4"]
        .map(|instance| Incoming { ends_at_ms: Some(i64::MAX), ..alert("Down", instance) });
    let taken = dispatch.post(posted.to_vec(), 1_000);
    assert_eq!((taken.taken, taken.refused), (3, 1), "the one of the rule is known, two more have room");
    assert_eq!(dispatch.sources().collect::<Vec<_>>(), ["rules"], "the rule's alert stays the rule's");
    assert_eq!(until(&mut dispatch, 1, 20), [(10, Act::Trigger, 3)]);
    dispatch.sync("rules", vec![], 21_000);
    // Ends are a day ahead at most: then everything is over.
    let told = until(&mut dispatch, 86_300, 86_500);
    assert_eq!(told.last().map(|(_, act, _)| *act), Some(Act::Resolve));
    let taken = dispatch.post(vec![alert("Down", "5"), alert("Down", "6"), alert("Down", "7")], 86_501_000);
    assert_eq!((taken.taken, taken.refused), (2, 1), "their room is free again");
}

#[test]
fn a_clock_that_steps_back_makes_no_wait_after_a_restart_longer() {
    let config = Arc::new(Config::parse(FILE).expect("right"));
    let resume = Resume { awaited: ["rules".to_owned()].into(), wait_max_ms: 180_000, ..Resume::default() };
    let (mut dispatch, _) = Dispatch::resume(config, bounds(), Restored::default(), &resume, 10_000_000);
    dispatch.tick(10_000_000);
    dispatch.sync("others", vec![alert("Down", "1")], 10_000_000);
    dispatch.tick(10_170_000);
    assert!(dispatch.is_settling());
    let back_ms = 10_170_000 - 1_800_000;
    dispatch.tick(back_ms);
    assert!(dispatch.is_settling());
    dispatch.tick(back_ms + 10_000);
    assert!(!dispatch.is_settling(), "three minutes were over, whatever the clock said");
}
