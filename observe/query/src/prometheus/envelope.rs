//! The envelope that every answer of Prometheus' API comes in, for success and for failure.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::error::Error;

/// What stands beside an answer.
#[derive(Debug, Default)]
pub(super) struct Remarks {
    pub(super) warnings: Vec<String>,
    pub(super) infos: Vec<String>,
}

/// A request that is not answered.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    error_type: &'static str,
    error: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Failure<'a> {
    status: &'static str,
    error_type: &'static str,
    error: &'a str,
}

impl Refusal {
    pub(super) fn bad_data(error: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, error_type: "bad_data", error: error.into() }
    }

    pub(super) fn execution(error: impl Into<String>) -> Self {
        Self { status: StatusCode::UNPROCESSABLE_ENTITY, error_type: "execution", error: error.into() }
    }

    pub(super) fn parameter(name: &str, what: impl std::fmt::Display) -> Self {
        Self::bad_data(format!("invalid parameter \"{name}\": {what}"))
    }
}

/// The statuses and types of Prometheus for what can go wrong here.
impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        use belfry_promql::Error as Query;
        let (status, error_type) = match &error {
            Error::Promql(Query::Parse { .. }) => return Self::parameter("query", error),
            Error::BadRequest { .. } | Error::Series(belfry_series::Error::Pattern { .. }) => {
                (StatusCode::BAD_REQUEST, "bad_data")
            }
            Error::Promql(Query::Execution(_) | Query::TooManySamples { .. })
            | Error::Series(belfry_series::Error::TooManyPoints { .. }) => {
                (StatusCode::UNPROCESSABLE_ENTITY, "execution")
            }
            // Nobody reads this one: queries are cancelled when the client has gone.
            Error::Promql(Query::Cancelled) => (StatusCode::SERVICE_UNAVAILABLE, "canceled"),
            Error::Timeout { .. } => (StatusCode::SERVICE_UNAVAILABLE, "timeout"),
            Error::Busy | Error::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            Error::NotFound { .. } => (StatusCode::NOT_FOUND, "not_found"),
            Error::Promql(Query::Source(_)) | Error::Series(_) | Error::Events(_) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "internal")
            }
        };
        Self { status, error_type, error: error.to_string() }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let failure = Failure { status: "error", error_type: self.error_type, error: &self.error };
        let mut response = json(serde_json::to_vec(&failure).unwrap_or_default());
        *response.status_mut() = self.status;
        response
    }
}

/// An answer of ordinary data.
pub(super) fn success<T: Serialize + ?Sized>(data: &T, remarks: Remarks) -> Result<Response, Refusal> {
    let data = serde_json::to_vec(data).map_err(|error| Refusal {
        status: StatusCode::INTERNAL_SERVER_ERROR,
        error_type: "internal",
        error: error.to_string(),
    })?;
    Ok(json(enclose(&data, &remarks, None)))
}

/// Puts data that are JSON already into the envelope, beside them what they cost if somebody asked.
pub(super) fn enclose(data: &[u8], remarks: &Remarks, explain: Option<&serde_json::Value>) -> Vec<u8> {
    let mut body = Vec::with_capacity(data.len() + 64);
    body.extend_from_slice(b"{\"status\":\"success\",\"data\":");
    body.extend_from_slice(data);
    for (name, texts) in [("warnings", &remarks.warnings), ("infos", &remarks.infos)] {
        if !texts.is_empty() {
            body.extend_from_slice(format!(",\"{name}\":").as_bytes());
            body.extend(serde_json::to_vec(texts).unwrap_or_default());
        }
    }
    if let Some(explain) = explain {
        body.extend_from_slice(b",\"explain\":");
        body.extend(serde_json::to_vec(explain).unwrap_or_default());
    }
    body.push(b'}');
    body
}

pub(super) fn json(body: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
}
