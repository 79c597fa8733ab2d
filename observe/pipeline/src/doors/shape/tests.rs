use super::*;

const NOW: u64 = 1_795_000_000_000_000_000;

fn rules() -> Rules {
    Rules::of(&DoorsConfig {
        message_bytes_max: 256,
        attributes_max: 4,
        attribute_bytes_max: 64,
        ..DoorsConfig::default()
    })
}

fn line(message: &str, attributes: Vec<(String, Value)>, unix_nanos: Option<u64>) -> ForeignLog {
    ForeignLog {
        unix_nanos,
        severity: Severity::Info,
        message: message.to_owned(),
        attributes,
        context: None,
    }
}

fn shaped(log: ForeignLog) -> (Record, Log, Vec<(Change, u32)>) {
    let rules = rules();
    let mut shaper = Shaper::new(&rules, Entrance::Syslog, NOW);
    let record = shaper.log(log);
    let changes = shaper.changes().collect();
    let Body::Log(log) = record.body.clone() else { panic!("a log line") };
    (record, log, changes)
}

#[test]
fn what_is_too_much_is_cut_or_folded_and_told() {
    let (record, log, changes) = shaped(line("short", vec![], Some(NOW - 5)));
    assert!(record.is_foreign());
    assert_eq!((record.unix_nanos, log.message.as_ref(), changes), (NOW - 5, "short", vec![]));

    let (_, log, changes) = shaped(line(&"é".repeat(1_000_000), vec![], None));
    assert!(log.message.len() <= 256);
    assert_eq!(log.attributes, [("message.bytes".into(), Value::Int(2_000_000))]);
    assert_eq!(changes, [(Change::Cut, 1)]);

    let many = (0..1_000_000).map(|number| (format!("field.{number}"), text("x"))).collect();
    let (_, log, changes) = shaped(line("", many, None));
    assert_eq!(log.attributes.len(), 4);
    let (name, Value::Private(rest)) = &log.attributes[3] else { panic!("{log:?}") };
    assert_eq!(name, "attributes.rest");
    assert!(rest.reveal().starts_with("field.3=x field.4=x") && rest.reveal().len() <= 64);
    assert_eq!(changes, [(Change::Folded, 1)]);

    let (_, log, changes) = shaped(line("", vec![("n".repeat(500), text("v".repeat(500)))], None));
    let (name, Value::Private(value)) = &log.attributes[0] else { panic!("{log:?}") };
    assert_eq!((name.len(), value.reveal().len(), changes), (128, 64, vec![(Change::Cut, 2)]));
}

#[test]
fn clocks_that_cannot_be_right_are_put_right_and_told() {
    let year = 365 * 86_400 * 1_000_000_000;
    for (claimed, change) in [(NOW + year, Change::Future), (NOW - year, Change::Past), (1, Change::Past)] {
        let (record, log, changes) = shaped(line("", vec![], Some(claimed)));
        assert_eq!((record.unix_nanos, changes), (NOW, vec![(change, 1)]), "{claimed}");
        assert_eq!(log.attributes[0].0, "time.claimed");
    }
    assert_eq!(shaped(line("", vec![], Some(0))).0.unix_nanos, NOW, "no time is not a wrong time");
    assert_eq!(shaped(line("", vec![], Some(u64::MAX))).0.unix_nanos, NOW);
}

#[test]
fn lines_that_name_a_call_belong_to_it() {
    let (_, log, _) = shaped(line("", vec![("callid".into(), text("a@b"))], None));
    assert_eq!(log.call_id, Some(Pii::new("a@b".to_owned())));
    let (_, log, _) = shaped(line("", vec![("callid".into(), Value::Int(5))], None));
    assert_eq!(log.call_id, None);
}

#[test]
fn json_becomes_a_line_with_fields() {
    let json = serde_json::json!({
        "@timestamp": "2026-11-20T12:00:00.5Z", "log": {"level": "WARNING"}, "message": "no route",
        "http": {"status": 404, "took": 0.25, "ok": false, "tags": ["a", 1]}, "nothing": null,
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "span_id": "00f067aa0ba902b7",
    });
    let mut fields = Vec::new();
    flatten("", json, 0, &mut fields);
    let log = log_of_fields(fields, String::new);
    assert_eq!((log.message.as_str(), log.severity), ("no route", Severity::Warn));
    assert_eq!(log.unix_nanos, Some(1_795_176_000_500_000_000));
    assert_eq!(log.context.map(|context| context.trace_id.to_string()[..4].to_owned()), Some("4bf9".into()));
    let mut attributes = log.attributes;
    attributes.sort_by(|a, b| a.0.cmp(&b.0));
    let expected = [
        ("http.ok".to_owned(), Value::Bool(false)),
        ("http.status".to_owned(), Value::Int(404)),
        ("http.tags".to_owned(), text("[\"a\",1]")),
        ("http.took".to_owned(), Value::Float(0.25)),
    ];
    assert_eq!(attributes, expected);
}

#[test]
fn numbers_are_times_by_their_size() {
    let expected = Some(1_795_176_000_000_000_000);
    for number in [1_795_176_000, 1_795_176_000_000, 1_795_176_000_000_000, 1_795_176_000_000_000_000] {
        assert_eq!(time_of(&Value::Int(number)), expected, "{number}");
        assert_eq!(time_of(&text(number.to_string())), expected, "{number}");
    }
    for nonsense in [Value::Int(-1), Value::Float(f64::NAN), Value::Float(-1.0), text("yesterday"), text("")]
    {
        assert_eq!(time_of(&nonsense), None, "{nonsense:?}");
    }
}
