//! The edits of RFC 3261 section 16.6: what a request looks like when it leaves.

use std::sync::Arc;

use belfry_relay_api::Leg;
use belfry_signal::TraceId;
use belfry_sip_proto::digest::Credentials;
use belfry_sip_proto::{Edit, HeaderName, NameAddr, OwnedMessage, Via};

use crate::calls::hop_of;
use crate::core::Core;
use crate::edges::{Hop, Way};
use crate::exchange::{Destination, Policy};
use crate::received::Received;
use crate::signals::MethodName;

/// A request ready to leave.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) way: Arc<Way>,
    pub(crate) branch: String,
    pub(crate) bytes: Vec<u8>,
}

/// How a request leaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leaving<'a> {
    pub(crate) destination: &'a Destination,
    /// The flow or address of the destination that is used.
    pub(crate) hop: &'a Hop,
    /// Top Route values that named us.
    pub(crate) routes_used: usize,
    /// Whether we stay in the path of the dialog.
    pub(crate) is_recorded: bool,
    /// The session description in place of its own.
    pub(crate) body: Option<&'a [u8]>,
    /// Its share of Max-Breadth; within a dialog nothing is forked.
    pub(crate) breadth: Option<u8>,
    /// What answers the next hop's challenge.
    pub(crate) authorization: Option<&'a (HeaderName, String)>,
}

impl<'a> Leaving<'a> {
    /// Within a dialog.
    pub(crate) fn in_dialog(destination: &'a Destination, hop: &'a Hop, routes_used: usize) -> Self {
        let (is_recorded, body, breadth, authorization) = (false, None, None, None);
        Self { destination, hop, routes_used, is_recorded, body, breadth, authorization }
    }
}

impl Core {
    /// The request as it leaves; `None` when the edge to leave by is unknown.
    pub(crate) fn prepare(&self, request: &Received, leaving: Leaving<'_>) -> Option<Prepared> {
        let Leaving { destination, hop, routes_used, is_recorded, .. } = leaving;
        let message = &request.message;
        let address = self.edges.address(&hop.edge, hop.transport)?;
        let branch = self.new_branch(self.loop_mark(request, destination));
        let via = via_value(hop.transport.via_token(), &address.host, address.port, &branch);
        let hops = message.max_forwards().map_or(70, |hops| hops.saturating_sub(1));
        let mut edit = Edit::new(message).set_max_forwards(hops);
        if let Some(breadth) = leaving.breadth {
            edit = edit.set(HeaderName::MaxBreadth, &breadth.to_string());
        }
        edit = routed(edit, message, destination, routes_used);
        let is_masked = self.calls.get(request.call_id()).is_some_and(|call| call.twin.is_some());
        if is_masked {
            edit = self.masked_request(edit, request, hop, &via)?;
        } else {
            edit = edit.prepend(HeaderName::Via, &via);
        }
        edit = self.with_named_dialogs(edit, request.method, message);
        if is_recorded && !is_masked {
            // A dialog's Routes are those of its first request: one that goes on makes none that are younger.
            let began = if request.is_in_dialog() { 0 } else { request.unix_nanos };
            // The caller's side first, so that the callee's stands on top (RFC 5658 section 4).
            for (hop, leg) in [(&hop_of(request), Leg::Caller), (hop, Leg::Callee)] {
                if let Some(route) = self.route_of(hop, leg, request.call_id(), began) {
                    edit = edit.prepend(HeaderName::RecordRoute, &route);
                }
            }
        }
        if self.holds_only_our_credentials(message) {
            edit = edit.remove(HeaderName::ProxyAuthorization);
        }
        if let Some((name, value)) = leaving.authorization {
            edit = edit.append(name.as_str(), value);
        }
        if let Some(policy) = &destination.policy {
            edit = obeying(edit, policy);
        }
        edit = self.with_session_timer(edit, request);
        if let Some(body) = leaving.body {
            edit = edit.set_body(None, body);
        }
        let way = way_to(hop, request.method, message, request.call_id(), request.trace_id);
        Some(Prepared { way, branch, bytes: edit.finish() })
    }

    /// Credentials for us need not travel on to the called phone (RFC 3261 section 22.3).
    fn holds_only_our_credentials(&self, message: &OwnedMessage) -> bool {
        let mut values = message.headers(HeaderName::ProxyAuthorization).peekable();
        values.peek().is_some()
            && values.all(|value| {
                Credentials::parse(value)
                    .is_ok_and(|credentials| self.config.domains.contains(&credentials.realm.into_owned()))
            })
    }

    pub(crate) fn new_branch(&self, mark: u64) -> String {
        format!("z9hG4bK{:016x}.{mark:016x}", rand::random::<u64>())
    }

    /// What a request looks like when it comes back unchanged (RFC 3261 section 16.6 step 8, RFC 5393 section 4).
    fn loop_mark(&self, request: &Received, destination: &Destination) -> u64 {
        let message = &request.message;
        let uri = destination.uri.as_deref().unwrap_or_else(|| message.request_uri());
        let routes: Vec<&[u8]> = message.headers(HeaderName::Route).collect();
        let cseq = message.cseq().map_or(0, |cseq| cseq.number);
        self.hash(LoopParts {
            call_id: request.call_id(),
            from_tag: message.from_tag(),
            to_tag: message.to_tag(),
            cseq,
            uri,
            routes: &routes,
        })
    }

    /// Whether this request would leave as it left before (RFC 3261 section 16.3 step 4).
    pub(super) fn is_looping(&self, request: &Received, destination: &Destination) -> bool {
        let vias = || request.message.headers(HeaderName::Via).filter_map(Via::parse);
        // Most requests were nowhere yet: then the mark need not be known.
        if !vias().filter_map(|via| via.branch()).any(is_marked) {
            return false;
        }
        let mark = format!(".{:016x}", self.loop_mark(request, destination));
        vias().filter_map(|via| via.branch()).any(|branch| branch.ends_with(&mark))
    }
}

/// Whether a branch ends with a loop mark, as ours do.
fn is_marked(branch: &str) -> bool {
    branch.len() == 40 && branch.as_bytes().get(23) == Some(&b'.')
}

/// Request-URI and Route of a request that leaves (RFC 3261 section 16.6 steps 2 and 6): our own Routes go, the
/// registration's path comes, and a next hop that is a strict router finds itself in the Request-URI.
fn routed<'m>(
    mut edit: Edit<'m>,
    message: &'m OwnedMessage,
    destination: &Destination,
    routes_used: usize,
) -> Edit<'m> {
    let uri = destination.uri.as_deref().unwrap_or_else(|| message.request_uri());
    let first_of_path = destination.path.first().and_then(|value| NameAddr::parse(value.as_bytes()));
    let next = first_of_path
        .or_else(|| message.headers(HeaderName::Route).nth(routes_used).and_then(NameAddr::parse));
    let is_loose = next.is_none_or(|next| next.uri.param("lr").is_some());
    if is_loose {
        if routes_used > 0 {
            edit = edit.remove_top_values(HeaderName::Route, routes_used);
        }
        for value in destination.path.iter().rev() {
            edit = edit.prepend(HeaderName::Route, value);
        }
        return match &destination.uri {
            Some(uri) => edit.set_request_uri(uri),
            None => edit,
        };
    }
    // A strict router (RFC 3261 section 16.12.1.2): itself into the Request-URI, the target to the end of Route.
    let is_from_path = !destination.path.is_empty();
    let removed = routes_used + usize::from(!is_from_path);
    if removed > 0 {
        edit = edit.remove_top_values(HeaderName::Route, removed);
    }
    for value in destination.path.iter().skip(1).rev() {
        edit = edit.prepend(HeaderName::Route, value);
    }
    let target = format!("<{uri}>");
    edit = edit.append(HeaderName::Route.as_str(), &target);
    match next {
        Some(next) => edit.set_request_uri(next.uri.as_str()),
        None => edit,
    }
}

/// What a peer's policy does to a request.
fn obeying<'m>(edit: Edit<'m>, policy: &Policy) -> Edit<'m> {
    let removed =
        policy.remove.iter().fold(edit, |edit, name| match HeaderName::from_bytes(name.as_bytes()) {
            HeaderName::Other => edit.remove_extension(name),
            known if is_ours_to_write(known) => edit,
            known => edit.remove(known),
        });
    policy.add.iter().fold(removed, |edit, (name, value)| edit.append(name, value))
}

/// Headers without which a request does not arrive, or its answers do not.
pub(super) fn is_ours_to_write(name: HeaderName) -> bool {
    matches!(
        name,
        HeaderName::Via
            | HeaderName::From
            | HeaderName::To
            | HeaderName::CallId
            | HeaderName::CSeq
            | HeaderName::Route
            | HeaderName::RecordRoute
            | HeaderName::Contact
            | HeaderName::MaxForwards
            | HeaderName::ContentLength
            | HeaderName::ContentType
    )
}

#[derive(Hash)]
struct LoopParts<'a> {
    call_id: &'a str,
    from_tag: Option<&'a str>,
    to_tag: Option<&'a str>,
    cseq: u32,
    uri: &'a str,
    routes: &'a [&'a [u8]],
}

/// The way of a request to a hop.
pub(crate) fn way_to(
    hop: &Hop,
    method: MethodName,
    message: &OwnedMessage,
    call_id: &str,
    trace_id: TraceId,
) -> Arc<Way> {
    let cseq = message.cseq().map_or_else(String::new, |cseq| format!("{} {}", cseq.number, cseq.method));
    Arc::new(Way {
        edge: Arc::clone(&hop.edge),
        target: hop.target.clone(),
        transport: hop.transport,
        peer: hop.peer,
        method,
        call_id: call_id.into(),
        trace_id,
        cseq: cseq.into(),
    })
}

pub(crate) fn via_value(transport: &str, host: &str, port: u16, branch: &str) -> String {
    format!("SIP/2.0/{transport} {host}:{port};branch={branch}")
}

#[cfg(test)]
mod tests {
    use belfry_sip_proto::Limits;

    use super::*;

    #[test]
    fn a_policy_changes_what_it_may() {
        let text = "INVITE sip:b@x SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\nFrom: <sip:a@x>;tag=1\r\n\
                    To: <sip:b@x>\r\nCall-ID: 1\r\nCSeq: 1 INVITE\r\nUser-Agent: phone\r\nX-Inner: secret\r\n\
                    x-INNER: more\r\nContent-Length: 0\r\n\r\n";
        let message = OwnedMessage::parse(text.as_bytes().to_vec(), &Limits::default()).expect("valid");
        let policy = Policy {
            name: "carrier".into(),
            credentials: None,
            remove: ["x-inner", "user-agent", "Via", "Call-ID"].map(str::to_owned).to_vec(),
            add: vec![("X-Trunk".to_owned(), "7".to_owned())],
        };
        let changed = obeying(Edit::new(&message), &policy).finish();
        let expected = text
            .replace("User-Agent: phone\r\n", "")
            .replace("X-Inner: secret\r\n", "")
            .replace("x-INNER: more\r\n", "")
            .replace("Content-Length: 0\r\n", "Content-Length: 0\r\nX-Trunk: 7\r\n");
        assert_eq!(String::from_utf8_lossy(&changed), expected);
    }

    #[test]
    fn marks_are_known_by_their_form() {
        for (branch, expected) in [
            ("z9hG4bK0123456789abcdef.0123456789abcdef", true),
            ("z9hG4bK0123456789abcdef-0123456789abcdef", false),
            ("z9hG4bK1", false),
            ("", false),
        ] {
            assert_eq!(is_marked(branch), expected, "{branch}");
        }
    }
}
