//! The API over a real store: shapes, forms, bounds, failures.

use axum::Router;
use axum::body::Body;
use http::{Request, StatusCode, header};
use http_body_util::BodyExt as _;
use serde_json::{Value as Json, json};
use tower::ServiceExt as _;

use crate::tests::world;
use crate::{Data, PromqlQuery, Times};

const START: &str = "1795161600";
const END: &str = "1795161659";

async fn answer(router: &Router, request: Request<Body>) -> (StatusCode, Json) {
    let response = router.clone().oneshot(request).await.expect("infallible");
    let status = response.status();
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    (status, serde_json::from_slice(&body).expect("JSON"))
}

async fn get(router: &Router, path: &str) -> (StatusCode, Json) {
    answer(router, Request::get(path).body(Body::empty()).expect("a good request")).await
}

async fn post(router: &Router, path: &str, form: &str) -> (StatusCode, Json) {
    let request = Request::post(path).header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    answer(router, request.body(Body::from(form.to_owned())).expect("a good request")).await
}

async fn data(router: &Router, path: &str) -> Json {
    let (status, answer) = get(router, path).await;
    assert_eq!((status, &answer["status"]), (StatusCode::OK, &json!("success")), "{path}: {answer}");
    answer["data"].clone()
}

#[tokio::test]
async fn queries_answer_in_the_shapes_of_prometheus() {
    let router = world().router();
    let eu = json!({"__name__": "calls_total", "region": "eu"});
    let cases = [
        (
            format!("query?time={END}&query=calls_total"),
            json!({"resultType": "vector", "result": [
                {"metric": eu, "value": [1_795_161_659, "59"]},
                {"metric": {"__name__": "calls_total", "region": "us"}, "value": [1_795_161_659, "NaN"]},
            ]}),
        ),
        (
            format!("query?time={END}.5&query=sum(rate(calls_total%7Bregion=%22eu%22%7D%5B30s%5D))"),
            json!({"resultType": "vector", "result": [{"metric": {}, "value": [1_795_161_659.5, "1"]}]}),
        ),
        (
            format!("query?time={END}&query=calls_total%7Bregion=~%22e.%22%7D%5B2s%5D"),
            json!({"resultType": "matrix", "result": [
                {"metric": eu, "values": [[1_795_161_658, "58"], [1_795_161_659, "59"]]},
            ]}),
        ),
        (
            format!("query?time={START}&query=1%2F0"),
            json!({"resultType": "scalar", "result": [1_795_161_600, "+Inf"]}),
        ),
        (
            format!("query?time={START}&query=%22a%22"),
            json!({"resultType": "string", "result": [1_795_161_600, "a"]}),
        ),
        (
            format!("query_range?start={START}&end={END}&step=30s&query=-calls_total%7Bregion=%22eu%22%7D"),
            json!({"resultType": "matrix", "result": [
                {"metric": {"region": "eu"}, "values": [[1_795_161_600, "-0"], [1_795_161_630, "-30"]]},
            ]}),
        ),
        (
            "query_range?start=2026-11-20T08:00:00Z&end=2026-11-20T09:00:30%2B01:00&step=15&query=absent(up)"
                .to_owned(),
            json!({"resultType": "matrix", "result": [
                {"metric": {}, "values": [[1_795_161_600, "1"], [1_795_161_615, "1"], [1_795_161_630, "1"]]},
            ]}),
        ),
        (format!("query?time={START}&query=nothing"), json!({"resultType": "vector", "result": []})),
    ];
    for (path, expected) in cases {
        assert_eq!(data(&router, &format!("/api/v1/{path}")).await, expected, "{path}");
    }
}

#[tokio::test]
async fn forms_are_read_as_addresses_are() {
    let router = world().router();
    let (status, posted) =
        post(&router, "/api/v1/query?time=1", &format!("query=calls_total&time={END}&limit=1")).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(posted["data"]["result"].as_array().expect("list").len(), 1);
    assert_eq!(posted["data"]["result"][0]["value"], json!([1_795_161_659, "59"]), "the body counts first");
    assert_eq!(posted["warnings"], json!(["results truncated due to limit"]));
    let bare = Request::post(format!("/api/v1/query?query=calls_total&time={END}")).body(Body::empty());
    let (status, posted) = answer(&router, bare.expect("a good request")).await;
    assert_eq!((status, posted["data"]["result"].as_array().map(Vec::len)), (StatusCode::OK, Some(2)));
    let (_, posted) = post(&router, "/api/v1/series", "match[]=calls_total&match%5B%5D=up").await;
    assert_eq!(posted["data"].as_array().expect("list").len(), 2);
}

#[tokio::test]
async fn remarks_stand_beside_the_data() {
    let router = world().router();
    let (_, plain) = get(&router, "/api/v1/query?query=vector(1)").await;
    assert!(plain.get("warnings").is_none() && plain.get("infos").is_none(), "{plain}");
    let (_, remarked) =
        get(&router, &format!("/api/v1/query?time={END}&query=rate(%7Bregion=%22eu%22%7D%5B1m%5D)")).await;
    assert!(remarked.get("warnings").is_none(), "{remarked}");
    let (_, remarked) = get(&router, "/api/v1/query?query=quantile(2,vector(1))").await;
    let warning = remarked["warnings"][0].as_str().expect("a warning");
    assert!(warning.starts_with("PromQL warning: quantile value should be between 0 and 1"), "{warning}");
}

#[tokio::test]
async fn series_and_labels_are_found_by_selector_and_time() {
    let router = world().router();
    let eu = json!([{"__name__": "calls_total", "region": "eu"}]);
    let cases = [
        ("series?match[]=calls_total%7Bregion=~%22e.%22%7D".to_owned(), eu.clone()),
        (format!("series?match[]=calls_total&limit=1&start={START}&end={END}"), eu),
        ("series?match[]=calls_total&start=1&end=2".to_owned(), json!([])),
        ("labels".to_owned(), json!(["__name__", "region"])),
        (format!("labels?start={START}&end={END}"), json!(["__name__", "region"])),
        ("labels?start=1&end=2".to_owned(), json!([])),
        ("labels?match[]=nothing".to_owned(), json!([])),
        ("label/region/values".to_owned(), json!(["eu", "us"])),
        ("label/region/values?match[]=%7Bregion!=%22us%22,region!=%22%22%7D".to_owned(), json!(["eu"])),
        (format!("label/__name__/values?start={START}"), json!(["calls_total"])),
        ("label/nothing/values".to_owned(), json!([])),
        ("query_exemplars?query=calls_total&start=1&end=2".to_owned(), json!([])),
        ("format_query?query=sum(x)by(y)".to_owned(), json!("sum by (y) (x)")),
    ];
    for (path, expected) in cases {
        assert_eq!(data(&router, &format!("/api/v1/{path}")).await, expected, "{path}");
    }
}

#[tokio::test]
async fn metrics_and_build_describe_themselves() {
    let router = world().router();
    let status = data(&router, "/api/v1/status/tsdb?limit=1").await;
    assert_eq!(status["headStats"]["numSeries"], 2);
    assert_eq!(status["seriesCountByMetricName"], json!([{"name": "calls_total", "value": 2}]));
    let one = data(&router, "/api/v1/metadata?metric=series_seal_seconds").await;
    assert_eq!(one["series_seal_seconds"][0]["type"], "histogram");
    assert_eq!(one["series_seal_seconds"][0]["unit"], "seconds");
    assert_eq!(one.as_object().expect("an object").len(), 1);
    let some = data(&router, "/api/v1/metadata?limit=2").await;
    assert_eq!(some.as_object().expect("an object").len(), 2);
    assert_eq!(data(&router, "/api/v1/metadata?metric=nothing").await, json!({}));
    let build = data(&router, "/api/v1/status/buildinfo").await;
    assert!(build["version"].as_str().expect("text").starts_with("3."), "{build}");
    for path in ["/-/healthy", "/-/ready"] {
        let request = Request::get(path).body(Body::empty()).expect("a good request");
        let response = router.clone().oneshot(request).await.expect("infallible");
        assert_eq!(response.status(), StatusCode::OK, "{path}");
    }
}

#[tokio::test]
async fn failures_have_status_type_and_text_of_prometheus() {
    let router = world().router();
    let range = |rest: &str| format!("query_range?query=up&{rest}");
    let cases = [
        ("query".to_owned(), 400, "bad_data", "invalid parameter \"query\": 1:1: parse error"),
        ("query?query=sum(".to_owned(), 400, "bad_data", "1:5: parse error"),
        ("query?query=up&time=yesterday".to_owned(), 400, "bad_data", "invalid parameter \"time\""),
        ("query?query=up&time=NaN".to_owned(), 400, "bad_data", "cannot parse \"NaN\" to a valid timestamp"),
        ("query?query=up&timeout=0".to_owned(), 400, "bad_data", "invalid parameter \"timeout\""),
        ("query?query=up&limit=-1".to_owned(), 400, "bad_data", "limit must be"),
        ("query?query=up&timeout=1ms&time=%FF".to_owned(), 400, "bad_data", ""),
        (range("end=2&step=1"), 400, "bad_data", "invalid parameter \"start\""),
        (range("start=3&end=2&step=1"), 400, "bad_data", "must not be before start"),
        (range("start=1&end=2"), 400, "bad_data", "invalid parameter \"step\""),
        (range("start=1&end=2&step=0"), 400, "bad_data", "zero or negative"),
        (range("start=0&end=11001&step=1"), 400, "bad_data", "exceeded maximum resolution of 11,000 points"),
        ("query_range?start=1&end=2&step=1&query=up%5B1m%5D".to_owned(), 400, "bad_data", "range query"),
        (
            format!("query?time={END}&query=calls_total%2Bon()calls_total"),
            422,
            "execution",
            "many-to-many matching not allowed",
        ),
        ("series".to_owned(), 400, "bad_data", "no match[] parameter provided"),
        (
            "series?match[]=up%7B".to_owned(),
            400,
            "bad_data",
            "invalid parameter \"match[]\": 1:4: parse error",
        ),
        ("series?match[]=rate(up%5B1m%5D)".to_owned(), 400, "bad_data", "not a series selector"),
        ("series?match[]=%7Ba=%22%22%7D".to_owned(), 400, "bad_data", "invalid parameter \"match[]\""),
        ("labels?start=2&end=1".to_owned(), 400, "bad_data", "must not be before start"),
        ("format_query?query=1%2B".to_owned(), 400, "bad_data", "parse error"),
        ("query_exemplars?query=up&start=2&end=1".to_owned(), 400, "bad_data", "must not be before start"),
    ];
    for (path, status, error_type, text) in cases {
        let (found, failure) = get(&router, &format!("/api/v1/{path}")).await;
        assert_eq!(
            (found.as_u16(), &failure["errorType"]),
            (status, &json!(error_type)),
            "{path}: {failure}"
        );
        assert_eq!(failure["status"], "error");
        assert!(failure["error"].as_str().expect("text").contains(text), "{path}: {failure}");
    }
    assert_eq!(
        get(&router, &format!("/api/v1/{}", range("start=0&end=11000&step=1"))).await.0,
        StatusCode::OK
    );
}

#[tokio::test]
async fn a_query_ends_at_its_bounds() {
    let world = world();
    let at = Times::Instant(1_795_161_659_000);
    // Eleven thousand windows that are sorted one by one take longer than this.
    let times = Times::Range { start_ms: 1_795_161_600_000, end_ms: 1_795_172_600_000, step_ms: 1000 };
    let mut late = PromqlQuery::new("quantile_over_time(0.5, calls_total[1h:1s])", times);
    late.timeout = std::time::Duration::from_millis(1);
    let refused = world.reader.evaluate(late).await.err().map(|error| error.reason());
    assert_eq!(refused, Some("timeout"));
    let wide = PromqlQuery::new("count_over_time(sum(calls_total)[1y:1s])", at);
    let refused = world.reader.evaluate(wide).await.err().map(|error| error.reason());
    assert!(matches!(refused, Some("execution" | "too_many_samples")), "{refused:?}");
    let answer = world.reader.evaluate(PromqlQuery::new("calls_total", at)).await.expect("an answer");
    assert!(matches!(answer.data, Data::Vector(found) if found.len() == 2));
}
