use super::*;

#[test]
fn parts_of_a_uri() {
    let uri = Uri::parse("sip:john.doe;x=1:pa$s@[2001:db8::1]:5070;transport=tcp;lr?Subject=a%20b&p=")
        .expect("valid");
    assert_eq!(uri.scheme(), Scheme::Sip);
    assert_eq!(uri.user(), Some("john.doe;x=1"));
    assert_eq!(uri.password(), Some("pa$s"));
    assert_eq!(uri.host(), "[2001:db8::1]");
    assert_eq!(uri.host_ip(), "2001:db8::1".parse().ok());
    assert_eq!(uri.port(), Some(5070));
    assert_eq!(uri.transport(), Some("tcp"));
    assert!(uri.is_loose_router());
    assert_eq!(uri.headers(), Some("Subject=a%20b&p="));

    let uri = Uri::parse("tel:+1-201-555-0123;phone-context=example.com").expect("valid");
    assert_eq!((uri.scheme(), uri.user(), uri.host()), (Scheme::Tel, Some("+1-201-555-0123"), ""));
    assert_eq!(uri.param("phone-context"), Some(Some("example.com")));
}

#[test]
fn what_is_and_is_not_a_uri() {
    for text in [
        "sip:user;par=u%40example.net@example.com",
        "sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*:&it+has=1,weird!*pas$wo~d_too.(doesn't-it)@example.com",
        "sip:sips%3Auser%40example.com@example.net",
        "sip:null-%00-null@example.com",
        "sip:*21#@pbx",
        "SIPS:a@b.c",
        "soap.beep://192.0.2.103:3002",
        "nobodyKnowsThisScheme:totallyopaquecontent",
        "sip:example.com",
        "sip:cal%6Cer@host5.example.net;%6C%72;n%61me=v%61lue%25%34%31",
        "tel:911;phone-context=+1",
    ] {
        assert!(Uri::parse(text).is_some(), "{text}");
    }
    for text in [
        "",
        "sip:",
        "sip:@host",
        "sip:user@",
        "sip:a b@c",
        "sip:a@b;",
        "sip:a@b;;lr",
        "sip:%zz@b",
        "sip:a@[::1",
        "sip:a@b:0",
        "sip:a@b:70000",
        "sip:a@b:",
        "sip:a@b@c",
        "<sip:a@b>",
        "alan@jasomi.com",
        "tel:",
        "tel:+",
        "tel:home",
        "sip:a@b;x=\"y\"",
        "sip:ä@b",
        "1sip:a",
        "sip:a@::1",
        "sip:a@.b",
    ] {
        assert!(Uri::parse(text).is_none(), "{text}");
    }
}

#[test]
fn equivalence_as_in_rfc_3261_section_19_1_4() {
    let cases = [
        ("sip:%61lice@atlanta.com;transport=TCP", "sip:alice@AtLanTa.CoM;Transport=tcp", true),
        ("sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5", true),
        ("sip:carol@chicago.com;newparam=5", "sip:carol@chicago.com;security=on", true),
        (
            "sip:biloxi.com;transport=tcp;method=REGISTER?to=sip:bob%40biloxi.com",
            "sip:biloxi.com;method=REGISTER;transport=tcp?to=sip:bob%40biloxi.com",
            true,
        ),
        (
            "sip:alice@atlanta.com?subject=project%20x&priority=urgent",
            "sip:alice@atlanta.com?priority=urgent&subject=project%20x",
            true,
        ),
        ("SIP:ALICE@AtLanTa.CoM;Transport=udp", "sip:alice@AtLanTa.CoM;Transport=UDP", false),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com:5060", false),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com;transport=udp", false),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com:6000;transport=tcp", false),
        ("sip:carol@chicago.com", "sip:carol@chicago.com?Subject=next%20meeting", false),
        ("sip:bob@phone21.boxesbybob.com", "sip:bob@192.0.2.4", false),
        ("sip:carol@chicago.com;security=off", "sip:carol@chicago.com;security=on", false),
        ("sip:a@b", "sips:a@b", false),
        ("tel:+1-201-555-0123", "tel:+12015550123", true),
        ("sip:a@[2001:db8::1]", "sip:a@[2001:DB8:0::1]", true),
        ("sip:a@b;x=1;x=2", "sip:a@b;x=1;x=2", true),
    ];
    for (a, b, same) in cases {
        let (one, two) = (Uri::parse(a).expect("valid"), Uri::parse(b).expect("valid"));
        assert_eq!(one.is_equivalent(&two), same, "{a} and {b}");
        assert_eq!(two.is_equivalent(&one), same, "{b} and {a}");
    }
}

#[test]
fn addresses_of_record_have_one_spelling() {
    for (text, canonical) in [
        ("sip:%61lice@AtLanta.com:5060;transport=tcp?x=y", "sip:alice@atlanta.com"),
        ("sips:alice:secret@atlanta.com", "sip:alice@atlanta.com"),
        ("sip:a%2fb%40c@d", "sip:a/b%40c@d"),
        ("sip:Example.com", "sip:example.com"),
        ("tel:+1-(201)-555.0123;x=y", "tel:+12015550123"),
    ] {
        assert_eq!(Uri::parse(text).expect("valid").address_of_record(), canonical);
    }
}

#[test]
fn emergencies_are_known_by_their_urn() {
    for (uri, expected) in [
        ("urn:service:sos", true),
        ("URN:service:sos.fire", true),
        ("urn:service:sosx", false),
        ("urn:service:counseling", false),
        ("sip:sos@example.org", false),
    ] {
        assert_eq!(Uri::parse(uri).is_some_and(|uri| uri.is_emergency()), expected, "{uri}");
    }
}
