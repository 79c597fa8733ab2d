//! Who may ask at a door: whoever shows a token; and where none is set, anybody but a web page from elsewhere.

use std::sync::Arc;

use axum::extract::Request;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, ORIGIN};
use http::{HeaderMap, HeaderValue};

use crate::origin::{is_cross_site, is_own_name};
use crate::signals::Refused;
use crate::tokens::Tokens;

/// What a door asks of a request.
#[derive(Clone, Debug)]
pub struct Guard {
    /// The section of the configuration, for advice.
    pub section: &'static str,
    /// The secrets that open it; without, it is for loopback and asks for no token.
    pub tokens: Option<Arc<Tokens>>,
    /// What has tokens of its own, and asks for them instead.
    pub pushes: Option<Pushes>,
    /// Names, beside addresses and `localhost`, that the door goes by while it asks for no token.
    pub host_names: Vec<String>,
    /// Paths that anybody may ask for: those of probes.
    pub open_paths: &'static [&'static str],
    /// Origins of web pages from elsewhere that may ask, as `https://grafana.example.net`.
    pub cors_origins: Vec<String>,
    /// Paths that they may ask for: those that only read. One that ends in `/` is of all below it.
    pub cors_paths: &'static [&'static str],
}

/// Paths that others write to, with the tokens that open these and nothing else.
#[derive(Clone, Debug)]
pub struct Pushes {
    /// The secrets.
    pub tokens: Arc<Tokens>,
    /// The paths; one that ends in `/` is of all below it.
    pub paths: &'static [&'static str],
}

impl Pushes {
    fn is_for(&self, path: &str) -> bool {
        is_among(path, self.paths)
    }
}

fn is_among(path: &str, paths: &[&str]) -> bool {
    paths.iter().any(|known| path == *known || (known.ends_with('/') && path.starts_with(known)))
}

/// What `Authorization` shows.
enum Shown {
    /// As RFC 6750 has it: no browser sends it by itself.
    Bearer(bool),
    /// As a password (RFC 7617): a browser that knows it may be made to send it.
    Basic(bool),
}

impl Guard {
    /// Why a request is refused, if it is.
    pub(crate) fn check(&self, request: &Request) -> Result<(), Refused> {
        let headers = request.headers();
        if self.open_paths.contains(&request.uri().path()) {
            return Ok(());
        }
        let own = self.pushes.as_ref().filter(|pushes| pushes.is_for(request.uri().path()));
        if let Some(tokens) = own.map(|pushes| &pushes.tokens).or(self.tokens.as_ref()) {
            match shown(headers, tokens) {
                None => return Err(Refused::NoToken),
                Some(Shown::Bearer(false) | Shown::Basic(false)) => return Err(Refused::WrongToken),
                Some(Shown::Bearer(true)) => return Ok(()),
                Some(Shown::Basic(true)) => {}
            }
        } else if !is_own_name(headers, request.uri(), &self.host_names) {
            return Err(Refused::Host);
        }
        if is_cross_site(headers) && self.invited(request).is_none() {
            return Err(Refused::CrossSite);
        }
        Ok(())
    }

    /// The origin of the page that asks, when the configuration names it and pages may ask for this path.
    pub(crate) fn invited(&self, request: &Request) -> Option<HeaderValue> {
        let origin =
            request.headers().get(ORIGIN).filter(|_| is_among(request.uri().path(), self.cors_paths))?;
        self.cors_origins.iter().any(|named| named.as_bytes() == origin.as_bytes()).then(|| origin.clone())
    }
}

fn shown(headers: &HeaderMap, tokens: &Tokens) -> Option<Shown> {
    let (scheme, rest) = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes).and_then(split_scheme)?;
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return Some(Shown::Bearer(tokens.has(rest)));
    }
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return None;
    }
    let pair = STANDARD.decode(rest).unwrap_or_default();
    let password = pair.iter().position(|byte| *byte == b':').map(|colon| &pair[colon + 1..]);
    Some(Shown::Basic(password.is_some_and(|password| tokens.has(password))))
}

fn split_scheme(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let blank = value.iter().position(|byte| *byte == b' ')?;
    Some((&value[..blank], value[blank..].trim_ascii()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::OpenOptionsExt;

    use axum::body::Body;

    use super::*;

    const TOKEN: &str = "correct-horse-battery";
    const PUSH_TOKEN: &str = "staple-staple-staple";

    fn tokens(text: &str) -> Arc<Tokens> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).mode(0o600).open(&path).expect("writable");
        std::io::Write::write_all(&mut file, text.as_bytes()).expect("written");
        Arc::new(Tokens::open(&path).expect("good"))
    }

    fn guard(has_token: bool) -> Guard {
        Guard {
            section: "observe",
            tokens: has_token.then(|| tokens(TOKEN)),
            pushes: None,
            host_names: vec!["tower".to_owned()],
            open_paths: &["/-/healthy"],
            cors_origins: vec!["https://grafana.example".to_owned()],
            cors_paths: &["/api/v1/query", "/api/v1/label/"],
        }
    }

    fn verdict(guard: &Guard, path: &str, headers: &[(&str, &str)]) -> Option<Refused> {
        let mut request = Request::builder().uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        guard.check(&request.body(Body::empty()).expect("well formed")).err()
    }

    #[test]
    fn a_door_with_a_token_opens_to_it_only() {
        let guard = guard(true);
        let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        let good = basic(&format!("anybody:{TOKEN}"));
        let check = |authorization: &str, more: &[(&str, &str)], expected: Option<Refused>| {
            let mut headers = vec![("host", "evil.example")];
            if !authorization.is_empty() {
                headers.push(("authorization", authorization));
            }
            headers.extend_from_slice(more);
            assert_eq!(verdict(&guard, "/api/v1/query", &headers), expected, "{authorization} {more:?}");
        };
        let elsewhere: &[(&str, &str)] = &[("origin", "http://grafana.example")];
        check("", &[], Some(Refused::NoToken));
        check("Bearer", &[], Some(Refused::NoToken));
        check("Digest username=x", &[], Some(Refused::NoToken));
        check("Bearer wrong-token-wrong-token", &[], Some(Refused::WrongToken));
        check("Bearer ", &[], Some(Refused::WrongToken));
        check(&basic("correct-horse-battery:"), &[], Some(Refused::WrongToken));
        check("Basic !", &[], Some(Refused::WrongToken));
        check("Bearer correct-horse-battery", &[], None);
        check("bearer  correct-horse-battery", elsewhere, None);
        check(&good, &[], None);
        check(&good, elsewhere, Some(Refused::CrossSite));
        check(&good, &[("origin", "https://grafana.example")], None);
        check("", &[("origin", "https://grafana.example")], Some(Refused::NoToken));
        assert_eq!(verdict(&guard, "/-/healthy", &[("host", "probe")]), None);
        assert_eq!(verdict(&guard, "/-/healthy/", &[("host", "probe")]), Some(Refused::NoToken));
    }

    #[test]
    fn a_door_without_a_token_keeps_out_pages_from_elsewhere() {
        let guard = guard(false);
        let check = |headers: &[(&str, &str)], expected: Option<Refused>| {
            assert_eq!(verdict(&guard, "/api/v1/query", headers), expected, "{headers:?}");
        };
        check(&[("host", "127.0.0.1:9090")], None);
        check(&[("host", "tower:9090")], None);
        check(&[("host", "rebound.example:9090")], Some(Refused::Host));
        check(&[], Some(Refused::Host));
        check(&[("host", "localhost:9090"), ("sec-fetch-site", "cross-site")], Some(Refused::CrossSite));
        check(&[("host", "localhost:9090"), ("origin", "http://localhost:8080")], Some(Refused::CrossSite));
        check(&[("host", "localhost:9090"), ("sec-fetch-site", "none")], None);
        let invited = ("origin", "https://grafana.example");
        check(&[("host", "localhost:9090"), ("sec-fetch-site", "cross-site"), invited], None);
        check(&[("host", "rebound.example:9090"), invited], Some(Refused::Host));
        check(&[("host", "localhost:9090"), ("origin", "http://grafana.example")], Some(Refused::CrossSite));
    }

    /// What writes, silences or ends a call is not for pages of other sites, whoever invited them.
    #[test]
    fn pages_that_are_invited_may_only_read() {
        let invited = ("origin", "https://grafana.example");
        let password = format!("Basic {}", STANDARD.encode(format!("anybody:{TOKEN}")));
        let check = |path: &str, expected: Option<Refused>| {
            assert_eq!(
                verdict(&guard(false), path, &[("host", "localhost:9090"), invited]),
                expected,
                "{path}"
            );
            let shown = [("host", "tower"), ("authorization", password.as_str()), invited];
            assert_eq!(verdict(&guard(true), path, &shown), expected, "{path} with a password");
        };
        check("/api/v1/query", None);
        check("/api/v1/label/job/values", None);
        for path in [
            "/api/v1/write",
            "/api/v2/silences",
            "/api/v1/live/calls/1",
            "/api/v1/query/",
            "/",
            "/api/v1/label",
        ] {
            check(path, Some(Refused::CrossSite));
        }
    }

    #[test]
    fn who_pushes_need_not_be_able_to_read() {
        let pushes = Some(Pushes { tokens: tokens(PUSH_TOKEN), paths: &["/api/v1/write", "/metrics/"] });
        let check = |guard: &Guard, path: &str, token: &str, expected: Option<Refused>| {
            let bearer = format!("Bearer {token}");
            let shown = [("authorization", bearer.as_str()), ("host", "127.0.0.1")];
            let headers = if token.is_empty() { &shown[1..] } else { &shown[..] };
            assert_eq!(verdict(guard, path, headers), expected, "{path} {token}");
        };
        let both = Guard { pushes: pushes.clone(), ..guard(true) };
        for path in ["/api/v1/write", "/metrics/job/backup"] {
            check(&both, path, PUSH_TOKEN, None);
            check(&both, path, TOKEN, Some(Refused::WrongToken));
            check(&both, path, "", Some(Refused::NoToken));
        }
        for path in ["/api/v1/query", "/api/v1/write/", "/metrics", "/api/v1/admin"] {
            check(&both, path, TOKEN, None);
            check(&both, path, PUSH_TOKEN, Some(Refused::WrongToken));
        }
        let only = Guard { pushes, ..guard(false) };
        check(&only, "/api/v1/query", "", None);
        check(&only, "/api/v1/write", "", Some(Refused::NoToken));
        check(&only, "/api/v1/write", PUSH_TOKEN, None);
    }
}
