//! Seeds that are run with every test, and as many more as are asked for.
//!
//! `BELFRY_SIM_RUNS=2000` runs so many, from `BELFRY_SIM_SEED` on (both have defaults), with `BELFRY_SIM_CALLS` calls each;
//! a release build does a run of 300 calls in about a second.

#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use belfry_sim::run;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name}: a number")))
}

#[test]
fn whatever_the_network_does_every_call_comes_to_its_end() {
    let (first, runs) = (number("BELFRY_SIM_SEED", 1), number("BELFRY_SIM_RUNS", 6));
    let calls = usize::try_from(number("BELFRY_SIM_CALLS", 120)).expect("few");
    let (mut failed, mut all, mut answered, mut messages) = (Vec::new(), 0, 0, 0);
    for seed in first..first + runs {
        match run(seed, calls) {
            Ok(outcome) => {
                all += outcome.calls;
                answered += outcome.answered;
                messages += outcome.messages;
            }
            Err(story) => {
                println!("seed {seed}: {story}");
                failed.push(seed);
            }
        }
    }
    println!("{runs} runs, {all} calls, {answered} answered, {messages} messages");
    assert!(
        failed.is_empty(),
        "run one again: BELFRY_SIM_SEED=N BELFRY_SIM_RUNS=1 cargo test -p belfry-sim; N in {failed:?}"
    );
    assert!(
        answered * 10 > all,
        "only {answered} of {all} calls were answered: the stories are not what they should be"
    );
}

#[test]
fn the_same_seed_tells_the_same_story() {
    let seed = number("BELFRY_SIM_SEED", 3);
    let twice = [run(seed, 60), run(seed, 60)].map(|outcome| outcome.map_err(|story| panic!("{story}")));
    assert_eq!(twice[0], twice[1]);
}
