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
    /// Seconds that all phones together have waited for their turn, less one interval for each that had it.
    waited: u64,
}

impl KeepAlive {
    /// A second went by for so many phones: how many of them have their turn, that each has it once per interval.
    fn turns(&mut self, phones: usize, interval_seconds: u64) -> usize {
        if phones == 0 || interval_seconds == 0 {
            self.waited = 0;
            return 0;
        }
        self.waited = self.waited.saturating_add(phones as u64);
        let turns = self.waited / interval_seconds;
        self.waited %= interval_seconds;
        // There are no more turns than phones, as the rest was less than an interval.
        usize::try_from(turns).unwrap_or(usize::MAX)
    }
}

impl Core {
    /// Once a second: so many as have their turn, and no more than the budget allows.
    pub(crate) fn keep_alive(&mut self) {
        let config = &self.config.keepalive;
        let bindings = self.state.bindings();
        let wanted = self.keepalive.turns(bindings.kept_alive(), config.interval.as_secs());
        let turns = wanted.min(config.per_second_max);
        if turns == 0 {
            return;
        }
        let round = bindings.keep_alive(turns, config.unanswered_max);
        self.signals.customers.keepalives_went(KeepAliveStep::Late, wanted - turns);
        self.bindings_lost(BindingLoss::Unanswered, &round.lost);
        let mut sent = 0;
        for turn in &round.due {
            let asked = self.options_to(turn);
            let is_sent =
                asked.is_some_and(|(hop, bytes)| self.edges.send(&hop.edge, hop.target, 0, bytes).is_ok());
            if is_sent {
                sent += 1;
            } else {
                // An edge that is away is not the phone's silence.
                self.state.bindings().not_asked(turn.slot);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_turn_once_per_interval_however_many_they_are() {
        for (phones, interval, seconds) in [(1, 25, 100), (3, 25, 100), (25, 25, 100), (1_000, 30, 90)] {
            let mut alive = KeepAlive::default();
            let turns: Vec<usize> = (0..seconds).map(|_| alive.turns(phones, interval)).collect();
            let expected = phones as u64 * seconds / interval;
            assert_eq!(turns.iter().sum::<usize>() as u64, expected, "{phones} phones, {turns:?}");
            let (least, most) = (turns.iter().min(), turns.iter().max());
            assert!(most <= least.map(|least| least + 1).as_ref(), "they are spread: {turns:?}");
        }
        let mut alive = KeepAlive::default();
        assert_eq!([alive.turns(9, 10), alive.turns(0, 10), alive.turns(9, 10)], [0, 0, 0]);
        assert_eq!(alive.turns(9, 0), 0, "switched off");
    }
}
