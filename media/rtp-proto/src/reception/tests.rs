//! Sequence, loss, jitter and lateness over hand-made streams.

use super::*;
use proptest::prelude::*;

const PCMA: Clock = Clock { rate: 8_000, is_steady: true };

fn packet(ssrc: u32, sequence: u16, timestamp: u32) -> Vec<u8> {
    let mut bytes = vec![0x80, 8];
    bytes.extend(sequence.to_be_bytes());
    bytes.extend(timestamp.to_be_bytes());
    bytes.extend(ssrc.to_be_bytes());
    bytes
}

/// Feeds (sequence, arrival in ms) of a 20 ms stream whose timestamps follow the sequence numbers.
fn feed(reception: &mut Reception, packets: &[(u16, u64)]) -> Vec<Arrival> {
    packets
        .iter()
        .map(|&(sequence, at_ms)| {
            let bytes = packet(1, sequence, u32::from(sequence).wrapping_mul(160));
            reception.arrived(&RtpView::parse(&bytes).expect("well formed"), PCMA, at_ms * 1_000)
        })
        .collect()
}

fn steady(first: u16, count: u16) -> Vec<(u16, u64)> {
    (0..count).map(|n| (first.wrapping_add(n), u64::from(n) * 20)).collect()
}

#[test]
fn a_clean_stream_has_no_loss_and_no_jitter() {
    let mut reception = Reception::new(60);
    feed(&mut reception, &steady(65_500, 100)); // wraps
    assert_eq!(reception.totals(), Totals { expected: 100, received: 100, ..Totals::default() });
    // The timestamps of the test wrap with the sequence numbers: one jump, which is not jitter.
    assert!(reception.jitter_ms() < 0.001, "{}", reception.jitter_ms());
    let block = reception.report_block(&Totals::default()).expect("a source");
    assert_eq!(block.last_sequence_number, 0x1_0000 + 63);
    assert_eq!((block.fraction_lost, block.total_lost), (0, 0));
}

#[test]
fn gaps_duplicates_and_reordering_are_told_apart() {
    let mut reception = Reception::new(60);
    let arrivals =
        feed(&mut reception, &[(1, 0), (2, 20), (3, 40), (3, 41), (6, 100), (5, 101), (7, 120), (5, 121)]);
    use Arrival::{Ahead, Duplicate, InOrder, Reordered, Unproven};
    assert_eq!(arrivals, [Unproven, InOrder, InOrder, Duplicate, Ahead(2), Reordered, InOrder, Duplicate]);
    let totals = reception.totals();
    assert_eq!(totals, Totals { expected: 7, received: 6, gaps: 1, duplicates: 2, reordered: 1, late: 0 });
    assert_eq!(totals.lost(), 1);
    let block = reception.report_block(&Totals::default()).expect("a source");
    assert_eq!((block.fraction_lost, block.total_lost), (36, 1)); // 256 / 7
}

#[test]
fn a_restart_is_believed_after_two_packets_and_a_stray_one_never() {
    let mut reception = Reception::new(60);
    feed(&mut reception, &steady(1, 10));
    let arrivals =
        feed(&mut reception, &[(30_000, 200), (11, 200), (40_000, 220), (40_001, 240), (40_002, 260)]);
    use Arrival::{InOrder, Unproven};
    assert_eq!(arrivals, [Unproven, InOrder, Unproven, InOrder, InOrder]);
    assert_eq!(reception.totals().lost(), 0);
}

#[test]
fn jitter_follows_the_formula() {
    // Every second packet 10 ms late: |D| is 10 ms each time, so J approaches 10 ms.
    let mut reception = Reception::new(60);
    let packets: Vec<(u16, u64)> =
        (0..400).map(|n| (n, u64::from(n) * 20 + if n % 2 == 0 { 0 } else { 10 })).collect();
    feed(&mut reception, &packets);
    assert!((reception.jitter_ms() - 10.0).abs() < 0.1, "{}", reception.jitter_ms());
    assert_eq!(reception.totals().late, 0, "10 ms fit in the buffer");
}

#[test]
fn packets_that_miss_their_turn_are_late() {
    let mut reception = Reception::new(60);
    let mut packets = steady(1, 100);
    for late in [20, 40, 60] {
        packets[late].1 += 100;
    }
    packets.sort_by_key(|&(_, at_ms)| at_ms);
    feed(&mut reception, &packets);
    assert_eq!(reception.totals().late, 3);
}

#[test]
fn telephone_events_do_not_disturb_jitter() {
    let mut reception = Reception::new(60);
    feed(&mut reception, &steady(1, 50));
    let before = reception.jitter_ms();
    for n in 0..10u16 {
        let bytes = packet(1, 51 + n, 50 * 160); // the timestamp stands still for the length of the event
        let event = Clock { rate: 8_000, is_steady: false };
        reception.arrived(
            &RtpView::parse(&bytes).expect("well formed"),
            event,
            1_000_000 + u64::from(n) * 20_000,
        );
    }
    assert!((reception.jitter_ms() - before).abs() < f64::EPSILON);
}

#[test]
fn random_sources_do_not_push_out_the_proven_one() {
    let mut reception = Reception::new(60);
    feed(&mut reception, &steady(1, 10));
    for ssrc in 100..1_000 {
        let bytes = packet(ssrc, 7, 0);
        reception.arrived(&RtpView::parse(&bytes).expect("well formed"), PCMA, 200_000);
    }
    assert_eq!(feed(&mut reception, &[(11, 220)]), [Arrival::InOrder]);
    assert_eq!(reception.ssrc(), Some(1));
}

proptest! {
    #[test]
    fn any_packets_keep_the_sums_sane(
        packets in proptest::collection::vec((0u32..3, any::<u16>(), any::<u32>(), 0u64..100_000_000), 0..300)
    ) {
        let mut reception = Reception::new(60);
        for (ssrc, sequence, timestamp, at_micros) in &packets {
            let bytes = packet(*ssrc, *sequence, *timestamp);
            reception.arrived(&RtpView::parse(&bytes).expect("well formed"), PCMA, *at_micros);
        }
        let totals = reception.totals();
        prop_assert!(totals.received <= packets.len() as u64);
        prop_assert!(reception.jitter_ms() >= 0.0);
    }
}
