use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::prelude::*;

use super::*;

fn country(code: &str) -> Country {
    code.parse().expect("a code")
}

fn config() -> Config {
    let region = |name: &str, site: Option<&str>, countries: &[&str], continents: &[&str]| RegionConfig {
        name: name.to_owned(),
        site: site.map(str::to_owned),
        countries: countries.iter().map(|code| country(code)).collect(),
        continents: continents.iter().map(|code| code.parse().expect("a code")).collect(),
    };
    let entry = |network: &str, code: Option<&str>, region: Option<&str>| OverrideConfig {
        network: network.parse().expect("a network"),
        country: code.map(country),
        region: region.map(str::to_owned),
    };
    Config {
        default_region: "us".to_owned(),
        regions: vec![
            region("eu", Some("fra-1"), &["DE", "FR", "GB"], &["EU"]),
            region("us", Some("iad-1"), &["US", "CA"], &[]),
            region("ap", None, &["JP", "SG"], &[]),
        ],
        overrides: vec![
            entry("10.0.0.0/8", None, Some("ap")),
            entry("10.1.0.0/16", Some("DE"), None),
            entry("10.1.2.0/24", Some("JP"), Some("eu")),
            entry("10.9.0.0/16", Some("BR"), None),
            entry("2001:db8::/32", Some("SG"), None),
        ],
    }
}

fn check(ip: &str, record: Option<Record>, region: &str, code: Option<&str>, reason: Reason) {
    let steering = Steering::new(&config()).expect("a good map");
    let decision = steering.decide(ip.parse().expect("an address"), record.as_ref());
    let seen = (&*decision.region, decision.country, decision.reason);
    assert_eq!(seen, (region, code.map(country), reason), "{ip} {record:?}");
    let (explained, steps) = steering.explain(ip.parse().expect("an address"), record.as_ref());
    assert_eq!(explained, decision);
    assert!(!steps.is_empty());
}

fn record(code: Option<&str>, continent: Option<&str>) -> Option<Record> {
    Some(Record {
        country: code.map(country),
        continent: continent.map(|code| code.parse().expect("a code")),
        asn: None,
    })
}

#[test]
fn every_address_has_one_region_and_a_reason() {
    check("192.0.2.1", record(Some("FR"), Some("EU")), "eu", Some("FR"), Reason::Country);
    check("192.0.2.1", record(Some("PL"), Some("EU")), "eu", Some("PL"), Reason::Continent);
    check("192.0.2.1", record(None, Some("EU")), "eu", None, Reason::Continent);
    check("192.0.2.1", record(Some("BR"), Some("SA")), "us", Some("BR"), Reason::Default);
    check("192.0.2.1", None, "us", None, Reason::Default);
    check("192.0.2.1", record(None, None), "us", None, Reason::Default);
}

#[test]
fn overrides_win_over_the_record_and_the_longest_wins_over_the_rest() {
    check("10.200.0.1", record(Some("US"), None), "ap", Some("US"), Reason::OverrideRegion);
    check("10.1.200.1", record(Some("US"), None), "eu", Some("DE"), Reason::OverrideCountry);
    check("10.1.2.3", record(Some("US"), None), "eu", Some("JP"), Reason::OverrideRegion);
    check("::ffff:10.1.2.3", None, "eu", Some("JP"), Reason::OverrideRegion);
    check("2001:db8::1", None, "ap", Some("SG"), Reason::OverrideCountry);
    // An unclaimed country from an override is not rescued by the record's continent, which is about another.
    check("10.9.0.1", record(Some("DE"), Some("EU")), "us", Some("BR"), Reason::Default);
}

#[test]
fn an_explanation_reads_in_order() {
    let steering = Steering::new(&config()).expect("a good map");
    let ip = "10.1.200.1".parse().expect("an address");
    let (_, steps) = steering.explain(ip, record(Some("US"), None).as_ref());
    let words: Vec<String> = steps.iter().map(ToString::to_string).collect();
    assert_eq!(
        words,
        [
            "override 10.1.0.0/16 holds the address, country DE",
            "the GeoIP file says US, which is overruled",
            "country DE belongs to region eu",
            "the region's site is fra-1",
        ]
    );
    let (_, steps) = steering.explain("192.0.2.1".parse().expect("an address"), None);
    let words: Vec<String> = steps.iter().map(ToString::to_string).collect();
    assert_eq!(
        words,
        [
            "no override holds the address",
            "the GeoIP file knows nothing about the address",
            "the world-wide default is region us",
            "the region's site is iad-1",
        ]
    );
}

#[test]
fn a_bad_map_is_refused_with_the_key() {
    let keys_of = |change: &dyn Fn(&mut Config)| {
        let mut config = config();
        change(&mut config);
        let keys: Vec<String> = config.check().into_iter().map(|(key, _)| key).collect();
        assert_eq!(Steering::new(&config).is_err(), !keys.is_empty());
        keys
    };
    assert!(keys_of(&|_| {}).is_empty());
    assert_eq!(keys_of(&|c| c.default_region = "mars".into()), ["default_region"]);
    assert_eq!(keys_of(&|c| c.regions[1].name = "ap".into()), ["regions[2].name", "default_region"]);
    assert_eq!(keys_of(&|c| c.regions[2].countries.push(country("DE"))), ["regions[2].countries"]);
    assert_eq!(keys_of(&|c| c.overrides[0].region = Some("mars".into())), ["overrides[0].region"]);
    assert_eq!(keys_of(&|c| c.overrides[1].country = None), ["overrides[1]"]);
    assert_eq!(
        keys_of(&|c| c.overrides[1].network = "10.255.0.0/8".parse().expect("a network")),
        ["overrides[1].network"]
    );
    assert_eq!(keys_of(&|c| c.regions.clear())[0], "regions");
}

#[test]
fn codes_are_two_letters() {
    assert_eq!("gb".parse::<Country>().map(|code| code.to_string()), Ok("GB".to_owned()));
    for bad in ["", "G", "GBR", "G1", "é"] {
        assert!(bad.parse::<Country>().is_err(), "{bad:?}");
    }
    assert!("XX".parse::<Continent>().is_err());
}

fn any_network() -> impl Strategy<Value = IpNet> {
    // Few distinct bits, so that networks nest and collide.
    let v4 = (0_u32..64, 0_u8..=32).prop_map(|(bits, length)| {
        IpNet::V4(Ipv4Net::new(Ipv4Addr::from(bits << 26 | bits), length).expect("a length").trunc())
    });
    let v6 = (0_u128..64, 0_u8..=128).prop_map(|(bits, length)| {
        IpNet::V6(Ipv6Net::new(Ipv6Addr::from(bits << 122 | bits), length).expect("a length").trunc())
    });
    prop_oneof![v4, v6]
}

fn any_ip() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0_u32..64).prop_map(|bits| IpAddr::V4(Ipv4Addr::from(bits << 26 | bits))),
        (0_u128..64).prop_map(|bits| IpAddr::V6(Ipv6Addr::from(bits << 122 | bits))),
        any::<u32>().prop_map(|bits| IpAddr::V4(bits.into())),
    ]
}

proptest! {
    #[test]
    fn longest_prefix_equals_brute_force(networks in prop::collection::vec(any_network(), 0..40), ip in any_ip()) {
        let mut map = LongestPrefix::default();
        for (index, network) in networks.iter().enumerate() {
            map.insert(*network, index);
        }
        let ip = ip.to_canonical();
        let brute = networks.iter().filter(|network| network.contains(&ip)).max_by_key(|network| network.prefix_len());
        prop_assert_eq!(map.find(ip).map(|(network, _)| network), brute.copied());
        if let Some((network, index)) = map.find(ip) {
            prop_assert_eq!(networks[*index], network);
        }
    }

    #[test]
    fn decide_and_explain_agree(ip in any_ip(), code in "[A-Z]{2}") {
        let steering = Steering::new(&config()).expect("a good map");
        let record = Record { country: code.parse().ok(), continent: None, asn: None };
        prop_assert_eq!(steering.decide(ip, Some(&record)), steering.explain(ip, Some(&record)).0);
    }
}
