use belfry_signal::Severity;
use belfry_signal::record::Body;

use super::*;
use crate::doors::config::DoorsConfig;
use crate::doors::shape::Rules;
use crate::doors::signals::Entrance;

/// 2026-11-20T14:00:00Z.
const NOW: u64 = 1_795_183_200_000_000_000;

/// Time after `NOW` in seconds, severity, message, and attributes as `name=value`.
fn read(message: &[u8], zone: &str) -> (i64, Severity, String, Vec<String>) {
    let rules = Rules::of(&DoorsConfig::default());
    let mut shaper = Shaper::new(&rules, Entrance::Syslog, NOW);
    let zone = TimeZone::get(zone).expect("a zone");
    let sender = "10.0.0.7".parse().ok();
    let record = parse(message, sender, &zone, &mut shaper).expect("a message");
    let Body::Log(log) = record.body else { panic!("a log line") };
    let shown = |(name, value): &(_, Value)| match value {
        Value::Private(text) => format!("{name}={}", text.reveal()),
        value => format!("{name}={value}"),
    };
    let seconds = (record.unix_nanos.cast_signed() - NOW.cast_signed()) / 1_000_000_000;
    (seconds, log.severity, log.message.into_owned(), log.attributes.iter().map(shown).collect())
}

fn check(message: &str, seconds: i64, severity: Severity, text: &str, attributes: &[&str]) {
    let found = read(message.as_bytes(), "UTC");
    let expected = attributes.iter().map(|text| (*text).to_owned()).collect();
    assert_eq!(found, (seconds, severity, text.to_owned(), expected), "{message:?}");
}

#[test]
fn the_modern_form() {
    check(
        "<34>1 2026-11-20T13:59:00.003Z mymachine.example.com su - ID47 - \u{feff}'su root' failed",
        -59,
        Severity::Error,
        "'su root' failed",
        &["service.name=su", "syslog.msgid=ID47", "syslog.facility=auth", "host.name=mymachine.example.com"],
    );
    check(
        "<165>1 2026-11-20T14:59:58+01:00 h app 8710 - [ex@32473 iut=\"3\" s=\"a\\\"b\\]c\\\\\\d\"][x@1 k=\"v\"] An entry",
        -2,
        Severity::Info,
        "An entry",
        &[
            "service.name=app",
            "process.pid=8710",
            "syslog.ex@32473.iut=3",
            "syslog.ex@32473.s=a\"b]c\\\\d",
            "syslog.x@1.k=v",
            "syslog.facility=local4",
            "host.name=h",
        ],
    );
    check("<14>1 - - - - - -", 0, Severity::Info, "", &["syslog.facility=user", "host.name=10.0.0.7"]);
}

#[test]
fn the_old_forms() {
    check(
        "<34>Nov 20 13:59:59 mymachine su[77]: 'su root' failed",
        -1,
        Severity::Error,
        "'su root' failed",
        &["service.name=su", "process.pid=77", "syslog.facility=auth", "host.name=mymachine"],
    );
    let sshd: &[&str] = &["service.name=sshd", "syslog.facility=user", "host.name=10.0.0.7"];
    check("<13>Nov 20 13:59:59 sshd: no host here", -1, Severity::Info, "no host here", sshd);
    check("<13>sshd: no time", 0, Severity::Info, "no time", sshd);
    let plain: &[&str] = &["syslog.facility=user", "host.name=10.0.0.7"];
    check("just words, no priority", 0, Severity::Info, "just words, no priority", plain);
    check("<999>words", 0, Severity::Info, "<999>words", plain);
    check("<13>see http://example.com/x", 0, Severity::Info, "see http://example.com/x", plain);
    let router: &[&str] = &["syslog.facility=local7", "host.name=router"];
    check("<189>Nov 20 2026 13:59:59: router %LINK-3", -1, Severity::Info, "%LINK-3", router);
    check(
        "<13>2026-11-20T13:59:59.5+00:00 h kamailio[5]: INFO: up",
        0,
        Severity::Info,
        "INFO: up",
        &["service.name=kamailio", "process.pid=5", "syslog.facility=user", "host.name=h"],
    );
}

#[test]
fn times_without_a_year_or_zone_are_the_nearest() {
    // 14:30 in Zürich was half an hour ago; the 31st of December is of last year.
    assert_eq!(read(b"<13>Nov 20 14:30:00 h a: x", "Europe/Zurich").0, -1800);
    let last_year = read(b"<13>Dec 31 23:00:00 h a: x", "UTC").0;
    assert_eq!(last_year, 0, "more than 90 days ago: it has the time at which it came");
    assert_eq!(read(b"<13>Nov 21 13:00:00 h a: x", "UTC").0, 0, "tomorrow");
    assert_eq!(read(b"<13>Feb 30 13:00:00 h a: x", "UTC").2, "Feb 30 13:00:00 h a: x");
}

#[test]
fn bytes_that_are_no_text_are_kept_as_far_as_they_are() {
    let found = read(b"<13>Nov 20 13:59:59 h app: caf\xe9 \xff", "UTC");
    assert_eq!(found.2, "caf\u{fffd} \u{fffd}");
    let rules = Rules::of(&DoorsConfig::default());
    let mut shaper = Shaper::new(&rules, Entrance::Syslog, NOW);
    for empty in [&b""[..], b"\n", b"  \r\n\0"] {
        let _refused = parse(empty, None, &TimeZone::UTC, &mut shaper);
    }
    assert!(parse(b" \n", None, &TimeZone::UTC, &mut shaper).is_err());
}

#[test]
fn a_long_name_is_not_copied_for_each_of_its_parameters() {
    let long = "x".repeat(10_000);
    let element = format!("{long} {}]", "a=\"\" ".repeat(1_000));
    let mut head = Head::default();
    assert_eq!(element_of(&element, &mut head), Some(""));
    let bytes: usize = head.attributes.iter().map(|(name, _)| name.len()).sum();
    assert_eq!(head.attributes.len(), 1_000);
    assert!(bytes < 100_000, "{bytes} bytes of names out of {}", element.len());
}
