//! What may be set about a door. The keys stand in the sections of the rooms that have one.

use std::net::SocketAddr;
use std::time::Duration;

/// The bounds of one door.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once; one more is answered 503 and closed.
    pub connections_max: usize,
    /// A client sends a request's head within this time, after it connected and after the last answer; and the body
    /// within the same time again.
    pub header_timeout: Duration,
    /// A client that takes nothing of its answer for so long loses its connection.
    pub write_timeout: Duration,
    /// Bytes of a request's body.
    pub request_bytes_max: usize,
}

const TIMES: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(600);

impl Limits {
    /// Every bound that cannot stand, as (key, what is wrong and what is allowed).
    #[must_use]
    pub fn check(&self) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        if !(1..=100_000).contains(&self.connections_max) {
            let message = format!("is {}; allowed are 1 to 100000", self.connections_max);
            faults.push(("connections_max".to_owned(), message));
        }
        for (key, value) in [("header_timeout", self.header_timeout), ("write_timeout", self.write_timeout)] {
            if !TIMES.contains(&value) {
                faults.push((key.to_owned(), format!("is {value:?}; allowed are 100ms to 10m")));
            }
        }
        if !(1024..=64 << 20).contains(&self.request_bytes_max) {
            let message = format!("is {}; allowed are 1024 to 67108864", self.request_bytes_max);
            faults.push(("request_bytes_max".to_owned(), message));
        }
        faults
    }

    /// The same for a guarded door, which must not listen everywhere without a token.
    #[must_use]
    pub fn check_guarded(&self, listen: SocketAddr, has_token: bool) -> Vec<(String, String)> {
        let mut faults = self.check();
        faults.extend(exposed(listen, has_token).map(|message| ("listen".to_owned(), message)));
        faults
    }
}

/// What is wrong with a guarded door that listens here without a token, if something is.
fn exposed(listen: SocketAddr, has_token: bool) -> Option<String> {
    if has_token || listen.ip().to_canonical().is_loopback() {
        return None;
    }
    let message = "is not a loopback address and there is no token_file, so that whoever reaches the port could ask \
        everything: set token_file (a file with a secret of 16 or more characters, mode 600), or listen on 127.0.0.1";
    Some(message.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_that_cannot_stand_are_named() {
        let good = Limits {
            connections_max: 1,
            header_timeout: Duration::from_secs(1),
            write_timeout: Duration::from_secs(1),
            request_bytes_max: 1024,
        };
        let check = |limits: Limits, expected: &[&str]| {
            let keys: Vec<String> = limits.check().into_iter().map(|(key, _)| key).collect();
            assert_eq!(keys, expected, "{limits:?}");
        };
        check(good, &[]);
        check(Limits { connections_max: 0, ..good }, &["connections_max"]);
        check(Limits { header_timeout: Duration::ZERO, ..good }, &["header_timeout"]);
        check(Limits { write_timeout: Duration::from_secs(601), ..good }, &["write_timeout"]);
        check(Limits { request_bytes_max: 1, ..good }, &["request_bytes_max"]);
    }

    #[test]
    fn a_door_to_the_network_needs_a_token() {
        for (listen, has_token, is_exposed) in [
            ("127.0.0.1:9090", false, false),
            ("127.8.9.1:9090", false, false),
            ("[::1]:9090", false, false),
            ("[::ffff:127.0.0.1]:9090", false, false),
            ("0.0.0.0:9090", false, true),
            ("[::]:9090", false, true),
            ("10.0.0.2:9090", false, true),
            ("10.0.0.2:9090", true, false),
        ] {
            let listen: SocketAddr = listen.parse().expect("literal");
            assert_eq!(exposed(listen, has_token).is_some(), is_exposed, "{listen} {has_token}");
        }
    }
}
