//! Web pages of other sites that the configuration invites (CORS, as the Fetch standard has it). Nobody is invited unless
//! the configuration says so.

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, VARY,
};
use http::{HeaderValue, Method, StatusCode};

/// What is wrong with a list of origins: what is allowed.
///
/// # Errors
/// A sentence for the operator.
pub fn check_origins(origins: &[String]) -> Result<(), &'static str> {
    let is_origin = |origin: &String| {
        let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
        host.is_some_and(|host| !host.is_empty() && !host.contains(['/', '*', ' ', '@']))
    };
    if origins.len() <= 32 && origins.iter().all(is_origin) {
        return Ok(());
    }
    Err("name at most 32 origins, each as https://HOST or https://HOST:PORT, without a path or a star")
}

/// Whether a browser asks if it may ask: it shows no token then.
pub(crate) fn is_preflight(request: &Request) -> bool {
    request.method() == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// It may.
pub(crate) fn preflight() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// Lets the browser give an answer to the page that asked.
pub(crate) fn allow(response: &mut Response, origin: HeaderValue) {
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    // The Fetch standard's list for what Prometheus' clients send.
    let fixed = [
        (ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, OPTIONS"),
        (ACCESS_CONTROL_ALLOW_HEADERS, "Accept, Authorization, Content-Type, Origin"),
        (ACCESS_CONTROL_EXPOSE_HEADERS, "Date"),
        (ACCESS_CONTROL_MAX_AGE, "600"),
    ];
    headers.extend(fixed.map(|(name, value)| (name, HeaderValue::from_static(value))));
    headers.append(VARY, HeaderValue::from_static("Origin"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_named_one_by_one() {
        for good in ["https://grafana.example.net", "http://10.0.0.1:3000"] {
            assert_eq!(check_origins(&[good.to_owned()]), Ok(()), "{good}");
        }
        for bad in ["*", "grafana.example.net", "https://", "https://a/b", "https://*.b", "null"] {
            assert!(check_origins(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
