//! What a browser tells about who made it ask: the name that it believes to speak to, and the site that it is on.
//!
//! A page from elsewhere can make a browser send requests to a port on loopback. It may name the port by a name of
//! its own that it lets point at 127.0.0.1 (DNS rebinding): then `Host` carries that name. Or it may ask as itself:
//! then browsers say so in `Sec-Fetch-Site` (Fetch Metadata) and in `Origin` (RFC 6454).

use std::net::IpAddr;

use http::header::{HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, Uri};

/// Whether another site made the browser send this. Browsers say so in `Sec-Fetch-Site`; older ones, and all of them
/// on plain HTTP to a named host, in `Origin`.
#[must_use]
pub fn is_cross_site(headers: &HeaderMap) -> bool {
    if let Some(site) = headers.get("sec-fetch-site") {
        return site != "same-origin" && site != "none";
    }
    let Some(origin) = headers.get(ORIGIN) else { return false };
    let host = headers.get(HOST).map(http::HeaderValue::as_bytes);
    let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, rest)| rest);
    authority.is_none_or(|authority| Some(authority.as_bytes()) != host)
}

/// Whether the request names this door by an address, by `localhost`, or by one of `names`: by nothing that somebody
/// else's name server could have made up.
pub(crate) fn is_own_name(headers: &HeaderMap, uri: &Uri, names: &[String]) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let host = host.to_str().ok().and_then(|host| host.parse::<Authority>().ok());
    // The absolute form of a target is stronger than Host (RFC 9112 section 3.2.2), so both must be ours.
    host.is_some_and(|host| is_own(&host, names))
        && uri.authority().is_none_or(|authority| is_own(authority, names))
}

fn is_own(authority: &Authority, names: &[String]) -> bool {
    if authority.as_str().contains('@') {
        return false;
    }
    let host = authority.host();
    let literal = host.trim_start_matches('[').trim_end_matches(']');
    if literal.parse::<IpAddr>().is_ok() {
        return true;
    }
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    name == "localhost"
        || name.ends_with(".localhost")
        || names.iter().any(|own| own.eq_ignore_ascii_case(&name))
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn requests_from_other_sites_are_told_apart() {
        let cases: [(&[(&str, &str)], bool); 10] = [
            (&[], false),
            (&[("sec-fetch-site", "same-origin")], false),
            (&[("sec-fetch-site", "none")], false),
            (&[("sec-fetch-site", "same-site")], true),
            (&[("sec-fetch-site", "cross-site")], true),
            (&[("sec-fetch-site", "same-origin"), ("origin", "null"), ("host", "tower:8080")], false),
            (&[("origin", "http://tower:8080"), ("host", "tower:8080")], false),
            (&[("origin", "http://evil.example"), ("host", "tower:8080")], true),
            (&[("origin", "null"), ("host", "tower:8080")], true),
            (&[("origin", "http://tower:8080")], true),
        ];
        for (pairs, expected) in cases {
            assert_eq!(is_cross_site(&headers(pairs)), expected, "{pairs:?}");
        }
    }

    #[test]
    fn only_names_that_nobody_can_make_up_are_ours() {
        let names = ["tower.example.net".to_owned()];
        let check = |host: &'static str, target: &'static str, expected: bool| {
            let is_own = is_own_name(&headers(&[("host", host)]), &Uri::from_static(target), &names);
            assert_eq!(is_own, expected, "{host} {target}");
        };
        for host in [
            "127.0.0.1:9090",
            "10.1.2.3",
            "[::1]:9090",
            "localhost",
            "LocalHost:9090",
            "localhost.:9090",
            "belfry.localhost:9090",
            "Tower.Example.net:9090",
        ] {
            check(host, "/", true);
        }
        for host in [
            "evil.example:9090",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "evillocalhost",
            "127.0.0.1@evil.example",
            "",
            "a b",
        ] {
            check(host, "/", false);
        }
        check("127.0.0.1:9090", "http://evil.example/", false);
        check("evil.example", "http://127.0.0.1:9090/", false);
        check("127.0.0.1:9090", "http://127.0.0.1:9090/", true);
        assert!(!is_own_name(&HeaderMap::new(), &Uri::from_static("/"), &names), "no Host at all");
        let mut two = headers(&[("host", "localhost")]);
        two.append(HOST, HeaderValue::from_static("evil.example"));
        assert!(!is_own_name(&two, &Uri::from_static("/"), &names), "two of them");
    }
}
