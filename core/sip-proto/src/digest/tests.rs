use sha2::Digest as _;

use super::*;

fn key() -> NonceKey {
    NonceKey::new([7; 32])
}

/// RFC 7616 section 3.9.1, the same request under both hashes.
#[test]
fn the_examples_of_rfc_7616() {
    let nonce = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v";
    let cases = [
        (Algorithm::Md5, "8ca523f5e9506fed4657c9700eebdbec"),
        (Algorithm::Sha256, "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ];
    for (algorithm, expected) in cases {
        let challenge = Challenge::new("http-auth@example.org", nonce.to_owned(), algorithm, false);
        let answer = challenge.answer(&Answering {
            username: "Mufasa",
            password: "Circle of Life",
            method: "GET",
            uri: "/dir/index.html",
            cnonce: "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
            nonce_count: 1,
        });
        let credentials = Credentials::parse(answer.as_bytes()).expect("our own answer");
        assert_eq!(credentials.response, expected);
        assert!(
            credentials.verify("GET", &algorithm.ha1("Mufasa", "http-auth@example.org", "Circle of Life"))
        );
    }
}

/// RFC 2069 clients send no qop (RFC 3261 section 22.4 item 8 keeps them welcome).
#[test]
fn credentials_without_protection() {
    let value = br#"Digest username="bob", realm="biloxi.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093",
        uri="sip:bob@biloxi.com", response="bf57e4e0d0bffc0fbaedce64d59add5e""#;
    let credentials = Credentials::parse(value).expect("well formed");
    assert_eq!((credentials.algorithm, credentials.nonce_count), (Algorithm::Md5, None));
    assert!(credentials.verify("INVITE", &Algorithm::Md5.ha1("bob", "biloxi.com", "zanzibar")));
}

#[test]
fn both_sides_agree_and_a_wrong_password_does_not() {
    for algorithm in [Algorithm::Md5, Algorithm::Md5Sess, Algorithm::Sha256, Algorithm::Sha256Sess] {
        let nonce = key().issue("demo \"quoted\"", 1_000, 7);
        let challenge = Challenge::new("demo \"quoted\"", nonce, algorithm, true);
        let read = Challenge::parse(challenge.to_string().as_bytes()).expect("our own challenge");
        assert_eq!(read, challenge);
        let with = Answering {
            username: "alice",
            password: "s3cret",
            method: "REGISTER",
            uri: "sip:demo",
            cnonce: "c",
            nonce_count: 10,
        };
        let answer = read.answer(&with);
        assert!(answer.contains("nc=0000000a"), "{answer}");
        let credentials = Credentials::parse(answer.as_bytes()).expect("our own answer");
        assert_eq!(credentials.nonce_count, Some(10));
        let ha1 = |password| algorithm.ha1("alice", "demo \"quoted\"", password);
        assert!(credentials.verify("REGISTER", &ha1("s3cret")));
        assert!(!credentials.verify("REGISTER", &ha1("secret")));
        assert!(!credentials.verify("INVITE", &ha1("s3cret")));
    }
}

#[test]
fn nonces_age_and_cannot_be_forged() {
    let nonce = key().issue("demo", 1_000, 7);
    assert_ne!(nonce, key().issue("demo", 1_000, 8), "two clients in one second");
    assert_eq!(key().check("demo", &nonce, 1_300, 300), Nonce::Fresh);
    assert_eq!(key().check("demo", &nonce, 1_301, 300), Nonce::Stale);
    assert_eq!(key().check("demo", &nonce, 100, 300), Nonce::Stale);
    assert_eq!(key().check("other", &nonce, 1_000, 300), Nonce::Foreign);
    assert_eq!(NonceKey::new([8; 32]).check("demo", &nonce, 1_000, 300), Nonce::Foreign);
    let last = if nonce.ends_with('0') { "1" } else { "0" };
    let forged = format!("{}{last}", &nonce[..nonce.len() - 1]);
    for text in [forged.as_str(), "", "zz", "00", &nonce[..20]] {
        assert_eq!(key().check("demo", text, 1_000, 300), Nonce::Foreign, "{text}");
    }
}

#[test]
fn what_is_not_our_digest() {
    let cases = [
        ("NoOneKnowsThisScheme opaque-data=here", CredentialsError::OtherScheme),
        ("", CredentialsError::OtherScheme),
        ("Digest", CredentialsError::Malformed),
        ("Digest username", CredentialsError::Malformed),
        ("Digest algorithm=SHA-512", CredentialsError::UnknownAlgorithm),
        ("Digest qop=auth-conf", CredentialsError::UnknownProtection),
        ("Digest qop=auth, cnonce=\"x\", nc=zz", CredentialsError::Malformed),
        ("Digest qop=auth, nc=00000001", CredentialsError::Malformed),
        ("Digest algorithm=MD5-sess, username=\"a\"", CredentialsError::Malformed),
    ];
    for (value, error) in cases {
        assert_eq!(Credentials::parse(value.as_bytes()), Err(error), "{value}");
    }
}

#[test]
fn auth_int_protects_the_body_too() {
    for algorithm in [Algorithm::Md5, Algorithm::Sha256, Algorithm::Sha256Sess] {
        let offered = Challenge::new("r", "n".to_owned(), algorithm, false).with_auth_int(true).to_string();
        assert!(offered.contains("qop=\"auth,auth-int\""), "{offered}");
        let both = Challenge::parse(offered.as_bytes()).expect("ours");
        let only = Challenge::parse(offered.replace("auth,auth-int", "auth-int").as_bytes()).expect("ours");
        let answering = Answering {
            username: "bob",
            password: "pw",
            method: "MESSAGE",
            uri: "sip:a@b",
            cnonce: "c",
            nonce_count: 1,
        };
        let ha1 = algorithm.ha1("bob", "r", "pw");
        // Where both are offered the body need not be known.
        let answer = both.answer_for(&answering, b"body");
        assert!(answer.contains("qop=auth,"), "{answer}");
        let credentials = Credentials::parse(answer.as_bytes()).expect("ours");
        assert!(credentials.verify_for("MESSAGE", b"another", &ha1));
        let answer = only.answer_for(&answering, b"body");
        assert!(answer.contains("qop=auth-int,"), "{answer}");
        let credentials = Credentials::parse(answer.as_bytes()).expect("ours");
        assert!(credentials.verify_for("MESSAGE", b"body", &ha1));
        assert!(!credentials.verify_for("MESSAGE", b"another", &ha1));
        assert!(!credentials.verify("MESSAGE", &ha1));
    }
    // RFC 2617 section 3.2.2.3, by hand: H(A2) = MD5(method ":" uri ":" MD5(body)).
    let value = "Digest username=\"u\", realm=\"r\", nonce=\"n\", uri=\"sip:x\", qop=auth-int, nc=00000001, \
                 cnonce=\"c\", response=\"";
    let md5 = |text: &str| hex::encode(Md5::digest(text));
    let ha2 = md5(&format!("INFO:sip:x:{}", md5("hello")));
    let response = md5(&format!("{}:n:00000001:c:auth-int:{ha2}", md5("u:r:p")));
    let value = format!("{value}{response}\"");
    let credentials = Credentials::parse(value.as_bytes()).expect("valid");
    assert!(credentials.verify_for("INFO", b"hello", &Algorithm::Md5.ha1("u", "r", "p")));
    assert_eq!(
        Credentials::parse(value.replace("auth-int", "auth-conf").as_bytes()),
        Err(CredentialsError::UnknownProtection)
    );
}
