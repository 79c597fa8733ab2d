//! A dialog (RFC 3261 section 12): who the other side is and the way to it.

use belfry_sip_proto::build::Writer;
use belfry_sip_proto::{HeaderName, OwnedMessage};

use super::endpoint::Endpoint;

/// One side of a dialog.
#[derive(Clone, Debug)]
pub(super) struct Dialog {
    call_id: String,
    /// Our From value.
    local: String,
    /// The other side's To value.
    remote: String,
    /// The other side's Contact URI.
    target: String,
    route: Vec<String>,
    sequence: u32,
}

impl Dialog {
    /// The caller's side, from the INVITE's 2xx.
    pub(super) fn of_caller(ok: &OwnedMessage, sequence: u32) -> Option<Self> {
        let mut route = values(ok, HeaderName::RecordRoute);
        route.reverse();
        Some(Self {
            call_id: ok.call_id()?.to_owned(),
            local: ok.header_text(HeaderName::From)?.into_owned(),
            remote: ok.header_text(HeaderName::To)?.into_owned(),
            target: target(ok)?,
            route,
            sequence,
        })
    }

    /// The callee's side, from the INVITE and the tag that it was answered with.
    pub(super) fn of_callee(invite: &OwnedMessage, tag: &str) -> Option<Self> {
        Some(Self {
            call_id: invite.call_id()?.to_owned(),
            local: format!("{};tag={tag}", invite.header_text(HeaderName::To)?),
            remote: invite.header_text(HeaderName::From)?.into_owned(),
            target: target(invite)?,
            route: values(invite, HeaderName::RecordRoute),
            sequence: 0,
        })
    }

    /// The ACK of the INVITE's 2xx: a transaction of its own with the INVITE's number (RFC 3261 section 13.2.2.4).
    pub(super) fn ack(&self, endpoint: &Endpoint, branch: &str) -> Vec<u8> {
        self.write(endpoint, "ACK", branch).finish()
    }

    /// A new request inside the dialog.
    pub(super) fn request(&mut self, endpoint: &Endpoint, method: &str, branch: &str) -> Vec<u8> {
        self.sequence += 1;
        self.write(endpoint, method, branch).finish()
    }

    fn write(&self, endpoint: &Endpoint, method: &str, branch: &str) -> Writer {
        let mut writer = Writer::request(method, &self.target)
            .header(HeaderName::Via, &endpoint.via(branch))
            .header(HeaderName::MaxForwards, "70");
        for route in &self.route {
            writer = writer.header(HeaderName::Route, route);
        }
        writer
            .header(HeaderName::From, &self.local)
            .header(HeaderName::To, &self.remote)
            .header(HeaderName::CallId, &self.call_id)
            .header(HeaderName::CSeq, &format!("{} {method}", self.sequence))
    }
}

fn values(message: &OwnedMessage, name: HeaderName) -> Vec<String> {
    message.headers(name).map(|value| String::from_utf8_lossy(value).into_owned()).collect()
}

fn target(message: &OwnedMessage) -> Option<String> {
    Some(message.contacts().next()?.address()?.uri.as_str().to_owned())
}
