//! The side that is called: ringing, answers, CANCEL, and the requests of dialogs.

use belfry_sip_proto::HeaderName;

use super::{Action, Dialog, GIVE_UP, Phone, Server, Story, T1, T2, Wake};
use crate::message::{Message, sdp};
use crate::script::{CalleeScript, Side};

/// A re-INVITE is answered at once.
const AT_ONCE: CalleeScript = CalleeScript {
    ring_ms: None,
    has_early_sound: false,
    answer: Some((0, 200)),
    late_pickup_ms: None,
    dies_ringing: false,
};

impl Phone {
    pub(super) fn on_invite(&mut self, story: &Story, invite: &Message, call: usize) {
        let branch = invite.branch();
        if let Some(known) = self.servers.get(&branch) {
            if let Some(last) = &known.last {
                self.actions.push(Action::Send(last.clone()));
            }
            return;
        }
        let is_change = !invite.to_tag().is_empty();
        let attempt = self.servers.values().filter(|server| server.call == call).count();
        let script =
            if is_change { AT_ONCE } else { CalleeScript::of(story.seed, call, self.index, attempt) };
        let dialog = self.dialog_of(invite);
        let server = Server {
            call,
            tag: format!("t{call}p{}a{attempt}", self.index),
            invite: invite.clone(),
            script,
            last: None,
            status: None,
            is_acknowledged: false,
            interval: T1,
            dialog,
        };
        self.servers.insert(branch.clone(), server);
        if is_change && dialog.is_none_or(|dialog| self.dialogs[dialog].is_over) {
            return self.refuse(&branch, 481);
        }
        if let Some(after) = script.ring_ms {
            self.actions.push(Action::Wake(after, Wake::Ring(branch.clone())));
        }
        if let Some((after, status)) = script.answer {
            self.actions.push(Action::Wake(after, Wake::Answer(branch, status)));
        }
    }

    fn extra(&self, call: usize) -> String {
        format!("Contact: {}\nX-Sim: {call}\n", self.contact())
    }

    pub(super) fn ring(&mut self, branch: &str) {
        let Some(server) = self.servers.get(branch).filter(|server| server.status.is_none()) else { return };
        let early = server.script.has_early_sound;
        let body = if early { sdp(self.index, 1, "sendrecv") } else { String::new() };
        let status = if early { 183 } else { 180 };
        let bytes = server.invite.answer(status, &server.tag, &self.extra(server.call), &body);
        let dies = server.script.dies_ringing;
        self.respond(branch, bytes);
        if dies {
            self.actions.push(Action::Die);
        }
    }

    fn respond(&mut self, branch: &str, bytes: Vec<u8>) {
        if let Some(server) = self.servers.get_mut(branch) {
            server.last = Some(bytes.clone());
            self.actions.push(Action::Send(bytes));
        }
    }

    /// The person picks up, or the phone refuses by itself.
    pub(super) fn pick_up(&mut self, story: &mut Story, branch: &str, status: u16) {
        let Some(server) = self.servers.get(branch).filter(|server| server.status.is_none()) else { return };
        if status >= 300 {
            return self.refuse(branch, status);
        }
        let (call, tag, invite) = (server.call, server.tag.clone(), server.invite.clone());
        let bytes = invite.answer(200, &tag, &self.extra(call), &sdp(self.index, 1, "sendrecv"));
        if server.dialog.is_none() {
            story.picked_up.entry(call).or_insert(story.now);
            let dialog = self.make_called_dialog(call, &invite, &tag);
            if let Some(server) = self.servers.get_mut(branch) {
                server.dialog = Some(dialog);
            }
        }
        self.end_with(branch, 200, bytes);
    }

    fn refuse(&mut self, branch: &str, status: u16) {
        let Some(server) = self.servers.get(branch) else { return };
        let mut extra = self.extra(server.call);
        if status == 302 {
            extra = extra.replace("Contact: <sip:", "Contact: <sip:elsewhere-");
        }
        let bytes = server.invite.answer(status, &server.tag, &extra, "");
        self.end_with(branch, status, bytes);
    }

    fn end_with(&mut self, branch: &str, status: u16, bytes: Vec<u8>) {
        self.respond(branch, bytes);
        if let Some(server) = self.servers.get_mut(branch) {
            server.status = Some(status);
        }
        // A 2xx is repeated on any transport, because other hops may lose it.
        if status < 300 || !self.transport.is_reliable() {
            self.actions.push(Action::Wake(T1, Wake::RepeatFinal(branch.to_owned())));
        }
        self.actions.push(Action::Wake(GIVE_UP, Wake::Unacknowledged(branch.to_owned())));
    }

    pub(super) fn repeat_final(&mut self, branch: &str) {
        let Some(server) = self.servers.get_mut(branch).filter(|server| !server.is_acknowledged) else {
            return;
        };
        server.interval = (server.interval * 2).min(T2);
        let (interval, last) = (server.interval, server.last.clone());
        self.actions.extend(last.map(Action::Send));
        self.actions.push(Action::Wake(interval, Wake::RepeatFinal(branch.to_owned())));
    }

    /// Nobody acknowledged: an answered call is ended (section 13.3.1.4).
    pub(super) fn on_unacknowledged(&mut self, branch: &str) {
        let Some(server) = self.servers.get_mut(branch).filter(|server| !server.is_acknowledged) else {
            return;
        };
        server.is_acknowledged = true;
        if let Some(dialog) = server.dialog.filter(|_| server.status == Some(200)) {
            self.hang_up(dialog);
        }
    }

    pub(super) fn on_ack(&mut self, story: &Story, ack: &Message) {
        let is_it = |branch: &str, server: &Server| match server.status {
            Some(200..=299) => {
                server.invite.call_id() == ack.call_id()
                    && server.invite.cseq() == ack.cseq()
                    && server.invite.sender_tag() == ack.sender_tag()
                    && (server.tag == ack.to_tag() || server.invite.to_tag() == ack.to_tag())
            }
            _ => branch == ack.branch(),
        };
        let found = self.servers.iter_mut().find(|(branch, server)| is_it(branch, server));
        let Some((_, server)) = found.filter(|(_, server)| !server.is_acknowledged) else { return };
        server.is_acknowledged = true;
        let dialog = server.dialog.filter(|_| server.status == Some(200));
        if let Some(dialog) = dialog
            && !std::mem::replace(&mut self.dialogs[dialog].is_confirmed, true)
        {
            self.plan_talk(story, dialog);
        }
    }

    pub(super) fn on_cancel(&mut self, cancel: &Message) {
        let branch = cancel.branch();
        let Some(server) = self.servers.get(&branch) else { return self.answer(cancel, 481) };
        let (status, late) = (server.status, server.script.late_pickup_ms);
        self.answer(cancel, 200);
        match late {
            _ if status.is_some() => {}
            // The CANCEL and the hand that picks up cross.
            Some(after) => self.actions.push(Action::Wake(after, Wake::Answer(branch, 200))),
            None => self.refuse(&branch, 487),
        }
    }

    /// Everything but INVITE, ACK and CANCEL.
    pub(super) fn on_other(&mut self, request: &Message) {
        let dialog = self.dialog_of(request);
        let status = match request.method() {
            "BYE" => {
                let is_known = dialog.is_some();
                if let Some(dialog) = dialog {
                    self.dialogs[dialog].is_over = true;
                }
                if is_known { 200 } else { 481 }
            }
            _ => 200,
        };
        self.answer(request, status);
    }

    /// Answers, the same again when the request comes again.
    fn answer(&mut self, request: &Message, status: u16) {
        let key = (request.branch(), request.method().to_owned());
        let tag = format!("o{}", self.index);
        let bytes = self.answered.entry(key).or_insert_with(|| request.answer(status, &tag, "", ""));
        self.actions.push(Action::Send(bytes.clone()));
    }

    fn make_called_dialog(&mut self, call: usize, invite: &Message, tag: &str) -> usize {
        self.dialogs.push(Dialog {
            call,
            call_id: invite.call_id(),
            local_tag: tag.to_owned(),
            remote_tag: invite.sender_tag(),
            local: format!("{};tag={tag}", invite.header(HeaderName::To)),
            remote: invite.header(HeaderName::From),
            target: invite.contact().unwrap_or_default(),
            routes: invite.values(HeaderName::RecordRoute),
            cseq: 100,
            side: Side::Callee,
            is_over: false,
            is_confirmed: false,
        });
        self.dialogs.len() - 1
    }
}
