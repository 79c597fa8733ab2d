//! Contacts: which are the same, in which order they are called, and what a request may do to them.

use super::super::house::{House, Phone};
use super::attempt;
use crate::handle::Transport;

/// One step of a story: what a REGISTER of this Call-ID and CSeq says, and what its answer must be.
struct Step {
    call_id: &'static str,
    cseq: u32,
    says: &'static str,
    status: u16,
    /// The Contact values of the answer without their `expires`, in order.
    contacts: &'static [&'static str],
}

fn step(
    call_id: &'static str,
    cseq: u32,
    says: &'static str,
    status: u16,
    contacts: &'static [&'static str],
) -> Step {
    Step { call_id, cseq, says, status, contacts }
}

/// Tells a story; every CSeq counts twice, for the challenge and the answer.
async fn check(title: &str, steps: &[Step]) {
    let mut house = House::new().await;
    let phone = Phone::new("alice", Transport::Tcp);
    for (number, step) in steps.iter().enumerate() {
        let (status, text) = attempt(&mut house, &phone, step.call_id, step.cseq, step.says).await;
        assert_eq!(status, step.status, "{title}, step {number}: {text}");
        if status != 200 {
            continue;
        }
        let lines = text.lines().filter_map(|line| line.strip_prefix("Contact: "));
        let contacts: Vec<String> = lines
            .map(|line| {
                let (before, after) = line.split_once(";expires=").expect("a contact shows when it ends");
                let rest = after.trim_start_matches(|c: char| c.is_ascii_digit());
                format!("{before}{rest}")
            })
            .collect();
        assert_eq!(contacts, step.contacts, "{title}, step {number}");
    }
}

#[tokio::test]
async fn equal_uris_are_one_contact_and_others_are_not() {
    check(
        "RFC 3261 section 19.1.4",
        &[
            step(
                "a",
                1,
                "Contact: <sip:%61lice@Phone.Example;transport=tcp>",
                200,
                &["<sip:%61lice@Phone.Example;transport=tcp>"],
            ),
            step(
                "b",
                1,
                "Contact: <sip:alice@phone.example;Transport=TCP>",
                200,
                &["<sip:alice@phone.example;Transport=TCP>"],
            ),
            // A parameter that both would need, a port that only one names, another case of the user.
            step(
                "c",
                1,
                "Contact: <sip:alice@phone.example>, <sip:alice@phone.example:5060;transport=tcp>",
                200,
                &[
                    "<sip:alice@phone.example:5060;transport=tcp>",
                    "<sip:alice@phone.example>",
                    "<sip:alice@phone.example;Transport=TCP>",
                ],
            ),
            step(
                "d",
                1,
                "Contact: <sip:Alice@phone.example>",
                200,
                &[
                    "<sip:Alice@phone.example>",
                    "<sip:alice@phone.example:5060;transport=tcp>",
                    "<sip:alice@phone.example>",
                    "<sip:alice@phone.example;Transport=TCP>",
                ],
            ),
            step(
                "e",
                1,
                "Contact: <sip:alice@PHONE.example>;expires=0",
                200,
                &[
                    "<sip:Alice@phone.example>",
                    "<sip:alice@phone.example:5060;transport=tcp>",
                    "<sip:alice@phone.example;Transport=TCP>",
                ],
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn requests_count_upwards_or_change_nothing() {
    let one = "Contact: <sip:alice@one.example>";
    let both = "Contact: <sip:alice@two.example>, <sip:alice@one.example>";
    check(
        "RFC 3261 section 10.3 step 7",
        &[
            step("x", 10, one, 200, &["<sip:alice@one.example>"]),
            // The second contact is out of order, so the first is not bound either.
            step("x", 9, both, 500, &[]),
            step("fetch", 1, "", 200, &["<sip:alice@one.example>"]),
            step("x", 8, "Contact: *\nExpires: 0", 500, &[]),
            step("x", 7, "Contact: <sip:alice@one.example>;expires=0", 500, &[]),
            // Another Call-ID is another registration; the last one counts.
            step("y", 1, both, 200, &["<sip:alice@two.example>", "<sip:alice@one.example>"]),
            step("x", 20, "Contact: *\nExpires: 0", 200, &[]),
        ],
    )
    .await;
}

#[tokio::test]
async fn preference_and_times_are_each_contacts_own() {
    check(
        "several contacts of one request",
        &[
            step(
                "x",
                1,
                "Contact: <sip:a@one.example>;q=0.2, <sip:a@two.example>;q=0.9;expires=60\nExpires: 90",
                200,
                &["<sip:a@two.example>;q=0.900", "<sip:a@one.example>;q=0.200"],
            ),
            step(
                "x",
                3,
                "Contact: <sip:a@one.example>;expires=0, <sip:a@three.example>;q=1.0",
                200,
                &["<sip:a@three.example>", "<sip:a@two.example>;q=0.900"],
            ),
            // The last word about a contact counts, and one that is too brief spoils all.
            step(
                "x",
                5,
                "Contact: <sip:a@two.example>;expires=0, <sip:a@two.example>;q=0.1",
                200,
                &["<sip:a@three.example>", "<sip:a@two.example>;q=0.100"],
            ),
            step("x", 7, "Contact: <sip:a@four.example>, <sip:a@five.example>;expires=9", 423, &[]),
            step("x", 9, "Contact: <sip:a@four.example>, *\nExpires: 0", 400, &[]),
            step("x", 11, "Contact: <tel:+15550100>", 400, &[]),
            step("x", 13, "", 200, &["<sip:a@three.example>", "<sip:a@two.example>;q=0.100"]),
        ],
    )
    .await;
}

#[tokio::test]
async fn contacts_have_bounds_and_do_not_go_in_circles() {
    let mut house = House::new().await;
    let phone = Phone::new("alice", Transport::Tcp);
    let long = format!("Contact: <sip:{}@one.example>", "a".repeat(1024));
    assert_eq!(attempt(&mut house, &phone, "long", 1, &long).await.0, 403);
    let circle = "Contact: <sip:alice@belfry.test>;+sip.instance=\"<urn:uuid:1>\"";
    assert_eq!(attempt(&mut house, &phone, "circle", 1, circle).await.0, 403);
    let gruu = "Contact: <sip:alice@belfry.test;gr=urn:uuid:1>;+sip.instance=\"<urn:uuid:1>\"";
    assert_eq!(attempt(&mut house, &phone, "circle", 3, gruu).await.0, 403);
    // Four fit; who makes room in the same request may bring as many as leave.
    let four = "Contact: <sip:a@1.example>, <sip:a@2.example>, <sip:a@3.example>, <sip:a@4.example>";
    assert_eq!(attempt(&mut house, &phone, "four", 1, four).await.0, 200);
    assert_eq!(attempt(&mut house, &phone, "four", 3, "Contact: <sip:a@5.example>").await.0, 403);
    let swap = "Contact: <sip:a@5.example>, <sip:a@1.example>;expires=0";
    assert_eq!(attempt(&mut house, &phone, "four", 5, swap).await.0, 200);
    assert_eq!(house.state.bindings().len(), 4);
}
