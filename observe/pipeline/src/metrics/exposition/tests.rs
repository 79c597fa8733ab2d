use super::*;

#[derive(Default)]
struct Told(Vec<String>);

impl Sink for Told {
    fn said(&mut self, family: &str, said: Said<'_>) {
        self.0.push(format!("{family}: {said:?}"));
    }

    fn take(&mut self, item: Item<'_>) -> Result<(), String> {
        let pairs = pairs(item.series)?;
        let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        let time = item.unix_millis.map_or(String::new(), |time| format!(" @{time}"));
        let value = match item.value {
            PointValue::Float(value) => value.to_string(),
            PointValue::Histogram(held) => format!("{held:?}"),
        };
        let examples: Vec<String> = item
            .exemplars
            .iter()
            .map(|held| format!(" # {:?} {} {}", held.labels, held.value, held.unix_millis))
            .collect();
        self.0.push(format!("{} {value}{time}{}", pairs.join(" "), examples.concat()));
        Ok(())
    }
}

fn check(flavour: Flavour, text: &str, expected: Result<&[&str], &str>) {
    let mut told = Told::default();
    let read = read(text, flavour, &mut told).map_err(|fault| fault.to_string());
    let told: Vec<&str> = told.0.iter().map(String::as_str).collect();
    match (read, expected) {
        (Ok(()), Ok(expected)) => assert_eq!(told, expected, "{text}"),
        (read, expected) => assert_eq!(read.as_ref().err().map(String::as_str), expected.err(), "{text}"),
    }
}

#[test]
fn the_format_of_prometheus() {
    let prometheus = |text, expected| check(Flavour::Prometheus, text, expected);
    prometheus(
        "# HELP a Some \\\\ help\\nin two lines\n# TYPE a counter\n# a comment\n\na 1\na{b=\"c\"} 2.5e3 1395066363000\n",
        Ok(&[
            "a: Help(\"Some \\\\ help\\nin two lines\")",
            "a: Kind(\"counter\")",
            "__name__=\"a\" 1",
            "__name__=\"a\" b=\"c\" 2500 @1395066363000",
        ]),
    );
    prometheus(
        "a { b = \"c\" , d=\"e,}\\\"\\n\" , } +Inf -1\n{\"quoted.name\", \"l l\"=\"x\"} NaN\na{} -Inf",
        Ok(&[
            "__name__=\"a\" b=\"c\" d=\"e,}\\\"\\n\" inf @-1",
            "__name__=\"quoted.name\" l l=\"x\" NaN",
            "__name__=\"a\" -inf",
        ]),
    );
    prometheus("# TYPE a untyped\r\na 1\r\n", Ok(&["a: Kind(\"unknown\")", "__name__=\"a\" 1"]));
    prometheus("# TYPE \"a b\" gauge\n# HELP c", Ok(&["a b: Kind(\"gauge\")", "c: Help(\"\")"]));
    prometheus("a 1\na", Err("line 2: a value is missing behind the series"));
    prometheus("a one", Err("line 1: \"one\" is not a number"));
    prometheus("a 1 1.5", Err("line 1: \"1.5\" is not a time in whole milliseconds"));
    prometheus("a 1 2 3", Err("line 1: \"3\" stands behind the time"));
    prometheus("a{b=\"c\" 1", Err("line 1: the labels do not end: a closing brace is missing"));
    prometheus("a{b=\"c} 1", Err("line 1: a text in quotes does not end"));
    prometheus("a{b=c} 1", Err("line 1: the value of \"b\" is not in quotes"));
    prometheus("a{b} 1", Err("line 1: = is missing behind the label \"b\""));
    prometheus(
        "# TYPE a thing",
        Err("line 1: \"thing\" is no type of metric: counter, gauge, histogram, summary, ..."),
    );
}

#[test]
fn openmetrics() {
    let open = |text, expected| check(Flavour::OpenMetrics, text, expected);
    open(
        "# TYPE a counter\n# UNIT a seconds\na_total{b=\"c\"} 1 1.5 # {trace_id=\"x\"} 0.25 1520879607.789\n\
         a_total 2 # {} 1\n# EOF\n",
        Ok(&[
            "a: Kind(\"counter\")",
            "a: Unit(\"seconds\")",
            "__name__=\"a_total\" b=\"c\" 1 @1500 # [(\"trace_id\", \"x\")] 0.25 1520879607789",
            "__name__=\"a_total\" 2 # [] 1 -9223372036854775808",
        ]),
    );
    open("a{b=\"#\"} 1\n# EOF", Ok(&["__name__=\"a\" b=\"#\" 1"]));
    open("a 1\n", Err("line 2: the page does not end with # EOF: is it whole?"));
    open("a 1\n# EOF\nb 1\n", Err("line 3: something stands after # EOF"));
    open("a 1 # 5\n# EOF", Err("line 1: an exemplar begins with its labels in braces"));
    open("a 1 inf\n# EOF", Err("line 1: \"inf\" is not a time in seconds"));
}

#[test]
fn a_written_series_is_read_back() {
    let mut text = String::new();
    let labels = [("l\"1", "a\\b\n"), ("x", "")];
    write_series(&mut text, "me.tric", &mut labels.into_iter());
    let read = pairs(&text).expect("our own");
    let read: Vec<(&str, &str)> = read.iter().map(|(name, value)| (&**name, &**value)).collect();
    assert_eq!(read, [("__name__", "me.tric"), labels[0], labels[1]]);
    assert_eq!(end_of_series(&format!("{text} 5")), Ok(text.len()));
}
