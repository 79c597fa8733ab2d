//! Whose a call is: names of the configuration, as its record and the indicators have them.

use std::sync::Arc;

use belfry_routing::Number;
use belfry_signal::Region;

use super::Call;
use crate::core::Core;
use crate::exchange::CallKey;
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
    /// It is known, or known better, whose a call is.
    pub(crate) fn note_whose(&mut self, key: Option<&CallKey>, learn: impl FnOnce(&mut Whose)) {
        if let Some(call) = key.and_then(|key| self.calls.get_mut(key)) {
            learn(&mut call.whose);
        }
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
