//! Who stands at the core's door and remembers what crossed it, to say in the end what should not have been.

use std::collections::{BTreeMap, BTreeSet};

use belfry_state::CallRecord;

use crate::message::Message;

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Witness {
    /// INVITEs that phones sent, by phone and branch.
    taken: BTreeMap<(usize, String), Taken>,
    /// INVITEs that the core sent, by phone and branch.
    branches: BTreeMap<(usize, String), Branch>,
    /// The caller's CANCELs and everybody's BYEs (by From tag) that reached the core, by call.
    cancelled: BTreeSet<usize>,
    byes: BTreeMap<usize, BTreeSet<String>>,
    /// BYEs that the core sent, by call, phone and the phone's tag.
    hung_up_on: BTreeSet<(usize, usize, String)>,
    /// ACKs that the core sent, likewise.
    acknowledged: BTreeSet<(usize, usize, String)>,
    /// Registrations that reached the core, by phone and branch: when, and what each life of the core answered.
    registers: BTreeMap<(usize, String), (u64, Statuses)>,
    /// Requests that changed a registration.
    binding: BTreeSet<(usize, String)>,
    /// Until when each phone is registered.
    bound_until: BTreeMap<usize, u64>,
    /// How often the core was killed.
    pub(crate) life: usize,
    /// Messages of the core that were not SIP as it should be.
    pub(crate) nonsense: Vec<String>,
}

/// Final answers: life of the core and status.
type Statuses = BTreeSet<(usize, u16)>;

#[derive(Debug)]
struct Taken {
    call: usize,
    is_first: bool,
    /// Life of the core, status and To tag of each final answer.
    finals: BTreeSet<(usize, u16, String)>,
}

#[derive(Debug)]
struct Branch {
    call: usize,
    is_first: bool,
    sent_ms: u64,
    heard_ms: Option<u64>,
    is_unsendable: bool,
    cancelled_ms: Option<u64>,
    finals: BTreeMap<(u16, String), u64>,
}

/// What a run ends with.
pub(crate) struct End<'a> {
    pub(crate) records: &'a [CallRecord],
    pub(crate) calls: usize,
    pub(crate) is_anchored: bool,
    /// Whether a branch may be hidden from the caller behind another tag.
    pub(crate) may_hide: bool,
    pub(crate) ended: f64,
    /// Calls that were under way while the edge was away or the core was dead, and while the relay was away, too.
    pub(crate) troubled: BTreeSet<usize>,
    pub(crate) without_relay: BTreeSet<usize>,
    pub(crate) crashes: usize,
}

impl Witness {
    /// A message of a phone reached the core.
    pub(crate) fn came(&mut self, phone: usize, call: usize, message: &Message, now: u64) {
        let key = (phone, message.branch());
        match (message.method(), message.status()) {
            ("INVITE", 0) => {
                let is_first = message.to_tag().is_empty();
                self.taken.entry(key).or_insert(Taken { call, is_first, finals: BTreeSet::new() });
            }
            ("INVITE", status) => {
                let Some(branch) = self.branches.get_mut(&key) else { return };
                branch.heard_ms.get_or_insert(now);
                if status >= 200 {
                    branch.finals.entry((status, message.to_tag())).or_insert(now);
                }
            }
            ("REGISTER", 0) => drop(self.registers.entry(key).or_insert((now, BTreeSet::new()))),
            ("CANCEL", 0) => drop(self.cancelled.insert(call)),
            ("BYE", 0) => drop(self.byes.entry(call).or_default().insert(message.sender_tag())),
            _ => {}
        }
    }

    /// The core sent a message to a phone.
    pub(crate) fn went(&mut self, phone: usize, call: usize, message: &Message, now: u64) {
        let key = (phone, message.branch());
        match (message.method(), message.status()) {
            ("INVITE", 0) => {
                self.branches.entry(key).or_insert(Branch {
                    call,
                    is_first: message.to_tag().is_empty(),
                    sent_ms: now,
                    heard_ms: None,
                    is_unsendable: false,
                    cancelled_ms: None,
                    finals: BTreeMap::new(),
                });
            }
            ("INVITE", status) if status >= 200 => {
                if let Some(taken) = self.taken.get_mut(&key) {
                    taken.finals.insert((self.life, status, message.to_tag()));
                }
            }
            ("REGISTER", status) if status >= 200 => {
                if let Some((_, finals)) = self.registers.get_mut(&key) {
                    finals.insert((self.life, status));
                }
            }
            ("CANCEL", 0) => {
                if let Some(branch) = self.branches.get_mut(&key) {
                    branch.cancelled_ms.get_or_insert(now);
                }
            }
            ("BYE", 0) => drop(self.hung_up_on.insert((call, phone, message.to_tag()))),
            ("ACK", 0) => drop(self.acknowledged.insert((call, phone, message.to_tag()))),
            _ => {}
        }
    }

    /// Registrations of before are nobody's business.
    pub(crate) fn story_begins(&mut self) {
        self.registers.clear();
    }

    /// A phone is registered until then, by the request of this branch; an answer that comes again says nothing new.
    pub(crate) fn bound(&mut self, phone: usize, branch: &str, until_ms: u64) {
        if self.binding.insert((phone, branch.to_owned())) {
            self.bound_until.insert(phone, until_ms);
        }
    }

    /// A phone is called in a call that began then.
    pub(crate) fn was_called(&mut self, phone: usize, call: usize, begin_ms: u64) {
        // The core looks once a second for those that ran out, and never after them.
        if self.bound_until.get(&phone).is_some_and(|until| *until < begin_ms) {
            self.nonsense.push(format!("call {call} rings at phone {phone}, which is not registered"));
        }
    }

    /// The edge could not send an INVITE.
    pub(crate) fn was_unsendable(&mut self, phone: usize, branch: &str) {
        if let Some(branch) = self.branches.get_mut(&(phone, branch.to_owned())) {
            branch.is_unsendable = true;
        }
    }

    /// Whether the core hung up on this side of a call.
    pub(crate) fn was_hung_up_on(&self, call: usize, phone: usize, tag: &str) -> bool {
        self.hung_up_on.contains(&(call, phone, tag.to_owned()))
    }

    /// The 2xx that the caller of a call got, by To tag.
    fn answers(&self, call: usize) -> BTreeSet<&str> {
        let taken = self.taken.values().filter(|taken| taken.call == call && taken.is_first);
        let finals = taken.flat_map(|taken| &taken.finals);
        finals.filter(|(_, status, _)| (200..300).contains(status)).map(|(.., tag)| tag.as_str()).collect()
    }

    /// Everything that should not have been: the call, and what is wrong with it.
    pub(crate) fn faults(&self, end: &End<'_>) -> Vec<(Option<usize>, String)> {
        let mut faults: Vec<_> = self.nonsense.iter().map(|text| (None, text.clone())).collect();
        self.check_answers(end, &mut faults);
        self.check_branches(end, &mut faults);
        self.check_registers(end, &mut faults);
        self.check_second_answers(end, &mut faults);
        self.check_records(end, &mut faults);
        faults
    }

    /// Every INVITE that reached the core gets exactly one final answer.
    fn check_answers(&self, end: &End<'_>, faults: &mut Vec<(Option<usize>, String)>) {
        for ((phone, branch), taken) in &self.taken {
            let all_good = taken.finals.iter().all(|(_, status, _)| (200..300).contains(status));
            // Without a relay between them, every phone that picks up is the caller's to choose from.
            let may_be_several = !end.is_anchored && all_good;
            if end.troubled.contains(&taken.call) {
                // What could not be said was not; but no life of the core says two things.
                let lives: BTreeSet<usize> = taken.finals.iter().map(|(life, ..)| *life).collect();
                if lives.len() == taken.finals.len() {
                    continue;
                }
            }
            if taken.finals.len() != 1 && (!may_be_several || taken.finals.is_empty()) {
                let text = format!(
                    "INVITE {branch} of phone {phone} got {:?} and not one final answer",
                    taken.finals
                );
                faults.push((Some(taken.call), text));
            }
        }
    }

    /// Every branch gets a final answer or is cancelled, unless it was never heard.
    fn check_branches(&self, end: &End<'_>, faults: &mut Vec<(Option<usize>, String)>) {
        for ((phone, id), branch) in &self.branches {
            if end.troubled.contains(&branch.call) {
                continue;
            }
            let is_ended = !branch.finals.is_empty() || branch.cancelled_ms.is_some() || branch.is_unsendable;
            if branch.heard_ms.is_some() && !is_ended {
                let text = format!("branch {id} to phone {phone} rings, and nobody stops it");
                faults.push((Some(branch.call), text));
            }
        }
    }

    /// Every registration gets one answer, as long as nothing is away.
    fn check_registers(&self, end: &End<'_>, faults: &mut Vec<(Option<usize>, String)>) {
        for ((phone, branch), (at, finals)) in &self.registers {
            let lives: BTreeSet<usize> = finals.iter().map(|(life, _)| *life).collect();
            let is_calm = end.crashes == 0 && end.troubled.is_empty();
            if lives.len() != finals.len() || (is_calm && finals.len() != 1) {
                faults.push((None, format!("REGISTER {branch} of phone {phone} at {at} got {finals:?}")));
            }
        }
    }

    /// Every 2xx goes to the caller, or is acknowledged and hung up on.
    fn check_second_answers(&self, end: &End<'_>, faults: &mut Vec<(Option<usize>, String)>) {
        for ((phone, id), branch) in self.branches.iter().filter(|(_, branch)| branch.is_first) {
            if end.troubled.contains(&branch.call) {
                continue;
            }
            for ((status, tag), at) in &branch.finals {
                if !(200..300).contains(status) || branch.is_forgotten(*at) {
                    continue;
                }
                let answers = self.answers(branch.call);
                let is_callers = answers.contains(tag.as_str()) || (end.may_hide && answers.len() == 1);
                let key = (branch.call, *phone, tag.clone());
                let is_ended = self.hung_up_on.contains(&key) && self.acknowledged.contains(&key);
                if !is_callers && !is_ended {
                    let text = format!(
                        "phone {phone} picked up on {id} ({tag}) at {at}, and nobody told it anything"
                    );
                    faults.push((Some(branch.call), text));
                }
            }
        }
    }

    /// One record for each call, and a true one.
    fn check_records(&self, end: &End<'_>, faults: &mut Vec<(Option<usize>, String)>) {
        let mut recorded = BTreeMap::new();
        for record in end.records {
            let id = record.call_id.reveal();
            let Some(call) = id.strip_prefix("sim-").and_then(|number| number.parse::<usize>().ok()) else {
                faults.push((None, format!("a record of {id}, which nobody called")));
                continue;
            };
            let before: Option<&CallRecord> = recorded.insert(call, record);
            let is_troubled = end.troubled.contains(&call);
            // A caller who asks again after a crash begins another call of the same name.
            let is_another = is_troubled && end.crashes > 0;
            if before.is_some_and(|before| !is_another || before.epoch == record.epoch) {
                faults.push((Some(call), "two records".to_owned()));
            }
            if is_troubled {
                continue;
            }
            faults.extend(self.lies(call, record).map(|text| (Some(call), text)));
        }
        // A core that dies between a record and its count leaves the record.
        let missing = end.records.len() as f64 - end.ended;
        if missing < -0.5 || (missing > 0.5 && end.crashes == 0) {
            faults.push((None, format!("{} calls ended, {} records", end.ended, end.records.len())));
        }
        for call in 0..end.calls {
            if !self.answers(call).is_empty() && !recorded.contains_key(&call) {
                faults.push((Some(call), "answered, and no record".to_owned()));
            }
        }
    }

    /// What a record says that did not happen.
    fn lies(&self, call: usize, record: &CallRecord) -> Option<String> {
        let was_answered = !self.answers(call).is_empty();
        if record.answer_unix_nanos.is_some() != was_answered {
            return Some(format!("answered: {was_answered}, and the record says otherwise: {record:?}"));
        }
        let byes = self.byes.get(&call);
        // A phone may call itself, so the tag says whose BYE it is.
        let caller = format!("f{call}");
        let cause = &*record.cause;
        let is_true = match cause {
            "caller_hung_up" => was_answered && byes.is_some_and(|byes| byes.contains(&caller)),
            "callee_hung_up" => {
                was_answered && byes.is_some_and(|byes| byes.iter().any(|tag| *tag != caller))
            }
            "lifetime_over" | "session_expired" => was_answered,
            "media_timeout" | "node_lost" | "operator" | "shut_down" => false,
            "cancelled" => !was_answered && self.cancelled.contains(&call),
            _ => !was_answered,
        };
        if !is_true {
            return Some(format!("cause {cause} is not what happened (BYE of {byes:?})"));
        }
        let told = self.taken.values().filter(|taken| taken.call == call && taken.is_first);
        let told: BTreeSet<u16> =
            told.flat_map(|taken| &taken.finals).map(|(_, status, _)| *status).collect();
        (!told.contains(&record.status_code))
            .then(|| format!("status {}, the caller got {told:?}", record.status_code))
    }
}

impl Branch {
    /// Whether its transaction is gone: 64 T1 after it was cancelled, or sent and not heard of. What comes then belongs to
    /// nothing that the core knows.
    fn is_forgotten(&self, at: u64) -> bool {
        let is_gone = |since: u64| at > since + 31_900;
        match self.cancelled_ms {
            Some(cancelled) => is_gone(cancelled),
            None => self.is_unsendable || self.heard_ms.is_none_or(|heard| heard > self.sent_ms + 31_900),
        }
    }
}
