//! Digest authentication (RFC 7616 and RFC 8760 as used by RFC 3261 section 22): both sides, MD5 and SHA-256.
//!
//! The server side keeps no state: a nonce is its time of issue and a keyed hash of it, so any core of a site with
//! the same key can check any other's. The key, the time and client nonces are arguments.
//! `auth-int`, which protects the body too, is offered when it is asked for and taken when a client uses it.
//! Not here: counting of nonce uses, which needs state (the count is handed to the caller).

use std::borrow::Cow;
use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::header::split_list;
use crate::text::{is_token, trim, unquote};

/// The hash, and whether the session variant is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// MD5, which every phone has.
    Md5,
    /// MD5-sess.
    Md5Sess,
    /// SHA-256 (RFC 8760).
    Sha256,
    /// SHA-256-sess.
    Sha256Sess,
}

/// A hash in lower-case hexadecimal.
struct Hash {
    text: [u8; 64],
    length: usize,
}

impl Hash {
    fn of<'a, D: sha2::Digest>(parts: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut digest = D::new();
        for (number, part) in parts.enumerate() {
            if number > 0 {
                digest.update(b":");
            }
            digest.update(part);
        }
        let mut hash = Self { text: [0; 64], length: 0 };
        let (bytes, length) = (digest.finalize(), 2 * <D as sha2::Digest>::output_size());
        // Neither hash is longer than 32 bytes.
        if let Some(text) = hash.text.get_mut(..length)
            && hex::encode_to_slice(bytes, text).is_ok()
        {
            hash.length = length;
        }
        hash
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text[..self.length]).unwrap_or_default()
    }
}

/// Signs and checks nonces.
#[derive(Clone)]
pub struct NonceKey(Option<Hmac<Sha256>>);

/// The time and the salt at the beginning of a nonce.
const ISSUE_BYTES: usize = 12;
/// Of the keyed hash, so much follows.
const SEAL_BYTES: usize = 16;

/// Qualities of protection (RFC 7616 section 3.4).
const AUTH: &str = "auth";
const AUTH_INT: &str = "auth-int";

/// What a nonce is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nonce {
    /// Ours and young enough.
    Fresh,
    /// Ours but too old: challenge again with `stale=true`, and the phone will not ask its user.
    Stale,
    /// Not ours.
    Foreign,
}

/// What a server asks for in WWW-Authenticate or Proxy-Authenticate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// The realm.
    pub realm: String,
    /// The nonce.
    pub nonce: String,
    /// The opaque value, given back as it came.
    pub opaque: Option<String>,
    /// The algorithm.
    pub algorithm: Algorithm,
    /// Whether `qop=auth` is offered.
    pub offers_auth: bool,
    /// Whether `qop=auth-int` is offered, which protects the body as well.
    pub offers_auth_int: bool,
    /// Whether the credentials were good and only the nonce too old.
    pub stale: bool,
}

/// What a client sends in Authorization or Proxy-Authorization.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials<'a> {
    /// Whose.
    pub username: Cow<'a, str>,
    /// For which realm.
    pub realm: Cow<'a, str>,
    /// Against which nonce.
    pub nonce: Cow<'a, str>,
    /// The digest-uri, hashed exactly as it stands.
    pub uri: Cow<'a, str>,
    /// The answer, in hexadecimal.
    pub response: Cow<'a, str>,
    /// The algorithm.
    pub algorithm: Algorithm,
    /// The client's nonce.
    pub cnonce: Option<Cow<'a, str>>,
    /// How often this nonce was used, counted by the client. It is hexadecimal on the wire.
    pub nonce_count: Option<u32>,
    /// The quality of protection; none for RFC 2069 clients.
    pub qop: Option<Cow<'a, str>>,
    /// The nonce count as it stands, because it is hashed so.
    nonce_count_text: Option<Cow<'a, str>>,
}

/// A client's side of one answer.
#[derive(Clone, Copy, Debug)]
pub struct Answering<'a> {
    /// Whose.
    pub username: &'a str,
    /// The password.
    pub password: &'a str,
    /// The method of the request.
    pub method: &'a str,
    /// The Request-URI.
    pub uri: &'a str,
    /// A fresh client nonce.
    pub cnonce: &'a str,
    /// The how manieth use of this nonce, from 1.
    pub nonce_count: u32,
}

/// Why a header gives no credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// Another scheme than Digest: as if the header were not there (RFC 4475 section 3.3.7).
    #[error("authentication scheme is not digest")]
    OtherScheme,
    /// An algorithm that we did not offer.
    #[error("digest algorithm is not supported")]
    UnknownAlgorithm,
    /// A quality of protection that we did not offer.
    #[error("quality of protection is not supported")]
    UnknownProtection,
    /// Something that must be there is missing or malformed.
    #[error("digest credentials are malformed")]
    Malformed,
}

impl CredentialsError {
    /// A bounded name for labels.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::OtherScheme => "other_scheme",
            Self::UnknownAlgorithm => "unknown_algorithm",
            Self::UnknownProtection => "unknown_protection",
            Self::Malformed => "malformed",
        }
    }
}

impl Algorithm {
    /// The token on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Md5 => "MD5",
            Self::Md5Sess => "MD5-sess",
            Self::Sha256 => "SHA-256",
            Self::Sha256Sess => "SHA-256-sess",
        }
    }

    /// Knows a token in any case.
    #[must_use]
    pub fn from_token(token: &str) -> Option<Self> {
        [Self::Md5, Self::Md5Sess, Self::Sha256, Self::Sha256Sess]
            .into_iter()
            .find(|algorithm| algorithm.as_str().eq_ignore_ascii_case(token))
    }

    /// Whether the hash is SHA-256; otherwise it is MD5.
    #[must_use]
    pub fn is_sha256(self) -> bool {
        matches!(self, Self::Sha256 | Self::Sha256Sess)
    }

    fn is_session(self) -> bool {
        matches!(self, Self::Md5Sess | Self::Sha256Sess)
    }

    /// The hash of the parts with colons between them.
    fn hash(self, parts: &[&str]) -> Hash {
        let parts = parts.iter().map(|part| part.as_bytes());
        if self.is_sha256() { Hash::of::<Sha256>(parts) } else { Hash::of::<Md5>(parts) }
    }

    fn hash_bytes(self, bytes: &[u8]) -> Hash {
        let parts = std::iter::once(bytes);
        if self.is_sha256() { Hash::of::<Sha256>(parts) } else { Hash::of::<Md5>(parts) }
    }

    /// H(user:realm:password) in lower-case hexadecimal: what a server keeps instead of the password.
    /// The session variant keeps the same one.
    #[must_use]
    pub fn ha1(self, username: &str, realm: &str, password: &str) -> String {
        self.hash(&[username, realm, password]).as_str().to_owned()
    }
}

impl NonceKey {
    /// A key, from a random source or the configuration.
    #[must_use]
    pub fn new(key: [u8; 32]) -> Self {
        // HMAC takes keys of any length, so this cannot fail; an unkeyed seal would only ever match itself.
        Self(Hmac::new_from_slice(&key).ok())
    }

    /// A nonce for this realm, issued at this time. `salt` is a random number: two clients that are challenged in the
    /// same second must not share a nonce, or the second one's first count looks like a replay.
    #[must_use]
    pub fn issue(&self, realm: &str, unix_seconds: u64, salt: u32) -> String {
        let mut issue = [0; ISSUE_BYTES];
        issue[..8].copy_from_slice(&unix_seconds.to_be_bytes());
        issue[8..].copy_from_slice(&salt.to_be_bytes());
        let mut nonce = [0; ISSUE_BYTES + SEAL_BYTES];
        nonce[..ISSUE_BYTES].copy_from_slice(&issue);
        nonce[ISSUE_BYTES..].copy_from_slice(&self.seal(realm, &issue));
        hex::encode(nonce)
    }

    /// What a nonce is worth now. A nonce from more than a minute in the future counts as stale: a clock moved.
    #[must_use]
    pub fn check(&self, realm: &str, nonce: &str, unix_seconds: u64, lifetime_seconds: u64) -> Nonce {
        let mut bytes = [0; ISSUE_BYTES + SEAL_BYTES];
        if hex::decode_to_slice(nonce, &mut bytes).is_err() {
            return Nonce::Foreign;
        }
        let Some((issue, seal)) = bytes.split_first_chunk::<ISSUE_BYTES>() else { return Nonce::Foreign };
        if !bool::from(self.seal(realm, issue).ct_eq(seal)) {
            return Nonce::Foreign;
        }
        let Some((time, _salt)) = issue.split_first_chunk::<8>() else { return Nonce::Foreign };
        let issued = u64::from_be_bytes(*time);
        let is_young = unix_seconds.saturating_sub(issued) <= lifetime_seconds;
        if is_young && issued <= unix_seconds.saturating_add(60) { Nonce::Fresh } else { Nonce::Stale }
    }

    /// When a nonce says that it was issued, in seconds since the Unix epoch; only [`check`](Self::check) tells whether
    /// that is true.
    #[must_use]
    pub fn issued_unix_seconds(nonce: &str) -> Option<u64> {
        let mut time = [0; 8];
        hex::decode_to_slice(nonce.get(..16)?, &mut time).ok()?;
        Some(u64::from_be_bytes(time))
    }

    fn seal(&self, realm: &str, issue: &[u8; ISSUE_BYTES]) -> [u8; SEAL_BYTES] {
        let mut seal = [0; SEAL_BYTES];
        if let Some(mut mac) = self.0.clone() {
            mac.update(issue);
            mac.update(realm.as_bytes());
            seal.copy_from_slice(&mac.finalize().into_bytes()[..SEAL_BYTES]);
        }
        seal
    }
}

impl fmt::Debug for NonceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NonceKey")
    }
}

impl Challenge {
    /// A server's challenge with `qop="auth"`.
    #[must_use]
    pub fn new(realm: &str, nonce: String, algorithm: Algorithm, stale: bool) -> Self {
        let (realm, offers_auth_int) = (realm.to_owned(), false);
        Self { realm, nonce, opaque: None, algorithm, offers_auth: true, offers_auth_int, stale }
    }

    /// The same, and whether `auth-int` is offered beside `auth`.
    #[must_use]
    pub fn with_auth_int(self, offers_auth_int: bool) -> Self {
        Self { offers_auth_int, ..self }
    }

    /// Reads a challenge.
    ///
    /// # Errors
    /// When it is not one that [`answer`](Self::answer) can answer.
    pub fn parse(value: &[u8]) -> Result<Self, CredentialsError> {
        let params = AuthParams::parse(value)?;
        let qop = params.text("qop");
        let offers =
            |wanted: &str| qop.as_ref().is_some_and(|qop| qop.split(',').any(|q| q.trim() == wanted));
        let (offers_auth, offers_auth_int) = (offers("auth"), offers("auth-int"));
        if qop.is_some() && !offers_auth && !offers_auth_int {
            return Err(CredentialsError::UnknownProtection);
        }
        Ok(Self {
            realm: params.required("realm")?.into_owned(),
            nonce: params.required("nonce")?.into_owned(),
            opaque: params.text("opaque").map(Cow::into_owned),
            algorithm: params.algorithm()?,
            offers_auth,
            offers_auth_int,
            stale: params.text("stale").is_some_and(|stale| stale.eq_ignore_ascii_case("true")),
        })
    }

    /// The value of Authorization or Proxy-Authorization that answers this challenge, for a request without a body.
    #[must_use]
    pub fn answer(&self, with: &Answering<'_>) -> String {
        self.answer_for(with, b"")
    }

    /// The same for a request with this body, which is protected where nothing but `auth-int` is offered.
    #[must_use]
    pub fn answer_for(&self, with: &Answering<'_>, body: &[u8]) -> String {
        let count = format!("{:08x}", with.nonce_count);
        let ha1 = self.algorithm.ha1(with.username, &self.realm, with.password);
        let qop = match (self.offers_auth, self.offers_auth_int) {
            (true, _) => Some(AUTH),
            (false, true) => Some(AUTH_INT),
            (false, false) => None,
        };
        let protection = qop.map(|qop| (count.as_str(), with.cnonce, qop));
        let request = (with.method, with.uri, body);
        let response = compute(self.algorithm, &ha1, &self.nonce, Some(with.cnonce), protection, request);
        let response = response.as_str();
        let mut value = format!(
            "Digest username={}, realm={}, nonce={}, uri={}, response=\"{response}\", algorithm={}",
            quoted(with.username),
            quoted(&self.realm),
            quoted(&self.nonce),
            quoted(with.uri),
            self.algorithm.as_str(),
        );
        if qop.is_some() || self.algorithm.is_session() {
            value.push_str(&format!(", cnonce={}", quoted(with.cnonce)));
        }
        if let Some(qop) = qop {
            value.push_str(&format!(", qop={qop}, nc={count}"));
        }
        if let Some(opaque) = &self.opaque {
            value.push_str(&format!(", opaque={}", quoted(opaque)));
        }
        value
    }
}

impl fmt::Display for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest realm={}, nonce={}", quoted(&self.realm), quoted(&self.nonce))?;
        if let Some(opaque) = &self.opaque {
            write!(f, ", opaque={}", quoted(opaque))?;
        }
        if self.stale {
            f.write_str(", stale=true")?;
        }
        write!(f, ", algorithm={}", self.algorithm.as_str())?;
        match (self.offers_auth, self.offers_auth_int) {
            (true, true) => f.write_str(", qop=\"auth,auth-int\""),
            (true, false) => f.write_str(", qop=\"auth\""),
            (false, true) => f.write_str(", qop=\"auth-int\""),
            (false, false) => Ok(()),
        }
    }
}

impl<'a> Credentials<'a> {
    /// Reads credentials.
    ///
    /// # Errors
    /// When they are not digest credentials that we can check.
    pub fn parse(value: &'a [u8]) -> Result<Self, CredentialsError> {
        let params = AuthParams::parse(value)?;
        let algorithm = params.algorithm()?;
        let (qop, cnonce) = (params.text("qop"), params.text("cnonce"));
        if qop.as_ref().is_some_and(|qop| qop != AUTH && qop != AUTH_INT) {
            return Err(CredentialsError::UnknownProtection);
        }
        let nonce_count_text = params.text("nc");
        let nonce_count = match &nonce_count_text {
            Some(text) => Some(u32::from_str_radix(text, 16).map_err(|_| CredentialsError::Malformed)?),
            None => None,
        };
        let is_complete = qop.is_none() || (cnonce.is_some() && nonce_count.is_some());
        if !is_complete || (algorithm.is_session() && cnonce.is_none()) {
            return Err(CredentialsError::Malformed);
        }
        Ok(Self {
            username: params.required("username")?,
            realm: params.required("realm")?,
            nonce: params.required("nonce")?,
            uri: params.required("uri")?,
            response: params.required("response")?,
            algorithm,
            cnonce,
            nonce_count,
            qop,
            nonce_count_text,
        })
    }

    /// Whether the answer is right for a request of this method without a body: see [`Credentials::verify_for`].
    #[must_use]
    pub fn verify(&self, method: &str, ha1: &str) -> bool {
        self.verify_for(method, b"", ha1)
    }

    /// Whether the answer is right for this method, this body and this HA1 (of the algorithm's own hash), in constant
    /// time. The body counts with `auth-int` only. The nonce, the realm and the digest-uri are the caller's to check.
    #[must_use]
    pub fn verify_for(&self, method: &str, body: &[u8], ha1: &str) -> bool {
        let cnonce = self.cnonce.as_deref();
        let protection = match (&self.qop, &self.nonce_count_text, cnonce) {
            (Some(qop), Some(count), Some(cnonce)) => Some((count.as_ref(), cnonce, qop.as_ref())),
            _ => None,
        };
        let request = (method, &*self.uri, body);
        let expected = compute(self.algorithm, ha1, &self.nonce, cnonce, protection, request);
        let mut given = [0; 64];
        let Some(given) = given.get_mut(..self.response.len()) else { return false };
        given.copy_from_slice(self.response.as_bytes());
        given.make_ascii_lowercase();
        let expected = expected.as_str().as_bytes();
        // What is empty is no hash.
        bool::from(expected.ct_eq(given)) && !expected.is_empty()
    }
}

/// RFC 7616 section 3.4: `protection` is nonce count, client nonce and quality; `request` is method, digest-uri and body.
fn compute(
    algorithm: Algorithm,
    ha1: &str,
    nonce: &str,
    cnonce: Option<&str>,
    protection: Option<(&str, &str, &str)>,
    request: (&str, &str, &[u8]),
) -> Hash {
    let session = match cnonce {
        Some(cnonce) if algorithm.is_session() => Some(algorithm.hash(&[ha1, nonce, cnonce])),
        _ => None,
    };
    let ha1 = session.as_ref().map_or(ha1, Hash::as_str);
    let (method, uri, body) = request;
    let ha2 = match protection {
        Some((_, _, AUTH_INT)) => algorithm.hash(&[method, uri, algorithm.hash_bytes(body).as_str()]),
        _ => algorithm.hash(&[method, uri]),
    };
    match protection {
        Some((count, cnonce, qop)) => algorithm.hash(&[ha1, nonce, count, cnonce, qop, ha2.as_str()]),
        None => algorithm.hash(&[ha1, nonce, ha2.as_str()]),
    }
}

/// The `name=value` list behind `Digest`.
struct AuthParams<'a>(Vec<(&'a str, &'a [u8])>);

impl<'a> AuthParams<'a> {
    fn parse(value: &'a [u8]) -> Result<Self, CredentialsError> {
        let value = trim(value);
        let end = value.iter().position(|&byte| !is_token(byte)).unwrap_or(value.len());
        if !value[..end].eq_ignore_ascii_case(b"Digest") {
            return Err(CredentialsError::OtherScheme);
        }
        let pair = |text: &'a [u8]| {
            let equals = text.iter().position(|&byte| byte == b'=')?;
            let name = std::str::from_utf8(trim(&text[..equals])).ok()?;
            Some((name, trim(&text[equals + 1..])))
        };
        let mut pairs = Vec::with_capacity(16);
        for text in split_list(&value[end..]).filter(|text| !text.is_empty()) {
            pairs.push(pair(text).ok_or(CredentialsError::Malformed)?);
        }
        Ok(Self(pairs))
    }

    fn text(&self, name: &str) -> Option<Cow<'a, str>> {
        self.0.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| unquote(value))
    }

    fn required(&self, name: &str) -> Result<Cow<'a, str>, CredentialsError> {
        self.text(name).ok_or(CredentialsError::Malformed)
    }

    /// MD5 when nothing is said (RFC 7616 section 3.3).
    fn algorithm(&self) -> Result<Algorithm, CredentialsError> {
        self.text("algorithm").map_or(Ok(Algorithm::Md5), |token| {
            Algorithm::from_token(&token).ok_or(CredentialsError::UnknownAlgorithm)
        })
    }
}

fn quoted(text: &str) -> Quoted<'_> {
    Quoted(text)
}

/// A quoted string: what may not stand in it as it is has a backslash before it.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        let mut rest = self.0;
        while let Some(at) = rest.bytes().position(|byte| matches!(byte, b'\\' | b'"')) {
            f.write_str(&rest[..at])?;
            f.write_str("\\")?;
            f.write_str(&rest[at..=at])?;
            rest = &rest[at + 1..];
        }
        f.write_str(rest)?;
        f.write_str("\"")
    }
}

#[cfg(test)]
mod tests;
