use proptest::prelude::*;

use super::*;
use crate::rating::Profile;

const START: u64 = 1_795_176_000 * NANOS;
const TERMS: Terms = Terms { slice_seconds: 60, call_seconds_max: 43_200 };

fn table(tariff: &str) -> Arc<RateTable> {
    let text = format!(
        "name = \"all\"\nversion = 1\ncurrency = \"EUR\"\ntime_zone = \"UTC\"\n[[destinations]]\nname = \"paid\"\n\
         prefixes = [\"4\"]\ntariffs = [{{ name = \"flat\", {tariff} }}]\n[[destinations]]\nname = \"free\"\n\
         prefixes = [\"0800\"]\ntariffs = [{{ name = \"flat\", price_per_minute = \"0\" }}]\n"
    );
    let profile: Profile = toml::from_str(&text).expect("a profile");
    Arc::new(RateTable::new(profile).expect("holds together"))
}

fn money(text: &str) -> Decimal {
    text.parse().expect("an amount")
}

fn with_balance(balance: &str) -> Accounts {
    let mut accounts = Accounts::default();
    let standing = Standing {
        name: "a@x".to_owned(),
        currency: "EUR".to_owned(),
        balance: money(balance),
        is_blocked: false,
    };
    accounts.open([standing], [], Decimal::ONE);
    accounts
}

fn movement(kind: MovementKind, amount: Decimal, key: &str) -> Movement {
    Movement { account: "a@x".to_owned(), currency: "EUR".to_owned(), kind, amount, key: key.to_owned() }
}

/// Money, tariff, and how many seconds each slice reaches, the last one twice when it is the last.
fn check(balance: &str, tariff: &str, reaches: &[u64]) {
    let accounts = with_balance(balance);
    let credit = accounts.authorise("a@x", Some(&table(tariff)), "431", START, TERMS);
    let mut credit = match credit {
        Ok(Some(credit)) => credit,
        Err(Refusal::NoCredit) => return assert_eq!(reaches, [], "{balance} {tariff}"),
        other => panic!("{other:?}"),
    };
    let mut reached = vec![credit.seconds()];
    while reached.len() < reaches.len() {
        credit.renew();
        reached.push(credit.seconds());
    }
    assert_eq!(reached, reaches, "{balance} {tariff}");
    let held = credit.held();
    assert_eq!(accounts.free("a@x"), Some(money(balance) - held));
    let price = credit.owe("call:1", START + reached[reached.len() - 1] * NANOS);
    assert_eq!(price, held, "what was held is what it costs to the last second");
    assert_eq!(accounts.free("a@x"), Some(money(balance) - price));
}

#[test]
fn a_call_may_talk_for_as_long_as_the_money_lasts_and_no_second_longer() {
    check("0", "price_per_minute = \"0.60\"", &[]);
    check("0.0099", "price_per_minute = \"0.60\"", &[]);
    check("0.01", "price_per_minute = \"0.60\"", &[1, 1]);
    check("0.07", "price_per_minute = \"0.60\"", &[7, 7]);
    check("0.60", "price_per_minute = \"0.60\"", &[60, 60]);
    check("1.3099", "price_per_minute = \"0.60\"", &[60, 120, 130, 130]);
    // The first seconds are rounded to nothing: not for those who have nothing.
    check("0", "price_per_minute = \"0.0001\"", &[]);
    check("-1", "price_per_minute = \"0.0001\"", &[]);
    check("0.0001", "price_per_minute = \"0.0001\"", &[60, 89, 89]);
    // Whole increments: 60 at first, then 6 by 6.
    check("0.59", "price_per_minute = \"0.60\", initial_seconds = 60, following_seconds = 6", &[]);
    check("0.71", "price_per_minute = \"0.60\", initial_seconds = 60, following_seconds = 6", &[60, 66, 66]);
    // A fee first, and a minimum.
    check("0.20", "price_per_minute = \"0.60\", connection_fee = \"0.10\"", &[10, 10]);
    check("0.10", "price_per_minute = \"0.60\", connection_fee = \"0.10\"", &[]);
    check("0.50", "price_per_minute = \"0.60\", minimum_charge = \"0.30\"", &[50, 50]);
    check("0.29", "price_per_minute = \"0.60\", minimum_charge = \"0.30\"", &[]);
    // Only the fee costs: the call goes on for ever.
    check("0.10", "price_per_minute = \"0\", connection_fee = \"0.10\"", &[60, 120, 180]);
}

#[test]
fn concurrent_calls_share_what_there_is() {
    let (accounts, table) = (with_balance("1.00"), table("price_per_minute = \"0.60\""));
    let ask = |seconds| {
        accounts.authorise("a@x", Some(&table), "431", START, Terms { slice_seconds: seconds, ..TERMS })
    };
    let first = ask(60).expect("let in").expect("costs");
    let mut second = ask(60).expect("let in").expect("costs");
    assert_eq!((first.seconds(), second.seconds()), (60, 40));
    assert_eq!(ask(60).expect_err("all is held"), Refusal::NoCredit);
    assert_eq!(second.renew(), Renewal::Nothing);
    // What one does not use is the other's.
    assert_eq!(first.owe("call:1", START + 10 * NANOS), money("0.10"));
    assert_eq!((second.renew(), second.seconds()), (Renewal::Last, 90));
    drop(second);
    assert_eq!(accounts.free("a@x"), Some(money("0.90")));
}

#[test]
fn a_charge_is_owed_until_the_ledger_has_it_and_counts_once() {
    let (mut accounts, table) = (with_balance("1.00"), table("price_per_minute = \"0.60\""));
    let credit =
        accounts.authorise("a@x", Some(&table), "431", START, TERMS).expect("let in").expect("costs");
    credit.owe("call:1", START + 30 * NANOS);
    assert_eq!(accounts.free("a@x"), Some(money("0.70")));
    accounts.apply(&movement(MovementKind::Charge, money("-0.30"), "call:1"));
    assert_eq!(accounts.free("a@x"), Some(money("0.70")));
    accounts.apply(&movement(MovementKind::Credit, money("5"), "voucher-1"));
    assert_eq!(accounts.free("a@x"), Some(money("5.70")));
    // After a restart, what calls that are over owe is counted from their records.
    let mut again = Accounts::named(["a@x".to_owned()]);
    assert_eq!(again.payer("a@x", "acme"), Some("a@x"));
    let refused = again.authorise("a@x", Some(&table), "431", START, TERMS).expect_err("nobody knows");
    assert_eq!(refused, Refusal::NotReady);
    assert!(again.authorise("a@x", Some(&table), "080012", START, TERMS).expect("free of charge").is_none());
    let standing = Standing {
        name: "a@x".to_owned(),
        currency: "EUR".to_owned(),
        balance: money("1.00"),
        is_blocked: false,
    };
    again.open([standing], [("a@x".to_owned(), "call:1".to_owned(), money("0.30"))], Decimal::ONE);
    assert_eq!(again.free("a@x"), Some(money("0.70")));
}

#[test]
fn who_is_refused_is_told_why() {
    let (mut accounts, table) = (with_balance("1.00"), table("price_per_minute = \"0.60\""));
    let ask = |accounts: &Accounts, number: &str, table: Option<&Arc<RateTable>>| {
        accounts.authorise("a@x", table, number, START, TERMS).map(|credit| credit.map(|c| c.seconds()))
    };
    assert_eq!(ask(&accounts, "431", Some(&table)), Ok(Some(60)));
    assert_eq!(ask(&accounts, "080012", Some(&table)), Ok(None));
    assert_eq!(ask(&accounts, "999", Some(&table)), Err(Refusal::NoPrice));
    assert_eq!(ask(&accounts, "431", None), Err(Refusal::NoPrice));
    accounts.apply(&movement(MovementKind::Block, Decimal::ZERO, "block:1"));
    assert_eq!(ask(&accounts, "431", Some(&table)), Err(Refusal::Blocked));
    assert_eq!(ask(&accounts, "080012", Some(&table)), Ok(None));
    accounts.apply(&movement(MovementKind::Unblock, Decimal::ZERO, "unblock:1"));
    accounts.apply(&Movement {
        account: "b@x".to_owned(),
        currency: "GBP".to_owned(),
        ..movement(MovementKind::Open, Decimal::ZERO, "open:b")
    });
    let other = accounts.authorise("b@x", Some(&table), "431", START, TERMS).expect_err("pounds");
    assert_eq!(other, Refusal::NoPrice);
    assert_eq!(accounts.payer("c@x", "b@x"), Some("b@x"));
    assert_eq!(accounts.payer("c@x", "acme"), None);
    assert_eq!(accounts.level_changed("b@x", money("5")), Some(Level::Empty));
    assert_eq!(accounts.level_changed("a@x", money("5")), Some(Level::Low));
    assert_eq!(accounts.level_changed("a@x", money("5")), None);
    assert_eq!(accounts.levels(), [1, 1, 0]);
}

/// What may happen to an account, with a number of a call.
#[derive(Clone, Debug)]
enum Step {
    Ask(usize),
    Answer(usize),
    Renew(usize),
    /// Ends after this share of what is paid for, in percent.
    End(usize, u64),
    GiveUp(usize),
    /// The ledger gets the oldest record.
    Charge,
    TopUp(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let call = 0..6_usize;
    prop_oneof![
        3 => call.clone().prop_map(Step::Ask),
        3 => call.clone().prop_map(Step::Answer),
        4 => call.clone().prop_map(Step::Renew),
        3 => (call.clone(), 0..=100_u64).prop_map(|(call, percent)| Step::End(call, percent)),
        1 => call.prop_map(Step::GiveUp),
        3 => Just(Step::Charge),
        1 => (0..500_u64).prop_map(Step::TopUp),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn no_order_of_events_overdraws_an_account_or_charges_twice(
        steps in prop::collection::vec(step(), 1..80),
        initial in 1..90_u32,
        following in 1..90_u32,
        fee in 0..30_u64,
    ) {
        let tariff = format!(
            "price_per_minute = \"0.60\", initial_seconds = {initial}, following_seconds = {following}, \
             connection_fee = \"0.{fee:02}\""
        );
        let (mut accounts, table) = (with_balance("2.00"), table(&tariff));
        let mut ledger = vec![money("2.00")];
        let mut balance = money("2.00");
        let mut calls: Vec<Option<Credit>> = (0..6).map(|_| None).collect();
        let mut records: Vec<(String, Decimal)> = Vec::new();
        let mut number = 0;
        for step in steps {
            match step {
                Step::Ask(call) if calls[call].is_none() => {
                    calls[call] =
                        accounts.authorise("a@x", Some(&table), "431", START, TERMS).ok().flatten();
                }
                Step::Answer(call) => drop(calls[call].as_mut().map(|credit| credit.answered(START))),
                Step::Renew(call) => drop(calls[call].as_mut().map(Credit::renew)),
                Step::GiveUp(call) => calls[call] = None,
                Step::End(call, percent) => if let Some(credit) = calls[call].take() {
                    number += 1;
                    let (key, held) = (format!("call:{number}"), credit.held());
                    let seconds = credit.seconds() * percent / 100;
                    let price = credit.owe(&key, START + seconds * NANOS);
                    prop_assert!(price <= held, "{price} of {held}");
                    records.push((key, price));
                },
                Step::Charge if !records.is_empty() => {
                    let (key, price) = records.remove(0);
                    balance -= price;
                    ledger.push(-price);
                    accounts.apply(&movement(MovementKind::Charge, -price, &key));
                }
                Step::TopUp(cents) => {
                    let amount = Decimal::new(i64::try_from(cents).unwrap(), 2);
                    balance += amount;
                    ledger.push(amount);
                    accounts.apply(&movement(MovementKind::Credit, amount, "top-up"));
                }
                Step::Ask(_) | Step::Charge => {}
            }
            let free = accounts.free("a@x").unwrap();
            prop_assert!(free >= Decimal::ZERO, "{free}");
            let owed: Decimal = records.iter().map(|(_, price)| *price).sum();
            let held: Decimal = calls.iter().flatten().map(Credit::held).sum();
            prop_assert_eq!(free, balance - owed - held);
            prop_assert!(balance >= Decimal::ZERO);
        }
        calls.clear();
        for (key, price) in records.drain(..) {
            ledger.push(-price);
            accounts.apply(&movement(MovementKind::Charge, -price, &key));
        }
        prop_assert_eq!(accounts.free("a@x").unwrap(), ledger.iter().copied().sum::<Decimal>());
    }
}
