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
    /// Messages of the core that were not SIP as it should be.
    pub(crate) nonsense: Vec<String>,
}

#[derive(Debug)]
struct Taken {
    call: usize,
    is_first: bool,
    /// Status and To tag of each final answer.
    finals: BTreeSet<(u16, String)>,
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
                    taken.finals.insert((status, message.to_tag()));
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
        finals.filter(|(status, _)| (200..300).contains(status)).map(|(_, tag)| tag.as_str()).collect()
    }

    /// Everything that should not have been: the call, and what is wrong with it.
    pub(crate) fn faults(&self, end: &End<'_>) -> Vec<(Option<usize>, String)> {
        let mut faults: Vec<_> = self.nonsense.iter().map(|text| (None, text.clone())).collect();
        self.check_answers(end, &mut faults);
        self.check_branches(&mut faults);
        self.check_second_answers(end, &mut faults);
        self.check_records(end, &mut faults);
        faults
    }

    /// Every INVITE that reached the core gets exactly one final answer.
    fn check_answers(&self, end: &End<'_>, faults: &mut Vec<(Option<usize>, String)>) {
        for ((phone, branch), taken) in &self.taken {
            let all_good = taken.finals.iter().all(|(status, _)| (200..300).contains(status));
            // Without a relay between them, every phone that picks up is the caller's to choose from.
            let may_be_several = !end.is_anchored && all_good;
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
    fn check_branches(&self, faults: &mut Vec<(Option<usize>, String)>) {
        for ((phone, id), branch) in &self.branches {
            let is_ended = !branch.finals.is_empty() || branch.cancelled_ms.is_some() || branch.is_unsendable;
            if branch.heard_ms.is_some() && !is_ended {
                let text = format!("branch {id} to phone {phone} rings, and nobody stops it");
                faults.push((Some(branch.call), text));
            }
        }
    }

    /// Every 2xx goes to the caller, or is acknowledged and hung up on.
    fn check_second_answers(&self, end: &End<'_>, faults: &mut Vec<(Option<usize>, String)>) {
        for ((phone, id), branch) in self.branches.iter().filter(|(_, branch)| branch.is_first) {
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
            if recorded.insert(call, record).is_some() {
                faults.push((Some(call), "two records".to_owned()));
            }
            faults.extend(self.lies(call, record).map(|text| (Some(call), text)));
        }
        if (end.ended - recorded.len() as f64).abs() > 0.5 {
            faults.push((None, format!("{} calls ended, {} records", end.ended, recorded.len())));
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
        let told: BTreeSet<u16> = told.flat_map(|taken| &taken.finals).map(|(status, _)| *status).collect();
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
