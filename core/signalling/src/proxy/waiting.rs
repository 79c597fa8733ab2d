//! What a caller is told while a request is under way: that somebody is at it (RFC 4320), and that an early dialog is
//! lost although the call is not (RFC 6228).

use std::time::Duration;

use belfry_sip_proto::forking::BranchIndex;
use belfry_sip_proto::transaction::TransactionId;
use belfry_sip_proto::{HeaderName, build};

use crate::core::{Alarm, Core, now};
use crate::exchange::{EARLY_DIALOGS_MAX, Failure};
use crate::signals::MethodName;

/// A request other than INVITE is answered 100 when it has no other answer after this: the time until Timer E of whoever
/// sent it is T2 (0.5, 1 and 2 seconds). Earlier it would cost more than the repeats that it spares (RFC 4320 section 4.1).
const TRYING_AFTER: Duration = Duration::from_millis(3_500);

/// The option by which callers say that they understand 199.
const EARLY_DIALOG_TERMINATED: &str = "199";

impl Core {
    /// A request sets out.
    pub(super) fn expect_answer(&mut self, id: TransactionId) {
        let Some(exchange) = self.exchanges.get_mut(&id) else { return };
        let Some(forward) = exchange.forward.as_mut() else { return };
        if exchange.request.method != MethodName::Invite {
            forward.trying = Some(self.timers.set(now() + TRYING_AFTER, Alarm::Trying(id)));
        }
    }

    /// A request other than INVITE has no answer yet.
    pub(crate) fn on_no_answer_yet(&mut self, id: TransactionId) {
        if let Some(forward) = self.forward_of(id) {
            forward.trying = None;
            self.answer(id, 100, &[]);
        }
    }

    /// A provisional response goes back: its caller knows an early dialog more, or with 199 one less.
    pub(super) fn note_early_dialog(
        &mut self,
        id: TransactionId,
        branch: BranchIndex,
        status: u16,
        tag: Option<&str>,
    ) {
        let (Some(known), Some(tag)) = (self.try_of(id, branch), tag) else { return };
        known.early_tags.retain(|early| &**early != tag);
        if status != 199 && known.early_tags.len() < EARLY_DIALOGS_MAX {
            known.early_tags.push(tag.into());
        }
    }

    /// A branch failed. A caller that goes on waiting, because others ring or are tried, learns that its early dialogs
    /// are over, so that it need not keep sound and resources for them (RFC 6228 section 6).
    pub(super) fn tell_lost_dialogs(&mut self, id: TransactionId, branch: BranchIndex, status: u16) {
        if self.is_cancelled(id) {
            return;
        }
        let Some(request) = self.request_of(id) else { return };
        let message = &request.message;
        let is_understood = message.has_token(HeaderName::Supported, EARLY_DIALOG_TERMINATED);
        // A dialog that is there already does not end with a change of it; and where every provisional response must be
        // reliable, none of a proxy's can be.
        if !is_understood || request.is_in_dialog() || message.has_token(HeaderName::Require, "100rel") {
            return;
        }
        let tags = self.try_of(id, branch).map(|known| std::mem::take(&mut known.early_tags));
        let reason = format!("SIP;cause={status}");
        for tag in tags.into_iter().flatten() {
            let extra = [(HeaderName::Reason, reason.as_str())];
            let bytes = build::response_to(message, 199, None, Some(&tag), &extra);
            self.reply(id, Failure { status: 199, bytes: Some(bytes), fault: None, cause: None });
        }
    }
}
