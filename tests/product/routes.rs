//! Routes: the commands, imports into a running Belfry, and trunks played by sipp.

use std::fs;
use std::path::Path;

use crate::running::{Ports, Running, belfry, eventually, free_port, signal, site_config};
use crate::sipp::{Playing, Sipp, TRUNKS, register_with_sipp, write_mu_law_tone};

const ROUTES: &str = r#"
[[core.routing.tenants]]
name = "acme"
domains = ["belfry.test"]
dial = { country_code = "44" }
[[core.routing.aliases]]
number = "+442071838750"
address = "alice@belfry.test"
[[core.routing.trunks]]
name = "first"
gateways = [{ uri = "sip:192.0.2.1" }]
cost = "0.01"
[[core.routing.trunks]]
name = "second"
gateways = [{ uri = "sip:192.0.2.2" }]
cost = "0.02"
"#;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs `belfry route …` on a configuration: exit code, output, complaints.
fn route(config: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let config = config.to_string_lossy().into_owned();
    let output = belfry(&[&["route"], arguments, &["--config", &config]].concat());
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn routes_are_explained_listed_and_imported() {
    let directory = tempfile::tempdir().expect("a folder");
    let config = directory.path().join("belfry.toml");
    let site = site_config(directory.path(), &Ports::free());
    fs::write(&config, format!("{site}{ROUTES}")).expect("written");
    let explain = |to: &str| route(&config, &["explain", "--from", "alice@belfry.test", "--to", to]);
    let (code, output, _) = explain("01131234567");
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("+441131234567, country code 44"), "{output}");
    let (first, second) = (output.find("1. first sip:192.0.2.1"), output.find("2. second sip:192.0.2.2"));
    assert!(first.is_some() && first < second, "{output}");
    assert!(explain("bob").1.contains("local: bob@belfry.test"));
    let (code, output, _) =
        route(&config, &["explain", "--from", "trunk:first/+4930", "--to", "+441131234567", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&output).expect("JSON");
    assert_eq!(
        (code, &json["outcome"]["refused"]["reason"]),
        (Some(1), &"number_unknown".into()),
        "{output}"
    );

    let table = directory.path().join("costs.csv");
    fs::write(&table, "trunk,prefix,cost\nfirst,44,0.5\nsecond,441,0.001\n").expect("written");
    let (code, output, complaints) = route(&config, &["import", &table.to_string_lossy()]);
    assert_eq!(code, Some(0), "{output}{complaints}");
    assert!(explain("01131234567").1.contains("1. second"), "the imported cost counts");
    let (_, output, _) = route(&config, &["list", "prefixes"]);
    assert!(output.contains("second") && output.contains("0.001"), "{output}");

    for (name, content, place) in [
        ("bad.csv", "trunk,prefix,cost\nfirst,44,1\nfirst,4x,1\n", "bad.csv:3:2: prefix"),
        (
            "strange.csv",
            "trunk,prefix,cost\n# none\nthird,44,1\n",
            "strange.csv:3:1: trunk: no trunk is called",
        ),
        (
            "bad.toml",
            "[[trunks]]\nname = \"third\"\ncolour = \"red\"\n",
            "bad.toml:3:1: unknown field `colour`",
        ),
        (
            "twice.toml",
            "[[trunks]]\nname = \"third\"\n\n[[trunks]]\nname = \"first\"\n",
            "twice.toml:5:8: `trunks[1].name`",
        ),
    ] {
        let file = directory.path().join(name);
        fs::write(&file, content).expect("written");
        let (code, output, complaints) = route(&config, &["import", &file.to_string_lossy()]);
        assert_eq!(code, Some(78), "{name}: {output}{complaints}");
        assert!(complaints.contains(place), "{place} in {complaints}");
    }
}

#[test]
fn a_running_belfry_takes_imports_and_reloads_over_and_keeps_the_old_when_the_new_is_wrong() {
    let directory = tempfile::tempdir().expect("a folder");
    let ports = Ports::free();
    let site = site_config(directory.path(), &ports);
    let belfry = Running::start(directory.path(), ports, &format!("{site}{ROUTES}"));
    let prefixes = |count: f64| {
        eventually("the routes are taken over", || {
            (belfry.metric("core_route_prefixes", "") - count).abs().lt(&0.5).then_some(())
        });
    };
    let table = directory.path().join("costs.csv");
    fs::write(&table, "trunk,prefix,cost\nfirst,44,0.5\nsecond,441,0.001\n").expect("written");
    assert_eq!(route(&belfry.config, &["import", &table.to_string_lossy()]).0, Some(0));
    prefixes(2.0);
    let reload = |routes: &str| {
        fs::write(&belfry.config, format!("{site}{routes}")).expect("written");
        signal(belfry.id(), "HUP");
    };
    reload(
        &ROUTES.replace("cost = \"0.01\"", "cost = \"0.01\"\nprefixes = [{ prefix = \"1\", cost = \"1\" }]"),
    );
    prefixes(3.0);
    // A password that is not there: the old routes stay.
    reload(&ROUTES.replace("cost = \"0.01\"", "user = \"u\"\npassword_file = \"nowhere\""));
    eventually("the fault is told", || {
        belfry.logged().contains("the old routes stay in force").then_some(())
    });
    assert!(belfry.logged().contains("nowhere"), "{}", belfry.logged());
    assert!(belfry.metric("core_routes_loads_total", "refused") >= 1.0);
    prefixes(3.0);
}

/// A site with three trunks: one that refuses, one that answers, one that asks for credentials.
struct Site {
    directory: tempfile::TempDir,
    belfry: Running,
    alice: u16,
    refusing: u16,
    answering: u16,
    asking: u16,
}

impl Site {
    fn start() -> Self {
        let directory = tempfile::tempdir().expect("a folder");
        let ports = Ports::free();
        let [refusing, answering, asking, alice] = std::array::from_fn(|_| free_port());
        fs::create_dir_all(directory.path().join("data")).expect("a folder");
        fs::write(directory.path().join("data/asking.secret"), "s3cret\n").expect("written");
        let trunk = |name: &str, port: u16, rest: &str| {
            format!(
                "[[core.routing.trunks]]\nname = \"{name}\"\nserves_all = false\nconcurrent_calls_max = 5\n\
                 gateways = [{{ uri = \"sip:{TRUNKS}:{port};transport=udp\" }}]\n{rest}\n"
            )
        };
        let routes = format!(
            "[[core.routing.tenants]]\nname = \"acme\"\ndomains = [\"belfry.test\"]\ndial = {{ country_code = \"44\" }}\n\
             [[core.routing.aliases]]\nnumber = \"+442071838750\"\naddress = \"alice@belfry.test\"\n{}{}{}",
            trunk("refusing", refusing, "prefixes = [{ prefix = \"49\", cost = \"0.01\" }]"),
            trunk(
                "answering",
                answering,
                "prefixes = [{ prefix = \"49\", cost = \"0.02\" }]\naccept_networks = [\"127.0.0.2/32\"]"
            ),
            trunk(
                "asking",
                asking,
                "prefixes = [{ prefix = \"1\", cost = \"0.02\" }]\nuser = \"belfry\"\npassword_file = \"asking.secret\""
            ),
        );
        let config = format!("{}{routes}", site_config(directory.path(), &ports));
        let belfry = Running::start(directory.path(), ports, &config);
        belfry.subscribe(&["alice"]);
        register_with_sipp(directory.path(), "alice", alice, ports.sip);
        Self { directory, belfry, alice, refusing, answering, asking }
    }

    fn target(&self) -> u16 {
        self.belfry.ports.sip
    }

    fn trunk(&self, name: &str, port: u16, calls: u32) -> Playing {
        Sipp::new(self.directory.path(), name, port).at_the_trunks().times(calls).start(self.target())
    }

    /// Somebody at a trunk that was never registered calls a number.
    fn carrier_calls(&self, number: &str, calls: u32) {
        let carrier = Sipp::new(self.directory.path(), "trunk_calls", free_port()).at_the_trunks();
        carrier.with(&["-key", "called", number]).times(calls).start(self.target()).ends_well();
    }

    /// Alice calls a number so many times, and every call ends well.
    fn alice_calls(&self, number: &str, calls: u32) {
        write_mu_law_tone(&self.directory.path().join("tone.ul"));
        let alice = Sipp::new(self.directory.path(), "uac", self.alice).of("alice", "secret", number);
        alice.with(&["-r", "10", "-l", "5"]).times(calls).start(self.target()).ends_well();
    }

    /// Every call has given back what it held.
    fn is_idle(&self) {
        eventually("limits are free again", || {
            let held =
                self.belfry.metric("core_trunk_calls", "") + self.belfry.metric("core_tenant_calls", "");
            held.lt(&0.5).then_some(())
        });
    }
}

#[test]
fn a_trunk_that_refuses_is_passed_over() {
    const CALLS: u32 = 20;
    let site = Site::start();
    let refusing = site.trunk("trunk_refuses", site.refusing, CALLS);
    let answering = site.trunk("uas", site.answering, CALLS);
    site.alice_calls("004930123456", CALLS);
    refusing.ends_well();
    answering.ends_well();
    let tries = |labels: &str| site.belfry.metric("core_trunk_tries_total", labels);
    assert_eq!(
        tries("outcome=\"answered\",trunk=\"answering\"") + tries("trunk=\"answering\",outcome=\"answered\""),
        f64::from(CALLS)
    );
    assert!(site.belfry.metric("core_trunk_failures_total", "trunk=\"refusing\"") >= 1.0);
    site.is_idle();
}

#[test]
fn a_trunk_that_asks_for_credentials_gets_ours_and_the_callers_number() {
    const CALLS: u32 = 3;
    let site = Site::start();
    let asking = site.trunk("trunk_digest", site.asking, CALLS);
    site.alice_calls("+12125551234", CALLS);
    asking.ends_well();
    site.is_idle();
}

#[test]
fn a_trunk_calls_in_by_its_address_and_not_out_again() {
    const CALLS: u32 = 3;
    let site = Site::start();
    let alice = Sipp::new(site.directory.path(), "uas", site.alice).times(CALLS).start(site.target());
    site.carrier_calls("+442071838750", CALLS);
    alice.ends_well();
    site.carrier_calls("+4930123456", 1);
    // A trunk without transit reaches no other trunk.
    assert_eq!(site.belfry.metric("core_route_refusals_total", "number_unknown"), 1.0);
    assert_eq!(site.belfry.metric("core_trunk_requests_total", "answering"), f64::from(CALLS + 1));
    site.is_idle();
}
