use super::*;
use crate::decision::{Caller, Decision, Outcome, Question, Reason, Step};
use crate::plan::Plan;

/// Friday, 2026-11-20, 12:00 UTC.
const NOON: i64 = 1_795_176_000;

const PLAN: &str = r#"
    [[tenants]]
    name = "acme"
    domains = ["acme.example"]
    dial = { country_code = "44", extension_digits_max = 4 }
    own_prefixes = ["4420718387"]
    caller_number = "+442071838700"
    emergency_numbers = ["999"]
    location = "london"
    trunks = ["cheap", "dear", "night", "last"]

    [[tenants]]
    name = "bell"
    domains = ["bell.example"]
    outside = "national"
    order = "priority"
    dial = { country_code = "1", national_prefix = "1", international_prefixes = ["011"], national_digits = 10, outside_prefix = "9", extension_digits_max = 4 }

    [[aliases]]
    number = "+442071838750"
    address = "alice@acme.example"

    [[aliases]]
    number = "100"
    tenant = "acme"
    address = "reception@acme.example"

    [[subscribers]]
    address = "barred@acme.example"
    outside = "none"

    [[subscribers]]
    address = "home@acme.example"
    location = "leeds"

    [[trunks]]
    name = "cheap"
    gateways = [{ uri = "sip:192.0.2.1:5060" }, { uri = "sip:192.0.2.2:5060", priority = 2 }]
    serves_all = false
    prefixes = [{ prefix = "44", cost = "0.01" }, { prefix = "4470" }, { prefix = "49", cost = "0.03" }]
    format = "e164"
    accept_networks = ["192.0.2.0/24"]

    [[trunks]]
    name = "dear"
    gateways = [{ uri = "sips:dear.example" }]
    cost = "0.02"
    format = "national"
    dial = { country_code = "44" }
    accept_networks = ["192.0.2.77/32", "2001:db8::/32"]
    accept_users = ["dear@acme.example"]
    accept_tls_names = ["SIP.Dear.example"]
    is_transit = true

    [[trunks]]
    name = "night"
    gateways = [{ uri = "sip:night.example;transport=tcp" }]
    cost = "0.001"
    windows = [{ from = "20:00", to = "06:00" }]
    time_zone = "Europe/London"

    [[trunks]]
    name = "last"
    gateways = [{ uri = "sip:last.example" }]
    cost = "0.0001"
    is_last_resort = true
    strip_digits = 2
    prepend = "0"

    [[trunks]]
    name = "in-only"

    [[blocks]]
    side = "called"
    prefix = "881"

    [[blocks]]
    side = "called"
    prefix = "8816"
    is_allowed = true

    [[blocks]]
    side = "caller"
    prefix = "4999"

    [[blocks]]
    tenant = "acme"
    side = "called"
    prefix = "4490"

    [emergency]
    trunks = ["dear", "cheap"]
    [[emergency.locations]]
    name = "london"
    [[emergency.locations]]
    name = "leeds"
    number = "+441139999999"
    trunks = ["cheap"]

    [fraud]
    watched_prefixes = ["4470"]
"#;

fn table() -> Table {
    let plan: Plan = toml::from_str(PLAN).expect("a plan");
    assert_eq!(plan.check(), vec![]);
    Table::compile(&plan, &["belfry.test".to_owned()]).expect("compiles")
}

fn asked<'q>(caller: Caller<'q>, called: &'q str) -> Question<'q> {
    let (user, domain) = called.split_once('@').unwrap_or((called, "acme.example"));
    Question {
        caller,
        user,
        domain,
        is_telephone: false,
        context: None,
        is_emergency_urn: false,
        unix_seconds: NOON,
        random: 7,
    }
}

fn subscriber<'q>(user: &'q str, domain: &'q str) -> Caller<'q> {
    Caller::Subscriber { user, domain }
}

/// The decision in one line: `local user@domain`, `trunk/gateway number; …`, or `status reason`.
fn shown(table: &Table, decision: &Decision) -> String {
    match &decision.outcome {
        Outcome::Local(local) => format!("local {}@{}", local.user, local.domain),
        Outcome::Refused(refusal) => format!("{} {}", refusal.status(), refusal.reason.as_str()),
        Outcome::Trunks(hops) => {
            let hop = |hop: &crate::decision::Hop| {
                let name = &table.trunk(hop.trunk).expect("a trunk").name;
                format!("{name}/{} {}", hop.gateway, hop.called)
            };
            hops.iter().map(hop).collect::<Vec<_>>().join("; ")
        }
    }
}

fn check(caller: Caller<'_>, called: &str, expected: &str) {
    let table = table();
    let mut steps: Vec<Step> = Vec::new();
    let decision = table.decide(&asked(caller, called), &mut steps);
    assert_eq!(shown(&table, &decision), expected, "{called}: {steps:#?}");
    assert!(steps.len() >= 2, "{called}: {steps:?}");
    assert_eq!(table.decide(&asked(caller, called), &mut ()), decision, "explaining changes nothing");
}

#[test]
fn subscribers_call_each_other_and_the_world() {
    let alice = subscriber("alice", "acme.example");
    for (called, expected) in [
        ("bob", "local bob@acme.example"),
        ("carol@bell.example", "local carol@bell.example"),
        ("carol@belfry.test", "local carol@belfry.test"),
        ("100", "local reception@acme.example"),
        ("1001", "local 1001@acme.example"),
        ("02071838750", "local alice@acme.example"),
        ("+442071838750@bell.example", "local alice@acme.example"),
        ("02071838799", "local +442071838799@acme.example"),
        // Cheapest first, its second gateway next, the last resort last; the night trunk is closed.
        ("01131234567", "cheap/0 441131234567; cheap/1 441131234567; dear/0 01131234567; last/0 01131234567"),
        ("004930123", "dear/0 004930123; cheap/0 4930123; cheap/1 4930123; last/0 030123"),
        // A longer prefix without cost: not served.
        ("07012345678", "dear/0 07012345678; last/0 07012345678"),
        ("+12125551234", "dear/0 0012125551234; last/0 0125551234"),
        ("+88161234", "dear/0 0088161234; last/0 0161234"),
        ("+88171234", "403 called_blocked"),
        ("09012345", "403 called_blocked_by_tenant"),
        ("+0123", "484 number_invalid"),
        ("99999", "local 99999@acme.example"),
    ] {
        check(alice, called, expected);
    }
}

#[test]
fn rules_of_the_caller_count() {
    check(subscriber("barred", "acme.example"), "01131234567", "403 barred");
    check(subscriber("barred", "acme.example"), "bob", "local bob@acme.example");
    let carol = subscriber("carol", "bell.example");
    check(carol, "9011442079460000@bell.example", "403 barred");
    // By priority all are equal, so lots decide; a tenant without a list may use every trunk.
    let table = table();
    let decision = table.decide(&asked(carol, "92125551234@bell.example"), &mut ());
    let Outcome::Trunks(hops) = &decision.outcome else { panic!("{decision:?}") };
    assert_eq!(hops.len(), 2, "{hops:?}");
    assert_eq!(decision.tenant.as_ref(), "bell");
}

#[test]
fn emergency_numbers_always_pass() {
    let alice = subscriber("alice", "acme.example");
    check(alice, "112", "dear/0 112; cheap/0 112; cheap/1 112");
    check(alice, "999", "dear/0 999; cheap/0 999; cheap/1 999");
    check(subscriber("barred", "acme.example"), "112", "dear/0 112; cheap/0 112; cheap/1 112");
    check(subscriber("home", "acme.example"), "112", "cheap/0 +441139999999; cheap/1 +441139999999");
    // With and without the line to the outside.
    for called in ["911@bell.example", "9911@bell.example"] {
        check(subscriber("carol", "bell.example"), called, "dear/0 911; cheap/0 911; cheap/1 911");
    }
    let table = table();
    assert!(table.is_emergency("112", None) && table.is_emergency("999", Some("acme.example")));
    assert!(!table.is_emergency("999", Some("bell.example")) && !table.is_emergency("1120", None));
    let question = Question { is_emergency_urn: true, ..asked(alice, "") };
    assert!(table.decide(&question, &mut ()).is_emergency);
    let nothing = Table::compile(&Plan::default(), &["belfry.test".to_owned()]).expect("compiles");
    let decision = nothing.decide(&asked(alice, "112"), &mut ());
    assert!(decision.is_emergency && shown(&nothing, &decision) == "local 112@acme.example");
}

#[test]
fn trunks_call_in_and_only_transit_ones_out() {
    let table = table();
    let from = |name: &str, claimed| {
        let place = table.trunks().position(|trunk| &*trunk.name == name).expect("a trunk");
        Caller::Trunk { trunk: TrunkId(u16::try_from(place).expect("few")), claimed }
    };
    let cheap = from("cheap", Some("+4930123"));
    check(cheap, "442071838750@belfry.test", "local alice@acme.example");
    check(cheap, "+442071838799@belfry.test", "local +442071838799@acme.example");
    check(cheap, "441131234567@belfry.test", "404 number_unknown");
    check(cheap, "bob@acme.example", "local bob@acme.example");
    check(from("cheap", Some("4999123")), "442071838750", "403 caller_blocked");
    let way = "cheap/0 441131234567; cheap/1 441131234567; last/0 01131234567";
    check(from("dear", None), "+441131234567@belfry.test", way);
    let decision = table.decide(&asked(cheap, "442071838750"), &mut ());
    assert_eq!(
        (&*decision.tenant, decision.caller.map(|n| n.to_string())),
        ("acme", Some("+4930123".to_owned()))
    );
}

#[test]
fn trunks_are_known_by_address_user_and_certificate() {
    let table = table();
    let name = |id: Option<TrunkId>| id.and_then(|id| table.trunk(id)).map(|trunk| trunk.name.to_string());
    for (address, expected) in [
        ("192.0.2.9", Some("cheap")),
        ("192.0.2.77", Some("dear")),
        ("::ffff:192.0.2.9", Some("cheap")),
        ("2001:db8::1", Some("dear")),
        ("198.51.100.1", None),
    ] {
        let address = address.parse().expect("an address");
        assert_eq!(name(table.trunk_of_address(address)).as_deref(), expected, "{address}");
    }
    assert_eq!(name(table.trunk_of_user("dear@acme.example")).as_deref(), Some("dear"));
    assert_eq!(name(table.trunk_of_tls_name("sip.dear.EXAMPLE")).as_deref(), Some("dear"));
    assert_eq!(name(table.trunk_of_user("alice@acme.example")), None);
}

#[test]
fn hours_are_kept() {
    let table = table();
    let night = Question {
        unix_seconds: NOON + 9 * 3600,
        ..asked(subscriber("alice", "acme.example"), "01131234567")
    };
    let decision = table.decide(&night, &mut ());
    assert!(shown(&table, &decision).starts_with("night/0 +441131234567; cheap/0"), "{decision:?}");
}

#[test]
fn callers_are_shown_by_their_number() {
    let table = table();
    let shown = |user: &str| {
        let decision = table.decide(&asked(subscriber(user, "acme.example"), "01131234567"), &mut ());
        let Outcome::Trunks(hops) = decision.outcome else { panic!("{user}") };
        hops[0].caller.clone()
    };
    assert_eq!(shown("alice").as_deref(), Some("442071838750"), "her alias");
    assert_eq!(shown("bob").as_deref(), Some("442071838700"), "the tenant's");
    assert_eq!(shown("02071838799").as_deref(), Some("442071838799"), "his own user part");
}

#[test]
fn faults_name_their_key() {
    let check = |text: &str, key: &str, word: &str| {
        let plan: Plan = toml::from_str(text).expect(text);
        let faults = plan.check();
        let found = faults.iter().any(|(at, message)| at == key && message.contains(word));
        assert!(found, "{text}: {faults:?}");
        assert!(Table::compile(&plan, &[]).is_err(), "{text}");
    };
    check("[[trunks]]\nname = \"A\"\n", "trunks[0].name", "a-z");
    check("[[trunks]]\nname = \"a\"\n[[trunks]]\nname = \"a\"\n", "trunks[1].name", "twice");
    check(
        "[[trunks]]\nname = \"a\"\ngateways = [{ uri = \"tel:1\" }]\n",
        "trunks[0].gateways[0].uri",
        "SIP URI",
    );
    check("[[trunks]]\nname = \"a\"\ntime_zone = \"Mars\"\n", "trunks[0].time_zone", "time zone");
    check("[[trunks]]\nname = \"a\"\nwindows = [{ days = [\"x\"] }]\n", "trunks[0].windows[0].days", "mon");
    check("[[trunks]]\nname = \"a\"\nfailover_codes = [603]\n", "trunks[0].failover_codes[0]", "6xx");
    check("[[trunks]]\nname = \"a\"\nuser = \"u\"\n", "trunks[0].user", "password_file");
    check("[[prefixes]]\ntrunk = \"b\"\nprefix = \"44\"\n", "prefixes[0].trunk", "there are none");
    check("[[aliases]]\nnumber = \"1\"\naddress = \"a@b\"\n", "aliases[0].number", "needs a tenant");
    check("[[aliases]]\nnumber = \"+1\"\naddress = \"a\"\n", "aliases[0].address", "user@domain");
    check("[[tenants]]\nname = \"t\"\ntrunks = [\"x\"]\n", "tenants[0].trunks[0]", "no trunk");
    check("[[tenants]]\nname = \"t\"\nlocation = \"x\"\n", "tenants[0].location", "emergency location");
    check("[[blocks]]\nside = \"called\"\nprefix = \"+44\"\n", "blocks[0].prefix", "plus");
    check("[emergency]\ncalls_max = 0\n", "emergency.calls_max", "more than 0");
    let same = "[[trunks]]\nname = \"a\"\naccept_networks = [\"10.0.0.0/8\"]\n\
        [[trunks]]\nname = \"b\"\naccept_networks = [\"10.0.0.0/8\"]\n";
    check(same, "trunks[1].accept_networks[0]", "two trunks");
}

#[test]
fn weights_are_shares() {
    let text = |weights: &[u16]| {
        let trunk = |(place, weight): (usize, &u16)| {
            format!(
                "[[trunks]]\nname = \"t{place}\"\nweight = {weight}\ngateways = [{{ uri = \"sip:h{place}\" }}]\n"
            )
        };
        weights.iter().enumerate().map(trunk).collect::<String>()
    };
    let weights = [6, 3, 1, 0];
    let plan: Plan = toml::from_str(&text(&weights)).expect("a plan");
    let table = Table::compile(&plan, &["x".to_owned()]).expect("compiles");
    let mut firsts = [0_u32; 4];
    for random in 0..10_000_u64 {
        // Any stream of numbers does; a plain counter is the worst of them.
        let question = Question { random, ..asked(subscriber("a", "x"), "+4420718387") };
        let Outcome::Trunks(hops) = table.decide(&question, &mut ()).outcome else { panic!("trunks") };
        assert_eq!(hops.len(), 4);
        assert_eq!(hops[3].trunk, TrunkId(3), "weight 0 is last among equals");
        firsts[usize::from(hops[0].trunk.0)] += 1;
    }
    for (first, weight) in firsts.iter().zip(weights) {
        let expected = f64::from(weight) * 1000.0;
        assert!((f64::from(*first) - expected).abs() < 200.0, "{firsts:?}");
    }
}

#[test]
fn a_hundred_thousand_prefixes_stay_small() {
    let mut plan: Plan = toml::from_str("[[trunks]]\nname = \"a\"\n").expect("a plan");
    plan.prefixes = (0..100_000_u32)
        .map(|number| crate::plan::PrefixRow {
            trunk: "a".to_owned(),
            prefix: format!("{}", 1_000_000 + number * 89),
            cost: Some(Cost(u64::from(number))),
            priority: None,
            weight: None,
        })
        .collect();
    let table = Table::compile(&plan, &[]).expect("compiles");
    let size = table.size();
    assert_eq!(size.prefixes, 100_000);
    assert!(size.prefix_bytes < 32 << 20, "{size:?}");
}

#[test]
fn reasons_are_bounded_and_have_a_status() {
    let names: std::collections::HashSet<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(names.len(), Reason::ALL.len());
    assert!(Reason::ALL.iter().all(|reason| (400..600).contains(&reason.status())));
}

proptest::proptest! {
    #[test]
    fn every_question_has_an_answer(user in ".{0,24}", context in "[+0-9a-z.]{0,8}", random: u64, telephone: bool) {
        let table = table();
        for caller in [subscriber("alice", "acme.example"), Caller::Trunk { trunk: TrunkId(1), claimed: Some(&user) }] {
            let question = Question {
                is_telephone: telephone, context: Some(&context), random, ..asked(caller, "x@belfry.test")
            };
            let question = Question { user: &user, ..question };
            let decision = table.decide(&question, &mut ());
            if let Outcome::Trunks(hops) = &decision.outcome {
                assert!(!hops.is_empty() && hops.len() <= 32);
                for hop in hops {
                    assert!(hop.called.bytes().all(|byte| byte.is_ascii_digit() || b"+*#".contains(&byte)));
                }
            }
        }
    }
}
