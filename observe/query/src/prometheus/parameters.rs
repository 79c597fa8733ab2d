//! Parameters of a request as Prometheus reads them: from the address and, for POST, from a form in the body.

use axum::extract::{Form, FromRequest, FromRequestParts, Query, Request};
use belfry_promql::ast::Node;
use belfry_series::Matcher;
use belfry_signal::now_unix_nanos;
use http::{HeaderValue, Method, header};
use jiff::Timestamp;

use super::envelope::Refusal;
use crate::error::Error;
use crate::time;

/// The times that clients in Go send for "since ever" and "for ever".
const EVER: [(&str, i64); 2] =
    [("-292273086-05-16T16:47:06Z", i64::MIN), ("292277025-08-18T07:12:54.999999999Z", i64::MAX)];
/// Times and durations stay within this, so that sums of some of them do: 285 000 years.
const MILLIS_MAX: f64 = 9e15;

const FORM: &[u8] = b"application/x-www-form-urlencoded";

type Pairs = Vec<(String, String)>;

/// Names and values in order; names may repeat. Names that a path does not know are of no effect.
#[derive(Debug)]
pub(super) struct Parameters(Pairs);

impl<S: Send + Sync> FromRequest<S> for Parameters {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let (mut parts, body) = request.into_parts();
        let in_address = Query::<Pairs>::from_request_parts(&mut parts, state).await;
        let Query(in_address) = in_address.map_err(|fault| Refusal::bad_data(fault.body_text()))?;
        let mut pairs = Vec::new();
        // A body of another kind is passed over, as Go's reader of forms does.
        let content_type =
            parts.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
        if parts.method == Method::POST && content_type.starts_with(FORM) {
            let form = Form::<Pairs>::from_request(Request::from_parts(parts, body), state).await;
            pairs = form.map_err(|fault| Refusal::bad_data(fault.body_text()))?.0;
        }
        // What the body says counts before what the address says.
        pairs.extend(in_address);
        Ok(Self(pairs))
    }
}

impl Parameters {
    /// The first value of a name; an empty one is none.
    pub(super) fn first(&self, name: &str) -> Option<&str> {
        self.all(name).next().filter(|value| !value.is_empty())
    }

    fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(held, _)| held == name).map(|(_, value)| value.as_str())
    }

    /// Whether the request names a time to look in.
    pub(super) fn has_range(&self) -> bool {
        self.first("start").is_some() || self.first("end").is_some()
    }

    /// A time in milliseconds since the Unix epoch.
    pub(super) fn time(&self, name: &'static str) -> Result<Option<i64>, Refusal> {
        self.first(name).map(|text| millis(name, text)).transpose()
    }

    /// A duration in milliseconds: seconds as a number, or `1m30s`.
    pub(super) fn duration_ms(&self, name: &'static str) -> Result<Option<i64>, Refusal> {
        let read = |text: &str| {
            let found = seconds(text).or_else(|| belfry_promql::parse_duration(text));
            found.ok_or_else(|| {
                Refusal::parameter(name, format_args!("cannot parse {text:?} to a valid duration"))
            })
        };
        self.first(name).map(read).transpose()
    }

    /// How many results the client wants; zero is all.
    pub(super) fn limit(&self) -> Result<Option<usize>, Refusal> {
        let Some(text) = self.first("limit") else { return Ok(None) };
        match text.parse::<usize>() {
            Ok(limit) => Ok(Some(limit).filter(|limit| *limit > 0)),
            Err(_) => Err(Refusal::parameter("limit", "limit must be a number that is not negative")),
        }
    }

    /// The matchers of every `match[]`.
    pub(super) fn promql_selectors(
        &self,
        selectors_max: usize,
    ) -> Result<Vec<Vec<belfry_promql::Matcher>>, Refusal> {
        let selectors: Vec<_> = self.all("match[]").map(selector).collect::<Result<_, _>>()?;
        if selectors.len() > selectors_max {
            return Err(Refusal::parameter("match[]", format_args!("more than {selectors_max} of them")));
        }
        Ok(selectors)
    }
}

/// Matchers as the store's index reads them.
pub(super) fn for_index(selectors: &[Vec<belfry_promql::Matcher>]) -> Result<Vec<Vec<Matcher>>, Refusal> {
    let selector = |matchers: &Vec<belfry_promql::Matcher>| {
        matchers.iter().map(Matcher::try_from).collect::<Result<_, _>>().map_err(Error::from)
    };
    Ok(selectors.iter().map(selector).collect::<Result<_, _>>()?)
}

fn selector(text: &str) -> Result<Vec<belfry_promql::Matcher>, Refusal> {
    let expr = belfry_promql::parse(text).map_err(|fault| Refusal::parameter("match[]", fault))?;
    match expr.node {
        Node::Vector(selector) if selector.offset.is_none() && selector.at.is_none() => Ok(selector.matchers),
        _ => Err(Refusal::parameter("match[]", format_args!("{text:?} is not a series selector"))),
    }
}

/// Unix seconds, RFC 3339, or what [`time::parse`] reads besides.
fn millis(name: &'static str, text: &str) -> Result<i64, Refusal> {
    let ever = EVER.iter().find(|(written, _)| *written == text).map(|(_, millis)| *millis);
    let stamp = || text.parse::<Timestamp>().ok().map(Timestamp::as_millisecond);
    let said = || {
        let nanos = time::parse(name, text, now_unix_nanos()).ok()?;
        i64::try_from(nanos / 1_000_000).ok()
    };
    ever.or_else(|| seconds(text))
        .or_else(stamp)
        .or_else(said)
        .ok_or_else(|| Refusal::parameter(name, format_args!("cannot parse {text:?} to a valid timestamp")))
}

/// Seconds as a decimal number, in milliseconds.
fn seconds(text: &str) -> Option<i64> {
    let millis = (text.parse::<f64>().ok()? * 1000.0).round();
    (millis.abs() <= MILLIS_MAX).then_some(millis as i64)
}
