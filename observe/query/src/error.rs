//! How a question can fail, for code and, as problem details (RFC 9457), for people.

use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

/// Why a question was not answered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store of events said no.
    #[error("events: {0}")]
    Events(#[from] belfry_events::Error),
    /// The store of series said no.
    #[error("series: {0}")]
    Series(#[from] belfry_series::Error),
    /// The query in PromQL has no answer.
    #[error(transparent)]
    Promql(#[from] belfry_promql::Error),
    /// The query took longer than it may.
    #[error("query timed out after {} s", timeout.as_secs_f64())]
    Timeout {
        /// The limit.
        timeout: Duration,
    },
    /// As many questions as may are being answered already.
    #[error("too many questions at once")]
    Busy,
    /// The process is going down.
    #[error("the reader is stopping")]
    Stopping,
    /// The question makes no sense as it stands.
    #[error("{place}: {what}")]
    BadRequest {
        /// Which part of the request.
        place: &'static str,
        /// What is wrong with it.
        what: String,
        /// What would be right.
        hint: &'static str,
    },
    /// Nothing is known of what was asked for.
    #[error("{what} is not known")]
    NotFound {
        /// Which part of the request named it.
        place: &'static str,
        /// What was asked for: a kind of thing, never its name.
        what: &'static str,
    },
}

/// Problem details, with where it is wrong and what to do beside what RFC 9457 names.
#[derive(Debug, Serialize)]
struct Problem {
    title: &'static str,
    status: u16,
    detail: String,
    r#where: &'static str,
    hint: &'static str,
    /// For search texts: the character, counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<usize>,
}

impl Error {
    /// The reason, bounded, for labels.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Events(error) => error.reason(),
            Self::Series(error) => error.reason(),
            Self::Promql(error) => error.reason(),
            Self::Timeout { .. } => "timeout",
            Self::Busy => "busy",
            Self::Stopping => "stopping",
            Self::BadRequest { .. } => "bad_request",
            Self::NotFound { .. } => "not_found",
        }
    }

    fn problem(&self) -> (StatusCode, Problem) {
        let (status, title, place, hint) = match self {
            Self::Events(error) => of_events(error),
            Self::Series(error) => of_series(error),
            Self::Promql(_) => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "The query has no answer",
                "query",
                "look at the place that the detail names; belfry promql fmt checks a query",
            ),
            Self::Timeout { .. } => (
                StatusCode::SERVICE_UNAVAILABLE,
                "The query took too long",
                "query",
                "ask for a shorter time, a longer step or fewer series",
            ),
            Self::Busy => (
                StatusCode::SERVICE_UNAVAILABLE,
                "Too many questions at once",
                "server",
                "ask again in a few seconds, or for a shorter time",
            ),
            Self::Stopping => (
                StatusCode::SERVICE_UNAVAILABLE,
                "The server is stopping",
                "server",
                "ask another node, or later",
            ),
            Self::BadRequest { place, hint, .. } => {
                (StatusCode::BAD_REQUEST, "The request cannot be understood", *place, *hint)
            }
            Self::NotFound { place, .. } => (
                StatusCode::NOT_FOUND,
                "Nothing is known of it",
                *place,
                "check the spelling; it may be older than the retention, or of another region",
            ),
        };
        let position = match self {
            Self::Events(belfry_events::Error::BadQuery(bad)) => Some(bad.position),
            _ => None,
        };
        (
            status,
            Problem {
                title,
                status: status.as_u16(),
                detail: self.to_string(),
                r#where: place,
                hint,
                position,
            },
        )
    }
}

/// Status, title, place and hint.
type Said = (StatusCode, &'static str, &'static str, &'static str);

fn of_events(error: &belfry_events::Error) -> Said {
    match error {
        belfry_events::Error::BadQuery(_) => (
            StatusCode::BAD_REQUEST,
            "The search text cannot be understood",
            "q",
            "words, \"phrases\", field:value, AND, OR, NOT, -word, beginning*; put other text in quotes",
        ),
        _ => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "The store of events failed",
            "store",
            "look at events_index_failures_total and at this node's log for \"split\"",
        ),
    }
}

fn of_series(error: &belfry_series::Error) -> Said {
    match error {
        belfry_series::Error::Pattern { .. } => (
            StatusCode::BAD_REQUEST,
            "The selector cannot be understood",
            "match",
            "regular expressions are anchored at both ends, without look-around or back-references",
        ),
        belfry_series::Error::TooManyPoints { .. } => (
            StatusCode::UNPROCESSABLE_ENTITY,
            "The question reads too much",
            "match",
            "ask for a shorter time or fewer series",
        ),
        _ => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "The store of series failed",
            "store",
            "look at this node's log for \"series\"",
        ),
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (status, problem) = self.problem();
        let mut response = (status, Json(problem)).into_response();
        let content_type = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        response
    }
}
