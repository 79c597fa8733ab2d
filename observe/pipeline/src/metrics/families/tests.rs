use belfry_wire::messages::BucketSpan;

use super::*;

#[derive(Default)]
struct Told(Vec<String>);

impl Sink for Told {
    fn said(&mut self, _: &str, _: Said<'_>) {}

    fn take(&mut self, item: Item<'_>) -> Result<(), String> {
        let value = match item.value {
            PointValue::Float(value) => value.to_string(),
            PointValue::Histogram(held) => format!("native of {} in {:?}", held.count, held.positive),
        };
        self.0.push(format!("{} {value} {}", item.series.replace('"', ""), item.exemplars.len()));
        Ok(())
    }
}

fn some(text: &'static str) -> Option<Bytes> {
    Some(Bytes::from_static(text.as_bytes()))
}

fn page() -> Bytes {
    let label = vec![client::LabelPair { name: some("a"), value: some("b") }];
    let example = |seconds| client::Exemplar {
        label: label.clone(),
        value: Some(0.5),
        timestamp: Some(client::Timestamp { seconds, nanos: 0 }),
    };
    let histogram = client::Histogram {
        sample_count: Some(3),
        sample_sum: Some(2.5),
        bucket: vec![client::Bucket {
            cumulative_count: Some(2),
            upper_bound: Some(1.0),
            exemplar: Some(example(5)),
            cumulative_count_float: None,
        }],
        schema: Some(0),
        zero_threshold: Some(0.001),
        positive_span: vec![BucketSpan { offset: 1, length: 2 }],
        positive_delta: vec![1, 1],
        ..client::Histogram::default()
    };
    let metric = |histogram| client::Metric { label: label.clone(), histogram, ..client::Metric::default() };
    let families = [
        client::MetricFamily {
            name: some("h"),
            kind: Some(4),
            metric: vec![metric(Some(histogram))],
            ..client::MetricFamily::default()
        },
        client::MetricFamily {
            name: some("g"),
            kind: Some(1),
            metric: vec![client::Metric {
                gauge: Some(client::Number { value: Some(7.0) }),
                ..client::Metric::default()
            }],
            ..client::MetricFamily::default()
        },
    ];
    let mut page = Vec::new();
    for family in &families {
        family.encode_length_delimited(&mut page).expect("room");
    }
    page.into()
}

fn check(histograms: Histograms, expected: &[&str]) {
    let mut told = Told::default();
    read(page(), histograms, &mut told).expect("a good page");
    assert_eq!(told.0, expected);
}

#[test]
fn histograms_come_as_they_are_wanted() {
    let native = "{h,a=b} native of 3 in [(1, 1.0), (2, 2.0)] 1";
    let classic =
        ["{h_bucket,a=b,le=1.0} 2 1", "{h_bucket,a=b,le=+Inf} 3 0", "{h_sum,a=b} 2.5 0", "{h_count,a=b} 3 0"];
    let gauge = "{g} 7 0";
    let all = |parts: &[&[&'static str]]| parts.concat();
    check(Histograms { native: false, classic_too: true }, &all(&[&classic, &[gauge]]));
    check(Histograms { native: true, classic_too: false }, &all(&[&[native], &[gauge]]));
    check(Histograms { native: true, classic_too: true }, &all(&[&[native], &classic, &[gauge]]));
}

#[test]
fn a_page_that_ends_early_is_a_fault() {
    let page = page();
    let mut told = Told::default();
    let cut = read(page.slice(..page.len() - 3), Histograms::default(), &mut told);
    assert_eq!(cut.map_err(|fault| fault.line), Err(2));
    assert!(read(Bytes::from_static(b"\xff\xff\xff\xff\xff"), Histograms::default(), &mut told).is_err());
}
