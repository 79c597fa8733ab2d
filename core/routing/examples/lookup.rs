//! How long a decision takes with 100,000 prefixes: `cargo run --release -p belfry-routing --example lookup`.

#![allow(clippy::print_stdout, clippy::expect_used, reason = "a measurement for people")]

use std::hint::black_box;
use std::time::Instant;

use belfry_routing::{Caller, Cost, Plan, PrefixRow, Question, Table};

const DECISIONS: u64 = 1_000_000;

fn main() {
    let trunk = |place: u32| {
        format!(
            "[[trunks]]\nname = \"t{place}\"\nserves_all = false\nweight = 5\ngateways = [{{ uri = \"sip:192.0.2.{place}\" }}]\n"
        )
    };
    for trunks in [4, 20] {
        let text: String = (0..trunks).map(trunk).collect();
        let mut plan: Plan = toml::from_str(&text).expect("a plan");
        plan.prefixes = (0..100_000_u32)
            .map(|number| PrefixRow {
                trunk: format!("t{}", number % trunks),
                prefix: format!("{}", 1_000 + number * 11),
                cost: Some(Cost(u64::from(number))),
                priority: None,
                weight: None,
            })
            .collect();
        let began = Instant::now();
        let table = Table::compile(&plan, &["belfry.test".to_owned()]).expect("compiles");
        let size = table.size();
        println!(
            "{trunks} trunks, {} prefixes: {} bytes, compiled in {:?}",
            size.prefixes,
            size.prefix_bytes,
            began.elapsed()
        );
        let numbers: Vec<String> =
            (0..1024_u64).map(|n| format!("+{}", 1_000_000_000 + n * 7_777_777)).collect();
        let began = Instant::now();
        let mut ways = 0;
        for number in 0..DECISIONS {
            let question = Question {
                caller: Caller::Subscriber { user: "alice", domain: "belfry.test" },
                user: &numbers[usize::try_from(number % 1024).unwrap_or(0)],
                domain: "belfry.test",
                is_telephone: false,
                context: None,
                is_emergency_urn: false,
                unix_seconds: 1_800_000_000,
                random: number,
            };
            if let belfry_routing::Outcome::Trunks(hops) = black_box(table.decide(&question, &mut ())).outcome
            {
                ways += hops.len();
            }
        }
        let each = began.elapsed() / u32::try_from(DECISIONS).unwrap_or(1);
        println!("  {each:?} a decision, {ways} ways in all");
    }
}
