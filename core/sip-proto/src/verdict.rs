//! What this house says to a message before any customer, route or dialog is looked at.
//!
//! Syntax comes first ([`Message::parse`](crate::Message) and [`check`](crate::Parsed::check)); then what a proxy and registrar must refuse by
//! RFC 3261 sections 10.3 and 16.3 whatever the routing would say.

use rsip::Method;

use crate::fault::{Answer, Fault, FaultKind};
use crate::header::HeaderName;
use crate::message::{Message, Parsed};
use crate::scan::Limits;
use crate::uri::Scheme;

/// What we do with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Work with it.
    Accept,
    /// Answer it with this status.
    Reject {
        /// The status code.
        status: u16,
        /// A bounded reason.
        reason: &'static str,
        /// Where in the message.
        position: usize,
    },
    /// Drop it without an answer.
    Discard {
        /// A bounded reason.
        reason: &'static str,
        /// Where in the message.
        position: usize,
    },
}

/// Judges one whole message (a datagram or a framed piece of a stream).
#[must_use]
pub fn judge(bytes: &[u8], limits: &Limits) -> Verdict {
    let verdict = Message::parse(bytes, limits).and_then(|message| {
        message.check()?;
        admit(&message)
    });
    match verdict {
        Ok(()) => Verdict::Accept,
        Err(fault) => fault.into(),
    }
}

/// What a proxy and registrar must refuse although the syntax is right.
///
/// # Errors
/// The first reason to refuse.
pub fn admit<B: AsRef<[u8]>>(message: &Parsed<B>) -> Result<(), Fault> {
    if message.is_request() { admit_request(message) } else { admit_response(message) }
}

fn admit_request<B: AsRef<[u8]>>(message: &Parsed<B>) -> Result<(), Fault> {
    let fault = |name, kind| Fault::new(message.position(name), kind);
    let uri_at = message.method().len() + 1;
    let uri = message.uri().ok_or(Fault::new(uri_at, FaultKind::RequestUri))?;
    if uri.scheme() == Scheme::Other && !uri.is_emergency() {
        return Err(Fault::new(uri_at, FaultKind::UnknownScheme));
    }
    if uri.headers().is_some() {
        return Err(Fault::new(uri_at, FaultKind::RequestUriHeaders));
    }
    if message.max_forwards() == Some(0) {
        return Err(fault(HeaderName::MaxForwards, FaultKind::TooManyHops));
    }
    if message.tokens(HeaderName::ProxyRequire).next().is_some() {
        return Err(fault(HeaderName::ProxyRequire, FaultKind::BadExtension));
    }
    let is_register = message.known_method() == Some(Method::Register);
    if is_register && !message.to().is_some_and(|to| to.uri.is_sip() || to.uri.scheme() == Scheme::Tel) {
        return Err(fault(HeaderName::To, FaultKind::AddressOfRecordScheme));
    }
    Ok(())
}

fn admit_response<B: AsRef<[u8]>>(message: &Parsed<B>) -> Result<(), Fault> {
    let next = message.headers(HeaderName::Via).nth(1).and_then(crate::via::Via::parse);
    let is_broadcast = |ip: std::net::IpAddr| match ip {
        std::net::IpAddr::V4(ip) => ip.is_broadcast() || ip.is_multicast(),
        std::net::IpAddr::V6(ip) => ip.is_multicast(),
    };
    let target = next.and_then(|via| via.received().or_else(|| via.host_ip()));
    if target.is_some_and(is_broadcast) {
        return Err(Fault::new(message.position(HeaderName::Via), FaultKind::BroadcastVia).discarded());
    }
    Ok(())
}

impl From<Fault> for Verdict {
    fn from(fault: Fault) -> Self {
        let (reason, position) = (fault.reason(), fault.position);
        match fault.answer {
            Answer::Reject(status) => Self::Reject { status, reason, position },
            Answer::Discard => Self::Discard { reason, position },
        }
    }
}
