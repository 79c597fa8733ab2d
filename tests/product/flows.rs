//! The common call flows, played by sipp through the whole product, and what Belfry says of them: one record for each
//! call with the right end and the right length, its ladder, its indicators.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Instant;

use jiff::Timestamp;
use tempfile::TempDir;

use crate::running::{Ports, Running, belfry, eventually, free_port, site_config};
use crate::sipp::{Playing, Sipp, TRUNKS, register_with_sipp};

/// How long scenarios talk at least, in seconds: the pause before their BYE, less what sipp's clock of milliseconds may
/// leave out.
const TALK_SECONDS: f64 = 0.298;

/// A site, and phones that are registered from ports of their own.
struct House {
    belfry: Running,
    phones: Vec<(&'static str, u16)>,
    began: Instant,
    directory: TempDir,
}

/// What is to be said of one call.
struct Told<'a> {
    /// Caller and called side: `alice bob`, or a number.
    who: &'a str,
    /// Outcome, cause and status code of its record.
    ended: (&'a str, &'a str, u16),
    /// What its ladder shows in this order, whatever else it shows in between.
    ladder: &'a [&'a str],
}

/// A record, by the names of the columns.
type Record = BTreeMap<String, String>;

impl House {
    /// A site where these are registered; who is named twice has two phones.
    fn of(users: &[&'static str]) -> Self {
        Self::with(users, |_| String::new())
    }

    /// The same with more in its configuration.
    fn with(users: &[&'static str], more: impl FnOnce(&std::path::Path) -> String) -> Self {
        let directory = tempfile::tempdir().expect("a folder");
        let ports = Ports::free();
        let more = more(directory.path());
        let site = site_config(directory.path(), &ports);
        // What belongs into the section of the core stands right behind its domains.
        let (core, rest) = more.split_once("===").unwrap_or(("", &more));
        let domains = "domains = [\"belfry.test\"]\n";
        let config = format!("{}{rest}", site.replace(domains, &format!("{domains}{core}\n")));
        let belfry = Running::start(directory.path(), ports, &config);
        let mut names = users.to_vec();
        names.dedup();
        belfry.subscribe(&names);
        let phones: Vec<_> = users.iter().map(|user| (*user, free_port())).collect();
        for (user, port) in &phones {
            register_with_sipp(directory.path(), user, *port, ports.sip);
        }
        Self { belfry, phones, began: Instant::now(), directory }
    }

    /// The nth phone of a user plays a scenario.
    fn phone(&self, user: &str, nth: usize, scenario: &str, called: &str) -> Sipp {
        let port = self.phones.iter().filter(|(name, _)| *name == user).nth(nth).expect("it is registered").1;
        Sipp::new(self.directory.path(), scenario, port).of(user, "secret", called)
    }

    /// A phone waits for what its scenario begins with.
    fn waits(&self, user: &str, scenario: &str) -> Playing {
        self.phone(user, 0, scenario, "").start(self.belfry.ports.sip)
    }

    /// A phone calls somebody; that and what the others play goes as their scenarios say.
    fn calls(&self, caller: &str, scenario: &str, called: &str, others: Vec<Playing>) {
        let calling = self.phone(caller, 0, scenario, called).start(self.belfry.ports.sip);
        for playing in std::iter::once(calling).chain(others) {
            playing.ends_well();
        }
    }

    /// What the store holds.
    fn records(&self) -> Vec<Record> {
        let config = self.belfry.config.to_string_lossy();
        let output = belfry(&["records", "export", "--from", "-1h", "--config", &config]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut lines = text.lines().map(|line| line.split(',').map(|field| field.trim_matches('"')));
        let names: Vec<_> = lines.next().expect("a header").map(str::to_owned).collect();
        lines.map(|fields| names.iter().cloned().zip(fields.map(str::to_owned)).collect()).collect()
    }

    /// Belfry says this of its calls, and knows of no others.
    #[track_caller]
    fn tells(&self, calls: &[Told<'_>]) {
        let records = eventually("every call has a record in the store", || {
            Some(self.records()).filter(|records| records.len() >= calls.len())
        });
        let took = self.began.elapsed().as_secs_f64();
        let mut talked = Vec::new();
        for Told { who, ended, ladder } in calls {
            let (caller, called) = who.split_once(' ').expect("two sides");
            let is_side = |text: &str, name: &str| text.contains(&format!(":{name}@"));
            let mut of_call = records
                .iter()
                .filter(|record| is_side(&record["caller"], caller) && is_side(&record["callee"], called));
            let record = of_call.next().unwrap_or_else(|| panic!("no record of {who} in {records:#?}"));
            assert!(of_call.next().is_none(), "{who} has more than one record: {records:#?}");
            let (outcome, cause, status) = *ended;
            let told = (&*record["outcome"], &*record["cause"], &*record["status_code"]);
            assert_eq!(told, (outcome, cause, &*status.to_string()), "{who}");
            let seconds = talked_seconds(record);
            assert_eq!(seconds.is_some(), outcome == "answered", "{record:?}");
            if let Some(seconds) = seconds {
                let is_short = *ladder == CROSSED;
                assert!(is_short || seconds >= TALK_SECONDS, "{who} talked for {seconds} s");
                assert!(seconds <= took, "{who} talked for {seconds} s of {took} s");
                talked.push(seconds);
            }
            self.shows(&record["call_id"], ladder);
        }
        assert_eq!(records.len(), calls.len(), "{records:#?}");
        self.counts(calls, &talked);
    }

    /// The indicators agree with the records.
    #[track_caller]
    fn counts(&self, calls: &[Told<'_>], talked: &[f64]) {
        let metrics = self.belfry.metrics();
        let mut causes = BTreeMap::<&str, f64>::new();
        for call in calls {
            *causes.entry(call.ended.1).or_default() += 1.0;
        }
        assert_eq!(by_label(&metrics, "core_calls_ended_total", "cause"), causes);
        let attempts = by_label(&metrics, "core_call_attempts_total", "result");
        let answered = calls.iter().filter(|call| call.ended.0 == "answered").count();
        assert_eq!(attempts.get("answered").copied().unwrap_or_default(), answered as f64, "{attempts:?}");
        assert_eq!(attempts.values().sum::<f64>(), calls.len() as f64, "{attempts:?}");
        let of_family = |name: &str| by_label(&metrics, name, "region").values().sum::<f64>();
        assert_eq!(of_family("core_call_seconds_count"), answered as f64);
        let difference = of_family("core_call_seconds_sum") - talked.iter().sum::<f64>();
        assert!(difference.abs() < 0.001, "the indicator and the records differ by {difference} s");
        assert_eq!(of_family("core_post_dial_seconds_count"), calls.len() as f64);
    }

    /// The ladder of what has this Call-ID shows these in this order.
    #[track_caller]
    fn shows(&self, call_id: &str, expected: &[&str]) {
        let path = format!("/api/v1/calls/{}", call_id.replace('/', "%2F"));
        let mut seen = Vec::new();
        let found = eventually_or("the ladder is whole", || {
            let body: serde_json::Value = serde_json::from_str(&self.belfry.api(&path).1).unwrap_or_default();
            let entries = body["ladder"].as_array().cloned().unwrap_or_default();
            let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
            seen = entries.iter().map(|entry| text(&entry["summary"])).collect();
            let mut left = seen.iter();
            expected.iter().all(|wanted| left.any(|found| found == wanted)).then_some(())
        });
        assert!(found.is_some(), "{expected:?} is not in the ladder {seen:?}");
    }
}

/// As [`eventually`], and nothing when it never comes to pass.
fn eventually_or<T>(what: &str, probe: impl FnMut() -> Option<T>) -> Option<T> {
    let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| eventually(what, probe)));
    found.ok()
}

/// Seconds from answer to end.
fn talked_seconds(record: &Record) -> Option<f64> {
    let at = |name: &str| record[name].parse::<Timestamp>().ok();
    Some(at("end")?.duration_since(at("answer")?).as_secs_f64())
}

/// The sums of a family's series by one of its labels; what is zero is left out.
fn by_label<'a>(metrics: &'a str, name: &str, label: &str) -> BTreeMap<&'a str, f64> {
    let mut sums = BTreeMap::new();
    for line in metrics.lines() {
        let Some(rest) = line.strip_prefix(name).filter(|rest| rest.starts_with('{')) else { continue };
        let Some((labels, value)) = rest.rsplit_once("} ") else { continue };
        let key = format!("{label}=\"");
        let Some(place) = labels.find(&key) else { continue };
        let value: f64 = value.split(' ').next().and_then(|value| value.parse().ok()).expect("a number");
        let known = &labels[place + key.len()..];
        if value != 0.0 {
            *sums.entry(known.split('"').next().unwrap_or_default()).or_default() += value;
        }
    }
    sums
}

const ANSWERED: (&str, &str, u16) = ("answered", "caller_hung_up", 200);
const ANSWERED_AND_LEFT: (&str, &str, u16) = ("answered", "callee_hung_up", 200);
const CANCELLED: (&str, &str, u16) = ("cancelled", "cancelled", 487);
/// What every answered call shows.
const TALKED: &[&str] = &["INVITE", "407", "ACK", "INVITE", "100", "INVITE", "200", "ACK", "BYE", "200"];
/// A CANCEL that came too late.
const CROSSED: &[&str] = &["INVITE", "180", "CANCEL", "200", "CANCEL", "481", "200", "ACK", "BYE", "200"];

#[test]
fn early_media_is_acknowledged_and_updated() {
    let house = House::of(&["alice", "bob"]);
    house.calls("alice", "early_media_caller", "bob", vec![house.waits("bob", "early_media_callee")]);
    let ladder = ["INVITE", "183", "PRACK", "200", "UPDATE", "200", "180", "200", "ACK", "BYE", "200"];
    house.tells(&[Told { who: "alice bob", ended: ANSWERED, ladder: &ladder }]);
}

#[test]
fn of_two_phones_one_answers_and_the_other_hears_of_it() {
    let house = House::of(&["alice", "bob", "bob"]);
    let target = house.belfry.ports.sip;
    let phones = [(0, "callee"), (1, "ringing_elsewhere")];
    let phones = phones.map(|(nth, scenario)| house.phone("bob", nth, scenario, "").start(target));
    house.calls("alice", "caller", "bob", phones.into());
    let ladder = ["INVITE", "INVITE", "180", "180", "200", "CANCEL", "487", "BYE", "200"];
    house.tells(&[Told { who: "alice bob", ended: ANSWERED, ladder: &ladder }]);
}

#[test]
fn of_two_phones_both_ring_until_the_caller_gives_up() {
    let house = House::of(&["alice", "bob", "bob"]);
    let target = house.belfry.ports.sip;
    let phones = [0, 1].map(|nth| house.phone("bob", nth, "ringing", "").start(target));
    house.calls("alice", "cancel_caller", "bob", phones.into());
    let ladder = ["INVITE", "INVITE", "180", "180", "CANCEL", "CANCEL", "CANCEL", "487", "487"];
    house.tells(&[Told { who: "alice bob", ended: CANCELLED, ladder: &ladder }]);
}

#[test]
fn a_cancel_that_crosses_the_answer_leaves_a_call_that_is_hung_up() {
    let house = House::of(&["alice", "bob"]);
    house.calls("alice", "cancel_race_caller", "bob", vec![house.waits("bob", "cancel_race_callee")]);
    house.tells(&[Told { who: "alice bob", ended: ANSWERED, ladder: CROSSED }]);
}

#[test]
fn calls_are_held_and_resumed_from_both_sides() {
    let house = House::of(&["alice", "bob"]);
    house.calls("alice", "hold_caller", "bob", vec![house.waits("bob", "hold_callee")]);
    let ladder = ["INVITE", "200", "ACK", "INVITE", "200", "INVITE", "200", "INVITE", "200", "BYE", "200"];
    house.tells(&[Told { who: "alice bob", ended: ANSWERED_AND_LEFT, ladder: &ladder }]);
}

#[test]
fn changes_that_meet_are_refused_and_tried_again() {
    let house = House::of(&["alice", "bob"]);
    house.calls("alice", "glare_caller", "bob", vec![house.waits("bob", "glare_callee")]);
    let ladder = ["INVITE", "200", "ACK", "INVITE", "INVITE", "491", "491", "INVITE", "200", "BYE", "200"];
    house.tells(&[Told { who: "alice bob", ended: ANSWERED, ladder: &ladder }]);
}

#[test]
fn a_blind_transfer_leaves_two_calls() {
    let house = House::of(&["alice", "bob", "carol"]);
    let others = [("bob", "transfer_blind_callee"), ("carol", "transfer_blind_target")];
    let others = others.map(|(user, scenario)| house.waits(user, scenario));
    house.calls("alice", "transfer_blind_caller", "bob", others.into());
    let first = ["INVITE", "200", "ACK", "REFER", "202", "NOTIFY", "200", "NOTIFY", "200", "BYE", "200"];
    house.tells(&[
        Told { who: "alice bob", ended: ANSWERED, ladder: &first },
        Told { who: "bob carol", ended: ANSWERED, ladder: TALKED },
    ]);
}

#[test]
fn an_attended_transfer_joins_two_calls_in_a_third() {
    let house = House::of(&["alice", "bob", "carol"]);
    let others = [("bob", "transfer_attended_callee"), ("carol", "transfer_attended_target")];
    let others = others.map(|(user, scenario)| house.waits(user, scenario));
    house.calls("alice", "transfer_attended_caller", "bob", others.into());
    let first = ["INVITE", "200", "ACK", "REFER", "202", "NOTIFY", "200", "BYE", "200"];
    house.tells(&[
        Told { who: "alice bob", ended: ANSWERED, ladder: &first },
        Told { who: "alice carol", ended: ANSWERED_AND_LEFT, ladder: TALKED },
        Told { who: "bob carol", ended: ANSWERED, ladder: TALKED },
    ]);
}

#[test]
fn wrong_passwords_and_old_nonces_make_no_calls_of_their_own() {
    let house = House::with(&["alice", "bob"], |_| {
        // Phones as sipp read the first challenge only (RFC 8760 section 2.4): MD5 is offered before SHA-256.
        "nonce_lifetime = \"1s\"\ndigest_algorithms = [\"MD5\", \"SHA-256\"]\n===".to_owned()
    });
    let target = house.belfry.ports.sip;
    let wrong = Sipp::new(house.directory.path(), "wrong_password", free_port()).of("alice", "guess", "bob");
    wrong.start(target).ends_well();
    let denied = by_label(&house.belfry.metrics(), "core_call_attempts_total", "result")
        .into_iter()
        .map(|(result, count)| (result.to_owned(), count))
        .collect::<Vec<_>>();
    assert_eq!(denied, [("denied".to_owned(), 1.0)]);
    let challenges = house.belfry.metric("core_challenges_total", "");
    let metrics = house.belfry.metrics();
    let refused = by_label(&metrics, "core_calls_ended_total", "cause");
    assert!(refused.is_empty(), "a call that nobody was let in for has no record: {refused:?}");
    house.calls("alice", "stale_nonce", "bob", vec![house.waits("bob", "callee")]);
    assert_eq!(house.belfry.metric("core_challenges_total", ""), challenges + 2.0);
    let records = eventually("the call has a record", || Some(house.records()).filter(|all| !all.is_empty()));
    assert_eq!(records.len(), 1, "{records:#?}");
    let told = (&*records[0]["outcome"], &*records[0]["cause"], &*records[0]["status_code"]);
    assert_eq!(told, ("answered", "caller_hung_up", "200"));
    house.shows(&records[0]["call_id"], &["INVITE", "407", "INVITE", "407", "INVITE", "200", "BYE", "200"]);
}

#[test]
fn a_phone_that_names_another_place_is_believed_by_its_caller() {
    let house = House::of(&["alice", "bob"]);
    house.calls("alice", "redirected_caller", "bob", vec![house.waits("bob", "redirects")]);
    let ended = ("rejected", "declined", 302);
    house.tells(&[Told { who: "alice bob", ended, ladder: &["INVITE", "302", "ACK", "302", "ACK"] }]);
    assert_eq!(house.belfry.metric("core_call_attempts_total", "redirected"), 1.0);
}

#[test]
fn sessions_are_refreshed() {
    let house = House::of(&["alice", "bob"]);
    house.calls("alice", "session_caller", "bob", vec![house.waits("bob", "session_callee")]);
    let ladder = ["INVITE", "422", "INVITE", "200", "UPDATE", "200", "INVITE", "200", "BYE", "200"];
    house.tells(&[Told { who: "alice bob", ended: ANSWERED, ladder: &ladder }]);
    assert_eq!(house.belfry.metric("core_session_refreshes_total", ""), 2.0);
}

#[test]
fn requests_outside_calls_find_their_phone_and_make_no_call() {
    let house = House::of(&["alice", "bob"]);
    house.calls("alice", "outside_calls_asker", "bob", vec![house.waits("bob", "outside_calls_asked")]);
    assert_eq!(house.belfry.metric("core_call_attempts_total", ""), 0.0);
    assert!(house.records().is_empty());
    for method in ["message", "publish", "subscribe", "notify"] {
        let counted = house.belfry.metric("core_requests_total", &format!("method=\"{method}\""));
        assert!(counted > 0.0, "{method} is not counted");
    }
}

/// Trunks that serve the same number one after another, by cost.
fn trunks(ports: &[u16]) -> String {
    let mut text = "===\n[[core.routing.tenants]]\nname = \"acme\"\ndomains = [\"belfry.test\"]\n\
                    dial = { country_code = \"44\" }\n"
        .to_owned();
    for (index, port) in ports.iter().enumerate() {
        write!(
            text,
            "[[core.routing.trunks]]\nname = \"trunk-{index}\"\ncost = \"0.0{}\"\nresponse_timeout_seconds = 1\n\
             gateways = [{{ uri = \"sip:{TRUNKS}:{port};transport=udp\" }}]\n",
            index + 1
        )
        .expect("text");
    }
    text
}

#[test]
fn a_call_goes_on_after_a_busy_a_silent_and_a_slow_trunk() {
    let ports: [u16; 4] = std::array::from_fn(|_| free_port());
    let house = House::with(&["alice"], |_| trunks(&ports));
    let target = house.belfry.ports.sip;
    // Nobody is at the second: the silence is real.
    let [busy, _silent, slow, last] = ports;
    let others =
        [("trunk_refuses", busy), ("trunk_times_out", slow), ("callee", last)].map(|(scenario, port)| {
            let trunk = Sipp::new(house.directory.path(), scenario, port).of("carrier", "", "");
            trunk.at_the_trunks().start(target)
        });
    house.calls("alice", "caller", "+4930123456", others.into());
    let ladder = ["INVITE", "503", "INVITE", "INVITE", "180", "408", "INVITE", "180", "200", "BYE", "200"];
    house.tells(&[Told { who: "alice +4930123456", ended: ANSWERED, ladder: &ladder }]);
    let metrics = house.belfry.metrics();
    let failures = by_label(&metrics, "core_trunk_failures_total", "trunk");
    let expected = BTreeMap::from([("trunk-0", 1.0), ("trunk-1", 1.0), ("trunk-2", 1.0)]);
    assert_eq!(failures, expected, "each was tried and failed once");
}

#[test]
fn a_trunk_that_answers_no_options_is_left_out_and_explain_says_so() {
    let ports: [u16; 2] = std::array::from_fn(|_| free_port());
    let house = House::with(&["alice"], |_| {
        let probe = "cost = \"0.01\"\nprobe = { interval_seconds = 5, failures = 1 }";
        trunks(&ports).replace("cost = \"0.01\"", probe)
    });
    // Nobody is at the first.
    eventually("the trunk is known to be down", || {
        let down = house.belfry.metric("core_trunk_gateways", "state=\"down\"");
        (down - 1.0).abs().lt(&0.5).then_some(())
    });
    let config = house.belfry.config.to_string_lossy();
    let api = format!("127.0.0.1:{}", house.belfry.ports.api);
    let explain = |api: &str| {
        let call = ["--from", "alice@belfry.test", "--to", "+4930123456", "--config", &config, "--api", api];
        let output = belfry(&[&["route", "explain"], &call[..]].concat());
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let text = explain(&api);
    assert!(text.contains("down, left out while others are up, since 20"), "{text}");
    assert_eq!(text.matches("gateway ").count(), 1, "of the other nobody knows: {text}");
    let nobody = format!("127.0.0.1:{}", free_port());
    assert!(explain(&nobody).contains("who is alive is not known"), "{}", explain(&nobody));
    let trunk = Sipp::new(house.directory.path(), "callee", ports[1]).of("carrier", "", "");
    house.calls("alice", "caller", "+4930123456", vec![trunk.at_the_trunks().start(house.belfry.ports.sip)]);
    house.tells(&[Told { who: "alice +4930123456", ended: ANSWERED, ladder: TALKED }]);
    assert_eq!(house.belfry.metric("core_trunk_failures_total", ""), 0.0);
    assert!(house.belfry.logged().contains("trunk gateway is down"), "{}", house.belfry.logged());
}
