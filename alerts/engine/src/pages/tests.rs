//! Pages: grouping, joining, ending, telling.

use belfry_signal::{Cause, Room};
use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000_000_000;
const START: u64 = 1_795_163_417 * SECOND;

fn region(name: &str) -> Region {
    Region::configured(name).expect("plain")
}

fn pages() -> Pages {
    Pages::new("site-1".into(), Duration::from_secs(2), Duration::from_secs(30), 2)
}

pub(crate) fn findings(lead: &str) -> Findings {
    Findings {
        alert: AlertName::CallSetupBudgetBurn,
        journey: Journey::CallSetup,
        lead: region(lead),
        evidence: Evidence {
            room: Room::Core,
            causes: vec![(Cause::ServerError, 9)],
            examples: vec![Pii::new("a@b".to_owned())],
        },
        budget: BudgetFigures {
            objective_ppm: 999_000,
            window_seconds: 60,
            bad_events: 9,
            events: 60,
            burn_milli: 150_000,
            budget_remaining_ppm: 900_000,
        },
    }
}

/// Trips, waits out the group window and opens what is due; how many pages that were.
fn open_due(pages: &mut Pages, now: u64) -> usize {
    let due = pages.due(now);
    let opened = due.len();
    for (slo, regions) in due {
        let lead = regions[0].as_str().to_owned();
        pages.open(now, &slo, regions, findings(&lead));
    }
    opened
}

fn deliver_all(pages: &mut Pages) -> Vec<Delivery> {
    let messages = pages.undelivered();
    for (id, delivery, _) in &messages {
        pages.delivered(*id, *delivery);
    }
    messages.into_iter().map(|(_, delivery, _)| delivery).collect()
}

#[test]
fn regions_that_trip_together_are_one_page_that_ends_with_the_last() {
    let mut pages = pages();
    pages.tripped(START, "call_setup", &region("eu"));
    pages.tripped(START + SECOND, "call_setup", &region("us"));
    assert_eq!(open_due(&mut pages, START + SECOND), 0, "it waits for others");
    assert_eq!(open_due(&mut pages, START + 2 * SECOND), 1);
    assert_eq!(deliver_all(&mut pages), [Delivery::Trigger]);
    pages.tripped(START + 20 * SECOND, "call_setup", &region("apac"));
    assert_eq!(open_due(&mut pages, START + 40 * SECOND), 0, "it joined");
    for (place, name) in ["us", "apac", "eu"].into_iter().enumerate() {
        assert_eq!(deliver_all(&mut pages), []);
        assert_eq!(pages.open_count(), 1);
        pages.recovered(START + (50 + place as u64) * SECOND, "call_setup", &region(name));
    }
    assert_eq!(deliver_all(&mut pages), [Delivery::Resolve]);
    assert_eq!(deliver_all(&mut pages), []);
    let shown = pages.shown();
    assert_eq!(shown[0].regions, [region("eu"), region("us"), region("apac")]);
    assert_eq!(shown[0].state, PageState::Resolved);
    assert_eq!(
        shown[0].summary,
        "call_setup in eu, us, apac fails at core (server_error 9): 9 of 60 events bad in 60 s"
    );
}

#[test]
fn a_region_that_trips_late_or_for_another_slo_gets_its_own_page() {
    let mut pages = pages();
    pages.tripped(START, "call_setup", &region("eu"));
    pages.tripped(START, "register", &region("eu"));
    assert_eq!(open_due(&mut pages, START + 2 * SECOND), 2);
    pages.tripped(START + 40 * SECOND, "call_setup", &region("us"));
    assert_eq!(open_due(&mut pages, START + 42 * SECOND), 1);
    let keys: BTreeSet<_> = pages.records().map(|record| record.dedup_key.clone()).collect();
    assert_eq!(keys.len(), 3);
}

#[test]
fn a_region_of_an_open_page_that_trips_again_comes_back_to_it() {
    let mut pages = pages();
    pages.tripped(START, "call_setup", &region("eu"));
    pages.tripped(START, "call_setup", &region("us"));
    open_due(&mut pages, START + 2 * SECOND);
    pages.recovered(START + 60 * SECOND, "call_setup", &region("eu"));
    pages.tripped(START + 90 * SECOND, "call_setup", &region("eu"));
    assert_eq!(open_due(&mut pages, START + 92 * SECOND), 0);
    pages.recovered(START + 95 * SECOND, "call_setup", &region("us"));
    assert_eq!(pages.open_count(), 1, "eu still burns");
    pages.recovered(START + 99 * SECOND, "call_setup", &region("eu"));
    assert_eq!(pages.open_count(), 0);
}

#[test]
fn what_is_over_before_it_is_sent_wakes_nobody() {
    let mut pages = pages();
    pages.tripped(START, "call_setup", &region("eu"));
    pages.recovered(START + SECOND, "call_setup", &region("eu"));
    assert_eq!(open_due(&mut pages, START + 2 * SECOND), 0);
    assert_eq!(deliver_all(&mut pages), []);
}

#[test]
fn what_could_not_be_told_is_told_later_in_order() {
    let mut pages = pages();
    pages.tripped(START, "call_setup", &region("eu"));
    open_due(&mut pages, START + 2 * SECOND);
    pages.recovered(START + 9 * SECOND, "call_setup", &region("eu"));
    assert_eq!(deliver_all(&mut pages), [Delivery::Trigger, Delivery::Resolve]);
}

#[test]
fn a_page_of_an_slo_that_is_no_longer_judged_is_ended() {
    let mut pages = pages();
    pages.tripped(START, "call_setup", &region("eu"));
    open_due(&mut pages, START + 2 * SECOND);
    pages.close_orphans(START + 3 * SECOND, |slo| slo != "call_setup");
    assert_eq!(deliver_all(&mut pages), [Delivery::Trigger, Delivery::Resolve]);
}

#[test]
fn only_pages_that_are_over_and_told_make_room() {
    let mut pages = pages();
    for second in [0, 100, 200] {
        pages.tripped(START + second * SECOND, "call_setup", &region("eu"));
        open_due(&mut pages, START + (second + 2) * SECOND);
        pages.recovered(START + (second + 9) * SECOND, "call_setup", &region("eu"));
    }
    assert_eq!(pages.records().count(), 3, "none was told of");
    deliver_all(&mut pages);
    pages.tripped(START + 300 * SECOND, "call_setup", &region("eu"));
    open_due(&mut pages, START + 302 * SECOND);
    assert_eq!(pages.records().count(), 2);
    assert_eq!(pages.take_changes().1.len(), 2);
    assert!(!pages.has_changes());
}

/// What happens to pages from outside.
#[derive(Clone, Copy, Debug)]
enum Step {
    Turn {
        slo: usize,
        region: usize,
    },
    Wait {
        seconds: u64,
    },
    /// The outbox takes so many messages, then refuses.
    Deliver {
        taken: usize,
    },
    Restart,
}

const SLOS: [&str; 2] = ["call_setup", "register"];
const REGIONS: [&str; 3] = ["eu", "us", "apac"];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(
        prop_oneof![
            4 => (0..SLOS.len(), 0..REGIONS.len()).prop_map(|(slo, region)| Step::Turn { slo, region }),
            3 => (0_u64..50).prop_map(|seconds| Step::Wait { seconds }),
            3 => (0_usize..4).prop_map(|taken| Step::Deliver { taken }),
            1 => Just(Step::Restart),
        ],
        1..120,
    )
}

/// Everything that the outbox took, by key.
type Heard = BTreeMap<DedupKey, Vec<(PageId, Delivery)>>;

fn deliver(pages: &mut Pages, heard: &mut Heard, taken: usize) {
    for (id, delivery, notification) in pages.undelivered().into_iter().take(taken) {
        let key = match &notification {
            Notification::Trigger(page) => page.dedup_key.clone(),
            Notification::Resolve { dedup_key, .. } => dedup_key.clone(),
            Notification::Notice(_) => unreachable!("pages are no notices"),
        };
        heard.entry(key).or_default().push((id, delivery));
        pages.delivered(id, delivery);
    }
}

proptest! {
    /// P1: every trigger gets exactly one resolve, after it, whatever is refused and however often it restarts.
    #[test]
    fn every_trigger_gets_exactly_one_resolve(steps in steps()) {
        let mut pages = pages();
        let (mut now, mut heard) = (START, Heard::new());
        let mut burning: BTreeSet<(usize, usize)> = BTreeSet::new();
        let turn = |pages: &mut Pages, burning: &mut BTreeSet<_>, now, at: (usize, usize)| {
            let region = region(REGIONS[at.1]);
            if burning.remove(&at) {
                pages.recovered(now, SLOS[at.0], &region);
            } else {
                burning.insert(at);
                pages.tripped(now, SLOS[at.0], &region);
            }
        };
        for step in steps {
            match step {
                Step::Turn { slo, region } => turn(&mut pages, &mut burning, now, (slo, region)),
                Step::Wait { seconds } => {
                    for _ in 0..seconds {
                        now += SECOND;
                        open_due(&mut pages, now);
                    }
                }
                Step::Deliver { taken } => deliver(&mut pages, &mut heard, taken),
                Step::Restart => {
                    let records: Vec<Record> = pages.records().cloned().collect();
                    // As the engine does it: an alert without a page yet trips anew, one of a page goes on.
                    burning = BTreeSet::new();
                    for record in records.iter().filter(|record| record.is_open()) {
                        for member in record.members.iter().filter(|member| member.is_burning) {
                            let slo = SLOS.iter().position(|slo| *slo == record.slo).expect("known");
                            let region = REGIONS.iter().position(|r| *r == member.region.as_str());
                            burning.insert((slo, region.expect("known")));
                        }
                    }
                    pages = self::pages();
                    pages.restore(records);
                }
            }
            let open: Vec<_> = pages.records().filter(|record| record.is_open()).collect();
            let keys: BTreeSet<_> = open.iter().map(|record| &record.dedup_key).collect();
            prop_assert_eq!(keys.len(), open.len(), "open pages have different keys");
        }
        for at in burning.clone() {
            turn(&mut pages, &mut burning, now, at);
        }
        now += 60 * SECOND;
        open_due(&mut pages, now);
        deliver(&mut pages, &mut heard, usize::MAX);
        prop_assert_eq!(pages.open_count(), 0);
        for messages in heard.values() {
            for pair in messages.chunks(2) {
                prop_assert_eq!(pair.len(), 2, "{:?}", messages);
                prop_assert_eq!((pair[0].1, pair[1].1), (Delivery::Trigger, Delivery::Resolve));
                prop_assert_eq!(pair[0].0, pair[1].0);
            }
            let triggered: BTreeSet<_> = messages.iter().map(|(id, _)| id).collect();
            prop_assert_eq!(triggered.len() * 2, messages.len(), "each page once");
        }
    }
}
