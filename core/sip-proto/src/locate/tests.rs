//! Lookups against a zone that stands in the test.

use super::*;

const ZONE: &[(&str, &[&str])] = &[
    // RFC 3263 section 4.1's own example.
    (
        "naptr example.com",
        &[
            "50 50 s SIPS+D2T _sips._tcp.example.com",
            "90 50 s SIP+D2T _sip._tcp.example.com",
            "100 50 s SIP+D2U _sip._udp.example.com",
        ],
    ),
    ("srv _sips._tcp.example.com", &["0 1 5061 server1.example.com."]),
    ("srv _sip._tcp.example.com", &["0 1 5060 server1.example.com", "0 2 5060 server2.example.com"]),
    ("srv _sip._udp.example.com", &["10 0 5090 server2.example.com", "0 0 5070 server1.example.com"]),
    ("a server1.example.com", &["192.0.2.1", "2001:db8::1"]),
    ("a server2.example.com", &["192.0.2.2"]),
    ("srv _sip._tcp.srv-only.test", &["0 0 5066 server2.example.com"]),
    ("a plain.test", &["192.0.2.9"]),
    ("srv _sip._udp.gone.test", &["0 0 0 ."]),
    ("a gone.test", &["192.0.2.8"]),
    ("naptr foreign.test", &["10 10 u E2U+sip !^.*$!sip:x@y!", "10 20 s SIP+D2S _sip._sctp.foreign.test"]),
    ("a foreign.test", &["192.0.2.7"]),
    ("srv _sip._udp.round.test", &["0 0 5060 a.round.test", "0 0 5060 b.round.test"]),
];

fn look_up(question: &Question) -> Found {
    let (kind, name) = match question {
        Question::Naptr(name) => ("naptr", name),
        Question::Srv(name) => ("srv", name),
        Question::Addresses(name) => ("a", name),
    };
    let key = format!("{kind} {name}");
    let records = ZONE.iter().find(|(known, _)| *known == key).map_or(&[][..], |(_, records)| records);
    let number = |text: &str| text.parse().expect("a number");
    let fields = |record: &&str| record.split(' ').map(str::to_owned).collect::<Vec<String>>();
    match kind {
        "naptr" => Found::Naptr(
            records
                .iter()
                .map(fields)
                .map(|f| Naptr {
                    order: number(&f[0]),
                    preference: number(&f[1]),
                    flags: f[2].clone(),
                    service: f[3].clone(),
                    replacement: f[4].clone(),
                })
                .collect(),
        ),
        "srv" => Found::Srv(
            records
                .iter()
                .map(fields)
                .map(|f| Srv {
                    priority: number(&f[0]),
                    weight: number(&f[1]),
                    port: number(&f[2]),
                    target: f[3].clone(),
                })
                .collect(),
        ),
        _ => Found::Addresses(records.iter().map(|record| record.parse().expect("an address")).collect()),
    }
}

/// `host[:port][ transport][ sips]` to the places found and the questions asked.
fn locate(text: &str, dice: u64) -> (Vec<String>, Vec<Question>) {
    let mut words = text.split(' ');
    let host_port = words.next().expect("a host");
    let (host, port) = match host_port.rsplit_once(':') {
        Some((host, port)) if !host_port.ends_with(']') => (host, port.parse().ok()),
        _ => (host_port, None),
    };
    let mut wanted = Wanted { host: host.to_owned(), port, protocol: None, is_secure: false };
    for word in words {
        match word {
            "udp" => wanted.protocol = Some(Protocol::Udp),
            "tcp" => wanted.protocol = Some(Protocol::Tcp),
            "tls" => wanted.protocol = Some(Protocol::Tls),
            _ => wanted.is_secure = true,
        }
    }
    let mut locator = Locator::new(wanted, dice);
    let mut asked = Vec::new();
    while let Some(question) = locator.next_question() {
        locator.on_found(look_up(&question));
        asked.push(question);
    }
    let shown = |place: Place| format!("{:?} {}", place.protocol, place.address).to_lowercase();
    (locator.places().into_iter().map(shown).collect(), asked)
}

#[track_caller]
fn check(text: &str, expected: &[&str]) {
    assert_eq!(locate(text, 7).0, expected, "{text}");
}

#[test]
fn literals_need_no_question() {
    check("192.0.2.5", &["udp 192.0.2.5:5060"]);
    check("192.0.2.5:5080 tcp", &["tcp 192.0.2.5:5080"]);
    check("192.0.2.5 tls", &["tls 192.0.2.5:5061"]);
    check("192.0.2.5 sips", &["tls 192.0.2.5:5061"]);
    check("192.0.2.5 tcp sips", &["tls 192.0.2.5:5061"]);
    check("[2001:db8::5]:5070", &["udp [2001:db8::5]:5070"]);
    check("[2001:db8::5]", &["udp [2001:db8::5]:5060"]);
    assert_eq!(locate("192.0.2.5", 1).1, []);
}

#[test]
fn a_port_needs_addresses_only() {
    check("plain.test:5080", &["udp 192.0.2.9:5080"]);
    check("plain.test:5080 tcp", &["tcp 192.0.2.9:5080"]);
    check("server1.example.com:5080 tls", &["tls 192.0.2.1:5080", "tls [2001:db8::1]:5080"]);
    assert_eq!(locate("plain.test:5080", 1).1, [Question::Addresses("plain.test".to_owned())]);
}

#[test]
fn a_transport_needs_no_naptr() {
    check("example.com udp", &["udp 192.0.2.1:5070", "udp [2001:db8::1]:5070", "udp 192.0.2.2:5090"]);
    check("plain.test tcp", &["tcp 192.0.2.9:5060"]);
    check("example.com tls", &["tls 192.0.2.1:5061", "tls [2001:db8::1]:5061"]);
    check("example.com tcp sips", &["tls 192.0.2.1:5061", "tls [2001:db8::1]:5061"]);
}

#[test]
fn a_bare_name_asks_for_everything() {
    let (places, asked) = locate("example.com", 7);
    assert_eq!(asked[0], Question::Naptr("example.com".to_owned()));
    assert_eq!(places[..2], ["tls 192.0.2.1:5061", "tls [2001:db8::1]:5061"], "by NAPTR order");
    assert!(places[2].starts_with("tcp "), "{places:?}");
    assert!(places[places.len() - 1].starts_with("udp "), "{places:?}");
    check("example.com sips", &["tls 192.0.2.1:5061", "tls [2001:db8::1]:5061"]);
    check("srv-only.test", &["tcp 192.0.2.2:5066"]);
    check("plain.test", &["udp 192.0.2.9:5060"]);
    check("plain.test sips", &["tls 192.0.2.9:5061"]);
    check("nowhere.test", &[]);
    // NAPTR of services that we do not speak are as good as none.
    check("foreign.test", &["udp 192.0.2.7:5060"]);
    // The owner of the domain says that there is no such service; the host is not asked then.
    check("gone.test", &[]);
    check("gone.test udp", &[]);
}

#[test]
fn weights_are_followed() {
    // Weights 1 and 2: the second comes first in about two of three cases.
    let firsts =
        (0..3_000).filter(|dice| locate("example.com tcp", *dice).0[0] == "tcp 192.0.2.2:5060").count();
    assert!((1_300..2_300).contains(&firsts), "{firsts}");
    // Priority comes before weight.
    for dice in 0..50 {
        assert_eq!(locate("example.com udp", dice).0[2], "udp 192.0.2.2:5090");
    }
}

#[test]
fn lookups_are_bounded() {
    let mut locator = Locator::new(
        Wanted { host: "big.test".to_owned(), port: None, protocol: Some(Protocol::Udp), is_secure: false },
        1,
    );
    let srv = |index: u16| Srv { priority: index, weight: 0, port: 5060, target: format!("h{index}.test") };
    let mut questions = 0;
    while let Some(question) = locator.next_question() {
        questions += 1;
        locator.on_found(match question {
            Question::Srv(_) => Found::Srv((0..500).map(srv).collect()),
            Question::Addresses(_) => Found::Addresses(vec![]),
            Question::Naptr(_) => unreachable!("the transport is known"),
        });
    }
    assert_eq!(questions, QUESTIONS_MAX);
}
