//! Session timers by the tables of RFC 4028 sections 8 and 9.

use super::*;
use crate::message::OwnedMessage;
use crate::scan::Limits;

fn message(first_line: &str, headers: &str) -> OwnedMessage {
    let text = format!(
        "{first_line}\nVia: SIP/2.0/UDP a.test;branch=z9hG4bK1\nFrom: <sip:a@a.test>;tag=1\nTo: <sip:b@b.test>\n\
        Call-ID: c\nCSeq: 1 INVITE\n{headers}Content-Length: 0\n\n"
    );
    OwnedMessage::parse(text.replace('\n', "\r\n").into_bytes(), &Limits::default()).expect("SIP")
}

const WISH: Wish = Wish { seconds: 1800, seconds_min: 120 };

/// `Session-Expires[ Min-SE]` as the request leaves, or the Min-SE of a 422.
#[track_caller]
fn check_request(wish: Wish, headers: &str, expected: Result<&str, u32>) {
    let asked = wish.ask(&message("INVITE sip:b@b.test SIP/2.0", headers)).map(|ask| {
        let expires = ask.expires.map_or_else(|| "-".to_owned(), |expires| expires.to_string());
        let changed = if ask.is_changed { " changed" } else { "" };
        let seconds_min = ask.seconds_min.map_or_else(String::new, |seconds| format!(" min {seconds}"));
        format!("{expires}{seconds_min}{changed}")
    });
    assert_eq!(asked.as_deref(), expected.as_ref().map(|text| &**text), "{headers}");
}

#[test]
fn a_request_leaves_with_what_section_8_1_allows() {
    // Nobody asks: we do, and say nothing of who refreshes.
    check_request(WISH, "", Ok("1800 changed"));
    check_request(WISH, "Supported: timer\n", Ok("1800 changed"));
    check_request(Wish { seconds: 0, ..WISH }, "Supported: timer\n", Ok("-"));
    // Too long is lowered, and the refresher stays; never below Min-SE.
    check_request(WISH, "Session-Expires: 4000;refresher=uac\n", Ok("1800;refresher=uac changed"));
    check_request(WISH, "x: 4000;refresher=UAS\nk: timer\n", Ok("1800;refresher=uas changed"));
    check_request(WISH, "Session-Expires: 4000\nMin-SE: 3000\n", Ok("3000 changed"));
    check_request(WISH, "Session-Expires: 4000\nMin-SE: 5000\n", Ok("4000"));
    check_request(WISH, "Min-SE: 3000;x=y\n", Ok("3000 changed"));
    check_request(Wish { seconds: 0, ..WISH }, "Session-Expires: 4000\n", Ok("4000"));
    // What is between the bounds passes.
    check_request(WISH, "Session-Expires: 120\nSupported: 100rel, timer\n", Ok("120"));
    // Too small: 422 to who understands it, raised with Min-SE for who does not.
    check_request(WISH, "Session-Expires: 119\nSupported: timer\n", Err(120));
    check_request(WISH, "Session-Expires: 119\nRequire: timer\n", Err(120));
    check_request(WISH, "Session-Expires: 60;refresher=uas\n", Ok("120;refresher=uas min 120 changed"));
    check_request(WISH, "Session-Expires: 60\nMin-SE: 300\n", Ok("300 min 300 changed"));
    check_request(Wish { seconds: 0, ..WISH }, "Session-Expires: 60\nSupported: timer\n", Err(120));
    // What is no number is nobody's wish.
    check_request(WISH, "Session-Expires: soon\n", Ok("1800 changed"));
    check_request(WISH, "Session-Expires: 99999999999\n", Ok("1800 changed"));
}

#[track_caller]
fn check_response(request: &str, response: &str, expected: Option<&str>) {
    let ask = WISH.ask(&message("INVITE sip:b@b.test SIP/2.0", request)).expect("not refused");
    let agreed = ask.agreed(&message("SIP/2.0 200 OK", response)).map(|agreed| {
        let inserted = if agreed.is_inserted { " inserted" } else { "" };
        format!("{}{inserted}", agreed.expires)
    });
    assert_eq!(agreed.as_deref(), expected, "{request} / {response}");
}

#[test]
fn an_answer_makes_the_session_of_section_8_2() {
    // Both know timers.
    check_response(
        "Supported: timer\n",
        "Session-Expires: 900;refresher=uas\nRequire: timer\n",
        Some("900;refresher=uas"),
    );
    check_response("Supported: timer\n", "Session-Expires: 900;refresher=uac\n", Some("900;refresher=uac"));
    // Only the called side does.
    check_response("", "Session-Expires: 1800\n", Some("1800;refresher=uas"));
    // Only the caller does: it must be told, and refreshes.
    check_response("Supported: timer\n", "", Some("1800;refresher=uac inserted"));
    check_response(
        "Session-Expires: 600;refresher=uas\nSupported: timer\n",
        "",
        Some("600;refresher=uac inserted"),
    );
    // Nobody does.
    check_response("", "", None);
    check_response("Session-Expires: 600\n", "Session-Expires: \n", None);
}
