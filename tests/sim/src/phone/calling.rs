//! The side that calls: INVITE with credentials, CANCEL, the answers, ACK.

use belfry_sip_proto::HeaderName;

use super::{Action, Client, Dialog, Key, PATIENCE, Phone, Purpose, Story, Wake};
use crate::message::{DOMAIN, Message, finish, sdp};
use crate::script::Side;

impl Phone {
    /// The person dials.
    pub(crate) fn call(&mut self, story: &Story, call: usize) {
        self.invite(story, call, 1, None);
        if let Some(after) = story.scripts[call].cancel_after_ms {
            self.actions.push(Action::Wake(after, Wake::Cancel(call)));
        }
        self.actions.push(Action::Wake(PATIENCE, Wake::Cancel(call)));
    }

    fn invite(&mut self, story: &Story, call: usize, attempt: u32, challenged: Option<&Message>) {
        let script = &story.scripts[call];
        let (user, callee) = (self.user.clone(), &script.callee);
        let uri = format!("sip:{callee}@{DOMAIN}");
        let head = self.head("INVITE", &uri);
        let credentials = challenged.map(|challenge| self.credentials(challenge, "INVITE", &uri));
        let host = if user == "gateway" { "carrier.test" } else { DOMAIN };
        let text = format!(
            "{head}From: \"{user}\" <sip:{user}@{host}>;tag=f{call}\nTo: <{uri}>\nCall-ID: sim-{call}\n\
             CSeq: {attempt} INVITE\nContact: {}\nX-Sim: {call}\n{}",
            self.contact(),
            credentials.unwrap_or_default(),
        );
        let body = if script.is_offer_delayed { String::new() } else { sdp(self.index, 1, "sendrecv") };
        self.send_request(call, Purpose::Invite { attempt }, finish(&text, &body));
    }

    /// The person gives up, unless somebody answered.
    pub(super) fn cancel_call(&mut self, call: usize) {
        let waits = |client: &Client| {
            client.call == call && matches!(client.purpose, Purpose::Invite { .. }) && client.status.is_none()
        };
        let Some((key, client)) = self.clients.iter_mut().find(|(_, client)| waits(client)) else { return };
        client.wants_cancel = true;
        let (key, is_heard) = (key.clone(), client.is_heard);
        if is_heard {
            self.send_cancel(&key);
        }
    }

    /// Only once something was heard (section 9.1).
    fn send_cancel(&mut self, key: &Key) {
        let Some(client) = self.clients.get_mut(key) else { return };
        if std::mem::replace(&mut client.is_cancelled, true) {
            return;
        }
        let (call, bytes) = (client.call, client.request.cancel());
        self.send_request(call, Purpose::Cancel, bytes);
    }

    pub(super) fn give_up(&mut self, key: &Key) {
        let Some(client) = self.clients.get_mut(key) else { return };
        if client.status.is_some() || (key.1 == "INVITE" && client.is_heard) {
            return;
        }
        client.status = Some(408);
        if let Purpose::Change { dialog } = client.purpose {
            self.hang_up(dialog);
        }
    }

    pub(super) fn on_response(&mut self, story: &mut Story, response: &Message) {
        let key = (response.branch(), response.method().to_owned());
        let Some(client) = self.clients.get_mut(&key) else { return };
        let status = response.status();
        if status < 200 {
            client.is_heard = true;
            if client.wants_cancel && client.status.is_none() {
                self.send_cancel(&key);
            }
            return;
        }
        match (key.1.as_str(), status) {
            ("INVITE", 200..=299) => self.on_picked_up(story, &key, response),
            ("INVITE", _) => self.on_refused(story, &key, response),
            _ => {
                let purpose = client.purpose;
                if let (None, 401, Purpose::Register { seconds, is_proven: false }) =
                    (client.status.replace(status), status, purpose)
                {
                    self.register_again(seconds, Some(response));
                }
            }
        }
    }

    fn on_refused(&mut self, story: &Story, key: &Key, response: &Message) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let ack = client.acks.entry(String::new()).or_insert_with(|| client.request.ack_of(response)).clone();
        self.actions.push(Action::Send(ack));
        if client.status.replace(response.status()).is_some() {
            return;
        }
        let (call, wants_cancel) = (client.call, client.wants_cancel);
        match client.purpose {
            Purpose::Invite { attempt: 1 } if response.status() == 407 && !wants_cancel => {
                self.invite(story, call, 2, Some(response));
            }
            // The other side knows no such dialog (section 12.2.1.2).
            Purpose::Change { dialog } if matches!(response.status(), 408 | 481) => self.hang_up(dialog),
            _ => {}
        }
    }

    fn on_picked_up(&mut self, story: &mut Story, key: &Key, response: &Message) {
        let tag = response.to_tag();
        let Some(client) = self.clients.get_mut(key) else { return };
        if let Some(ack) = client.acks.get(&tag) {
            return self.actions.push(Action::Send(ack.clone()));
        }
        let is_first = client.status.replace(response.status()).is_none();
        let (call, wants_cancel, purpose) = (client.call, client.wants_cancel, client.purpose);
        let dialog = match purpose {
            Purpose::Change { dialog } => dialog,
            _ => self.make_dialog(call, response),
        };
        let has_offer = !response.sip().body().is_empty() && story.scripts[call].is_offer_delayed;
        let body = if has_offer { sdp(self.index, 1, "sendrecv") } else { String::new() };
        let ack = self.in_dialog(dialog, "ACK", Some(response.cseq()), &body);
        self.actions.push(Action::Send(ack.clone()));
        if let Some(client) = self.clients.get_mut(key) {
            client.acks.insert(tag, ack);
        }
        if matches!(purpose, Purpose::Change { .. }) {
            return;
        }
        // Somebody else was first, or nobody wants the call any more.
        if !is_first || wants_cancel {
            return self.hang_up(dialog);
        }
        self.plan_talk(story, dialog);
    }

    fn make_dialog(&mut self, call: usize, response: &Message) -> usize {
        let mut routes = response.values(HeaderName::RecordRoute);
        routes.reverse();
        self.dialogs.push(Dialog {
            call,
            call_id: response.call_id(),
            local_tag: response.sender_tag(),
            remote_tag: response.to_tag(),
            local: response.header(HeaderName::From),
            remote: response.header(HeaderName::To),
            target: response.contact().unwrap_or_default(),
            routes,
            cseq: response.cseq(),
            side: Side::Caller,
            is_over: false,
            is_confirmed: true,
        });
        self.dialogs.len() - 1
    }
}
