//! A realistic stream of metrics: machines, each with a page of a hundred series as exporters have them.

use std::fmt::Write as _;
use std::sync::Arc;

use belfry_signal::{PointValue, SeriesBatch, SeriesLabels, SeriesPoints};

/// Series of one machine's page.
pub const PAGE_SERIES: usize = 100;

/// A generator of numbers that is the same in every run.
#[derive(Clone, Debug)]
struct Noise(u64);

impl Noise {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn unit(&mut self) -> f64 {
        self.below(1 << 53) as f64 / (1_u64 << 53) as f64
    }
}

/// How a series goes on.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Motion {
    /// Time in a mode of a processor: hundredths of seconds, up to a share of the step.
    Seconds(f64),
    /// Bytes that went through.
    Bytes(u64),
    /// Events, rarely one.
    Rare(u64),
    /// Events, some each time.
    Events(u64),
    /// Memory: pages come and go.
    Pages(u64),
    /// Disk space: falls slowly.
    Falling(u64),
    /// Load, temperature: a number with two decimals that wanders.
    Wandering(f64),
    /// Sizes, versions: never moves.
    Fixed,
    /// Observations so far, of all buckets below the bound too.
    Buckets,
    /// Any number between 0 and 1.
    Random,
}

/// One series of a page.
#[derive(Clone, Debug)]
struct Kind {
    metric: &'static str,
    labels: Vec<(&'static str, String)>,
    motion: Motion,
    begins: f64,
}

fn kinds() -> Vec<Kind> {
    let mut kinds = Vec::with_capacity(PAGE_SERIES);
    let mut add = |metric, labels: &[(&'static str, &str)], motion, begins| {
        let labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        kinds.push(Kind { metric, labels, motion, begins });
    };
    let modes = ["idle", "user", "system", "iowait", "irq", "nice", "softirq", "steal"];
    for cpu in ["0", "1", "2", "3"] {
        for (mode, share) in modes.iter().zip([0.7, 0.2, 0.08, 0.01, 0.0, 0.0, 0.005, 0.0]) {
            let motion = if share == 0.0 { Motion::Fixed } else { Motion::Seconds(share) };
            add("cpu_seconds_total", &[("cpu", cpu), ("mode", mode)], motion, 1000.0);
        }
    }
    for metric in ["memory_available_bytes", "memory_cached_bytes", "memory_free_bytes"] {
        add(metric, &[], Motion::Pages(4000), 4e9);
    }
    add("memory_total_bytes", &[], Motion::Fixed, 16e9);
    for device in ["eth0", "eth1", "lo"] {
        for direction in ["receive", "transmit"] {
            let metric = if direction == "receive" {
                "network_receive_bytes_total"
            } else {
                "network_transmit_bytes_total"
            };
            add(metric, &[("device", device)], Motion::Bytes(2_000_000), 1e9);
            add(
                "network_errors_total",
                &[("device", device), ("direction", direction)],
                Motion::Rare(400),
                0.0,
            );
        }
    }
    for mount in ["/", "/boot", "/data", "/var"] {
        add("filesystem_avail_bytes", &[("mountpoint", mount)], Motion::Falling(40_000), 9e10);
        add("filesystem_size_bytes", &[("mountpoint", mount)], Motion::Fixed, 1e11);
    }
    for (handler, code, rate) in [
        ("/api", "200", 40),
        ("/api", "404", 3),
        ("/api", "500", 1),
        ("/login", "200", 9),
        ("/login", "401", 2),
        ("/page", "200", 90),
        ("/page", "304", 30),
        ("/page", "404", 2),
    ] {
        let motion = if rate > 5 { Motion::Events(rate) } else { Motion::Rare(20 / rate) };
        add("http_requests_total", &[("handler", handler), ("code", code)], motion, 10_000.0);
    }
    for handler in ["/api", "/page"] {
        for le in ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "+Inf"] {
            add(
                "http_request_duration_seconds_bucket",
                &[("handler", handler), ("le", le)],
                Motion::Buckets,
                0.0,
            );
        }
        add("http_request_duration_seconds_count", &[("handler", handler)], Motion::Buckets, 0.0);
        add("http_request_duration_seconds_sum", &[("handler", handler)], Motion::Seconds(0.3), 0.0);
    }
    for metric in ["load1", "load5", "load15", "temperature_celsius"] {
        add(metric, &[], Motion::Wandering(0.3), 2.0);
    }
    add("up", &[], Motion::Fixed, 1.0);
    add("build_info", &[("version", "1.2.3")], Motion::Fixed, 1.0);
    add("process_open_fds", &[], Motion::Pages(3), 100.0);
    add("process_resident_memory_bytes", &[], Motion::Pages(300), 2e8);
    while kinds.len() < PAGE_SERIES {
        let queue = kinds.len().to_string();
        let labels = vec![("queue", queue)];
        kinds.push(Kind { metric: "queue_waiting", labels, motion: Motion::Rare(6), begins: 0.0 });
    }
    kinds
}

/// Machines and the values that their series have now.
#[derive(Debug)]
pub struct Machines {
    kinds: Vec<Kind>,
    labels: Vec<SeriesLabels>,
    values: Vec<f64>,
    noise: Noise,
    step_seconds: f64,
}

impl Machines {
    /// So many series, a hundred for each machine.
    #[must_use]
    pub fn new(series: usize, is_random: bool, step_ms: i64) -> Self {
        let mut kinds = kinds();
        if is_random {
            kinds.iter_mut().for_each(|kind| kind.motion = Motion::Random);
        }
        let labels =
            (0..series).map(|number| labels(&kinds[number % PAGE_SERIES], number / PAGE_SERIES)).collect();
        let values = (0..series).map(|number| kinds[number % PAGE_SERIES].begins).collect();
        let noise = Noise(0x9e37_79b9_7f4a_7c15);
        Self { kinds, labels, values, noise, step_seconds: step_ms as f64 / 1000.0 }
    }

    /// Lets one step pass.
    pub fn advance(&mut self) {
        let mut observed = 0.0;
        for (number, value) in self.values.iter_mut().enumerate() {
            let noise = &mut self.noise;
            let kind = &self.kinds[number % PAGE_SERIES];
            *value = match kind.motion {
                Motion::Seconds(share) => {
                    let hundredths = (self.step_seconds * share * (50.0 + noise.below(100) as f64)).round();
                    ((*value * 100.0).round() + hundredths) / 100.0
                }
                Motion::Bytes(most) => *value + noise.below(most) as f64,
                Motion::Rare(seldom) => *value + f64::from(noise.below(seldom.max(1)) == 0),
                Motion::Events(most) => *value + noise.below(most) as f64,
                Motion::Pages(most) if noise.below(3) > 0 => {
                    (*value + (noise.below(2 * most + 1) as f64 - most as f64) * 4096.0).max(0.0)
                }
                Motion::Falling(most) => (*value - noise.below(most) as f64).max(0.0),
                Motion::Wandering(width) => {
                    ((*value + (noise.unit() - 0.5) * width).max(0.0) * 100.0).round() / 100.0
                }
                Motion::Buckets => {
                    // A bucket has what the one below it has, and a little more.
                    let is_first = kind.labels.get(1).is_some_and(|(_, le)| le == "0.005");
                    observed = if is_first { 0.0 } else { observed };
                    observed += if kind.labels.len() == 2 { noise.below(6) as f64 } else { 0.0 };
                    *value + observed
                }
                Motion::Random => noise.unit(),
                Motion::Pages(_) | Motion::Fixed => *value,
            };
        }
    }

    /// The values now, of some series, at a time. Machines are asked one after the other.
    #[must_use]
    pub fn batch(&self, from: usize, until: usize, unix_millis: i64, step_ms: i64) -> SeriesBatch {
        let series = (from..until).map(|number| {
            let shift = (number / PAGE_SERIES) as i64 * 37 % step_ms;
            SeriesPoints {
                labels: Arc::clone(&self.labels[number]),
                created_ms: None,
                points: vec![(unix_millis + shift, PointValue::Float(self.values[number]))],
                exemplars: Vec::new(),
            }
        });
        SeriesBatch { series: series.collect(), metadata: Vec::new() }
    }

    /// All values as a page of text exposition.
    #[must_use]
    pub fn page(&self) -> String {
        let mut page = String::with_capacity(self.values.len() * 90);
        for kind in 0..PAGE_SERIES {
            for number in (kind..self.values.len()).step_by(PAGE_SERIES) {
                let metric = self.kinds[kind].metric;
                let is_new = number == kind && (kind == 0 || self.kinds[kind - 1].metric != metric);
                if is_new {
                    let typed = if metric.ends_with("_total") { "counter" } else { "gauge" };
                    let _ = writeln!(
                        page,
                        "# HELP {metric} What it counts, in a few words.\n# TYPE {metric} {typed}"
                    );
                }
                page.push_str(metric);
                let mut mark = '{';
                for (name, value) in self.labels[number].iter().filter(|(name, _)| &**name != "__name__") {
                    let _ = write!(
                        page,
                        "{mark}{}=\"{value}\"",
                        if &**name == "instance" { "machine" } else { name }
                    );
                    mark = ',';
                }
                let _ = writeln!(page, "}} {}", self.values[number]);
            }
        }
        page
    }
}

fn labels(kind: &Kind, machine: usize) -> SeriesLabels {
    let mut pairs = vec![
        ("__name__", kind.metric.to_owned()),
        ("datacenter", format!("site-{}", machine % 3)),
        ("instance", format!("node-{machine:04}:9100")),
        ("job", "node".to_owned()),
    ];
    pairs.extend(kind.labels.iter().cloned());
    pairs.sort();
    pairs.iter().map(|(name, value)| (Arc::from(*name), Arc::from(value.as_str()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_a_hundred_series_that_are_all_different() {
        let mut machines = Machines::new(250, false, 15_000);
        machines.advance();
        let batch = machines.batch(0, 250, 1_000_000, 15_000);
        let names: std::collections::BTreeSet<_> =
            batch.series.iter().map(|series| series.labels.clone()).collect();
        assert_eq!(names.len(), 250);
        let page = machines.page();
        assert_eq!(page.lines().filter(|line| !line.starts_with('#')).count(), 250);
        assert_eq!(kinds().len(), PAGE_SERIES);
    }
}
