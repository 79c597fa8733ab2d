//! Notifications as PagerDuty Events API v2 events, within its limits.
//!
//! The routing key is not part of what is built here: it is added when a request is made, so that it never
//! comes to stand in the outbox.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::key::RoutingKey;
use crate::page::{EXAMPLES_MAX, Page, PageId};

/// The longest summary.
pub(crate) const SUMMARY_CHARS_MAX: usize = 1_024;
/// The longest dedup key.
pub(crate) const DEDUP_KEY_CHARS_MAX: usize = 255;
/// The largest event, as Alertmanager has it too.
pub(crate) const EVENT_BYTES_MAX: usize = 512_000;
/// What stands where something was cut.
const CUT: char = '…';

/// Whom links and sources name: all from the configuration.
#[derive(Clone, Debug)]
pub(crate) struct Sender {
    /// The beginning of every link.
    pub(crate) public_url: String,
    /// The site that speaks.
    pub(crate) site: String,
    /// The node that speaks.
    pub(crate) node: String,
}

impl Sender {
    /// The event that opens an incident.
    pub(crate) fn trigger(&self, page: &Page) -> String {
        let page_url = self.page_url(page.id);
        let runbook_url =
            format!("{}/runbooks/{}", self.public_url.trim_end_matches('/'), page.alert.as_str());
        let examples: Vec<String> =
            (1..=page.examples.min(EXAMPLES_MAX)).map(|n| format!("{page_url}/examples/{n}")).collect();
        let mut links = vec![
            json!({ "href": page_url, "text": "Page" }),
            json!({ "href": runbook_url, "text": "Runbook" }),
        ];
        for (place, href) in examples.iter().enumerate() {
            links.push(json!({ "href": href, "text": format!("Example call {}", place + 1) }));
        }
        let started = timestamp(page.started_unix_nanos);
        let event = json!({
            "event_action": "trigger",
            "dedup_key": cut(page.dedup_key.as_str(), DEDUP_KEY_CHARS_MAX),
            "client": "Belfry",
            "client_url": page_url,
            "links": links,
            "payload": {
                "summary": cut(&summary(page), SUMMARY_CHARS_MAX),
                "source": self.site,
                "severity": "critical",
                "timestamp": started,
                "component": page.room.as_str(),
                "group": page.journey.as_str(),
                "class": page.alert.as_str(),
                "custom_details": self.details(page, &runbook_url, &examples, &started),
            },
        });
        within(event, EVENT_BYTES_MAX)
    }

    /// The event that closes an incident.
    pub(crate) fn resolve(dedup_key: &str) -> String {
        json!({ "event_action": "resolve", "dedup_key": cut(dedup_key, DEDUP_KEY_CHARS_MAX) }).to_string()
    }

    /// The event that says that somebody works on an incident.
    pub(crate) fn acknowledge(dedup_key: &str) -> String {
        json!({ "event_action": "acknowledge", "dedup_key": cut(dedup_key, DEDUP_KEY_CHARS_MAX) }).to_string()
    }

    fn page_url(&self, id: PageId) -> String {
        format!("{}/pages/{id}", self.public_url.trim_end_matches('/'))
    }

    fn details(&self, page: &Page, runbook_url: &str, examples: &[String], started: &str) -> Value {
        let budget = &page.budget;
        let causes: Map<String, Value> =
            page.causes.iter().map(|(cause, count)| (cause.as_str().to_owned(), json!(count))).collect();
        json!({
            "alert": page.alert.as_str(),
            "journey": page.journey.as_str(),
            "region": page.region.as_str(),
            "regions": page.regions.iter().map(belfry_signal::Region::as_str).collect::<Vec<_>>(),
            "room": page.room.as_str(),
            "site": self.site,
            "node": self.node,
            "started": started,
            "causes": causes,
            "bad_events": budget.bad_events,
            "events": budget.events,
            "window_seconds": budget.window_seconds,
            "burn_rate": milli(budget.burn_milli),
            "objective": percent(i64::from(budget.objective_ppm)),
            "budget_remaining": percent(budget.budget_remaining_ppm),
            "examples": examples,
            "runbook": runbook_url,
        })
    }
}

/// Adds the routing key to an event: the body of a request.
pub(crate) fn with_key(event: &str, key: &RoutingKey) -> Option<Vec<u8>> {
    let mut fields: Map<String, Value> = serde_json::from_str(event).ok()?;
    fields.insert("routing_key".to_owned(), Value::String(key.reveal().to_owned()));
    serde_json::to_vec(&fields).ok()
}

/// One sentence that says what, where, how bad and why.
fn summary(page: &Page) -> String {
    let budget = &page.budget;
    let bad_ppm =
        (u128::from(budget.bad_events) * 1_000_000).checked_div(u128::from(budget.events)).unwrap_or(0);
    let causes: Vec<String> =
        page.causes.iter().map(|(cause, count)| format!("{} {count}", cause.as_str())).collect();
    let others =
        page.regions.iter().filter(|region| **region != page.region).map(belfry_signal::Region::as_str);
    let regions = std::iter::once(page.region.as_str()).chain(others).collect::<Vec<_>>().join(", ");
    let because = if causes.is_empty() { String::new() } else { format!(" ({})", causes.join(", ")) };
    format!(
        "{}: {} in {regions} fails at {}{because}: {} of {} events bad in {} s, {}",
        page.alert.as_str(),
        page.journey.as_str(),
        page.room.as_str(),
        budget.bad_events,
        budget.events,
        budget.window_seconds,
        percent(i64::try_from(bad_ppm).unwrap_or(i64::MAX)),
    )
}

/// At most `chars_max` characters, visibly cut.
pub(crate) fn cut(text: &str, chars_max: usize) -> String {
    if text.chars().count() <= chars_max {
        return text.to_owned();
    }
    text.chars().take(chars_max.saturating_sub(1)).chain([CUT]).collect()
}

/// The event as text; when it is too large, without its details and with a note that says so.
pub(crate) fn within(mut event: Value, bytes_max: usize) -> String {
    // Room for the routing key that is added later.
    const KEY_BYTES: usize = 64;
    let text = event.to_string();
    if text.len() + KEY_BYTES <= bytes_max {
        return text;
    }
    event["payload"]["custom_details"] =
        json!({ "cut": format!("left out: the event had {} bytes, {bytes_max} are allowed", text.len()) });
    event.to_string()
}

/// RFC 3339 in UTC, to the millisecond.
fn timestamp(unix_nanos: u64) -> String {
    let millis = i64::try_from(unix_nanos / 1_000_000).unwrap_or(0);
    Timestamp::from_millisecond(millis).map_or_else(|_| String::new(), |at| format!("{at:.3}"))
}

/// Parts per million as a percentage with up to four decimals.
fn percent(ppm: i64) -> String {
    let sign = if ppm < 0 { "-" } else { "" };
    let (whole, rest) = (ppm.unsigned_abs() / 10_000, ppm.unsigned_abs() % 10_000);
    let decimals = format!("{rest:04}");
    let decimals = decimals.trim_end_matches('0');
    if decimals.is_empty() { format!("{sign}{whole} %") } else { format!("{sign}{whole}.{decimals} %") }
}

/// Thousandths as a decimal with one place.
fn milli(thousandths: u64) -> String {
    let tenths = (thousandths + 50) / 100;
    format!("{}.{}", tenths / 10, tenths % 10)
}

#[cfg(test)]
pub(crate) mod tests {
    use belfry_signal::{Cause, Journey, Region, Room};

    use super::*;
    use crate::page::{AlertName, BudgetFigures, DedupKey};

    /// A page of a fault of the core.
    pub(crate) fn page(slo: &str, started_unix_nanos: u64) -> Page {
        let region = Region::configured("eu").expect("plain");
        let dedup_key = DedupKey::of("site-1", slo, &region);
        Page {
            id: PageId::of(&dedup_key, started_unix_nanos),
            dedup_key,
            alert: AlertName::CallSetupBudgetBurn,
            journey: Journey::CallSetup,
            regions: vec![region.clone()],
            region,
            room: Room::Core,
            causes: vec![(Cause::ServerError, 40), (Cause::Timeout, 2)],
            examples: 7,
            started_unix_nanos,
            budget: BudgetFigures {
                objective_ppm: 999_000,
                window_seconds: 60,
                bad_events: 42,
                events: 120,
                burn_milli: 350_000,
                budget_remaining_ppm: -125_000,
            },
        }
    }

    fn sender() -> Sender {
        Sender { public_url: "https://belfry.example/".into(), site: "fra-1".into(), node: "node-1".into() }
    }

    #[test]
    fn a_trigger_says_what_where_why_and_links_to_our_page_only() {
        let page = page("call_setup", 1_795_163_417_123_000_000);
        let event: Value = serde_json::from_str(&sender().trigger(&page)).expect("JSON");
        let id = page.id;
        assert_eq!(
            event["payload"]["summary"],
            "CallSetupBudgetBurn: call_setup in eu fails at core (server_error 40, timeout 2): \
             42 of 120 events bad in 60 s, 35 %"
        );
        assert_eq!(event["payload"]["timestamp"], "2026-11-20T08:30:17.123Z");
        assert_eq!(event["payload"]["severity"], "critical");
        let details = &event["payload"]["custom_details"];
        assert_eq!(details["objective"], "99.9 %");
        assert_eq!(details["burn_rate"], "350.0");
        assert_eq!(details["budget_remaining"], "-12.5 %");
        assert_eq!(details["causes"], json!({ "server_error": 40, "timeout": 2 }));
        assert_eq!(event["client_url"], format!("https://belfry.example/pages/{id}"));
        let links: Vec<_> =
            event["links"].as_array().expect("links").iter().map(|link| &link["href"]).collect();
        assert_eq!(links.len(), 5, "page, runbook and at most three examples");
        assert_eq!(links[1], "https://belfry.example/runbooks/CallSetupBudgetBurn");
        assert_eq!(links[4], &json!(format!("https://belfry.example/pages/{id}/examples/3")));
        assert!(event.get("routing_key").is_none(), "the key is added when a request is made");
    }

    #[test]
    fn many_regions_are_named_as_far_as_the_summary_goes() {
        let mut page = page("call_setup", 1);
        let name = |n: usize| Region::configured(&format!("r{n}-{}", "x".repeat(50))).expect("plain");
        page.regions.extend((0..63).map(name));
        let event: Value = serde_json::from_str(&sender().trigger(&page)).expect("JSON");
        let summary = event["payload"]["summary"].as_str().expect("text");
        assert!(summary.starts_with("CallSetupBudgetBurn: call_setup in eu, r0-x"), "{summary}");
        assert_eq!((summary.chars().count(), summary.ends_with('…')), (1_024, true));
        assert_eq!(event["payload"]["custom_details"]["regions"].as_array().map(Vec::len), Some(64));
        assert_eq!(event["payload"]["group"], "call_setup");
    }

    #[test]
    fn what_is_too_long_is_cut_where_one_sees_it() {
        assert_eq!(cut("short", 5), "short");
        assert_eq!(cut("longer", 5), "long…");
        assert_eq!(cut(&"é".repeat(2_000), SUMMARY_CHARS_MAX).chars().count(), 1_024);
        let event = json!({ "payload": { "summary": "s", "custom_details": { "x": "y".repeat(1_000) } } });
        let text = within(event, 600);
        assert!(text.len() < 300 && text.contains("600 are allowed"), "{text}");
    }

    #[test]
    fn numbers_are_written_for_people() {
        for (ppm, text) in [(999_500, "99.95 %"), (0, "0 %"), (-1, "-0.0001 %"), (1_000_000, "100 %")] {
            assert_eq!(percent(ppm), text);
        }
        assert_eq!((milli(14_400), milli(99), milli(69_250)), ("14.4".into(), "0.1".into(), "69.3".into()));
    }
}
