//! The context alone, in a time of the tests' own.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::{Action, Advance, BranchIndex, Group, ResponseContext, Unwanted};

type Context = ResponseContext<&'static str, &'static str>;

const RING: Duration = Duration::from_secs(180);

/// What happens to a context, in the order of a scenario.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A response of the branch: its status, which is also its text.
    Says(usize, u16),
    Cancel,
    Seconds(u64),
}
use Step::{Cancel, Says, Seconds};

fn text_of(status: u16) -> &'static str {
    Box::leak(status.to_string().into_boxed_str())
}

/// Runs a scenario and gives what the context did, one word per action.
fn run(mut context: Context, steps: &[Step]) -> Vec<String> {
    let mut now = Instant::now();
    let mut done = Vec::new();
    context.start(now);
    drain(&mut context, now, &mut done);
    for step in steps {
        match *step {
            Says(branch, status @ 100..200) => {
                if context.on_provisional(BranchIndex(branch), status, now) {
                    done.push(format!("back {status}"));
                }
            }
            Says(branch, status @ 200..300) => {
                let is_first = context.on_success(BranchIndex(branch));
                done.push(format!("{} {status}", if is_first { "back" } else { "also" }));
            }
            Says(branch, status) => context.on_final(BranchIndex(branch), status, text_of(status), now),
            Cancel => context.cancel(now),
            Seconds(seconds) => {
                let end = now + Duration::from_secs(seconds);
                while let Some(at) = context.deadline().filter(|at| *at <= end) {
                    now = at;
                    context.on_time(now);
                    drain(&mut context, now, &mut done);
                }
                now = end;
            }
        }
        drain(&mut context, now, &mut done);
    }
    done
}

fn drain(context: &mut Context, now: Instant, done: &mut Vec<String>) {
    while let Some(action) = context.next_action() {
        match action {
            Action::Start { branch, target, breadth } => {
                context.on_sent(branch, now);
                let breadth = if breadth == 60 { String::new() } else { format!("/{breadth}") };
                done.push(format!("{target}{breadth}"));
            }
            Action::Cancel { branch, why } => {
                let why = match why {
                    Unwanted::AnsweredElsewhere => "elsewhere",
                    Unwanted::RefusedEverywhere => "everywhere",
                    Unwanted::CallerGaveUp => "caller",
                };
                done.push(format!("cancel {} {why}", branch.0));
            }
            Action::Expire { branch, was_heard } => {
                done.push(format!("expire {} {}", branch.0, if was_heard { "heard" } else { "silent" }));
                context.on_final(branch, 408, "408", now);
            }
            Action::Finish { best, challenges } => {
                let best = best.map_or("nothing", |best| best.response);
                let others: Vec<String> = challenges.iter().map(|other| format!("+{other}")).collect();
                done.push(format!("end {best}{}", others.concat()));
            }
        }
    }
}

#[track_caller]
fn check(groups: &[&[&'static str]], steps: &[Step], expected: &[&str]) {
    check_with(groups.iter().map(|targets| Group::new(targets.to_vec())).collect(), 60, steps, expected);
}

#[track_caller]
fn check_with(groups: Vec<Group<&'static str>>, breadth: u8, steps: &[Step], expected: &[&str]) {
    assert_eq!(run(Context::new(groups, Some(RING), breadth), steps), expected, "{steps:?}");
}

#[test]
fn groups_are_tried_one_after_another_and_their_targets_at_once() {
    check(&[&["a", "b"], &["c"]], &[], &["a/30", "b/30"]);
    let steps = [Says(0, 180), Says(0, 480), Says(1, 486)];
    check(&[&["a", "b"], &["c"]], &steps, &["a/30", "b/30", "back 180", "c"]);
    check(&[&["a"], &[], &["c"]], &[Says(0, 404)], &["a", "c"]);
    check(&[], &[], &["end nothing"]);
    check(&[&["a"], &["b"]], &[Says(0, 480), Says(1, 200)], &["a", "b", "back 200"]);
}

#[test]
fn the_best_response_goes_back() {
    // RFC 3261 section 16.7 step 6: 6xx, or the lowest class, and in it what the caller can act upon.
    let best_of = [
        (&[486, 603][..], "603"),
        (&[603, 486], "603"),
        (&[500, 404], "404"),
        (&[404, 302], "302"),
        (&[480, 407], "407"),
        (&[486, 484], "484"),
        (&[480, 486], "486"),
        (&[408, 480], "480"),
        (&[408, 500], "408"),
        (&[503, 500], "500"),
        (&[430, 404], "404"),
        (&[600, 603], "600"),
    ];
    for (statuses, best) in best_of {
        let targets = vec!["t"; statuses.len()];
        let steps: Vec<Step> = statuses.iter().enumerate().map(|(at, status)| Says(at, *status)).collect();
        let done = run(Context::new([Group::new(targets)], Some(RING), 60), &steps);
        assert_eq!(done.last().map(String::as_str), Some(format!("end {best}").as_str()), "{statuses:?}");
    }
}

#[test]
fn challenges_are_gathered() {
    let three: &[&[&'static str]] = &[&["a", "b", "c"]];
    let begun = ["a/20", "b/20", "c/20"];
    let with = |end: &'static str| [&begun[..], &[end]].concat();
    check(three, &[Says(0, 407), Says(1, 486), Says(2, 401)], &with("end 407+401"));
    check(three, &[Says(0, 486), Says(1, 401), Says(2, 407)], &with("end 401+407"));
    check(three, &[Says(0, 407), Says(1, 302), Says(2, 401)], &with("end 302"));
}

#[test]
fn an_answer_cancels_the_others_and_later_answers_go_back_too() {
    check(
        &[&["a", "b", "c"], &["d"]],
        &[Says(0, 180), Says(1, 200), Says(0, 183), Says(2, 200), Says(0, 487), Says(1, 200)],
        &[
            "a/20",
            "b/20",
            "c/20",
            "back 180",
            "back 200",
            "cancel 0 elsewhere",
            "cancel 2 elsewhere",
            "also 200",
            "also 200",
        ],
    );
}

#[test]
fn a_refusal_for_everybody_waits_for_the_others() {
    let begun = ["a/30", "b/30"];
    let steps = [Says(1, 180), Says(0, 603), Says(1, 487)];
    let expected = [&begun[..], &["back 180", "cancel 1 everywhere", "end 603"]].concat();
    check(&[&["a", "b"], &["c"]], &steps, &expected);
    // Somebody picked up while the refusal was on its way.
    let steps = [Says(0, 603), Says(1, 200)];
    check(&[&["a", "b"], &["c"]], &steps, &[&begun[..], &["cancel 1 everywhere", "back 200"]].concat());
    // A refusal in the first group is one for all groups.
    check(&[&["a"], &["c"]], &[Says(0, 600)], &["a", "end 600"]);
}

#[test]
fn a_caller_may_give_up() {
    let begun = ["a/30", "b/30"];
    let steps = [Says(0, 180), Cancel, Says(0, 487), Says(1, 487)];
    let cancelled = ["back 180", "cancel 0 caller", "cancel 1 caller", "end 487"];
    check(&[&["a", "b"], &["c"]], &steps, &[&begun[..], &cancelled].concat());
    // The answer crosses the CANCEL (RFC 3261 section 9.1).
    let steps = [Says(0, 180), Cancel, Says(0, 200), Says(1, 487)];
    let crossed = ["back 180", "cancel 0 caller", "cancel 1 caller", "back 200"];
    check(&[&["a", "b"], &["c"]], &steps, &[&begun[..], &crossed].concat());
    // What a phone said before does not hide that the caller gave up.
    let steps = [Says(0, 486), Cancel, Says(1, 487)];
    check(&[&["a", "b"]], &steps, &[&begun[..], &["cancel 1 caller", "end 487"]].concat());
}

#[test]
fn timer_c_counts_for_each_branch_and_begins_anew_with_each_sign_of_life() {
    check(&[&["a"]], &[Seconds(179)], &["a"]);
    check(&[&["a"]], &[Seconds(181)], &["a", "expire 0 silent", "end 408"]);
    let steps = [Seconds(100), Says(0, 180), Seconds(170), Says(0, 180), Seconds(170)];
    check(&[&["a"]], &steps, &["a", "back 180", "back 180"]);
    // 100 does not count (RFC 3261 section 16.7 step 2).
    check(&[&["a"]], &[Seconds(100), Says(0, 100), Seconds(81)], &["a", "expire 0 heard", "end 408"]);
    let steps = [Seconds(100), Says(0, 180), Seconds(81), Says(0, 200)];
    let expected = ["a/30", "b/30", "back 180", "expire 1 silent", "back 200"];
    check(&[&["a", "b"]], &steps, &expected);
    // Whoever picks up after its time, while others still ring, is welcome.
    let steps = [Seconds(100), Says(0, 180), Seconds(81), Says(1, 200)];
    let expected = ["a/30", "b/30", "back 180", "expire 1 silent", "back 200", "cancel 0 elsewhere"];
    check(&[&["a", "b"]], &steps, &expected);
}

#[test]
fn a_group_has_its_time_while_there_is_another() {
    let group = |targets: &[&'static str]| Group {
        patience: Some(Duration::from_secs(20)),
        ..Group::new(targets.to_vec())
    };
    let steps = [Says(0, 180), Seconds(19), Says(0, 180), Seconds(2), Says(1, 180), Seconds(100)];
    let expected = ["a", "back 180", "back 180", "expire 0 heard", "b", "back 180"];
    check_with(vec![group(&["a"]), group(&["b"])], 60, &steps, &expected);
}

#[test]
fn silent_targets_are_left_sooner_than_ringing_ones() {
    let group = |target: &'static str| Group {
        silence: Some(Duration::from_secs(4)),
        advance: Advance::OnTrouble,
        ..Group::new(vec![target])
    };
    let groups = || vec![group("one"), group("two")];
    check_with(groups(), 60, &[Seconds(5)], &["one", "expire 0 silent", "two"]);
    check_with(groups(), 60, &[Says(0, 100), Seconds(5)], &["one"]);
    // Trouble on the way leads on, what the customer says does not.
    for status in [408, 500, 503, 504, 430] {
        check_with(groups(), 60, &[Says(0, status)], &["one", "two"]);
    }
    for status in [302, 404, 407, 480, 486, 603] {
        check_with(groups(), 60, &[Says(0, status)], &["one", &format!("end {status}")]);
    }
}

#[test]
fn breadth_is_shared_and_what_is_too_broad_waits() {
    // RFC 5393 section 5.3.3: the shares of branches that run at once sum up to no more than what came.
    let group = || vec![Group::new(vec!["a", "b", "c"])];
    check_with(group(), 7, &[], &["a/2", "b/2", "c/2"]);
    check_with(group(), 2, &[Says(0, 480), Says(1, 480)], &["a/1", "b/1", "c/2"]);
    check_with(group(), 1, &[Says(0, 480), Says(1, 480)], &["a/1", "b/1", "c/1"]);
}

#[test]
fn what_was_not_sent_needs_no_cancel() {
    let mut context = Context::new([Group::new(vec!["a", "b"])], Some(RING), 60);
    let now = Instant::now();
    context.start(now);
    let started: Vec<_> = std::iter::from_fn(|| context.next_action()).collect();
    assert_eq!(started.len(), 2);
    context.on_sent(BranchIndex(0), now);
    context.cancel(now);
    let cancel = Action::Cancel { branch: BranchIndex(0), why: Unwanted::CallerGaveUp };
    assert_eq!(context.next_action(), Some(cancel));
    assert_eq!(context.next_action(), None, "the other was never sent");
    assert!(!context.is_open(BranchIndex(1)));
}

proptest! {
    /// Whatever comes in whatever order: at most one end, none after an answer, and never without an end once
    /// every branch that was started is over.
    #[test]
    fn there_is_exactly_one_outcome(
        sizes in proptest::collection::vec(0usize..4, 0..4),
        breadth in 1u8..6,
        steps in proptest::collection::vec((0usize..9, 100u16..700, 0u8..12), 0..60),
    ) {
        let groups = sizes.iter().map(|size| Group::new(vec!["t"; *size])).collect::<Vec<_>>();
        let mut script: Vec<Step> = steps
            .into_iter()
            .map(|(branch, status, kind)| match kind {
                0 => Cancel,
                1 => Seconds(u64::from(status)),
                _ => Says(branch, status),
            })
            .collect();
        let total: usize = sizes.iter().sum();
        for _ in 0..=total {
            script.extend((0..total).map(|branch| Says(branch, 480)));
        }
        let started = |done: &[String]| done.iter().filter(|what| what.starts_with('t')).count();
        let ends = |done: &[String]| done.iter().filter(|what| what.starts_with("end ")).count();
        let firsts = |done: &[String]| done.iter().filter(|what| {
            what.strip_prefix("back ").is_some_and(|status| status.starts_with('2'))
        }).count();
        // Steps for branches that do not exist yet must change nothing.
        let mut context = Context::new(groups, Some(RING), breadth);
        let mut now = Instant::now();
        let mut done = Vec::new();
        context.start(now);
        drain(&mut context, now, &mut done);
        for step in script {
            match step {
                Says(branch, _) if branch >= started(&done) => {}
                Says(branch, status @ 100..200) => { context.on_provisional(BranchIndex(branch), status, now); }
                Says(branch, 200..300) => {
                    let is_first = context.on_success(BranchIndex(branch));
                    done.push(if is_first { "back 200".to_owned() } else { "also 200".to_owned() });
                }
                Says(branch, status) => context.on_final(BranchIndex(branch), status, "x", now),
                Cancel => context.cancel(now),
                Seconds(seconds) => { now += Duration::from_secs(seconds); context.on_time(now); }
            }
            drain(&mut context, now, &mut done);
        }
        prop_assert_eq!(ends(&done) + firsts(&done), 1, "{:?}", done);
        prop_assert!(started(&done) <= total);
        prop_assert!(!context.is_trying() || firsts(&done) == 1);
    }
}

#[test]
fn nothing_is_sent_once_more_for_a_branch_that_nobody_wants() {
    let now = Instant::now();
    let two = || {
        let mut context = Context::new([Group::new(vec!["a", "b"])], Some(RING), 60);
        context.start(now);
        drain(&mut context, now, &mut Vec::new());
        assert!(context.is_wanted(BranchIndex(0)) && context.is_wanted(BranchIndex(1)));
        context
    };
    let ends: [fn(&mut Context, Instant); 3] = [
        |context, now| context.on_final(BranchIndex(0), 603, "603", now),
        |context, _| assert!(context.on_success(BranchIndex(0))),
        |context, now| context.cancel(now),
    ];
    for end in ends {
        let mut context = two();
        end(&mut context, now);
        assert!(context.is_open(BranchIndex(1)) && !context.is_wanted(BranchIndex(1)));
        assert!(!context.is_wanted(BranchIndex(0)) && !context.is_wanted(BranchIndex(9)));
    }
}
