//! The messages of a phone, as plain as phones send them.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use belfry_sip_proto::build::{Writer, response};
use belfry_sip_proto::digest::{Answering, Challenge};
use belfry_sip_proto::{HeaderName, Message};

use crate::{Arguments, Row};

const SDP: &str = "v=0\r\no=- 1 1 IN IP4 192.0.2.7\r\ns=-\r\nc=IN IP4 192.0.2.7\r\nt=0 0\r\n\
    m=audio 40000 RTP/AVP 0 8 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\n\
    a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=sendrecv\r\n";

/// The number of the request that only asks for a nonce: above all others.
pub(crate) const NONCE_NUMBER: u32 = 1 << 28;

/// Who speaks to whom, the same for all messages of a run.
pub(crate) struct Desk {
    domain: String,
    password: String,
    via: &'static str,
    users: u32,
    first_user: u32,
    expires: u32,
    /// Rises from run to run and within each, as the CSeq of one phone must.
    cseq: u32,
    run: u32,
}

/// A dialog from the caller's side, from the 200 to its INVITE.
pub(crate) struct Dialog {
    routes: Vec<String>,
    remote: String,
    to: String,
}

impl Desk {
    pub(crate) fn new(arguments: &Arguments, via: &'static str) -> Self {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        // Room for a few hundred requests per user and second.
        let cseq = u32::try_from(seconds % (1 << 22)).unwrap_or(0) << 9;
        Self {
            domain: arguments.domain.clone(),
            password: arguments.password.clone(),
            via,
            users: arguments.users,
            first_user: arguments.first_user,
            expires: if arguments.row == Row::Unregister { 0 } else { 600 },
            cseq,
            run: std::process::id(),
        }
    }

    /// The callee of a caller.
    pub(crate) fn callee(&self, user: u32) -> u32 {
        self.first_user + (user - self.first_user + 1) % self.users
    }

    /// What the answer to a challenge says.
    fn credentials(&self, challenge: &Challenge, user: u32, method: &str, uri: &str, number: u32) -> String {
        challenge.answer(&Answering {
            username: &format!("user{user}"),
            password: &self.password,
            method,
            uri,
            // Together with the process, never the same: the server counts the uses of a nonce per client nonce.
            cnonce: &format!("{:x}{number:x}", self.run),
            nonce_count: 1,
        })
    }

    fn head(&self, method: &str, uri: &str, local: SocketAddr, branch: &str) -> String {
        format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/{} {local};branch=z9hG4bK{branch};rport\r\n\
             Max-Forwards: 70\r\nUser-Agent: Belfry load 1\r\n",
            self.via
        )
    }

    pub(crate) fn register(
        &self,
        user: u32,
        number: u32,
        step: u32,
        local: SocketAddr,
        challenge: Option<&Challenge>,
    ) -> Vec<u8> {
        let domain = &self.domain;
        let uri = format!("sip:{domain}");
        let mut text = self.head("REGISTER", &uri, local, &branch(self.run, number, step));
        let cseq = self.cseq + (number / self.users % 64) * 4 + step;
        let transport = if self.via == "UDP" { String::new() } else { format!(";transport={}", self.via) };
        let _ = write!(
            text,
            "From: <sip:user{user}@{domain}>;tag={number:x}\r\nTo: <sip:user{user}@{domain}>\r\n\
             Call-ID: {user}-of-the-desk@127.0.0.1\r\nCSeq: {cseq} REGISTER\r\n\
             Contact: <sip:user{user}@{local}{transport}>\r\nExpires: {}\r\n\
             Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, NOTIFY, INFO, UPDATE\r\n",
            self.expires
        );
        if let Some(challenge) = challenge {
            let credentials = self.credentials(challenge, user, "REGISTER", &uri, number);
            let _ = write!(text, "Authorization: {credentials}\r\n");
        }
        text.push_str("Content-Length: 0\r\n\r\n");
        text.into_bytes()
    }

    pub(crate) fn options(&self, number: u32, local: SocketAddr) -> Vec<u8> {
        let domain = &self.domain;
        let mut text = self.head("OPTIONS", &format!("sip:{domain}"), local, &branch(self.run, number, 0));
        let _ = write!(
            text,
            "From: <sip:probe@{domain}>;tag={number:x}\r\nTo: <sip:{domain}>\r\n\
             Call-ID: {number:x}.{:x}@127.0.0.1\r\nCSeq: 1 OPTIONS\r\nContact: <sip:probe@{local}>\r\n\
             Accept: application/sdp\r\nContent-Length: 0\r\n\r\n",
            self.run
        );
        text.into_bytes()
    }

    pub(crate) fn invite(
        &self,
        user: u32,
        number: u32,
        local: SocketAddr,
        challenge: Option<&Challenge>,
    ) -> Vec<u8> {
        let (domain, callee) = (&self.domain, self.callee(user));
        let uri = format!("sip:user{callee}@{domain}");
        let mut text = self.head("INVITE", &uri, local, &branch(self.run, number, 0));
        let _ = write!(text, "{}CSeq: 1 INVITE\r\n", self.parties(user, number, None));
        if let Some(challenge) = challenge {
            let credentials = self.credentials(challenge, user, "INVITE", &uri, number);
            let _ = write!(text, "Proxy-Authorization: {credentials}\r\n");
        }
        let _ = write!(
            text,
            "Contact: <sip:user{user}@{local}>\r\nAllow: INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE\r\n\
             Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{SDP}",
            SDP.len()
        );
        text.into_bytes()
    }

    /// The ACK of a 200, or the BYE after it (RFC 3261 section 12.2.1.1).
    pub(crate) fn in_dialog(
        &self,
        method: &str,
        user: u32,
        number: u32,
        local: SocketAddr,
        dialog: &Dialog,
    ) -> Vec<u8> {
        let (step, cseq) = if method == "ACK" { (1, 1) } else { (2, 2) };
        let mut text = self.head(method, &dialog.remote, local, &branch(self.run, number, step));
        for route in &dialog.routes {
            let _ = write!(text, "Route: {route}\r\n");
        }
        let parties = self.parties(user, number, Some(&dialog.to));
        let _ = write!(text, "{parties}CSeq: {cseq} {method}\r\nContent-Length: 0\r\n\r\n");
        text.into_bytes()
    }

    fn parties(&self, user: u32, number: u32, to: Option<&str>) -> String {
        let domain = &self.domain;
        let to = to.map_or_else(|| format!("<sip:user{}@{domain}>", self.callee(user)), str::to_owned);
        format!(
            "From: <sip:user{user}@{domain}>;tag={number:x}\r\nTo: {to}\r\n\
             Call-ID: {number:x}.{:x}@127.0.0.1\r\n",
            self.run
        )
    }

    /// The piece of work and the step that a response belongs to.
    pub(crate) fn place_of(&self, response: &Message<'_>) -> Option<(u32, u32)> {
        let via = response.top_via()?;
        let mut parts =
            via.branch()?.strip_prefix("z9hG4bK")?.split('.').map(|part| u32::from_str_radix(part, 16));
        let (run, number, step) = (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
        (run == self.run).then_some((number, step))
    }
}

fn branch(run: u32, number: u32, step: u32) -> String {
    format!("{run:x}.{number:x}.{step:x}")
}

/// The challenge that we can answer.
pub(crate) fn challenge_of(response: &Message<'_>) -> Option<Challenge> {
    let name = match response.status()? {
        401 => HeaderName::WwwAuthenticate,
        407 => HeaderName::ProxyAuthenticate,
        _ => return None,
    };
    response.headers(name).find_map(|value| Challenge::parse(value).ok())
}

pub(crate) fn dialog_of(response: &Message<'_>) -> Option<Dialog> {
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let mut routes: Vec<String> = response.headers(HeaderName::RecordRoute).map(text).collect();
    routes.reverse();
    let remote = response.contacts().next()?.address()?.uri.as_str().to_owned();
    Some(Dialog { routes, remote, to: response.header_text(HeaderName::To)?.into_owned() })
}

/// The answers of a phone that is called: it rings and picks up at once, or confirms the end.
pub(crate) fn answers_to(request: &Message<'_>, local: SocketAddr) -> Vec<Vec<u8>> {
    let contact = format!("<sip:phone@{local}>");
    let tag = Some("callee");
    match request.method() {
        "INVITE" => {
            let answer = |status| response(request, status, None, tag).header(HeaderName::Contact, &contact);
            let with_sdp = |writer: Writer| {
                writer.header(HeaderName::ContentType, "application/sdp").finish_with_body(SDP.as_bytes())
            };
            vec![answer(180).finish(), with_sdp(answer(200))]
        }
        "ACK" => Vec::new(),
        _ => vec![response(request, 200, None, tag).finish()],
    }
}
