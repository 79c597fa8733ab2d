//! Who may: digest challenges, and the judgement over credentials (RFC 3261 section 22, RFC 7616, RFC 8760).
//!
//! Nonces carry their own proof and need no table. One is good only where it was sent: who writes another's address
//! into a datagram never hears a nonce that is good there, so that the failures that ban a source are its own. The tables here remember their uses, so that credentials that
//! were overheard cannot be used again (`uses`), and failures, so that nobody guesses passwords (`guard`, `door`).

mod door;
mod guard;
mod uses;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use belfry_sip_proto::digest::{Algorithm, Challenge, Credentials, CredentialsError, Nonce, NonceKey};
use belfry_sip_proto::{HeaderName, OwnedMessage};
use belfry_state::{Subscriber, network_of};

use crate::config::{Config, DigestAlgorithm};
pub use guard::Ban;
pub(crate) use guard::{BanKind, Guard};
use uses::Uses;

/// Challenges and judges.
#[derive(Debug)]
pub(crate) struct Authority {
    key: NonceKey,
    algorithms: Vec<Algorithm>,
    offers_auth_int: bool,
    lifetime: Duration,
    uses: Uses,
    /// Who fails, and from where.
    pub(crate) guard: Guard,
    /// The networks that edges were told to turn away.
    told: BTreeSet<IpAddr>,
}

/// What credentials are worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// They are right.
    Granted,
    /// They would be right with a fresh nonce: challenge again.
    Stale,
    /// They are wrong.
    Denied,
}

/// Where credentials stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// We are the one that is asked: 401, WWW-Authenticate, Authorization.
    Registrar,
    /// We are on the way: 407, Proxy-Authenticate, Proxy-Authorization.
    Proxy,
}

impl Side {
    pub(crate) fn status(self) -> u16 {
        match self {
            Self::Registrar => 401,
            Self::Proxy => 407,
        }
    }

    pub(crate) fn credentials_header(self) -> HeaderName {
        match self {
            Self::Registrar => HeaderName::Authorization,
            Self::Proxy => HeaderName::ProxyAuthorization,
        }
    }
}

impl Authority {
    pub(crate) fn new(config: &Config) -> Self {
        let algorithm = |offered: &DigestAlgorithm| match offered {
            DigestAlgorithm::Md5 => Algorithm::Md5,
            DigestAlgorithm::Sha256 => Algorithm::Sha256,
        };
        Self {
            key: NonceKey::new(rand::random()),
            algorithms: config.digest_algorithms.iter().map(algorithm).collect(),
            offers_auth_int: config.digest_auth_int,
            lifetime: config.nonce_lifetime,
            uses: Uses::new(config.nonces_max),
            guard: Guard::new(config.guard.clone()),
            told: BTreeSet::new(),
        }
    }

    /// One challenge per algorithm, most wanted first, for whoever is at this address.
    pub(crate) fn challenges(
        &self,
        realm: &str,
        source: IpAddr,
        is_stale: bool,
        unix_seconds: u64,
    ) -> Vec<String> {
        let scope = scope(realm, source);
        self.algorithms
            .iter()
            .map(|algorithm| {
                let nonce = self.key.issue(&scope, unix_seconds, rand::random());
                let challenge = Challenge::new(realm, nonce, *algorithm, is_stale);
                challenge.with_auth_int(self.offers_auth_int).to_string()
            })
            .collect()
    }

    /// The credentials for our realm in a message. `Err` when there are some and they cannot be read.
    pub(crate) fn credentials<'m>(
        message: &'m OwnedMessage,
        side: Side,
        realm: &str,
    ) -> Result<Option<Credentials<'m>>, CredentialsError> {
        let mut last_error = None;
        for value in message.headers(side.credentials_header()) {
            match Credentials::parse(value) {
                Ok(credentials) if credentials.realm == realm => return Ok(Some(credentials)),
                // Another realm's credentials, or another scheme's, are none of our business.
                Ok(_) | Err(CredentialsError::OtherScheme) => {}
                Err(error) => last_error = Some(error),
            }
        }
        last_error.map_or(Ok(None), Err)
    }

    /// Judges credentials that came from an address, with a request of this method and body, against what is known of
    /// their subscriber.
    pub(crate) fn judge(
        &mut self,
        credentials: &Credentials<'_>,
        (method, body): (&str, &[u8]),
        (realm, source): (&str, IpAddr),
        subscriber: Option<&Subscriber>,
        unix_seconds: u64,
    ) -> Judgement {
        let scope = scope(realm, source);
        let nonce = self.key.check(&scope, &credentials.nonce, unix_seconds, self.lifetime.as_secs());
        if nonce == Nonce::Foreign {
            // From before a restart, from another house, or for another address (a carrier's NAT may change the
            // phone's): the phone gets another chance without asking its user.
            return Judgement::Stale;
        }
        let Some(subscriber) = subscriber.filter(|subscriber| subscriber.enabled) else {
            return Judgement::Denied;
        };
        let is_sha256 = credentials.algorithm.is_sha256();
        let ha1 = if is_sha256 { &subscriber.ha1_sha256 } else { &subscriber.ha1_md5 };
        if !credentials.verify_for(method, body, ha1) {
            return Judgement::Denied;
        }
        if nonce == Nonce::Stale || !self.uses.is_first(credentials) {
            return Judgement::Stale;
        }
        Judgement::Granted
    }
}

/// What the nonces of a realm are good for: the source's network, as failures are counted by it.
fn scope(realm: &str, source: IpAddr) -> String {
    format!("{realm} {}", network_of(source))
}

#[cfg(test)]
mod tests {
    use super::*;
    use belfry_sip_proto::digest::Answering;

    const NOW: u64 = 1_800_000_000;
    const SOURCE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

    fn judge(
        authority: &mut Authority,
        challenge: &str,
        password: &str,
        nonce_count: u32,
        at: u64,
    ) -> Judgement {
        judge_from(SOURCE, authority, challenge, password, nonce_count, at)
    }

    fn judge_from(
        from: IpAddr,
        authority: &mut Authority,
        challenge: &str,
        password: &str,
        nonce_count: u32,
        at: u64,
    ) -> Judgement {
        let subscriber = Subscriber::new("alice", "belfry.test", "secret");
        let challenge = Challenge::parse(challenge.as_bytes()).expect("our own challenge");
        let answering = Answering {
            username: "alice",
            password,
            method: "REGISTER",
            uri: "sip:belfry.test",
            cnonce: "c0ffee",
            nonce_count,
        };
        let answer = challenge.answer(&answering);
        let credentials = Credentials::parse(answer.as_bytes()).expect("our own answer");
        authority.judge(&credentials, ("REGISTER", b""), ("belfry.test", from), Some(&subscriber), at)
    }

    #[test]
    fn both_algorithms_are_offered_and_judged() {
        let mut authority = Authority::new(&Config::for_test());
        let challenges = authority.challenges("belfry.test", SOURCE, false, NOW);
        assert_eq!(challenges.len(), 2);
        assert!(challenges[0].contains("SHA-256"), "{challenges:?}");
        for (number, challenge) in (1..).zip(&challenges) {
            assert_eq!(judge(&mut authority, challenge, "secret", number, NOW), Judgement::Granted);
            assert_eq!(judge(&mut authority, challenge, "wrong", number + 10, NOW), Judgement::Denied);
        }
    }

    #[test]
    fn overheard_old_and_foreign_nonces_are_stale() {
        let mut authority = Authority::new(&Config::for_test());
        let challenge = authority.challenges("belfry.test", SOURCE, false, NOW).remove(0);
        assert_eq!(judge(&mut authority, &challenge, "secret", 1, NOW), Judgement::Granted);
        assert_eq!(judge(&mut authority, &challenge, "secret", 1, NOW), Judgement::Stale);
        assert_eq!(judge(&mut authority, &challenge, "secret", 2, NOW), Judgement::Granted);
        assert_eq!(judge(&mut authority, &challenge, "secret", 3, NOW + 301), Judgement::Stale);
        let mut other = Authority::new(&Config::for_test());
        assert_eq!(judge(&mut other, &challenge, "secret", 4, NOW), Judgement::Stale);
    }

    #[test]
    fn a_nonce_is_good_only_in_the_network_that_it_was_sent_to() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let cases = [
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "::ffff:192.0.2.7", true),
            ("192.0.2.7", "192.0.2.8", false),
            ("2001:db8::1", "2001:db8::2", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
        ];
        for (to, from, is_good) in cases {
            let mut authority = Authority::new(&Config::for_test());
            let challenge = authority.challenges("belfry.test", ip(to), false, NOW).remove(0);
            let mut judge = |password: &str, count| {
                judge_from(ip(from), &mut authority, &challenge, password, count, NOW)
            };
            let expected = |judgement| if is_good { judgement } else { Judgement::Stale };
            assert_eq!(judge("wrong", 1), expected(Judgement::Denied), "{to} {from}");
            assert_eq!(judge("secret", 2), expected(Judgement::Granted), "{to} {from}");
        }
    }

    #[test]
    fn auth_int_is_offered_when_it_is_wanted_and_taken() {
        let mut authority = Authority::new(&Config { digest_auth_int: true, ..Config::for_test() });
        for challenge in authority.challenges("belfry.test", SOURCE, false, NOW) {
            let only = challenge.replace("auth,auth-int", "auth-int");
            assert_ne!(challenge, only, "it is offered");
            let challenge = Challenge::parse(only.as_bytes()).expect("ours");
            let (username, password, uri) = ("alice", "secret", "sip:belfry.test");
            let method = "REGISTER";
            let answering = Answering { username, password, method, uri, cnonce: "c", nonce_count: 1 };
            let answer = challenge.answer_for(&answering, b"body");
            let credentials = Credentials::parse(answer.as_bytes()).expect("ours");
            let subscriber = Subscriber::new("alice", "belfry.test", "secret");
            let at = ("belfry.test", SOURCE);
            let mut judge =
                |body: &[u8]| authority.judge(&credentials, (method, body), at, Some(&subscriber), NOW);
            assert_eq!([judge(b"other"), judge(b"body")], [Judgement::Denied, Judgement::Granted]);
        }
    }

    #[test]
    fn remembered_uses_are_bounded() {
        let mut authority = Authority::new(&Config { nonces_max: 2, ..Config::for_test() });
        for second in 0..10 {
            let challenge = authority.challenges("belfry.test", SOURCE, false, NOW + second).remove(0);
            assert_eq!(judge(&mut authority, &challenge, "secret", 1, NOW + second), Judgement::Granted);
        }
        assert_eq!(authority.uses.len(), (2, 2));
    }

    #[test]
    fn a_forgotten_use_is_no_second_chance() {
        let mut authority = Authority::new(&Config { nonces_max: 2, ..Config::for_test() });
        let challenge =
            |authority: &Authority, at| authority.challenges("belfry.test", SOURCE, false, at).remove(0);
        let overheard = challenge(&authority, NOW);
        let unused = challenge(&authority, NOW);
        assert_eq!(judge(&mut authority, &overheard, "secret", 1, NOW), Judgement::Granted);
        for second in 1..4 {
            let another = challenge(&authority, NOW + second);
            assert_eq!(judge(&mut authority, &another, "secret", 1, NOW + second), Judgement::Granted);
        }
        for count in 1..3 {
            assert_eq!(judge(&mut authority, &overheard, "secret", count, NOW + 4), Judgement::Stale);
        }
        // As old as the one that was forgotten: nobody knows any more, so its phone is asked again.
        assert_eq!(judge(&mut authority, &unused, "secret", 1, NOW + 4), Judgement::Stale);
        let fresh = challenge(&authority, NOW + 4);
        assert_eq!(judge(&mut authority, &fresh, "secret", 1, NOW + 4), Judgement::Granted);
    }

    #[test]
    fn a_client_without_qop_uses_each_nonce_once() {
        let mut authority = Authority::new(&Config::for_test());
        for challenge in authority.challenges("belfry.test", SOURCE, false, NOW) {
            let old = challenge.replace(", qop=\"auth\"", "");
            assert!(!old.contains("qop"), "{old}");
            assert_eq!(judge(&mut authority, &old, "secret", 1, NOW), Judgement::Granted);
            assert_eq!(judge(&mut authority, &old, "secret", 2, NOW), Judgement::Stale);
        }
    }
}
