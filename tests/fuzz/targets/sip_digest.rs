//! Any bytes as credentials and as a challenge: reading never panics, a challenge prints and reads the same, what answers
//! it is right with the right password only, and a nonce is good in its realm only.
#![no_main]

use arbitrary::Arbitrary;
use belfry_sip_proto::digest::{Algorithm, Answering, Challenge, Credentials, Nonce, NonceKey};

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    Plain(&'a [u8]),
    Made { realm: &'a str, nonce: &'a str, opaque: Option<&'a str>, algorithm: u8, offers_auth: bool, stale: bool },
    Nonce { realm: &'a str, other: &'a str, at: u32, salt: u32, later: u16 },
}

const ALGORITHMS: [Algorithm; 4] =
    [Algorithm::Md5, Algorithm::Md5Sess, Algorithm::Sha256, Algorithm::Sha256Sess];

/// Control characters cannot stand in a header, so what has them need not be readable.
fn is_printable(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

fn check_answer(challenge: &Challenge) {
    let answering = Answering {
        username: "a\"\\b",
        password: "p",
        method: "INVITE",
        uri: "sip:a@b",
        cnonce: "c",
        nonce_count: 1,
    };
    let answer = challenge.answer(&answering);
    let opaque = challenge.opaque.as_deref().unwrap_or_default();
    if [challenge.realm.as_str(), challenge.nonce.as_str(), opaque].into_iter().all(is_printable) {
        let credentials = Credentials::parse(answer.as_bytes()).expect("our own answer");
        let ha1 = |password| challenge.algorithm.ha1(answering.username, &challenge.realm, password);
        assert!(credentials.verify("INVITE", &ha1("p")), "{answer}");
        assert!(!credentials.verify("INVITE", &ha1("q")), "{answer}");
        assert!(!credentials.verify("BYE", &ha1("p")), "{answer}");
        assert_eq!((&*credentials.realm, &*credentials.nonce), (&*challenge.realm, &*challenge.nonce));
        let again = Challenge::parse(challenge.to_string().as_bytes()).expect("our own challenge");
        assert_eq!(again.to_string(), challenge.to_string());
    }
}

libfuzzer_sys::fuzz_target!(|input: Input<'_>| match input {
    Input::Plain(bytes) => {
        if let Ok(credentials) = Credentials::parse(bytes) {
            let _is_right = credentials.verify("REGISTER", "00");
            let _worth = NonceKey::new([1; 32]).check(&credentials.realm, &credentials.nonce, 1, 300);
            let _when = NonceKey::issued_unix_seconds(&credentials.nonce);
        }
        if let Ok(challenge) = Challenge::parse(bytes) {
            check_answer(&challenge);
        }
    }
    Input::Made { realm, nonce, opaque, algorithm, offers_auth, stale } => check_answer(&Challenge {
        realm: realm.to_owned(),
        nonce: nonce.to_owned(),
        opaque: opaque.map(str::to_owned),
        algorithm: ALGORITHMS[usize::from(algorithm) % ALGORITHMS.len()],
        offers_auth,
        stale,
    }),
    Input::Nonce { realm, other, at, salt, later } => {
        let key = NonceKey::new([1; 32]);
        let nonce = key.issue(realm, at.into(), salt);
        let now = u64::from(at) + u64::from(later);
        let expected = if later <= 300 { Nonce::Fresh } else { Nonce::Stale };
        assert_eq!(key.check(realm, &nonce, now, 300), expected);
        assert_eq!(NonceKey::issued_unix_seconds(&nonce), Some(at.into()));
        assert_eq!(NonceKey::new([2; 32]).check(realm, &nonce, now, 300), Nonce::Foreign);
        if realm != other {
            assert_eq!(key.check(other, &nonce, now, 300), Nonce::Foreign);
        }
    }
});
