//! Whose a call is: names of the configuration, as its record and the indicators have them.

use std::sync::Arc;

use belfry_routing::{Decision, Number};
use belfry_signal::Region;
use belfry_sip_proto::transaction::TransactionId;

use super::Call;
use crate::core::Core;
use crate::proxy::Sender;
use crate::signals::Scope;

/// Whose a call is, as far as it is known.
#[derive(Clone, Debug, Default)]
pub(crate) struct Whose {
    /// The caller's tenant, or the called one's for calls from trunks.
    pub(crate) tenant: Option<Arc<str>>,
    /// The trunk that it came by.
    pub(crate) calling_trunk: Option<Arc<str>>,
    /// The trunk that it left by: the one that answered, or was tried last.
    pub(crate) called_trunk: Option<Arc<str>>,
    /// What was dialled, when it is a number of the world's.
    pub(crate) called_number: Option<Number>,
    /// Whether it calls for help.
    pub(crate) is_emergency: bool,
}

impl Call {
    /// Whether it came by this trunk or left by it.
    pub(super) fn is_on_trunk(&self, name: &str) -> bool {
        let trunks = [&self.whose.calling_trunk, &self.whose.called_trunk];
        trunks.into_iter().flatten().any(|trunk| trunk.eq_ignore_ascii_case(name))
    }
}

impl Core {
    /// A call came by a trunk, or by none.
    pub(crate) fn note_calling_trunk(&mut self, id: TransactionId, sender: &Sender) {
        let Sender::Trunk(trunk) = sender else { return };
        let name = self.routes.table.trunk(*trunk).map(|trunk| Arc::clone(&trunk.name));
        if let Some(call) = self.call_of(id) {
            call.whose.calling_trunk = name;
        }
    }

    /// It is decided where a call goes, and who answers for it.
    pub(crate) fn note_decision(&mut self, id: TransactionId, decision: &Decision) {
        if let Some(call) = self.call_of(id) {
            call.whose.tenant = Some(Arc::clone(&decision.tenant));
            call.whose.called_number = decision.called;
            call.whose.is_emergency = decision.is_emergency;
        }
    }

    /// The call that an exchange sets up.
    fn call_of(&mut self, id: TransactionId) -> Option<&mut Call> {
        let key = self.exchanges.get(&id)?.call.clone()?;
        self.calls.get_mut(&key)
    }

    /// Under which labels a call counts.
    pub(crate) fn scope<'a>(&self, region: &'a Region, whose: &Whose) -> Scope<'a> {
        let trunk = |name: &Option<Arc<str>>| name.as_deref().map(|name| self.routes.trunk_label(name));
        Scope {
            region,
            tenant: whose.tenant.as_deref().map(|name| self.routes.tenant_label(name)),
            calling_trunk: trunk(&whose.calling_trunk),
            called_trunk: trunk(&whose.called_trunk),
        }
    }
}
