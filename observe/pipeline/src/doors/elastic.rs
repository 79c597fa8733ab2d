//! As much of Elasticsearch's API as shippers need to write: `_bulk`, and the questions that they ask before.
//!
//! Each document of a bulk request becomes a log line of its fields. Deletions and updates are refused, item by item,
//! as Elasticsearch answers; whole requests are refused with 429 when there is no room. Index templates, lifecycle
//! policies and pipelines are answered as if they were there: there is nothing to set up.

mod bulk;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{Extension, Json, Router};
use belfry_door::PeerAddress;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::{Value as Json_, json};

pub(crate) use self::bulk::{Item, decode};
use super::http::{answer, origin, status, unpack};
use super::intake::{Intake, Origin, Room};
use super::refusal::Refusal;
use super::signals::Entrance;

/// The version that we call ourselves: shippers refuse to write to an older one, and to one that does not say that it is
/// Elasticsearch.
const VERSION: &str = "8.17.0";
/// A record and an item of an answer in memory, without their texts.
const ITEM_BYTES: usize = 768;

/// The paths that shippers ask for.
pub(super) fn router(intake: Intake) -> Router {
    Router::new()
        .route("/", get(root))
        .route("/_license", get(license))
        .route("/_xpack", get(license))
        .route("/_cluster/health", get(async || Json(json!({ "status": "green", "timed_out": false }))))
        .route("/_bulk", post(bulk_request).put(bulk_request))
        .route("/{index}/_bulk", post(bulk_of_index).put(bulk_of_index))
        .route("/{index}/_doc", post(document))
        .route("/{index}/_doc/{id}", post(document_with_id).put(document_with_id))
        .route("/{index}/_create/{id}", post(document_with_id).put(document_with_id))
        // What sets up an index: there is none.
        .route("/_ilm/policy/{name}", any(acknowledged))
        .route("/_index_template/{name}", any(acknowledged))
        .route("/_component_template/{name}", any(acknowledged))
        .route("/_template/{name}", any(acknowledged))
        .route("/_data_stream/{name}", any(acknowledged))
        .route("/_ingest/pipeline/{name}", any(acknowledged))
        .route("/{index}", any(acknowledged))
        .layer(map_response(as_elastic))
        .with_state(intake)
}

/// Clients look for this before they believe that it is Elasticsearch.
async fn as_elastic(mut response: Response) -> Response {
    let name = HeaderName::from_static("x-elastic-product");
    response.headers_mut().insert(name, HeaderValue::from_static("Elasticsearch"));
    response
}

async fn root() -> Json<Json_> {
    Json(json!({
        "name": "belfry",
        "cluster_name": "belfry",
        "cluster_uuid": "belfry",
        "version": {
            "number": VERSION, "build_flavor": "default", "build_type": "tar", "build_snapshot": false,
            "lucene_version": "9.12.0", "minimum_wire_compatibility_version": "7.17.0",
            "minimum_index_compatibility_version": "7.0.0",
        },
        "tagline": "You Know, for Search",
    }))
}

async fn license() -> Json<Json_> {
    Json(
        json!({ "license": { "status": "active", "uid": "belfry", "type": "basic", "issue_date_in_millis": 0 } }),
    )
}

async fn acknowledged() -> Json<Json_> {
    Json(json!({ "acknowledged": true }))
}

type Peer = Option<Extension<PeerAddress>>;

async fn bulk_request(State(intake): State<Intake>, peer: Peer, headers: HeaderMap, body: Bytes) -> Response {
    bulk_all(&intake, peer, &headers, body, None).await
}

async fn bulk_of_index(
    State(intake): State<Intake>,
    Path(index): Path<String>,
    peer: Peer,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    bulk_all(&intake, peer, &headers, body, Some(&index)).await
}

async fn bulk_all(
    intake: &Intake,
    peer: Peer,
    headers: &HeaderMap,
    body: Bytes,
    index: Option<&str>,
) -> Response {
    let origin = origin(Entrance::Elastic, peer.map(|Extension(peer)| peer));
    intake.received(&origin, body.len());
    let (room, bytes) = match take_in(intake, headers, body.clone()) {
        Ok(taken) => taken,
        Err(refusal) => {
            intake.refused(&origin, &refusal, 1, &body);
            return error(intake, &refusal);
        }
    };
    let mut shaper = intake.shaper(Entrance::Elastic);
    let decoded = decode(&bytes, index, &mut shaper);
    intake.note_changes(Entrance::Elastic, &shaper);
    let (records, items) = match decoded {
        Ok(decoded) => decoded,
        Err(refusal) => {
            intake.refused(&origin, &refusal, 1, &bytes);
            return error(intake, &refusal);
        }
    };
    for item in &items {
        if let Some(refusal) = &item.refusal {
            intake.refused(&origin, refusal, 1, item.sample.as_bytes());
        }
    }
    let stored = intake.store(&origin, records).await;
    drop(room);
    match stored {
        Ok(()) => Json(report(&items)).into_response(),
        Err(refusal) => error(intake, &refusal),
    }
}

/// Room for the request and for what it becomes, and its body unpacked.
fn take_in(intake: &Intake, headers: &HeaderMap, body: Bytes) -> Result<(Room, Bytes), Refusal> {
    let packed = intake.try_room(body.len())?;
    let packed_bytes = body.len();
    let bytes = unpack(headers, body, intake.config().request_bytes_max)?;
    // At once for all of it, so that the largest request still finds room when it is alone.
    drop(packed);
    let room = intake.try_room(packed_bytes + bytes.len() + expansion(&bytes))?;
    Ok((room, bytes))
}

/// Bytes that a body takes beside its own when it is read: an action and an empty document are fifteen bytes, and a record
/// and an item in memory.
fn expansion(bytes: &[u8]) -> usize {
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count();
    lines.div_ceil(2) * ITEM_BYTES
}

/// What became of each item, as Elasticsearch says it.
fn report(items: &[Item]) -> Json_ {
    let one = |item: &Item| {
        let mut result = json!({ "_index": item.index, "_id": item.id });
        match &item.refusal {
            None => {
                result["_version"] = 1.into();
                result["result"] = "created".into();
                result["status"] = StatusCode::CREATED.as_u16().into();
            }
            Some(refusal) => {
                result["status"] = StatusCode::BAD_REQUEST.as_u16().into();
                result["error"] = json!({ "type": refusal.reason.as_str(), "reason": refusal.text });
            }
        }
        json!({ item.action: result })
    };
    json!({
        "took": 0,
        "errors": items.iter().any(|item| item.refusal.is_some()),
        "items": items.iter().map(one).collect::<Vec<_>>(),
    })
}

fn error(intake: &Intake, refusal: &Refusal) -> Response {
    let status = status(refusal).as_u16();
    // What shippers read to know that they may come again.
    let kind =
        if refusal.is_passing() { "es_rejected_execution_exception" } else { "illegal_argument_exception" };
    let body = json!({ "error": { "type": kind, "reason": refusal.text }, "status": status });
    answer(intake, refusal, Json(body))
}

async fn document(
    State(intake): State<Intake>,
    Path(index): Path<String>,
    peer: Peer,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    one_document(&intake, peer, &headers, body, (index, None)).await
}

async fn document_with_id(
    State(intake): State<Intake>,
    Path((index, id)): Path<(String, String)>,
    peer: Peer,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    one_document(&intake, peer, &headers, body, (index, Some(id))).await
}

async fn one_document(
    intake: &Intake,
    peer: Peer,
    headers: &HeaderMap,
    body: Bytes,
    (index, id): (String, Option<String>),
) -> Response {
    let origin: Origin = origin(Entrance::Elastic, peer.map(|Extension(peer)| peer));
    intake.received(&origin, body.len());
    let mut shaper = intake.shaper(Entrance::Elastic);
    let taken = take_in(intake, headers, body.clone())
        .and_then(|(room, bytes)| Ok((room, bulk::document(&bytes, &index, &mut shaper)?)));
    intake.note_changes(Entrance::Elastic, &shaper);
    let (_room, record) = match taken {
        Ok(taken) => taken,
        Err(refusal) => {
            intake.refused(&origin, &refusal, 1, &body);
            return error(intake, &refusal);
        }
    };
    match intake.store(&origin, vec![record]).await {
        Ok(()) => {
            let answer =
                json!({ "_index": index, "_id": id.unwrap_or_default(), "_version": 1, "result": "created" });
            (StatusCode::CREATED, Json(answer)).into_response()
        }
        Err(refusal) => error(intake, &refusal),
    }
}

/// For the fuzzer.
#[doc(hidden)]
pub(super) mod fuzz {
    use super::super::config::DoorsConfig;
    use super::super::shape::{Rules, Shaper};
    use super::Entrance;

    /// Any bytes as a bulk request.
    pub fn elastic(bytes: &[u8]) {
        let rules = Rules::of(&DoorsConfig::default());
        let mut shaper = Shaper::new(&rules, Entrance::Elastic, 1_795_000_000_000_000_000);
        let _bulk = super::decode(bytes, None, &mut shaper).map(|(_, items)| super::report(&items));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_taken_for_what_a_body_becomes() {
        let many = b"{\"index\":{}}\n{}\n".repeat(1000);
        let mut shaper_bytes = size_of::<belfry_signal::Record>() + size_of::<bulk::Item>();
        shaper_bytes *= 1000;
        assert!(expansion(&many) >= shaper_bytes, "{} for {shaper_bytes}", expansion(&many));
        assert_eq!(expansion(b"\n\n{}"), ITEM_BYTES);
    }
}
