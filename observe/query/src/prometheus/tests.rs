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

/// The call of the world, escaped for an address.
const CALL: &str = "call_id=%22a84b4c76%2Fe66710@pc33%22";

#[tokio::test]
async fn curves_of_a_call_are_asked_for_as_series_are() {
    let world = world();
    let router = world.router();
    let (_, indexed) = get(&router, "/api/v1/status/tsdb").await;
    let range = "start=1795161600&end=1795161620&step=5";
    let at = "time=1795161611";
    let metric = |leg: &str| {
        json!({"__name__": "rtp_jitter_seconds", "call_id": "a84b4c76/e66710@pc33", "codec": "PCMU", "leg": leg,
            "payload_type": "0", "region": "eu-west"})
    };
    let points = json!([[1_795_161_610, "0.00225"], [1_795_161_615, "0.00225"], [1_795_161_620, "0.00225"]]);
    let cases = [
        (
            format!("query_range?{range}&query=rtp_jitter_seconds%7B{CALL}%7D"),
            json!({"resultType": "matrix", "result": [
                {"metric": metric("callee"), "values": points}, {"metric": metric("caller"), "values": points},
            ]}),
        ),
        (
            format!("query?{at}&query=rtp_mos%7B{CALL},leg=%22caller%22%7D%5B20s%5D"),
            json!([[1_795_161_605.9, "4.3"], [1_795_161_610.9, "2.1"]]),
        ),
        (
            format!("query?{at}&query=min_over_time(rtp_mos%7B{CALL},leg=%22caller%22%7D%5B1m%5D)"),
            json!("2.1"),
        ),
        // With real series in one expression, and with other curves.
        (
            format!(
                "query?{at}&query=rtp_mos%7B{CALL},leg=%22caller%22%7D*0%2Bon()calls_total%7Bregion=%22eu%22%7D"
            ),
            json!("11"),
        ),
        (
            format!(
                "query?{at}&query=sum(rtp_lost_packets%7B{CALL}%7D)/sum(rtp_packets%7B{CALL}%7D%2Brtp_lost_packets%7B{CALL}%7D)"
            ),
            json!("0.02"),
        ),
        (format!("query?{at}&query=count(%7B{CALL}%7D)"), json!("16")),
        // Two and a half windows after the last one the leg has ended.
        ("query?time=1795161624&query=rtp_jitter_seconds%7BCALL%7D".replace("CALL", CALL), json!([])),
        (format!("query?{at}&query=rtp_jitter_seconds%7Bcall_id=%22nobody%22%7D"), json!([])),
    ];
    for (path, expected) in cases {
        let found = data(&router, &format!("/api/v1/{path}")).await;
        let only = &found["result"][0];
        let found = [&found, &found["result"], &only["values"], &only["value"][1]]
            .into_iter()
            .find(|found| **found == expected)
            .is_some();
        assert!(found, "{path}: {}", data(&router, &format!("/api/v1/{path}")).await);
    }
    let cases = [
        (format!("label/leg/values?match[]=rtp_mos%7B{CALL}%7D"), json!(["callee", "caller"])),
        (
            format!("labels?match[]=rtp_mos%7B{CALL}%7D"),
            json!(["__name__", "call_id", "codec", "leg", "payload_type", "region"]),
        ),
        (
            format!("series?match[]=rtp_jitter_seconds%7B{CALL},leg=%22caller%22%7D"),
            json!([metric("caller")]),
        ),
        (format!("series?start=1&end=2&match[]=rtp_jitter_seconds%7B{CALL}%7D"), json!([])),
        // Nothing of it is in the index.
        ("labels".to_owned(), json!(["__name__", "region"])),
        ("label/__name__/values".to_owned(), json!(["calls_total"])),
    ];
    for (path, expected) in cases {
        assert_eq!(data(&router, &format!("/api/v1/{path}")).await, expected, "{path}");
    }
    assert_eq!(get(&router, "/api/v1/status/tsdb").await.1, indexed, "the index has not grown");
    let (_, described) = get(&router, "/api/v1/metadata?metric=rtp_jitter_seconds").await;
    assert_eq!(described["data"]["rtp_jitter_seconds"][0]["type"], "gauge");
}

#[tokio::test]
async fn curves_are_bounded_private_and_advised_on() {
    let world = world();
    let router = world.router();
    for (path, text) in [
        ("query?query=rtp_jitter_seconds", "call_id"),
        ("query?query=max(rtp_jitter_seconds%7Bcall_id=~%22.%2B%22%7D)", "call_id"),
        ("query?query=rtp_mos%7Bcall_id=~%22a%7Cb%7Cc%22%7D", "calls_max"),
    ] {
        let (status, failure) = get(&router, &format!("/api/v1/{path}")).await;
        let error = failure["error"].as_str().expect("text").to_owned();
        assert_eq!((status.as_u16(), &failure["errorType"]), (422, &json!("execution")), "{path}");
        assert!(error.contains(text), "{path}: {error}");
    }
    for path in ["series?match[]=rtp_mos", "labels?match[]=rtp_mos", "label/leg/values?match[]=rtp_mos"] {
        let (_, answer) = get(&router, &format!("/api/v1/{path}")).await;
        assert!(answer["warnings"][0].as_str().expect("advice").contains("call_id"), "{path}: {answer}");
    }
    let (_, answer) = get(&router, "/api/v1/label/call_id/values").await;
    assert!(answer["infos"][0].as_str().expect("advice").contains("/api/v1/calls"), "{answer}");
    // Answers with a Call-ID are not kept on the way; doors through which series leave know no calls.
    let request = |path: &str| Request::get(path).body(Body::empty()).expect("a good request");
    let path = format!("/api/v1/query?time=1795161611&query=rtp_mos%7B{CALL}%7D");
    let response = router.clone().oneshot(request(&path)).await.expect("infallible");
    assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
    let federated = router.clone().oneshot(request(&format!("/federate?match[]=%7B{CALL}%7D"))).await;
    let page = federated.expect("infallible").into_body().collect().await.expect("a body").to_bytes();
    assert!(page.is_empty(), "{page:?}");
}

#[tokio::test]
async fn a_query_tells_what_each_part_of_it_cost() {
    let router = world().router();
    let path = format!("/api/v1/query?explain=1&time={END}&query=sum(rate(calls_total%5B30s%5D))");
    let (_, answer) = get(&router, &path).await;
    let plan = &answer["explain"]["plan"];
    assert_eq!(
        (&plan["kind"], &plan["text"]),
        (&json!("aggregation"), &json!("sum(rate(calls_total[30s]))"))
    );
    let range = &plan["below"][0]["below"][0];
    assert_eq!((&range["seriesRead"], &range["samplesRead"]), (&json!(2), &json!(60)));
    assert!(answer["explain"]["samples"].as_u64().expect("a count") >= 60, "{answer}");
    let (_, plain) = get(&router, &path.replace("explain=1&", "")).await;
    assert!(plain.get("explain").is_none() && plain["data"] == answer["data"], "{plain}");
    let functions = data(&router, "/api/v1/functions").await;
    let rate = functions.as_array().expect("a list").iter().find(|one| one["name"] == "rate").expect("known");
    assert_eq!(
        (&rate["argTypes"], &rate["returnType"]),
        (&json!(["range vector"]), &json!("instant vector"))
    );
}

#[tokio::test]
async fn slow_queries_leave_a_line_without_showing_their_text() {
    let registry = belfry_signal::Registry::new(belfry_signal::Resource::for_test(), 100);
    let (registry, mut records) = registry;
    let signals = crate::signals::Signals::register(&registry);
    let ended = crate::signals::Ended {
        text: "rtp_mos{call_id=\"a\u{e4}\"}",
        outcome: crate::signals::Outcome::TimedOut,
        took: std::time::Duration::from_secs(7),
        samples: 5,
        span: std::time::Duration::from_secs(60),
    };
    signals.ended(&ended, false, 100);
    signals.ended(&ended, true, 19);
    let record = records.try_recv().expect("one line");
    assert!(records.try_recv().is_err(), "of two queries one was slow");
    let belfry_signal::record::Body::Log(log) = &record.body else { panic!("a line") };
    assert_eq!(log.message, "slow query");
    let text = &log.attributes.iter().find(|(name, _)| name == "query.text").expect("its text").1;
    assert_eq!(text.to_string(), "[private]");
    let belfry_signal::Value::Private(text) = text else { panic!("private") };
    assert_eq!(text.reveal(), "rtp_mos{call_id=\"a", "cut at a letter");
    assert!(registry.encode_text().contains("query_promql_total{outcome=\"timed_out\"} 2"));
}
