//! Requests outside calls: REGISTER and OPTIONS, with digest.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use belfry_sip_proto::build::Writer;
use belfry_sip_proto::digest::{Answering, Challenge};
use belfry_sip_proto::{HeaderName, OwnedMessage};
use tokio::time::Instant;

use super::endpoint::{Endpoint, branch, token};
use crate::error::Error;

/// A registration that stands (or, with zero seconds, is gone).
#[derive(Clone, Debug, PartialEq)]
pub struct Registered {
    /// The lifetime that was granted, in seconds.
    pub seconds: u32,
    /// From the first REGISTER to the 200.
    pub took: Duration,
    /// Whether a challenge was answered on the way.
    pub was_challenged: bool,
    /// How many contacts the address of record has now.
    pub contacts: usize,
}

/// Registers for this long.
pub(super) async fn register(endpoint: &Arc<Endpoint>, expires: Duration) -> Result<Registered, Error> {
    let start = Instant::now();
    let mut was_challenged = false;
    loop {
        let response = endpoint.transact(request(endpoint, expires)).await?;
        match response.status().unwrap_or(0) {
            200 => return Ok(granted(endpoint, &response, start.elapsed(), was_challenged)),
            401 | 407 if !was_challenged => {
                let challenge =
                    best_challenge(&response).ok_or(Error::Protocol("no challenge we can answer"))?;
                *endpoint.challenge.lock().unwrap_or_else(PoisonError::into_inner) = Some((challenge, 0));
                was_challenged = true;
            }
            status => {
                *endpoint.challenge.lock().unwrap_or_else(PoisonError::into_inner) = None;
                return Err(Error::Rejected { status });
            }
        }
    }
}

/// Sends OPTIONS; the status code of the final response.
pub(super) async fn options(endpoint: &Arc<Endpoint>, target: &str) -> Result<u16, Error> {
    let own = endpoint.address_of_record();
    let request = Writer::request("OPTIONS", target)
        .header(HeaderName::Via, &endpoint.via(&branch()))
        .header(HeaderName::MaxForwards, "70")
        .header(HeaderName::From, &format!("<{own}>;tag={}", token()))
        .header(HeaderName::To, &format!("<{target}>"))
        .header(HeaderName::CallId, &token())
        .header(HeaderName::CSeq, "1 OPTIONS")
        .header(HeaderName::Contact, &endpoint.contact())
        .finish();
    Ok(endpoint.transact(request).await?.status().unwrap_or(0))
}

fn request(endpoint: &Endpoint, expires: Duration) -> Vec<u8> {
    let own = endpoint.address_of_record();
    let uri = format!("sip:{}", endpoint.config.domain);
    let (call_id, sequence) = {
        let mut register = endpoint.register_sequence.lock().unwrap_or_else(PoisonError::into_inner);
        register.1 += 1;
        register.clone()
    };
    let contact = format!("{};+sip.instance=\"<{}>\";reg-id=1", endpoint.contact(), endpoint.instance);
    let mut writer = Writer::request("REGISTER", &uri)
        .header(HeaderName::Via, &endpoint.via(&branch()))
        .header(HeaderName::MaxForwards, "70")
        .header(HeaderName::From, &format!("<{own}>;tag={}", token()))
        .header(HeaderName::To, &format!("<{own}>"))
        .header(HeaderName::CallId, &call_id)
        .header(HeaderName::CSeq, &format!("{sequence} REGISTER"))
        .header(HeaderName::Contact, &contact)
        .header(HeaderName::Expires, &expires.as_secs().to_string())
        .header(HeaderName::Supported, "path, outbound, gruu")
        .header(HeaderName::UserAgent, "belfry-kit");
    let mut challenge = endpoint.challenge.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((challenge, count)) = challenge.as_mut() {
        *count += 1;
        let answer = answer(endpoint, challenge, *count, "REGISTER", &uri);
        writer = writer.header(HeaderName::Authorization, &answer);
    }
    writer.finish()
}

/// The first challenge that can be answered: the server puts the one that it likes best on top (RFC 8760 section 2.4).
pub(super) fn best_challenge(response: &OwnedMessage) -> Option<Challenge> {
    let name = challenge_header(response);
    response.headers(name).find_map(|value| Challenge::parse(value).ok())
}

/// The header that carries the answer to this challenge.
pub(super) fn answer_header(response: &OwnedMessage) -> HeaderName {
    match challenge_header(response) {
        HeaderName::ProxyAuthenticate => HeaderName::ProxyAuthorization,
        _ => HeaderName::Authorization,
    }
}

pub(super) fn answer(
    endpoint: &Endpoint,
    challenge: &Challenge,
    nonce_count: u32,
    method: &str,
    uri: &str,
) -> String {
    challenge.answer(&Answering {
        username: &endpoint.config.user,
        password: &endpoint.config.password,
        method,
        uri,
        cnonce: &token(),
        nonce_count,
    })
}

fn challenge_header(response: &OwnedMessage) -> HeaderName {
    if response.status() == Some(407) { HeaderName::ProxyAuthenticate } else { HeaderName::WwwAuthenticate }
}

fn granted(endpoint: &Endpoint, response: &OwnedMessage, took: Duration, was_challenged: bool) -> Registered {
    let own = endpoint.contact();
    let own = own.trim_matches(['<', '>']);
    let mut contacts = 0;
    let mut seconds = None;
    for contact in response.contacts() {
        contacts += 1;
        if contact.address().is_some_and(|address| address.uri.as_str() == own) {
            seconds = contact.expires_seconds();
        }
    }
    let seconds = seconds.or(response.expires_seconds()).unwrap_or(0);
    Registered { seconds, took, was_challenged, contacts }
}
