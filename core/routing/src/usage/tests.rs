use super::*;
use crate::decision::{Local, Question, TrunkId};
use crate::plan::Plan;

const PLAN: &str = r#"
    [[tenants]]
    name = "acme"
    domains = ["acme.example"]
    concurrent_calls_max = 3
    calls_per_second_max = 10
    subscriber_concurrent_calls_max = 2
    dial = { country_code = "44" }

    [[trunks]]
    name = "a"
    gateways = [{ uri = "sip:192.0.2.1" }]
    concurrent_calls_max = 2
    calls_per_second_max = 5

    [[trunks]]
    name = "b"
    gateways = [{ uri = "sip:192.0.2.2" }]

    [emergency]
    calls_max = 2
"#;

fn table() -> Table {
    let plan: Plan = toml::from_str(PLAN).expect("a plan");
    Table::compile(&plan, &["belfry.test".to_owned()]).expect("compiles")
}

fn decide(table: &Table, caller: Caller<'_>, user: &str) -> Decision {
    let question = Question {
        caller,
        user,
        domain: "acme.example",
        is_telephone: false,
        context: None,
        is_emergency_urn: false,
        unix_seconds: 0,
        random: 1,
    };
    table.decide(&question, &mut ())
}

const ALICE: Caller<'static> = Caller::Subscriber { user: "alice", domain: "acme.example" };
const CAROL: Caller<'static> = Caller::Subscriber { user: "carol", domain: "acme.example" };

#[test]
fn limits_are_kept_and_places_come_back() {
    let (table, mut usage) = (table(), Usage::default());
    let mut admit =
        |caller, called: &str, now| usage.admit(&table, &decide(&table, caller, called), caller, now);
    let first = admit(ALICE, "bob", 0).expect("room");
    let second = admit(ALICE, "+4930", 1).expect("room");
    assert_eq!(admit(ALICE, "dave", 2).expect_err("full"), Reason::SubscriberFull);
    let third = admit(CAROL, "bob", 3).expect("room");
    assert_eq!(admit(CAROL, "bob", 4).expect_err("full"), Reason::CalledFull);
    assert_eq!(admit(CAROL, "dave", 5).expect_err("full"), Reason::TenantFull);
    drop(first);
    drop(admit(CAROL, "dave", 6).expect("room again"));
    drop((second, third));
    assert_eq!((usage.tenant_calls("acme"), usage.subscriber_calls("alice", "acme.example")), (0, 0));
    assert!(usage.is_idle());
}

#[test]
fn rates_hold_one_second_of_calls() {
    let (table, mut usage) = (table(), Usage::default());
    let mut admit = |now| usage.admit(&table, &decide(&table, ALICE, "+4930"), ALICE, now).map(drop);
    let burst = (0..12).filter(|_| admit(SECOND).is_ok()).count();
    assert_eq!(burst, 10);
    assert_eq!(admit(SECOND), Err(Reason::TenantRate));
    assert_eq!(admit(SECOND + SECOND / 10), Ok(()));
    assert_eq!(admit(SECOND + SECOND / 10), Err(Reason::TenantRate));
}

#[test]
fn trunks_have_their_own_places() {
    let (table, mut usage) = (table(), Usage::default());
    let (a, b) = ("a", "b");
    let held = [usage.enter_trunk(&table, a, false, 0), usage.enter_trunk(&table, a, false, 0)];
    assert!(held.iter().all(Result::is_ok));
    assert_eq!(usage.enter_trunk(&table, a, false, 0).err(), Some(Full::Calls));
    assert!(usage.enter_trunk(&table, b, false, 0).is_ok());
    // Who calls for help passes, and is counted.
    let help = usage.enter_trunk(&table, a, true, 0).expect("always");
    assert_eq!(usage.trunk_calls("a"), 3);
    drop((held, help));
    let passed = (0..10).filter(|_| usage.enter_trunk(&table, a, false, 1).is_ok()).count();
    assert_eq!(passed, 3, "two of the second's five were used");
    assert_eq!(usage.enter_trunk(&table, "z", true, 0).err(), Some(Full::Gone));
    // A call that comes in from a trunk counts on it.
    let caller = Caller::Trunk { trunk: TrunkId(1), claimed: None };
    let inbound = usage.admit(&table, &decide(&table, caller, "bob"), caller, SECOND * 9).expect("room");
    assert_eq!(usage.trunk_calls("b"), 1);
    drop(inbound);
    assert!(usage.is_idle());
}

#[test]
fn emergency_calls_pass_full_limits_up_to_their_own() {
    let (table, mut usage) = (table(), Usage::default());
    let mut held = Vec::new();
    for (caller, called) in [(ALICE, "a"), (ALICE, "b"), (CAROL, "c")] {
        held.push(usage.admit(&table, &decide(&table, caller, called), caller, 0).expect("room"));
    }
    let help = decide(&table, ALICE, "112");
    held.push(usage.admit(&table, &help, ALICE, 0).expect("always"));
    held.push(usage.admit(&table, &help, ALICE, 0).expect("always"));
    assert_eq!(usage.admit(&table, &help, ALICE, 0).err(), Some(Reason::EmergencyFull));
    drop(held);
    assert!(usage.is_idle());
}

#[test]
fn idle_subscribers_are_forgotten() {
    let (table, mut usage) = (table(), Usage::default());
    for number in 0..IDLE_MAX as u64 * 3 {
        let user = format!("u{number}");
        let caller = Caller::Subscriber { user: &user, domain: "acme.example" };
        let decision = Decision {
            outcome: Outcome::Local(Local { user: "x".into(), domain: "other".into() }),
            ..decide(&table, caller, "x")
        };
        drop(usage.admit(&table, &decision, caller, number * SECOND).expect("room"));
    }
    assert!(usage.subscribers.len() <= IDLE_MAX, "{}", usage.subscribers.len());
}

#[derive(Clone, Debug)]
enum Act {
    Admit { caller: u8, called: u8, is_emergency: bool },
    Enter { trunk: u16, is_emergency: bool },
    Release(usize),
    Swap,
}

fn acts() -> impl proptest::strategy::Strategy<Value = Vec<Act>> {
    use proptest::prelude::*;
    let admit = (0..3_u8, 0..3_u8, prop::bool::weighted(0.1))
        .prop_map(|(caller, called, is_emergency)| Act::Admit { caller, called, is_emergency });
    let enter = (0..3_u16, prop::bool::weighted(0.1))
        .prop_map(|(trunk, is_emergency)| Act::Enter { trunk, is_emergency });
    let release = any::<usize>().prop_map(Act::Release);
    prop::collection::vec(prop_oneof![4 => admit, 3 => enter, 4 => release, 1 => Just(Act::Swap)], 1..200)
}

proptest::proptest! {
    /// Whatever comes in whatever order: no limit is passed but by emergency calls, and everything comes back.
    #[test]
    fn limits_are_never_passed_and_places_always_come_back(acts in acts()) {
        const USERS: [&str; 3] = ["alice", "bob", "carol"];
        let (mut table, mut usage) = (table(), Usage::default());
        let mut calls: Vec<Admitted> = Vec::new();
        let mut passes: Vec<(u16, bool, TrunkPass)> = Vec::new();
        let mut now = 0;
        for act in acts {
            now += SECOND;
            match act {
                Act::Admit { caller, called, is_emergency } => {
                    let user = USERS[usize::from(caller)];
                    let caller = Caller::Subscriber { user, domain: "acme.example" };
                    let called = if is_emergency { "112" } else { USERS[usize::from(called)] };
                    calls.extend(usage.admit(&table, &decide(&table, caller, called), caller, now));
                }
                Act::Enter { trunk, is_emergency } => {
                    let pass = usage.enter_trunk(&table, ["a", "b", "z"][usize::from(trunk)], is_emergency, now);
                    passes.extend(pass.map(|pass| (trunk, is_emergency, pass)));
                }
                Act::Release(which) if which % 2 == 0 && !calls.is_empty() => {
                    drop(calls.swap_remove(which % calls.len()));
                }
                Act::Release(which) if !passes.is_empty() => drop(passes.swap_remove(which % passes.len())),
                Act::Release(_) => {}
                Act::Swap => table = self::table(),
            }
            let plain = calls.iter().filter(|call| !call.is_emergency).count();
            proptest::prop_assert!(plain <= 3, "the tenant's calls");
            proptest::prop_assert!(calls.len() - plain <= 2, "emergency calls");
            proptest::prop_assert_eq!(usage.tenant_calls("acme") as usize, calls.len());
            let on_a = passes.iter().filter(|(trunk, _, _)| *trunk == 0);
            proptest::prop_assert!(on_a.clone().filter(|(_, is_emergency, _)| !is_emergency).count() <= 2);
            proptest::prop_assert_eq!(usage.trunk_calls("a") as usize, on_a.count());
        }
        drop((calls, passes));
        proptest::prop_assert!(usage.is_idle());
    }
}
