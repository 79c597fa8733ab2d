//! OPTIONS to phones behind NATs: it keeps the NAT open, and tells when somebody is gone.
//!
//! Nothing is remembered of a request but a count in the binding: the answer names the binding in its branch, which
//! only this process can make. So the budget bounds what they cost, and a phone that never answers costs no more than
//! one that does. They do not stand in the ladder: it tells calls.

use belfry_sip_proto::build::Writer;
use belfry_sip_proto::{HeaderName, Uri};
use belfry_state::KeepAlive as Turn;

use crate::core::Core;
use crate::edges::Hop;
use crate::exchange::Reach;
use crate::location::destination_of;
use crate::received::Received;
use crate::signals::{BindingLoss, KeepAliveStep};

/// What the branch of a keep-alive begins with, behind the cookie.
const MARK: &str = "z9hG4bKalive";

/// Where we are with them.
#[derive(Debug, Default)]
pub(crate) struct KeepAlive {
    /// The sequence number of the last one.
    sent: u32,
}

impl Core {
    /// Once a second: so many as have their turn, and no more than the budget allows.
    pub(crate) fn keep_alive(&mut self) {
        let config = &self.config.keepalive;
        let bindings = self.state.bindings();
        let interval = config.interval.as_secs();
        let wanted = match usize::try_from(interval) {
            Ok(seconds) if seconds > 0 => bindings.kept_alive().div_ceil(seconds),
            _ => return,
        };
        let turns = wanted.min(config.per_second_max);
        if turns == 0 {
            return;
        }
        let round = bindings.keep_alive(turns, config.unanswered_max);
        self.signals.customers.keepalives_went(KeepAliveStep::Late, wanted - turns);
        self.bindings_lost(BindingLoss::Unanswered, &round.lost);
        let mut sent = 0;
        for turn in &round.due {
            if let Some((hop, bytes)) = self.options_to(turn) {
                // What does not leave goes unanswered, and that is counted in the binding.
                sent += usize::from(self.edges.send(&hop.edge, hop.target.clone(), 0, bytes).is_ok());
            }
        }
        self.signals.customers.keepalives_went(KeepAliveStep::Sent, sent);
    }

    /// Whether a response answers a keep-alive; then it is dealt with.
    pub(crate) fn is_keepalive_answer(&self, response: &Received) -> bool {
        let via = response.message.top_via();
        let Some(mark) = via.and_then(|via| via.branch()?.strip_prefix(MARK)) else { return false };
        let Some((slot, seal)) = mark.split_at_checked(8) else { return false };
        if let Ok(slot) = u32::from_str_radix(slot, 16)
            && seal == self.seal_of(slot)
        {
            self.state.bindings().answered(slot);
            self.signals.customers.keepalives_went(KeepAliveStep::Answered, 1);
        }
        true
    }

    fn options_to(&mut self, turn: &Turn) -> Option<(Hop, Vec<u8>)> {
        let destination = destination_of(&turn.binding)?;
        // A binding that nobody registered has no NAT of ours to keep open.
        let Reach::Flow(hop) = destination.reach else { return None };
        let address = self.edges.address(&hop.edge, hop.transport)?;
        let contact = turn.binding.contact.reveal();
        let user = Uri::parse(contact)?.user()?.to_owned();
        let transport = hop.transport.via_token();
        let (host, port, slot) = (&address.host, address.port, turn.slot);
        let seal = self.seal_of(slot);
        let domain = self.config.domains.first()?;
        self.keepalive.sent = self.keepalive.sent % 0x7fff_ffff + 1;
        let writer = Writer::request("OPTIONS", contact)
            .header(
                HeaderName::Via,
                &format!("SIP/2.0/{transport} {host}:{port};branch={MARK}{slot:08x}{seal};rport"),
            )
            .header(HeaderName::MaxForwards, "70")
            .header(HeaderName::From, &format!("<sip:{domain}>;tag={seal}"))
            .header(HeaderName::To, &format!("<sip:{user}@{domain}>"))
            .header(HeaderName::CallId, &format!("alive-{slot:08x}{seal}"))
            .header(HeaderName::CSeq, &format!("{} OPTIONS", self.keepalive.sent));
        let writer =
            destination.path.iter().fold(writer, |writer, path| writer.header(HeaderName::Route, path));
        Some((hop, writer.finish()))
    }

    /// What only this process can write beside a slot's number.
    fn seal_of(&self, slot: u32) -> String {
        format!("{:016x}", self.hash(("keep-alive", slot)))
    }
}
