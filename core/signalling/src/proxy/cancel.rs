//! CANCEL (RFC 3261 sections 9 and 16.10): from the caller to whoever rings for it.

use std::sync::Arc;

use belfry_sip_proto::transaction::TransactionId;
use belfry_sip_proto::{Edit, HeaderName, Limits, OwnedMessage, build};

use super::prepare::Prepared;
use super::server_key;
use crate::core::{Core, now};
use crate::edges::Way;
use crate::exchange::{Cancelling, Failure};
use crate::signals::{CallCause, MethodName};

impl Core {
    /// A CANCEL came; it is answered by itself, and its INVITE ends by its own means.
    pub(super) fn on_cancel(&mut self, id: TransactionId) {
        let Some(cancel) = self.request_of(id) else { return };
        let invite = self.transactions.invite_of_cancel(&server_key(&cancel));
        let Some(invite) = invite else { return self.answer(id, 481, &[]) };
        self.answer(id, 200, &[]);
        let reason = cancel.message.header_text(HeaderName::Reason).map(std::borrow::Cow::into_owned);
        self.cancel(invite, reason);
    }

    /// Ends an INVITE that has no final answer yet; one that has is not touched.
    fn cancel(&mut self, invite: TransactionId, reason: Option<String>) {
        let Some(exchange) = self.exchanges.get_mut(&invite) else { return };
        if std::mem::replace(&mut exchange.is_cancelled, true) {
            return;
        }
        exchange.cancel_reason = reason;
        let Some(forward) = exchange.forward.as_mut() else {
            // It has not left yet: nobody else needs to know.
            return self.fail(invite, Failure::plain(487, CallCause::Cancelled));
        };
        forward.context.cancel(now());
        self.act(invite);
    }

    /// Cancels every branch of an exchange that is answered from here.
    pub(crate) fn cancel_tries(&mut self, id: TransactionId) {
        let tries = self.forward_of(id).map(|forward| forward.tries.as_slice()).unwrap_or_default();
        let transactions: Vec<TransactionId> = tries.iter().filter_map(|known| known.transaction).collect();
        for transaction in transactions {
            self.cancel_branch(transaction, None);
        }
    }

    /// Nobody wants a branch any more: it gets its CANCEL, once, as soon as it was heard of (RFC 3261 section 9.1).
    pub(crate) fn cancel_branch(&mut self, id: TransactionId, reason: Option<String>) {
        let Some(branch) = self.branches.get_mut(&id) else { return };
        if branch.method != MethodName::Invite || branch.is_over {
            return;
        }
        branch.unwanted.get_or_insert(Cancelling { reason });
        if branch.was_heard {
            self.send_cancel(id);
        }
    }

    /// Sends the CANCEL that a branch is to get.
    pub(super) fn send_cancel(&mut self, id: TransactionId) {
        let Some(branch) = self.branches.get_mut(&id) else { return };
        let Some(cancelling) = branch.unwanted.as_ref() else { return };
        if std::mem::replace(&mut branch.is_cancelled, true) {
            return;
        }
        let limits = Limits::default();
        let Some(invite) = OwnedMessage::scan(branch.sent.clone(), &limits).0 else { return };
        let mut bytes = build::cancel_of(&invite);
        if let Some(reason) = &cancelling.reason
            && let Some(cancel) = OwnedMessage::scan(bytes.clone(), &limits).0
        {
            bytes = Edit::new(&cancel).append(HeaderName::Reason.as_str(), reason).finish();
        }
        let cseq = invite.cseq().map_or(1, |cseq| cseq.number);
        let way = Arc::new(Way {
            edge: Arc::clone(&branch.way.edge),
            target: branch.way.target.clone(),
            transport: branch.way.transport,
            peer: branch.way.peer,
            method: MethodName::Cancel,
            call_id: branch.way.call_id.clone(),
            trace_id: branch.way.trace_id,
            cseq: format!("{cseq} CANCEL").into(),
        });
        let (span, via) = (branch.span, invite.top_via());
        let branch_id = via.and_then(|via| via.branch()).unwrap_or_default().to_owned();
        // Without room for the CANCEL, the INVITE still ends below by time.
        let _ = self.start_branch(Prepared { way, branch: branch_id, bytes }, None, span);
        self.transactions.limit_after_cancel(id, now());
    }
}
