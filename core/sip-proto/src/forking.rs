//! The response context of a stateful proxy (RFC 3261 sections 16.5 to 16.8 and 16.10): to whom a request goes and
//! when, and which of many responses goes back.
//!
//! [`ResponseContext`] owns the branches of one request. Targets come in groups: inside a group all are tried at once,
//! and the next group's turn comes when one came to nothing. It takes responses and the time as arguments and queues
//! what is to be done as [`Action`]s. Of a target and of a response it knows nothing but what is said here: both are
//! opaque values that come back.
//!
//! Not here: messages, transactions, sockets, and whether a target can be reached.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

#[cfg(test)]
mod tests;

/// Names a branch of one context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BranchIndex(pub usize);

/// Targets that are tried at the same time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group<T> {
    /// Whom to try.
    pub targets: Vec<T>,
    /// What failures make the next group worth trying.
    pub advance: Advance,
    /// How long all of it may take when there is another group to try; unlimited without.
    pub patience: Option<Duration>,
    /// How long each target may stay without any response; the transaction's own time without.
    pub silence: Option<Duration>,
}

/// What failures of a group lead on to the next one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Advance {
    /// Every failure but 6xx: each group is another chance to find somebody (RFC 3261 section 16.6).
    #[default]
    Always,
    /// Only trouble on the way: 408, 430, 500, 502, 503, 504. Every group leads to the same customer, so that what
    /// that customer says (busy, not found) is an answer.
    OnTrouble,
    /// Only these: whoever configures a next hop knows what its failures mean.
    On(StatusSet),
}

/// A set of status codes from 400 to 655.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatusSet([u64; 4]);

impl StatusSet {
    /// These codes; others than 400 to 655 stay out.
    #[must_use]
    pub fn of(codes: &[u16]) -> Self {
        let mut set = Self::default();
        for code in codes {
            if let Some((word, bit)) = Self::place(*code) {
                set.0[word] |= bit;
            }
        }
        set
    }

    /// Whether a code is in it.
    #[must_use]
    pub fn contains(&self, code: u16) -> bool {
        Self::place(code).is_some_and(|(word, bit)| self.0[word] & bit != 0)
    }

    fn place(code: u16) -> Option<(usize, u64)> {
        let number = code.checked_sub(400).filter(|number| *number < 256)?;
        Some((usize::from(number / 64), 1 << (number % 64)))
    }
}

impl<T> Group<T> {
    /// A group with the rules of RFC 3261.
    #[must_use]
    pub fn new(targets: Vec<T>) -> Self {
        Self { targets, advance: Advance::Always, patience: None, silence: None }
    }
}

/// A final response that may go back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Final<R> {
    /// Its status code as it came.
    pub status: u16,
    /// The response.
    pub response: R,
}

/// What a context wants done, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action<T, R> {
    /// Send the request to a target, as a branch of this name.
    Start {
        /// Names the branch.
        branch: BranchIndex,
        /// Where to.
        target: T,
        /// Its share of Max-Breadth (RFC 5393 section 5.3).
        breadth: u8,
    },
    /// Nobody wants this branch any more: CANCEL it as soon as it was heard of (RFC 3261 section 9.1).
    Cancel {
        /// Which branch.
        branch: BranchIndex,
        /// Why.
        why: Unwanted,
    },
    /// The branch took too long: CANCEL it, then say what it came to with [`ResponseContext::on_final`].
    Expire {
        /// Which branch.
        branch: BranchIndex,
        /// Whether it ever said anything.
        was_heard: bool,
    },
    /// Send this back: nothing is left to try. Nothing at all was ever tried when `best` is none.
    Finish {
        /// The best response (RFC 3261 section 16.7 step 6).
        best: Option<Final<R>>,
        /// With a 401 or 407: the others, whose challenges belong into it (RFC 3261 section 16.7 step 7).
        challenges: Vec<R>,
    },
}

/// Why nobody wants a branch any more (for Reason in its CANCEL, RFC 3326).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unwanted {
    /// Another branch was answered.
    AnsweredElsewhere,
    /// Somebody refused for everybody (6xx).
    RefusedEverywhere,
    /// The caller gave up.
    CallerGaveUp,
}

/// One request's branches and the best of what came back.
#[derive(Debug)]
pub struct ResponseContext<T, R> {
    groups: VecDeque<Group<T>>,
    branches: Vec<Branch>,
    /// The rules of the group that is being tried.
    advance: Advance,
    silence: Option<Duration>,
    /// When the group that is being tried has had its time.
    group_until: Option<Instant>,
    /// Timer C; none for methods other than INVITE.
    ring: Option<Duration>,
    breadth: u8,
    /// Whether the group being tried was answered by somebody, if only with a refusal.
    has_answer: bool,
    best: Option<Final<R>>,
    challenges: Vec<Final<R>>,
    end: End,
    is_cancelled: bool,
    actions: VecDeque<Action<T, R>>,
}

/// How much of a context is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// More may be tried.
    Open,
    /// The caller gave up, or a 6xx came: nothing new is tried.
    Settled,
    /// A 2xx came.
    Answered,
    /// The best response went back.
    Finished,
}

#[derive(Clone, Copy, Debug)]
struct Branch {
    state: State,
    /// Timer C (RFC 3261 section 16.6 step 11).
    ring_until: Option<Instant>,
    silence_until: Option<Instant>,
    /// Whether it was to be cancelled.
    is_unwanted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not sent yet: its target is being looked up.
    Waiting,
    /// Sent.
    Calling,
    /// A provisional response came.
    Proceeding,
    Over,
}

impl<T, R> ResponseContext<T, R> {
    /// A context for these groups, first group first. `ring` is Timer C, for INVITE; `breadth` the Max-Breadth that
    /// the request came with: so many branches at a time, what a group has more is tried after the others.
    #[must_use]
    pub fn new(groups: impl IntoIterator<Item = Group<T>>, ring: Option<Duration>, breadth: u8) -> Self {
        Self {
            groups: groups.into_iter().collect(),
            branches: Vec::new(),
            advance: Advance::Always,
            silence: None,
            group_until: None,
            ring,
            breadth: breadth.max(1),
            has_answer: false,
            best: None,
            challenges: Vec::new(),
            end: End::Open,
            is_cancelled: false,
            actions: VecDeque::new(),
        }
    }

    /// Starts the first group.
    pub fn start(&mut self, now: Instant) {
        self.go_on(now);
    }

    /// The next thing to do. Drain it after every call.
    pub fn next_action(&mut self) -> Option<Action<T, R>> {
        self.actions.pop_front()
    }

    /// When to call [`on_time`](Self::on_time) at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let branches = self.branches.iter().flat_map(|branch| [branch.ring_until, branch.silence_until]);
        branches.chain([self.group_deadline()]).flatten().min()
    }

    /// Whether any branch still has to say something.
    #[must_use]
    pub fn is_trying(&self) -> bool {
        self.branches.iter().any(|branch| branch.state != State::Over)
    }

    /// Targets that were not tried yet.
    #[must_use]
    pub fn untried(&self) -> usize {
        self.groups.iter().map(|group| group.targets.len()).sum()
    }

    /// Whether the branch still has to say something.
    #[must_use]
    pub fn is_open(&self, branch: BranchIndex) -> bool {
        self.branches.get(branch.0).is_some_and(|branch| branch.state != State::Over)
    }

    /// Whether it is worth sending the request once more for this branch, to another address: not when somebody
    /// answered or refused for everybody, or the caller gave up.
    #[must_use]
    pub fn is_wanted(&self, branch: BranchIndex) -> bool {
        self.branches.get(branch.0).is_some_and(|branch| branch.state != State::Over && !branch.is_unwanted)
    }

    /// The request left on this branch; again, when another address of its target is tried.
    pub fn on_sent(&mut self, branch: BranchIndex, now: Instant) {
        let (ring, silence) = (self.ring, self.silence);
        if let Some(branch) = self.branches.get_mut(branch.0).filter(|branch| branch.state != State::Over) {
            branch.state = State::Calling;
            branch.ring_until = ring.map(|ring| now + ring);
            branch.silence_until = silence.map(|silence| now + silence);
        }
    }

    /// A provisional response came. Whether it goes back: 100 stays here, and after a final response none goes on
    /// (RFC 3261 section 16.7 step 5).
    pub fn on_provisional(&mut self, branch: BranchIndex, status: u16, now: Instant) -> bool {
        let ring = self.ring;
        let Some(branch) = self.branches.get_mut(branch.0).filter(|branch| branch.state != State::Over)
        else {
            return false;
        };
        branch.state = State::Proceeding;
        branch.silence_until = None;
        if status > 100 && branch.ring_until.is_some() {
            // Timer C, set anew (RFC 3261 section 16.7 step 2).
            branch.ring_until = ring.map(|ring| now + ring);
        }
        status > 100 && matches!(self.end, End::Open | End::Settled)
    }

    /// A 2xx came: the others are cancelled. Whether it is the first.
    pub fn on_success(&mut self, branch: BranchIndex) -> bool {
        self.over(branch);
        if matches!(self.end, End::Answered | End::Finished) {
            return false;
        }
        self.end = End::Answered;
        self.groups.clear();
        self.cancel_others(Unwanted::AnsweredElsewhere);
        true
    }

    /// A branch came to a failure, or will never come to anything; a second one of a branch is ignored.
    pub fn on_final(&mut self, branch: BranchIndex, status: u16, response: R, now: Instant) {
        if !self.is_open(branch) {
            return;
        }
        self.over(branch);
        self.has_answer |= match self.advance {
            Advance::Always => false,
            Advance::OnTrouble => !is_trouble(status),
            Advance::On(codes) => !codes.contains(status),
        };
        let failure = Final { status, response };
        if status >= 600 && self.end == End::Open {
            // It is not sent at once: a branch that was answered meanwhile still wins (RFC 3261 section 16.7 step 5).
            self.end = End::Settled;
            self.groups.clear();
            self.cancel_others(Unwanted::RefusedEverywhere);
        }
        self.keep(failure);
        self.go_on(now);
    }

    /// A branch was answered with other places to try in its stead (RFC 3261 section 16.7 step 4): they come before what
    /// was left. False, and nothing has changed, when nothing new is tried any more.
    pub fn on_redirect(
        &mut self,
        branch: BranchIndex,
        groups: impl IntoIterator<Item = Group<T>, IntoIter: DoubleEndedIterator>,
        now: Instant,
    ) -> bool {
        if self.end != End::Open || !self.is_wanted(branch) {
            return false;
        }
        self.over(branch);
        for group in groups.into_iter().rev() {
            self.groups.push_front(group);
        }
        self.go_on(now);
        true
    }

    /// The caller gave up: what rings is cancelled and nothing new is tried (RFC 3261 section 16.10).
    pub fn cancel(&mut self, now: Instant) {
        if self.end == End::Open {
            self.end = End::Settled;
        }
        self.is_cancelled = true;
        self.groups.clear();
        self.cancel_others(Unwanted::CallerGaveUp);
        self.go_on(now);
    }

    /// Lets go of what took too long.
    pub fn on_time(&mut self, now: Instant) {
        let is_due = |until: Option<Instant>| until.is_some_and(|until| until <= now);
        let is_group_due = is_due(self.group_deadline());
        if is_group_due {
            self.group_until = None;
        }
        for (index, branch) in self.branches.iter_mut().enumerate() {
            let is_expired = is_group_due || is_due(branch.ring_until) || is_due(branch.silence_until);
            if branch.state != State::Over && is_expired {
                (branch.ring_until, branch.silence_until) = (None, None);
                let was_heard = branch.state == State::Proceeding;
                self.actions.push_back(Action::Expire { branch: BranchIndex(index), was_heard });
            }
        }
    }

    /// The group's time counts only while there is another to try.
    fn group_deadline(&self) -> Option<Instant> {
        self.group_until.filter(|_| !self.groups.is_empty())
    }

    fn over(&mut self, branch: BranchIndex) {
        if let Some(branch) = self.branches.get_mut(branch.0) {
            *branch = Branch { state: State::Over, ring_until: None, silence_until: None, ..*branch };
        }
    }

    /// Keeps the better of two failures (RFC 3261 section 16.7 step 6), and every challenge.
    fn keep(&mut self, failure: Final<R>) {
        let is_challenge = |status| matches!(status, 401 | 407);
        // The caller that gave up hears that it did (RFC 3261 section 9.2).
        let rank = |status| if self.is_cancelled && status == 487 { 0 } else { rank(status) };
        let is_better = self.best.as_ref().is_none_or(|best| rank(failure.status) < rank(best.status));
        let other = if is_better { self.best.replace(failure) } else { Some(failure) };
        self.challenges.extend(other.filter(|other| is_challenge(other.status)));
    }

    /// Cancels whatever is under way; what was not even sent is over.
    fn cancel_others(&mut self, why: Unwanted) {
        for (index, branch) in self.branches.iter_mut().enumerate() {
            match branch.state {
                State::Over => {}
                State::Waiting => branch.state = State::Over,
                State::Calling | State::Proceeding if branch.is_unwanted => {}
                State::Calling | State::Proceeding => {
                    branch.is_unwanted = true;
                    // The CANCEL has its own time from now on.
                    (branch.ring_until, branch.silence_until) = (None, None);
                    self.actions.push_back(Action::Cancel { branch: BranchIndex(index), why });
                }
            }
        }
    }

    /// The next group, or the end, when nothing is under way any more.
    fn go_on(&mut self, now: Instant) {
        if self.is_trying() || matches!(self.end, End::Answered | End::Finished) {
            return;
        }
        if self.has_answer {
            self.groups.clear();
        }
        while let Some(group) = self.groups.pop_front() {
            if !group.targets.is_empty() {
                return self.start_group(group, now);
            }
        }
        self.end = End::Finished;
        let best = self.best.take();
        let is_challenge = best.as_ref().is_some_and(|best| matches!(best.status, 401 | 407));
        let challenges = std::mem::take(&mut self.challenges).into_iter().map(|other| other.response);
        let challenges = if is_challenge { challenges.collect() } else { Vec::new() };
        self.actions.push_back(Action::Finish { best, challenges });
    }

    fn start_group(&mut self, group: Group<T>, now: Instant) {
        let Group { mut targets, advance, patience, silence } = group;
        if targets.len() > usize::from(self.breadth) {
            let targets = targets.split_off(usize::from(self.breadth));
            self.groups.push_front(Group { targets, advance, patience, silence });
        }
        let share = usize::from(self.breadth) / targets.len().max(1);
        self.advance = advance;
        self.silence = silence;
        self.has_answer = false;
        self.group_until = patience.map(|patience| now + patience);
        for target in targets {
            let branch = BranchIndex(self.branches.len());
            let state = State::Waiting;
            self.branches.push(Branch { state, ring_until: None, silence_until: None, is_unwanted: false });
            let breadth = u8::try_from(share).unwrap_or(u8::MAX);
            self.actions.push_back(Action::Start { branch, target, breadth });
        }
    }
}

/// Whether a failure says something about the way and nothing about the called customer.
#[must_use]
pub fn is_trouble(status: u16) -> bool {
    matches!(status, 408 | 430 | 500 | 502 | 503 | 504)
}

/// How good a failure is to send back, lower is better (RFC 3261 section 16.7 step 6): 6xx settles it; then the lowest
/// class; among the 4xx first what the caller can do something about, then what the called customer said, last what
/// only says that nobody was there.
#[must_use]
pub fn rank(status: u16) -> u16 {
    match status {
        600.. => 0,
        300..400 => 1,
        401 | 407 | 415 | 420 | 484 => 2,
        486 => 3,
        404 | 410 | 480 => 5,
        408 | 430 | 482 | 487 => 6,
        400..500 => 4,
        503 => 8,
        _ => 7,
    }
}
