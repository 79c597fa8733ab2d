//! Any bytes as credentials and as a challenge: reading never panics, and what answers a challenge is right.
#![no_main]

use belfry_sip_proto::digest::{Answering, Challenge, Credentials, NonceKey};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(credentials) = Credentials::parse(bytes) {
        let _is_right = credentials.verify("REGISTER", "00");
        let _worth = NonceKey::new([1; 32]).check(&credentials.realm, &credentials.nonce, 1, 300);
        let _when = NonceKey::issued_unix_seconds(&credentials.nonce);
    }
    if let Ok(challenge) = Challenge::parse(bytes) {
        let answering = Answering {
            username: "a\"\\b",
            password: "p",
            method: "INVITE",
            uri: "sip:a@b",
            cnonce: "c",
            nonce_count: 1,
        };
        let answer = challenge.answer(&answering);
        let ha1 = challenge.algorithm.ha1(answering.username, &challenge.realm, answering.password);
        // Control characters of a realm cannot stand in a header, so such an answer need not be readable.
        if challenge.realm.bytes().chain(challenge.nonce.bytes()).all(|byte| !byte.is_ascii_control()) {
            let credentials = Credentials::parse(answer.as_bytes()).expect("our own answer");
            assert!(credentials.verify("INVITE", &ha1), "{answer}");
        }
    }
});
