//! What a page can show about a fault: where it is, why, and whom to look at.

use std::collections::BTreeMap;

use belfry_notify::EXAMPLES_MAX;
use belfry_signal::{Cause, FailedEvent, Journey, Pii, Room};

/// What the failed events of a page say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Evidence {
    /// The room that most of them blame.
    pub(crate) room: Room,
    /// Every cause and how often, most frequent first.
    pub(crate) causes: Vec<(Cause, u64)>,
    /// Distinct calls, of the most frequent room and cause first, newest first.
    pub(crate) examples: Vec<Pii<String>>,
}

/// Reads the evidence out of failed events, in any order.
pub(crate) fn gather(journey: Journey, mut failed: Vec<FailedEvent>) -> Evidence {
    failed.sort_by_key(|event| std::cmp::Reverse(event.unix_nanos));
    let rooms = tally(failed.iter().map(|event| event.room));
    let causes = tally(failed.iter().map(|event| event.cause));
    let room = rooms.first().map_or(home(journey), |(room, _)| *room);
    let frequent = causes.first().map(|(cause, _)| *cause);
    // Stable: within the typical and within the rest, newest first.
    failed.sort_by_key(|event| !(event.room == room && Some(event.cause) == frequent));
    let mut examples: Vec<Pii<String>> = Vec::new();
    for call_id in failed.into_iter().filter_map(|event| event.call_id) {
        if examples.len() < EXAMPLES_MAX && !examples.contains(&call_id) {
            examples.push(call_id);
        }
    }
    Evidence { room, causes, examples }
}

/// The room that answers for a journey when no failed event is left to ask.
fn home(journey: Journey) -> Room {
    match journey {
        Journey::Register | Journey::CallSetup | Journey::Messaging => Room::Core,
        Journey::MediaQuality => Room::Media,
        Journey::EdgeHttp => Room::Edge,
        Journey::Service => Room::Backend,
    }
}

/// How often each value comes, most frequent first; equals in their own order.
fn tally<T: Ord + Copy>(values: impl Iterator<Item = T>) -> Vec<(T, u64)> {
    let mut counts: BTreeMap<T, u64> = BTreeMap::new();
    for value in values {
        *counts.entry(value).or_default() += 1;
    }
    let mut tally: Vec<_> = counts.into_iter().collect();
    tally.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    tally
}

#[cfg(test)]
mod tests {
    use belfry_signal::Region;

    use super::*;

    fn failed(unix_nanos: u64, room: Room, cause: Cause, call_id: Option<&str>) -> FailedEvent {
        let region = Region::configured("eu").expect("plain");
        let call_id = call_id.map(|call_id| Pii::new(call_id.to_owned()));
        FailedEvent { unix_nanos, journey: Journey::CallSetup, region, room, cause, call_id }
    }

    #[test]
    fn the_most_frequent_room_and_cause_lead_and_give_the_newest_distinct_examples() {
        let evidence = gather(
            Journey::CallSetup,
            vec![
                failed(1, Room::Core, Cause::ServerError, Some("a")),
                failed(2, Room::Core, Cause::ServerError, Some("b")),
                failed(3, Room::Core, Cause::ServerError, None),
                failed(4, Room::Core, Cause::ServerError, Some("b")),
                failed(5, Room::Media, Cause::PortsExhausted, Some("c")),
                failed(6, Room::Core, Cause::Timeout, Some("d")),
            ],
        );
        assert_eq!(evidence.room, Room::Core);
        assert_eq!(
            evidence.causes,
            [(Cause::ServerError, 4), (Cause::Timeout, 1), (Cause::PortsExhausted, 1)]
        );
        let examples: Vec<_> = evidence.examples.iter().map(|call_id| call_id.reveal().as_str()).collect();
        assert_eq!(examples, ["b", "a", "d"]);
    }

    #[test]
    fn without_events_the_journeys_own_room_answers() {
        let evidence = gather(Journey::MediaQuality, vec![]);
        assert_eq!((evidence.room, evidence.causes.len(), evidence.examples.len()), (Room::Media, 0, 0));
    }
}
