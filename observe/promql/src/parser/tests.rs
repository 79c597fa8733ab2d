use proptest::prelude::*;

use super::*;

#[test]
fn queries_print_as_they_should_be_written() {
    for (text, printed) in [
        ("SUM(up)BY(job)", "sum by (job) (up)"),
        ("sum without() (up)", "sum without () (up)"),
        ("rate(x{a='b'}[5m]offset 1h @ 30)", r#"rate(x{a="b"}[5m] @ 30.000 offset 1h)"#),
        ("{\"a b\",c=\"d\"}", r#"{"a b",c="d"}"#),
        ("a+b*c^-d", "a + b * c ^ -d"),
        ("a == bool on(x)group_left(y) b", "a == bool on (x) group_left (y) b"),
        ("a + fill (0) b", "a + fill (0) b"),
        ("x[90m:] offset -5m", "x[1h30m:] offset -5m"),
        ("x[step() + 5m*2] smoothed", "x[step() + 5m * 2s] smoothed"),
        ("h </ 0.5", "h </ 0.5"),
        ("1e100 + 0x10", "1e+100 + 16"),
    ] {
        let parsed = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(parsed.to_string(), printed, "{text}");
        let again = parse(printed).unwrap_or_else(|error| panic!("{printed}: {error}"));
        assert_eq!(again.to_string(), printed, "printing is stable");
    }
}

#[test]
fn long_queries_are_broken_over_lines() {
    let text = "sum by (site, edge) (rate(belfry_gateway_connections_refused_total{site=~\"fra|lon\"}[5m])) / \
                sum by (site, edge) (rate(belfry_gateway_connections_total[5m]))";
    let formatted = crate::printer::format(&parse(text).unwrap());
    assert!(formatted.lines().count() > 2, "{formatted}");
    assert_eq!(parse(&formatted).unwrap().to_string(), parse(text).unwrap().to_string());
}

#[test]
fn errors_say_where_and_what_was_expected() {
    for (text, column, part) in [
        ("", 1, "unexpected end of input, expected an expression"),
        ("sum(up", 7, "\",\" between the arguments or \")\""),
        ("up{job=5}", 8, "expected a quoted label value"),
        ("up[5]x", 6, "expected an operator or the end of the query"),
        ("rate(up)", 6, "expected type range vector in call to function \"rate\", got instant vector"),
        ("nope(up)", 1, "unknown function with name \"nope\""),
        ("1 == 2", 1, "must use BOOL modifier"),
        ("up offset", 10, "expected a duration"),
        ("up[5x]", 4, "bad number or duration"),
        ("\"abc", 1, "unterminated string"),
        ("up{a=~\"(\"}", 7, "bad regular expression"),
        ("a and on() group_left() b", 12, "no grouping allowed"),
        ("{}", 1, "at least one non-empty matcher"),
    ] {
        match parse(text) {
            Err(Error::Parse { line: 1, column: found, message }) => {
                assert_eq!(found, column, "{text}: {message}");
                assert!(message.contains(part), "{text}: {message}");
            }
            other => panic!("{text}: {other:?}"),
        }
    }
    let second_line = parse("sum(\n  rate(up))");
    assert!(matches!(second_line, Err(Error::Parse { line: 2, column: 8, .. })), "{second_line:?}");
}

#[test]
fn depth_is_bounded() {
    let text = format!("{}1{}", "(".repeat(5000), ")".repeat(5000));
    assert!(parse(&text).is_err());
    assert!(parse(&format!("{}1", "-".repeat(5000))).is_err());
    assert!(parse(&format!("x[{}1{}]", "(".repeat(5000), ")".repeat(5000))).is_err());
    assert!(parse(&format!("x{}", "[1m:1m]".repeat(5000))).is_err());
    assert!(parse(&vec!["1"; 5000].join(" + ")).is_err());
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "[a-z0-9(){}\\[\\]\"'=~!<>@:,.+*/% ^\\\\é-]{0,60}") {
        let _ = parse(&text);
    }

    #[test]
    fn what_parses_prints_and_parses_again(
        parts in prop::collection::vec(prop::sample::select(vec![
            "up", "sum", "rate", "(", ")", "[5m]", "{a=\"b\"}", "+", "-", "*", "^", "by", "on", "offset", "5m", "1",
            "@", ",", "and", "bool", "==", "</", "quantile", "\"x\"", "[1h:5m]", "group_left", "time()", "vector(1)",
        ]), 0..12)
    ) {
        if let Ok(expr) = parse(&parts.join(" ")) {
            let printed = expr.to_string();
            let again = parse(&printed);
            prop_assert!(again.is_ok(), "{} does not parse again: {:?}", printed, again);
            prop_assert_eq!(again.map(|expr| expr.to_string()).unwrap_or_default(), printed);
        }
    }
}
