use jiff::civil::DateTime;
use proptest::prelude::*;

use super::document::Tariff;
use super::*;

const PROFILE: &str = r#"
name = "standard"
version = 3
currency = "EUR"
time_zone = "Europe/Vienna"
holidays = ["2026-12-25"]
free = { seconds = 600, period = "month" }

[[destinations]]
name = "Austria"
prefixes = ["43"]
tariffs = [
    { name = "peak", days = ["mon", "tue", "wed", "thu", "fri"], from = "08:00", to = "18:00", connection_fee = "0.05", initial_seconds = 60, following_seconds = 60, price_per_minute = "0.06" },
    { name = "off-peak", initial_seconds = 30, following_seconds = 6, price_per_minute = "0.02", minimum_charge = "0.03" },
]
[[destinations]]
name = "Austria mobile"
prefixes = ["43660", "+43664"]
tariffs = [{ name = "flat", price_per_minute = "0.1", initial_price_per_minute = "0.3", initial_seconds = 10, takes_free_seconds = true }]
[[destinations]]
name = "night owls"
prefixes = ["7"]
tariffs = [
    { name = "night", from = "22:00", to = "06:00", days = ["fri"], price_per_minute = "1" },
    { name = "day", price_per_minute = "60" },
]
[[destinations]]
name = "anything else"
prefixes = [""]
tariffs = [{ name = "flat", price_per_minute = "1.2345" }]
[[destinations]]
name = "own customers"
prefixes = ["internal"]
tariffs = [{ name = "free", price_per_minute = "0" }]
"#;

fn table(change: impl FnOnce(&mut Profile)) -> RateTable {
    let mut profile: Profile = toml::from_str(PROFILE).expect("a profile");
    change(&mut profile);
    RateTable::new(profile).expect("ready")
}

/// The instant of a local time, as `2026-11-20T17:59:30`.
fn nanos(local: &str, zone: &TimeZone) -> u64 {
    let local: DateTime = local.parse().expect("a local time");
    let at = local.to_zoned(zone.clone()).expect("it exists").timestamp();
    u64::try_from(at.as_nanosecond()).expect("after 1970")
}

#[test]
fn prices_are_those_of_a_bill() {
    let table = table(|_| {});
    let check = |dialled: &str, answer: &str, seconds: f64, free: u64, expected: &str| {
        let answer_unix_nanos = nanos(answer, &table.zone);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "small numbers of a test"
        )]
        let length = (seconds * 1e9) as u64;
        let end_unix_nanos = answer_unix_nanos + length;
        let rated = table
            .rate(Call { dialled, answer_unix_nanos, end_unix_nanos, free_seconds_left: free })
            .expect("rated");
        let parts: Vec<String> =
            rated.parts.iter().map(|part| format!("{} {}", part.tariff, part.seconds)).collect();
        let told = format!("{} {} [{}] {}", rated.prefix, rated.price, parts.join(", "), rated.free_seconds);
        assert_eq!(told, expected, "{dialled} at {answer} for {seconds} s");
    };
    // A Friday. A second more than a minute is two minutes; the fee comes once.
    check("+43150", "2026-11-20T10:00:00", 60.0, 0, "43 0.1100 [peak 60] 0");
    check("43150", "2026-11-20T10:00:00", 60.001, 0, "43 0.1700 [peak 120] 0");
    check("43150", "2026-11-20T10:00:00", 0.0, 0, "43 0.0500 [] 0");
    // 17:59:30: two minutes begin before 18:00 (17:59:30 only one), then sixes.
    check("43150", "2026-11-20T17:59:30", 70.0, 0, "43 0.1140 [peak 60, off-peak 12] 0");
    check("43150", "2026-11-20T07:59:58", 40.0, 0, "43 0.0700 [off-peak 30, peak 60] 0");
    // The minimum is that of the tariff at the answer.
    check("43150", "2026-11-21T10:00:00", 1.0, 0, "43 0.0300 [off-peak 30] 0");
    check("43150", "2026-12-25T10:00:00", 31.0, 0, "43 0.0300 [off-peak 36] 0");
    // The longest prefix; free seconds pay the dear first increment.
    check("436601", "2026-11-20T10:00:00", 12.0, 0, "43660 0.0533 [flat 12] 0");
    check("436641", "2026-11-20T10:00:00", 12.0, 11, "43664 0.0017 [flat 12] 11");
    check("436641", "2026-11-20T10:00:00", 12.0, 600, "43664 0.0000 [flat 12] 12");
    // Friday's night ends on Saturday at six; Saturday's is none.
    check("7", "2026-11-20T21:59:59", 3.0, 0, "7 1.0333 [day 1, night 2] 0");
    check("7", "2026-11-21T05:59:59", 2.0, 0, "7 1.0167 [night 1, day 1] 0");
    check("7", "2026-11-21T23:00:00", 1.0, 0, "7 1.0000 [day 1] 0");
    // In the night of 28 March 2026, two o'clock is three: this Friday's night is an hour shorter only next month.
    check("7", "2026-10-24T01:00:00", 1.0, 0, "7 0.0167 [night 1] 0");
    check("1", "2026-11-20T10:00:00", 60.0, 0, " 1.2345 [flat 60] 0");
    check("sip:bob@belfry.test", "2026-11-20T10:00:00", 6000.0, 0, "internal 0.0000 [free 6000] 0");
}

#[test]
fn the_rounding_rule_is_the_profile_s() {
    for (rounding, decimals, expected) in [
        (Rounding::HalfUp, 2, "0.03"),
        (Rounding::HalfEven, 2, "0.02"),
        (Rounding::Up, 2, "0.03"),
        (Rounding::Down, 2, "0.02"),
        (Rounding::Up, 1, "0.1"),
        (Rounding::Down, 0, "0"),
    ] {
        let table = table(|profile| {
            (profile.rounding, profile.decimals) = (rounding, decimals);
            profile.destinations[3].tariffs[0].price_per_minute = "0.025".parse().expect("a decimal");
        });
        let call = Call {
            dialled: "99",
            answer_unix_nanos: 1_000_000_000,
            end_unix_nanos: 61_000_000_000,
            free_seconds_left: 0,
        };
        assert_eq!(table.rate(call).expect("rated").price.to_string(), expected, "{rounding:?} {decimals}");
    }
}

#[test]
fn free_seconds_come_anew_where_the_customer_lives() {
    let zone = table(|_| {}).zone;
    // 23:30 UTC on 31 October is November in Vienna.
    for (period, at, expected) in [
        (FreePeriod::Month, "2026-11-20T00:00:00", "2026-11-01"),
        (FreePeriod::Month, "2026-11-01T00:30:00", "2026-11-01"),
        (FreePeriod::Month, "2026-10-31T23:59:59", "2026-10-01"),
        (FreePeriod::Week, "2026-11-22T23:00:00", "2026-11-16"),
        (FreePeriod::Week, "2026-11-23T00:00:00", "2026-11-23"),
        (FreePeriod::Day, "2026-11-20T00:00:00", "2026-11-20"),
    ] {
        let table = table(|profile| profile.free = Some(FreeSeconds { seconds: 1, period }));
        assert_eq!(
            table.free_period(nanos(at, &zone)).map(|date| date.to_string()).as_deref(),
            Some(expected)
        );
    }
    assert_eq!(table(|profile| profile.free = None).free_period(0), None);
}

#[test]
fn faults_say_where_and_what_is_allowed() {
    let check = |from: &str, to: &str, place: &str| {
        let text = PROFILE.replacen(from, to, 1);
        assert_ne!(text, PROFILE, "{from}");
        let profile: Profile = toml::from_str(&text).expect("the form is right");
        match RateTable::new(profile) {
            Err(Error::Profile { place: found, fault }) => {
                assert_eq!(found, place, "{fault}");
                assert!(!fault.is_empty());
            }
            other => panic!("{from} -> {to}: {other:?}"),
        }
    };
    check("\"EUR\"", "\"Euro\"", "currency");
    check("Europe/Vienna", "Europe/Atlantis", "time_zone");
    check("\"43660\"", "\"43x\"", "destinations[1].prefixes");
    check("\"43660\"", "\"43\"", "destinations[1].prefixes");
    check("\"mon\"", "\"monday\"", "destinations[0].tariffs[0]");
    check("from = \"08:00\"", "from = \"8\"", "destinations[0].tariffs[0]");
    check("initial_seconds = 60", "initial_seconds = 0", "destinations[0].tariffs[0].initial_seconds");
    check("\"0.05\"", "\"-0.05\"", "destinations[0].tariffs[0].connection_fee");
    check("{ name = \"off-peak\",", "{ name = \"off-peak\", from = \"01:00\",", "destinations[0].tariffs");
    let float = PROFILE.replacen("\"0.05\"", "0.05", 1);
    assert!(toml::from_str::<Profile>(&float).is_err(), "a float is not exact");
    let nowhere = table(|profile| {
        profile.destinations.remove(3);
    });
    let call = Call { dialled: "99", answer_unix_nanos: 0, end_unix_nanos: 1, free_seconds_left: 0 };
    assert_eq!(nowhere.rate(call), Err(Error::NoDestination));
}

/// The price by walking through the call second by second, with nothing clever in it: every second asks the clock on the
/// wall and all prefixes and tariffs in turn.
fn by_hand(profile: &Profile, call: Call<'_>) -> Option<(Decimal, u64, u64)> {
    let zone = TimeZone::get(&profile.time_zone).expect("a zone");
    let mut best: Option<(&str, &Destination)> = None;
    for destination in &profile.destinations {
        for prefix in &destination.prefixes {
            let digits = prefix.trim_start_matches('+');
            if call.dialled.starts_with(digits) && best.is_none_or(|(known, _)| digits.len() > known.len()) {
                best = Some((digits, destination));
            }
        }
    }
    let destination = best?.1;
    let length = (call.end_unix_nanos - call.answer_unix_nanos).div_ceil(1_000_000_000);
    let tariff_at = |second: u64| -> &Tariff {
        let at = i128::from(call.answer_unix_nanos) + i128::from(second) * 1_000_000_000;
        let wall = zone.to_datetime(jiff::Timestamp::from_nanosecond(at).expect("a time"));
        let minute = u32::from(wall.hour().unsigned_abs()) * 60 + u32::from(wall.minute().unsigned_abs());
        let names = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
        let name = |date: jiff::civil::Date| {
            if profile.holidays.contains(&date) {
                return "holiday";
            }
            names[usize::from(date.weekday().to_monday_zero_offset().unsigned_abs())]
        };
        let clock = |text: &Option<String>, default: u32| {
            text.as_ref().map_or(default, |text| {
                let (hour, minute) = text.split_once(':').expect("a time");
                hour.parse::<u32>().expect("an hour") * 60 + minute.parse::<u32>().expect("a minute")
            })
        };
        let holds = |tariff: &&Tariff| {
            let (from, to) = (clock(&tariff.from, 0), clock(&tariff.to, 1440));
            let on = |date| tariff.days.is_empty() || tariff.days.iter().any(|day| day == name(date));
            let (today, yesterday) = (wall.date(), wall.date().yesterday().expect("a date"));
            if from < to {
                on(today) && (from..to).contains(&minute)
            } else {
                (on(today) && minute >= from) || (on(yesterday) && minute < to)
            }
        };
        destination.tariffs.iter().find(holds).expect("the last holds always")
    };
    let (mut sixtieths, mut next, mut free, mut used, mut charged) =
        (Decimal::ZERO, 0, call.free_seconds_left, 0, 0);
    for second in 0..length {
        if second != next {
            continue;
        }
        let tariff = tariff_at(second);
        let is_first = second == 0;
        let seconds = if is_first { tariff.initial_seconds } else { tariff.following_seconds };
        let initial = tariff.initial_price_per_minute.filter(|_| is_first);
        for _ in 0..seconds {
            charged += 1;
            if tariff.takes_free_seconds && free > 0 {
                (free, used) = (free - 1, used + 1);
            } else {
                sixtieths += initial.unwrap_or(tariff.price_per_minute);
            }
        }
        next = second + u64::from(seconds);
    }
    let first = tariff_at(0);
    let mut sum = sixtieths / Decimal::from(60) + first.connection_fee;
    if !sum.is_zero() && sum < first.minimum_charge {
        sum = first.minimum_charge;
    }
    Some((round(sum, profile.decimals, profile.rounding), charged, used))
}

fn tariffs() -> impl Strategy<Value = Vec<Tariff>> {
    let time = || proptest::option::of((0u32..24, prop::sample::select(vec![0u32, 1, 30, 59])));
    let text = |time: Option<(u32, u32)>| time.map(|(hour, minute)| format!("{hour:02}:{minute:02}"));
    let day = prop::sample::select(vec!["mon", "tue", "wed", "thu", "fri", "sat", "sun", "holiday"]);
    let tariff = (
        (proptest::collection::vec(day, 0..4), time(), time()),
        (0i64..100, 0i64..100, 0i64..10_000, proptest::option::of(0i64..10_000)),
        (1u32..90, 1u32..90),
        any::<bool>(),
    )
        .prop_map(move |((days, from, to), (fee, least, price, initial), (first, following), free)| Tariff {
            name: "one".to_owned(),
            days: days.into_iter().map(str::to_owned).collect(),
            from: text(from),
            to: text(to),
            connection_fee: Decimal::new(fee, 2),
            minimum_charge: Decimal::new(least, 2),
            initial_seconds: first,
            following_seconds: following,
            price_per_minute: Decimal::new(price, 4),
            initial_price_per_minute: initial.map(|price| Decimal::new(price, 5)),
            takes_free_seconds: free,
        });
    proptest::collection::vec(tariff, 1..4).prop_map(|mut tariffs| {
        if let Some(last) = tariffs.last_mut() {
            (last.days, last.from, last.to) = (Vec::new(), None, None);
        }
        tariffs
    })
}

fn profiles() -> impl Strategy<Value = Profile> {
    let zone = prop::sample::select(vec![
        "Europe/Vienna",
        "America/New_York",
        "Asia/Kathmandu",
        "Australia/Lord_Howe",
    ]);
    let rounding =
        prop::sample::select(vec![Rounding::HalfUp, Rounding::HalfEven, Rounding::Up, Rounding::Down]);
    let prefixes = [vec!["".to_owned()], vec!["1".to_owned(), "12".to_owned()], vec!["123".to_owned()]];
    (zone, rounding, 0u32..7, proptest::collection::vec(tariffs(), 3)).prop_map(
        move |(zone, rounding, decimals, tariffs)| Profile {
            name: "any".to_owned(),
            version: 1,
            currency: "EUR".to_owned(),
            time_zone: zone.to_owned(),
            decimals,
            rounding,
            free: None,
            holidays: vec!["2026-03-29".parse().expect("a date"), "2026-11-01".parse().expect("a date")],
            destinations: prefixes
                .iter()
                .zip(tariffs)
                .map(|(prefixes, tariffs)| Destination {
                    name: "somewhere".to_owned(),
                    prefixes: prefixes.clone(),
                    tariffs,
                })
                .collect(),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn every_price_is_that_of_walking_through_the_call(
        profile in profiles(),
        // Around the changes of clocks in spring and autumn, and holidays there.
        day in prop::sample::select(vec!["2026-03-28", "2026-03-07", "2026-10-24", "2026-10-31", "2026-04-04", "2026-11-20"]),
        begin_nanos in 0u64..172_800_000_000_000,
        length_nanos in prop_oneof![0u64..4_000_000_000, 0u64..90_000_000_000_000],
        dialled in prop::sample::select(vec!["9", "1", "129", "1234"]),
        free in prop_oneof![Just(0u64), 0u64..500, Just(u64::MAX)],
    ) {
        let midnight = nanos(&format!("{day}T00:00:00"), &TimeZone::UTC);
        let answer_unix_nanos = midnight + begin_nanos;
        let call = Call {
            dialled,
            answer_unix_nanos,
            end_unix_nanos: answer_unix_nanos + length_nanos,
            free_seconds_left: free,
        };
        let rated = RateTable::new(profile.clone()).expect("ready").rate(call).expect("rated");
        let expected = by_hand(&profile, call).expect("rated");
        prop_assert_eq!((rated.price, rated.charged_seconds, rated.free_seconds), expected);
        prop_assert_eq!(rated.parts.iter().map(|part| part.seconds).sum::<u64>(), rated.charged_seconds);
    }
}
