//! RFC 4475: all 50 torture messages, each with the verdict that its section's text asks of a proxy and registrar.
//!
//! The messages are the IETF's and stay outside the repository: BELFRY_RFC4475_DIR names their folder.

#![allow(clippy::print_stderr, reason = "a test that did not run must say so")]

use std::path::PathBuf;

use belfry_sip_proto::{Limits, Verdict, judge};

/// What a section asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Accept,
    Reject(u16),
    Discard,
}

use Expected::{Accept, Discard, Reject};

/// File, section, verdict. Where a section allows two, the comment says which one we take and why.
const TABLE: [(&str, &str, Expected); 50] = [
    ("wsinv", "3.1.1.1", Accept),
    ("intmeth", "3.1.1.2", Accept),
    ("esc01", "3.1.1.3", Accept),
    ("escnull", "3.1.1.4", Accept),
    ("esc02", "3.1.1.5", Accept),
    ("lwsdisp", "3.1.1.6", Accept),
    ("longreq", "3.1.1.7", Accept),
    // The octets behind the body are ignored.
    ("dblreq", "3.1.1.8", Accept),
    ("semiuri", "3.1.1.9", Accept),
    ("transports", "3.1.1.10", Accept),
    ("mpart01", "3.1.1.11", Accept),
    ("unreason", "3.1.1.12", Accept),
    ("noreason", "3.1.1.13", Accept),
    ("badinv01", "3.1.2.1", Reject(400)),
    ("clerr", "3.1.2.2", Reject(400)),
    ("ncl", "3.1.2.3", Reject(400)),
    ("scalar02", "3.1.2.4", Reject(400)),
    ("scalarlg", "3.1.2.5", Discard),
    ("quotbal", "3.1.2.6", Reject(400)),
    ("ltgtruri", "3.1.2.7", Reject(400)),
    ("lwsruri", "3.1.2.8", Reject(400)),
    ("lwsstart", "3.1.2.9", Reject(400)),
    ("trws", "3.1.2.10", Reject(400)),
    ("escruri", "3.1.2.11", Reject(400)),
    // An element "shouldn't" reject it unless Date matters to its work, and it does not to a proxy.
    ("baddate", "3.1.2.12", Accept),
    ("regbadct", "3.1.2.13", Reject(400)),
    ("badaspec", "3.1.2.14", Reject(400)),
    ("baddn", "3.1.2.15", Reject(400)),
    ("badvers", "3.1.2.16", Reject(505)),
    ("mismatch01", "3.1.2.17", Reject(400)),
    // 501 is preferred "particularly at proxies"; 400 would do.
    ("mismatch02", "3.1.2.18", Reject(501)),
    ("bigcode", "3.1.2.19", Discard),
    ("badbranch", "3.2.1", Accept),
    ("insuf", "3.3.1", Reject(400)),
    ("unkscm", "3.3.2", Reject(416)),
    ("novelsc", "3.3.3", Reject(416)),
    // The registrar's answer; the parser and a proxy have nothing against it.
    ("unksm2", "3.3.4", Reject(400)),
    ("bext01", "3.3.5", Reject(420)),
    // A proxy passes it on; 415 is the endpoint's answer.
    ("invut", "3.3.6", Accept),
    ("regaut01", "3.3.7", Accept),
    ("multi01", "3.3.8", Reject(400)),
    ("mcl01", "3.3.9", Reject(400)),
    ("bcast", "3.3.10", Discard),
    ("zeromf", "3.3.11", Reject(483)),
    ("cparam01", "3.3.12", Accept),
    ("cparam02", "3.3.13", Accept),
    ("regescrt", "3.3.14", Accept),
    // A proxy passes it on; 406 is the endpoint's answer.
    ("sdp01", "3.3.15", Accept),
    ("inv2543", "3.4.1", Accept),
    // In the appendix's archive without a section: no SIP version, no CSeq, a header line without a colon.
    ("test", "appendix A", Reject(400)),
];

#[test]
fn every_torture_message_gets_the_verdict_of_its_section() {
    let Some(folder) = std::env::var_os("BELFRY_RFC4475_DIR").map(PathBuf::from) else {
        eprintln!("\n  NOT RUN: BELFRY_RFC4475_DIR is not set, so no RFC 4475 message was judged\n");
        return;
    };
    let mut wrong = Vec::new();
    for (name, section, expected) in TABLE {
        let file = folder.join(format!("{name}.dat"));
        let bytes = std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let verdict = judge(&bytes, &Limits::default());
        let got = match verdict {
            Verdict::Accept => Accept,
            Verdict::Reject { status, .. } => Reject(status),
            Verdict::Discard { .. } => Discard,
        };
        if got != expected {
            wrong.push(format!("{name} ({section}): {verdict:?}, not {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let files = std::fs::read_dir(&folder).map(|entries| entries.filter_map(Result::ok).count());
    assert_eq!(files.ok(), Some(TABLE.len()), "the folder holds other files than the table");
}
