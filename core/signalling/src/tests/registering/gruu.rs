//! Addresses of one device (RFC 5627).

use super::super::house::{House, PASSWORD, Phone, authorize};
use super::attempt;
use crate::handle::Transport;

/// Registers a device of this instance; gives its public and its temporary GRUU.
async fn device(
    house: &mut House,
    phone: &Phone,
    call_id: &str,
    cseq: u32,
    instance: &str,
) -> (String, String) {
    let extra =
        format!("Supported: gruu\nContact: {};+sip.instance=\"<urn:uuid:{instance}>\"", phone.contact());
    let (status, text) = attempt(house, phone, call_id, cseq, &extra).await;
    assert_eq!(status, 200, "{text}");
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("Contact: ")).collect();
    let own = lines.iter().find(|line| line.contains(&phone.contact())).expect("its contact");
    let param = |name: &str| {
        let (_, after) = own.split_once(&format!("{name}=\"")).unwrap_or_else(|| panic!("{name} in {own}"));
        after.split('"').next().expect("a value").to_owned()
    };
    (param("pub-gruu"), param("temp-gruu"))
}

/// Calls a URI from bob; whoever is called, or the status that bob hears.
async fn call(house: &mut House, uri: &str, call_id: &str) -> Result<super::super::house::Heard, u16> {
    let bob = Phone::new("bob", Transport::Tcp);
    let invite = |cseq, extra: &str| bob.invite("x", call_id, cseq, extra).replace("sip:x@belfry.test", uri);
    house.say(&bob, &invite(1, ""));
    house.hear_status(&bob, 100).await;
    let challenged = house.hear_status(&bob, 407).await;
    house.acknowledge(&bob, &challenged);
    let authorization = authorize(&challenged, "bob", PASSWORD, "INVITE", uri);
    house.say(&bob, &invite(2, &authorization));
    house.hear_status(&bob, 100).await;
    let heard = house.hear().await;
    if heard.message.is_request() { Ok(heard) } else { Err(heard.status()) }
}

#[tokio::test]
async fn a_gruu_means_one_device_of_its_customer() {
    let mut house = House::new().await;
    let (desk, mobile) = (Phone::new("alice", Transport::Tls), Phone::new("alice", Transport::Wss));
    let (desk_public, desk_temporary) = device(&mut house, &desk, "d", 1, "desk").await;
    let (mobile_public, mobile_temporary) = device(&mut house, &mobile, "m", 1, "mobile").await;
    assert_eq!(desk_public, "sip:alice@belfry.test;gr=urn:uuid:desk");
    assert!(
        !desk_temporary.contains("alice") && desk_temporary.ends_with("@belfry.test;gr"),
        "{desk_temporary}"
    );
    let cases = [
        (&desk_public, &desk),
        (&mobile_public, &mobile),
        (&desk_temporary, &desk),
        (&mobile_temporary, &mobile),
    ];
    for (number, (uri, phone)) in cases.into_iter().enumerate() {
        let invite = call(&mut house, uri, &format!("call-{number}")).await.expect("somebody is called");
        assert_eq!(invite.flow, phone.flow, "{uri}");
        assert_eq!(invite.message.request_uri(), phone.contact().trim_matches(['<', '>']));
    }
}

#[tokio::test]
async fn temporary_ones_live_as_long_as_their_registration() {
    let mut house = House::new().await;
    let phone = Phone::new("alice", Transport::Tls);
    let (public, first) = device(&mut house, &phone, "one", 1, "desk").await;
    let (_, second) = device(&mut house, &phone, "one", 3, "DESK").await;
    assert_ne!(first, second, "nobody can tell that they are one device's");
    assert_eq!(call(&mut house, &first, "c1").await.map(|invite| invite.flow), Ok(phone.flow.clone()));
    // The phone begins anew: what it gave away before means nobody any more.
    let (_, third) = device(&mut house, &phone, "two", 1, "desk").await;
    for (number, old) in [&first, &second].into_iter().enumerate() {
        assert_eq!(call(&mut house, old, &format!("old-{number}")).await.map(|_| ()), Err(404));
    }
    assert!(call(&mut house, &third, "c2").await.is_ok() && call(&mut house, &public, "c3").await.is_ok());
    // Nobody else's, and nobody's.
    let forged = format!("sip:tgruu.{}@belfry.test;gr", "A".repeat(60));
    assert_eq!(call(&mut house, &forged, "forged").await.map(|_| ()), Err(404));
    let cut = third.replace("@belfry", "A@belfry");
    assert_eq!(call(&mut house, &cut, "cut").await.map(|_| ()), Err(404));
    assert_eq!(
        call(&mut house, "sip:alice@belfry.test;gr=urn:uuid:else", "else").await.map(|_| ()),
        Err(480)
    );
    attempt(&mut house, &phone, "two", 5, "Contact: *\nExpires: 0").await;
    assert_eq!(call(&mut house, &third, "gone").await.map(|_| ()), Err(404));
    assert_eq!(call(&mut house, &public, "away").await.map(|_| ()), Err(480));
}

#[tokio::test]
async fn temporary_ones_outlive_a_restart() {
    let mut house = House::new().await;
    let phone = Phone::new("alice", Transport::Tls);
    let (_, temporary) = device(&mut house, &phone, "one", 1, "desk").await;
    house.restart().await;
    assert_eq!(call(&mut house, &temporary, "c").await.map(|invite| invite.flow), Ok(phone.flow.clone()));
}

#[tokio::test]
async fn only_who_asks_for_gruus_gets_them() {
    let mut house = House::new().await;
    let phone = Phone::new("alice", Transport::Tls);
    let contact = format!("Contact: {};+sip.instance=\"<urn:uuid:1>\"", phone.contact());
    let (status, text) = attempt(&mut house, &phone, "a", 1, &contact).await;
    assert!(status == 200 && !text.contains("gruu") && text.contains("urn:uuid:1"), "{text}");
    let (status, text) =
        attempt(&mut house, &phone, "a", 3, &format!("Supported: gruu\nContact: {}", phone.contact())).await;
    assert!(status == 200 && !text.contains("gruu"), "no instance, no GRUU: {text}");
}

#[tokio::test]
async fn requests_of_a_dialog_find_the_contact_behind_a_gruu() {
    let mut house = House::new().await;
    let (phone, bob) = (Phone::new("alice", Transport::Tls), Phone::new("bob", Transport::Tcp));
    let (public, _) = device(&mut house, &phone, "one", 1, "desk").await;
    let invite = call(&mut house, &public, "dialog").await.expect("alice is called");
    // A phone that has a GRUU writes it into the Contact of its dialogs (RFC 5627 section 4.4.1).
    house.say(&phone, &invite.answer("200 OK", "ta", &format!("Contact: <{public}>\n")));
    let answered = house.hear_status(&bob, 200).await;
    let contact = phone.contact();
    for (method, cseq) in [("ACK", 2), ("BYE", 3)] {
        house.say(&bob, &house.in_dialog(&bob, method, cseq, &answered, &format!("<{public}>"), None));
        let heard = house.hear_request(&phone, method).await;
        assert_eq!(heard.message.request_uri(), contact.trim_matches(['<', '>']), "{method}");
    }
}
