//! `/api/v1/read`: remote read, as samples and as streamed chunks.
//!
//! Source: <https://prometheus.io/docs/prometheus/latest/querying/remote_read_api/>. Chunks are Prometheus' XOR chunks, so
//! an answer with native histograms is given as samples, which every reader can take as well.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use belfry_promql::{CounterReset, Histogram, Labels, MatchOp, Matcher, SeriesData};
use belfry_signal::NativeHistogram;
use belfry_wire::messages::{read, v1};
use belfry_wire::native;
use http::{HeaderMap, StatusCode, header};
use prost::Message;

use super::Api;
use super::envelope::Refusal;
use crate::reader::ReadQuestion;

/// Bytes of a request after decompression.
const REQUEST_BYTES_MAX: usize = 1 << 20;
/// Questions in one request.
const QUESTIONS_MAX: usize = 64;
const STREAMED: i32 = 1;
/// Points of one chunk, as Prometheus cuts them.
const CHUNK_POINTS: usize = 120;
/// Bytes of one frame of a stream, about; a series is never cut by it.
const FRAME_BYTES: usize = 1 << 20;
const XOR: i32 = 1;

pub(super) async fn read(
    State(api): State<Api>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let coding = headers.get(header::CONTENT_ENCODING);
    if coding.is_some_and(|coding| coding != "snappy") {
        return Err(Refusal::bad_data("remote read takes a body compressed with snappy"));
    }
    let request = request(&body).map_err(Refusal::bad_data)?;
    if request.queries.len() > QUESTIONS_MAX {
        return Err(Refusal::bad_data(format!("more than {QUESTIONS_MAX} queries in one request")));
    }
    let questions = request.queries.iter().map(question).collect::<Result<Vec<_>, String>>();
    let questions = questions.map_err(Refusal::bad_data)?;
    let wants_stream =
        request.accepted_response_types.iter().find(|kind| matches!(kind, 0 | 1)) == Some(&STREAMED);
    let takes_samples =
        request.accepted_response_types.is_empty() || request.accepted_response_types.contains(&0);
    let answered = api.reader.read_then(questions, move |answers| {
        let has_histograms = answers.iter().flatten().any(|series| !series.histograms.is_empty());
        if wants_stream && (!has_histograms || !takes_samples) {
            return (true, streamed(&answers));
        }
        (false, sampled(answers))
    });
    let (is_stream, bytes) = answered.await?;
    let response = if is_stream {
        let kind = "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse";
        ([(header::CONTENT_TYPE, kind)], bytes).into_response()
    } else {
        let headers =
            [(header::CONTENT_TYPE, "application/x-protobuf"), (header::CONTENT_ENCODING, "snappy")];
        (StatusCode::OK, headers, bytes).into_response()
    };
    Ok(response)
}

fn request(body: &[u8]) -> Result<read::ReadRequest, String> {
    let wrong = |error: snap::Error| format!("the body is not in snappy's block format: {error}");
    let length = snap::raw::decompress_len(body).map_err(wrong)?;
    if length > REQUEST_BYTES_MAX {
        return Err(format!("the request is longer than {REQUEST_BYTES_MAX} bytes"));
    }
    let plain = snap::raw::Decoder::new().decompress_vec(body).map_err(wrong)?;
    read::ReadRequest::decode(&plain[..])
        .map_err(|error| format!("the body is no prometheus.ReadRequest: {error}"))
}

fn question(query: &read::Query) -> Result<ReadQuestion, String> {
    let matcher = |matcher: &read::LabelMatcher| {
        let op = match matcher.kind {
            0 => MatchOp::Equal,
            1 => MatchOp::NotEqual,
            2 => MatchOp::Regex,
            3 => MatchOp::NotRegex,
            other => return Err(format!("{other} is no kind of matcher")),
        };
        Matcher::new(&matcher.name, op, &matcher.value)
    };
    let matchers = query.matchers.iter().map(matcher).collect::<Result<_, _>>()?;
    Ok(ReadQuestion { matchers, from_ms: query.start_timestamp_ms, to_ms: query.end_timestamp_ms })
}

fn labels(labels: &Labels) -> Vec<v1::Label> {
    let bytes = |text: &str| prost::bytes::Bytes::copy_from_slice(text.as_bytes());
    labels.iter().map(|(name, value)| v1::Label { name: bytes(name), value: bytes(value) }).collect()
}

fn histogram(time: i64, held: &Arc<Histogram>) -> belfry_wire::messages::Histogram {
    let plain = NativeHistogram {
        is_gauge: held.hint == CounterReset::Gauge,
        schema: held.schema,
        zero_threshold: held.zero_threshold,
        zero_count: held.zero_count,
        count: held.count,
        sum: held.sum,
        positive: held.positive.clone(),
        negative: held.negative.clone(),
        custom_bounds: held.custom_bounds.to_vec(),
    };
    native::to_wire(&plain, time)
}

fn sampled(answers: Vec<Vec<SeriesData>>) -> Vec<u8> {
    let series = |series: SeriesData| v1::TimeSeries {
        labels: labels(&series.labels),
        samples: series
            .floats
            .iter()
            .map(|(timestamp, value)| v1::Sample { value: *value, timestamp: *timestamp })
            .collect(),
        exemplars: Vec::new(),
        histograms: series.histograms.iter().map(|(time, held)| histogram(*time, held)).collect(),
    };
    let result =
        |answer: Vec<SeriesData>| read::QueryResult { timeseries: answer.into_iter().map(series).collect() };
    let response = read::ReadResponse { results: answers.into_iter().map(result).collect() };
    // It fails only for answers of four gigabytes and more, which the bound on points does not allow.
    snap::raw::Encoder::new().compress_vec(&response.encode_to_vec()).unwrap_or_default()
}

/// Frames: length as a varint, checksum, message.
fn streamed(answers: &[Vec<SeriesData>]) -> Vec<u8> {
    let mut out = Vec::new();
    for (index, answer) in (0..).zip(answers) {
        let mut frame = read::ChunkedReadResponse { chunked_series: Vec::new(), query_index: index };
        let mut bytes = 0;
        for series in answer.iter().filter(|series| !series.floats.is_empty()) {
            let chunks: Vec<read::Chunk> = series.floats.chunks(CHUNK_POINTS).map(chunk).collect();
            bytes += chunks.iter().map(|chunk| chunk.data.len() + 16).sum::<usize>() + 64;
            frame.chunked_series.push(read::ChunkedSeries { labels: labels(&series.labels), chunks });
            if bytes >= FRAME_BYTES {
                push_frame(&mut out, &frame);
                frame.chunked_series.clear();
                bytes = 0;
            }
        }
        if !frame.chunked_series.is_empty() {
            push_frame(&mut out, &frame);
        }
    }
    out
}

fn chunk(points: &[(i64, f64)]) -> read::Chunk {
    let time = |point: Option<&(i64, f64)>| point.map_or(0, |(time, _)| *time);
    read::Chunk {
        min_time_ms: time(points.first()),
        max_time_ms: time(points.last()),
        kind: XOR,
        data: belfry_series::xor_chunk(points).into(),
    }
}

fn push_frame(out: &mut Vec<u8>, frame: &read::ChunkedReadResponse) {
    let message = frame.encode_to_vec();
    let mut length = message.len();
    while length >= 0x80 {
        out.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(&crc32c::crc32c(&message).to_be_bytes());
    out.extend_from_slice(&message);
}

#[cfg(test)]
mod tests;
