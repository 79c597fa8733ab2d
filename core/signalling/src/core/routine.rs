//! What phones do all day: registrations that are refreshed and OPTIONS that are answered. They are counted like
//! everything else; of those that went well only some leave their messages and a span (`trace_one_in`).
//!
//! Nobody knows at the beginning how an exchange ends, so its request is kept until it does.

use belfry_sip_proto::transaction::TransactionId;

use super::Core;
use super::outputs::passing;
use crate::received::Received;
use crate::signals::{MethodName, Way as Direction};

/// For so long the same phones are chosen, so that a challenge and its answer stay together.
const CHOICE_NANOS: u64 = 64_000_000_000;

impl Core {
    /// Whether a new request begins an exchange that may turn out to be routine.
    pub(crate) fn may_be_routine(&self, request: &Received) -> bool {
        let one_in = u64::from(self.config.trace_one_in);
        if one_in <= 1 {
            return false;
        }
        let is_daily = match request.method {
            MethodName::Register => true,
            MethodName::Options => !request.is_in_dialog() && self.is_for_us(&request.message),
            _ => false,
        };
        let chosen = || self.hash((request.trace_id.0, request.unix_nanos / CHOICE_NANOS));
        is_daily && !chosen().is_multiple_of(one_in)
    }

    /// Such an exchange began.
    pub(crate) fn routine_began(&mut self, id: TransactionId, request: &Received) {
        self.signals.message_counted(request.method, None, Direction::Received, false);
        self.routine.insert(id);
    }

    /// An exchange ends. Whether it leaves its messages and a span: a routine one that went well does not. Of one that
    /// did not, the request is told now, before its answer.
    pub(crate) fn is_told(&mut self, id: TransactionId, request: &Received, is_good: bool) -> bool {
        if !self.routine.contains(&id) {
            return true;
        }
        if is_good {
            return false;
        }
        self.routine.remove(&id);
        self.signals.message_told(passing(request, false, &request.cseq_text(), &request.wire));
        true
    }
}
