//! Random queries that mean something in 2.42: by type, so that most of them are answered.

use rand::{RngExt as _, rngs::StdRng};

/// One of several.
pub(super) fn pick<T: Copy>(random: &mut StdRng, from: &[T]) -> T {
    from[random.random_range(0..from.len())]
}

/// A query over the data that begin at this time.
pub(super) fn query(random: &mut StdRng, begin: u64) -> String {
    let mut writer = Writer { random, begin };
    match writer.below(20) {
        0 => writer.scalar(2),
        1 => writer.native(),
        _ => {
            let depth = 1 + writer.below(3);
            writer.vector(depth)
        }
    }
}

struct Writer<'a> {
    random: &'a mut StdRng,
    begin: u64,
}

impl Writer<'_> {
    fn below(&mut self, count: u32) -> u32 {
        self.random.random_range(0..count)
    }

    fn one<'b>(&mut self, from: &[&'b str]) -> &'b str {
        pick(self.random, from)
    }

    fn word(&mut self, words: &'static str) -> &'static str {
        let words: Vec<&str> = words.split(' ').collect();
        self.one(&words)
    }

    /// `offset`, `@` or nothing.
    fn shift(&mut self) -> String {
        match self.below(12) {
            0 => format!(" offset {}s", 5 * (1 + self.below(200))),
            1 => format!(" offset -{}s", 5 * (1 + self.below(60))),
            2 => format!(" @ {}", self.begin + u64::from(600 + 5 * self.below(600))),
            3 => self.one(&[" @ start()", " @ end()", " @ end() offset 35s"]).to_owned(),
            _ => String::new(),
        }
    }

    fn matchers(&mut self) -> &'static str {
        self.one(&[
            "",
            "",
            "",
            "{l=\"a\"}",
            "{g=\"x\"}",
            "{l!=\"b\"}",
            "{l=~\"a|c|e\"}",
            "{l!~\"a.*\",g=\"x\"}",
            "{nothing=\"\"}",
            "{l=~\".+\",g!=\"\"}",
        ])
    }

    fn selector(&mut self) -> String {
        let name = self.word("c_total d_total w v odd i b_bucket w v");
        if self.below(60) == 0 {
            return self
                .one(&["nothing", "{__name__=~\"c_total|w\"}", "{l=\"a\",__name__!=\"h\"}"])
                .to_owned();
        }
        format!("{name}{}", self.matchers())
    }

    fn plain(&mut self) -> String {
        let selector = self.selector();
        selector + &self.shift()
    }

    /// Points over time, with what must come after it. Nobody selects more than one name: names are dropped later in 3.0.
    fn range(&mut self, depth: u32, counters: bool) -> String {
        if depth > 0 && self.below(4) == 0 {
            // Neither end is a multiple of any step.
            let inner = if counters { self.counter() } else { self.vector(depth - 1) };
            let (length, step) = (5 * (10 + self.below(120)) + 2, self.one(&["15s", "20s", "45s", "1m"]));
            return format!("({inner})[{length}s:{step}]{}", self.shift());
        }
        let name = if counters {
            self.counter()
        } else {
            format!("{}{}", self.one(&["c_total", "w", "v", "odd"]), self.matchers())
        };
        let length = self.word("20s 35s 50s 1m 5m 10m35s 5s");
        format!("{name}[{length}]{}", self.shift())
    }

    fn counter(&mut self) -> String {
        format!("{}{}", self.one(&["c_total", "d_total", "b_bucket"]), self.matchers())
    }

    fn scalar(&mut self, depth: u32) -> String {
        match self.below(if depth == 0 { 3 } else { 6 }) {
            0 => self.one(&["0", "1", "2.5", "-3", "100", "1e3", "0x1F", "Inf", "NaN"]).to_owned(),
            1 => "time()".to_owned(),
            2 => "pi()".to_owned(),
            3 => format!("scalar({})", self.vector(depth - 1)),
            4 => format!("-({})", self.scalar(depth - 1)),
            _ => {
                let op = self.one(&["+", "-", "*", "/", "%", "^", "atan2", "== bool", "< bool"]);
                format!("({}) {op} ({})", self.scalar(depth - 1), self.scalar(depth - 1))
            }
        }
    }

    fn vector(&mut self, depth: u32) -> String {
        if depth == 0 {
            return self.plain();
        }
        match self.below(16) {
            0 | 1 => self.plain(),
            2..=5 => self.over_range(depth),
            6..=8 => self.aggregation(depth),
            9 | 10 => self.binary(depth),
            11 => self.with_scalar(depth),
            12 | 13 => self.simple(depth),
            14 => self.relabelled(depth),
            _ => self.rest(depth),
        }
    }

    fn over_range(&mut self, depth: u32) -> String {
        match self.below(8) {
            0..=2 => {
                let function = self.word("rate increase irate resets changes");
                format!("{function}({})", self.range(depth, true))
            }
            3 => format!(
                "quantile_over_time({}, {})",
                self.one(&["0", "0.3", "0.5", "0.95", "1", "2", "-1"]),
                self.range(depth, false)
            ),
            4 => format!(
                "predict_linear({}, {})",
                self.range(depth, false),
                self.one(&["0", "60", "-300", "3600"])
            ),
            5 => format!(
                "holt_winters({}, {}, {})",
                self.range(depth, false),
                self.one(&["0.2", "0.5"]),
                self.one(&["0.1", "0.7"])
            ),
            _ => {
                let function = self.word("sum_over_time avg_over_time min_over_time max_over_time count_over_time last_over_time stddev_over_time stdvar_over_time present_over_time absent_over_time deriv delta idelta changes");
                format!("{function}({})", self.range(depth, false))
            }
        }
    }

    fn grouping(&mut self) -> &'static str {
        self.one(&[
            "",
            " by (l)",
            " by (g)",
            " without (l)",
            " without (g, n)",
            " by (l, g)",
            " by (nothing)",
            " without ()",
        ])
    }

    fn aggregation(&mut self, depth: u32) -> String {
        let by = self.grouping();
        match self.below(10) {
            // Ties are broken by chance, so what is ranked has none.
            0 => format!("{}({}, v{}){by}", self.one(&["topk", "bottomk"]), 1 + self.below(4), self.shift()),
            1 => format!(
                "quantile{by} ({}, {})",
                self.one(&["0", "0.4", "0.9", "1.5"]),
                self.vector(depth - 1)
            ),
            2 => format!(
                "count_values{by} (\"value\", {})",
                self.one(&["i", "round(w, 100)", "odd", "c_total"])
            ),
            _ => {
                let function = self.word("sum avg min max count group stddev stdvar sum");
                format!("{function}{by} ({})", self.vector(depth - 1))
            }
        }
    }

    fn binary(&mut self, depth: u32) -> String {
        let arithmetic =
            self.one(&["+", "-", "*", "/", "%", "^", "atan2", ">", "<=", "== bool", "!= bool", "> bool"]);
        let (left, right) = (self.vector(depth - 1), self.vector(depth - 1));
        match self.below(8) {
            0 => format!("({left}) {} ({right})", self.one(&["and", "or", "unless"])),
            1 => format!("({left}) {} on (l) ({right})", self.one(&["and", "unless"])),
            2 => format!("({left}) {} ignoring (g) ({right})", self.one(&["and", "or", "unless"])),
            3 => format!("sum by (l) ({left}) {arithmetic} on (l) sum by (l) ({right})"),
            4 => format!("w {arithmetic} on (l) group_left (version) i"),
            5 => format!(
                "avg by (g) ({left}) {arithmetic} on (g) group_right {}",
                self.one(&["c_total", "v", "w"])
            ),
            6 => format!("max by (l, g) ({left}) {arithmetic} ignoring (n) min by (l, g) ({right})"),
            _ => format!(
                "{} {arithmetic} {}",
                self.one(&["c_total", "w"]),
                self.one(&["d_total", "w offset 1m"])
            ),
        }
    }

    fn with_scalar(&mut self, depth: u32) -> String {
        let op =
            self.one(&["+", "-", "*", "/", "%", "^", ">", "<", ">=", "!=", "== bool", "> bool", "atan2"]);
        let (vector, scalar) = (self.vector(depth - 1), self.scalar(1));
        if op == "%" || op == "^" {
            format!("({vector}) {op} {}", self.one(&["2", "-3", "0.5", "100"]))
        } else if self.below(2) == 0 {
            format!("({vector}) {op} ({scalar})")
        } else {
            format!("({scalar}) {op} ({vector})")
        }
    }

    fn simple(&mut self, depth: u32) -> String {
        let inner = self.vector(depth - 1);
        match self.below(8) {
            0 => format!("clamp({inner}, {}, {})", self.one(&["-10", "0"]), self.one(&["20", "-20", "1e4"])),
            1 => format!("{}({inner}, {})", self.one(&["clamp_min", "clamp_max"]), self.scalar(1)),
            2 => format!("round({inner}, {})", self.one(&["0.1", "5", "1", "30"])),
            3 => format!("-({inner})"),
            4 => {
                // Of large numbers they make nearly anything out of the last digit.
                let curves = "exp sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh";
                format!("{}(clamp({inner}, -3, 3))", self.word(curves))
            }
            _ => {
                let plain = "abs ceil floor ln log2 log10 sqrt sgn round deg rad sort sort_desc timestamp";
                format!("{}({inner})", self.word(plain))
            }
        }
    }

    fn relabelled(&mut self, depth: u32) -> String {
        let inner = self.vector(depth - 1);
        match self.below(3) {
            0 => format!("label_join({inner}, \"joined\", \"-\", \"l\", \"g\", \"nothing\")"),
            1 => format!("label_replace({inner}, \"l\", \"$1\", \"g\", \"(.*)\")"),
            _ => format!("label_replace({inner}, \"new\", \"<$1>\", \"l\", \"([a-c])\")"),
        }
    }

    fn rest(&mut self, depth: u32) -> String {
        match self.below(6) {
            0 => format!("absent({})", self.vector(depth - 1)),
            1 => format!("vector({})", self.scalar(depth)),
            2 => {
                let quantile = self.one(&["0", "0.2", "0.5", "0.9", "0.99", "1", "1.1", "-0.1"]);
                let buckets = self.one(&[
                    "b_bucket",
                    "rate(b_bucket[5m])",
                    "sum by (le, g) (increase(b_bucket[2m]))",
                    "sum by (le) (rate(b_bucket[1m]))",
                ]);
                format!("histogram_quantile({quantile}, {buckets})")
            }
            3 => format!("timestamp({})", self.plain()),
            // Of NaN 2.42 knows a day, and on each processor another one.
            4 => {
                let dates = "minute hour month year day_of_week day_of_month days_in_month day_of_year";
                format!("{}(v * 1e6)", self.word(dates))
            }
            _ => format!(
                "{}()",
                self.one(&["time() + vector(1) + minute", "hour", "vector(1) + day_of_month"])
            ),
        }
    }

    /// Of native histograms only what 2.42 has, and 3.0 did not change.
    fn native(&mut self) -> String {
        let length = self.one(&["1m", "5m", "10m35s"]);
        let matchers = self.matchers();
        let over = format!("{}(h{matchers}[{length}]{})", self.one(&["rate", "increase"]), self.shift());
        match self.below(6) {
            0 => format!("h{matchers}{}", self.shift()),
            1 => format!("histogram_count({over})"),
            2 => format!("histogram_sum({over})"),
            3 => format!("sum by (g) ({over})"),
            4 => format!("{}(h[{length}])", self.one(&["count_over_time", "present_over_time"])),
            _ => over,
        }
    }
}
