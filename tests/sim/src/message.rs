//! The messages of a phone, as text.

use belfry_sip_proto::{HeaderName, Limits, OwnedMessage};

pub(crate) const DOMAIN: &str = "belfry.test";
pub(crate) const PASSWORD: &str = "secret";

/// A message that arrived.
#[derive(Clone, Debug)]
pub(crate) struct Message(OwnedMessage);

impl Message {
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let message = OwnedMessage::parse(bytes.to_vec(), &Limits::default()).ok()?;
        message.check().ok()?;
        Some(Self(message))
    }

    pub(crate) fn sip(&self) -> &OwnedMessage {
        &self.0
    }

    /// 0 of a request.
    pub(crate) fn status(&self) -> u16 {
        self.0.status().unwrap_or_default()
    }

    pub(crate) fn method(&self) -> &str {
        self.0.method()
    }

    pub(crate) fn header(&self, name: HeaderName) -> String {
        self.0.header_text(name).unwrap_or_default().into_owned()
    }

    /// Every value of a list, one each.
    pub(crate) fn values(&self, name: HeaderName) -> Vec<String> {
        self.0.headers(name).map(|value| String::from_utf8_lossy(value).into_owned()).collect()
    }

    pub(crate) fn call_id(&self) -> String {
        self.0.call_id().unwrap_or_default().to_owned()
    }

    pub(crate) fn branch(&self) -> String {
        self.0.top_via().and_then(|via| via.branch().map(str::to_owned)).unwrap_or_default()
    }

    pub(crate) fn cseq(&self) -> u32 {
        self.0.cseq().map_or(0, |cseq| cseq.number)
    }

    pub(crate) fn sender_tag(&self) -> String {
        self.0.from_tag().unwrap_or_default().to_owned()
    }

    pub(crate) fn to_tag(&self) -> String {
        self.0.to_tag().unwrap_or_default().to_owned()
    }

    /// Where requests of the dialog go that this message makes.
    pub(crate) fn contact(&self) -> Option<String> {
        let contact = self.0.contacts().next()?;
        Some(contact.address()?.uri.as_str().to_owned())
    }

    /// What it is called in traces, and by the dice: the same in two runs of a seed.
    pub(crate) fn label(&self) -> String {
        let (cseq, method) = (self.cseq(), self.method());
        match self.status() {
            0 => format!("{method} {cseq}"),
            status => format!("{status} {method} {cseq}"),
        }
    }

    /// The response to this request: what must be copied, and these headers.
    pub(crate) fn answer(&self, status: u16, tag: &str, extra: &str, body: &str) -> Vec<u8> {
        let mut text = format!("SIP/2.0 {status} {}\n", belfry_sip_proto::build::reason_phrase(status));
        for via in self.values(HeaderName::Via) {
            text.push_str(&format!("Via: {via}\n"));
        }
        if status < 300 {
            for route in self.values(HeaderName::RecordRoute) {
                text.push_str(&format!("Record-Route: {route}\n"));
            }
        }
        let to = self.header(HeaderName::To);
        let to = if self.to_tag().is_empty() && !tag.is_empty() { format!("{to};tag={tag}") } else { to };
        let (from, call_id) = (self.header(HeaderName::From), self.header(HeaderName::CallId));
        let cseq = self.header(HeaderName::CSeq);
        text.push_str(&format!("From: {from}\nTo: {to}\nCall-ID: {call_id}\nCSeq: {cseq}\n{extra}"));
        finish(&text, body)
    }

    /// The ACK of a failure, of the transaction of this INVITE (RFC 3261 section 17.1.1.3).
    pub(crate) fn ack_of(&self, failure: &Self) -> Vec<u8> {
        belfry_sip_proto::build::ack_to(&self.0, &failure.0)
    }

    /// Its CANCEL.
    pub(crate) fn cancel(&self) -> Vec<u8> {
        belfry_sip_proto::build::cancel_of(&self.0)
    }
}

/// Ends a head, whose lines end in `\n`, and puts the body behind.
pub(crate) fn finish(head: &str, body: &str) -> Vec<u8> {
    let head = head.trim_end().replace('\n', "\r\n");
    let content_type = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
    format!("{head}\r\n{content_type}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// A session description of a phone.
pub(crate) fn sdp(phone: usize, version: u32, direction: &str) -> String {
    format!(
        "v=0\r\no=- {phone} {version} IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n\
         a={direction}\r\n"
    )
}
