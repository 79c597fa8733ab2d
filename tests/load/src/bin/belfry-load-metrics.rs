//! The other side of `tests/bench/metrics`: writes samples, serves pages to be scraped, asks queries. The same for
//! Prometheus and for Belfry, and never measured itself. One line of JSON each.

#![allow(clippy::expect_used, clippy::print_stdout, reason = "a measuring program")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use belfry_load::metrics::Machines;
use belfry_pipeline::metrics::remote_write::{Protocol, encode};
use clap::{Args, Parser, Subcommand};

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Remote write, one request after the other.
    Write(Write1),
    /// A page that changes each time it is fetched.
    Serve {
        #[arg(long)]
        port: u16,
        #[arg(long, default_value_t = 5000)]
        series: usize,
    },
    /// Range queries, each several times.
    Ask(Ask),
}

#[derive(Args)]
struct Write1 {
    /// `127.0.0.1:9090`
    #[arg(long)]
    to: String,
    #[arg(long, default_value_t = 10_000)]
    series: usize,
    /// Steps that were written before.
    #[arg(long, default_value_t = 0)]
    skip: i64,
    /// Steps that are written now.
    #[arg(long, default_value_t = 10)]
    rounds: i64,
    #[arg(long)]
    start_ms: i64,
    #[arg(long, default_value_t = 15_000)]
    step_ms: i64,
    /// Points of a request.
    #[arg(long, default_value_t = 2000)]
    batch: usize,
    /// Numbers without any pattern.
    #[arg(long)]
    random: bool,
    /// 2.0 instead of 1.0.
    #[arg(long)]
    v2: bool,
}

#[derive(Args)]
struct Ask {
    #[arg(long)]
    to: String,
    /// A query on each line.
    #[arg(long)]
    queries: PathBuf,
    /// Seconds since the Unix epoch.
    #[arg(long)]
    start: f64,
    #[arg(long)]
    end: f64,
    /// Seconds.
    #[arg(long)]
    step: f64,
    #[arg(long, default_value_t = 5)]
    repeat: usize,
}

fn main() {
    match Arguments::parse().command {
        Command::Write(arguments) => write(&arguments),
        Command::Serve { port, series } => serve(port, series),
        Command::Ask(arguments) => ask(&arguments),
    }
}

fn write(arguments: &Write1) {
    let step_ms = arguments.step_ms;
    let mut machines = Machines::new(arguments.series, arguments.random, step_ms);
    (0..arguments.skip).for_each(|_| machines.advance());
    let protocol = if arguments.v2 { Protocol::V2 } else { Protocol::V1 };
    let mut connection = Connection::open(&arguments.to);
    let (mut samples, began) = (0_usize, Instant::now());
    let mut waiting = belfry_signal::SeriesBatch::default();
    for round in 0..arguments.rounds {
        machines.advance();
        let time = arguments.start_ms + (arguments.skip + round) * step_ms;
        for from in (0..arguments.series).step_by(arguments.batch) {
            let until = (from + arguments.batch).min(arguments.series);
            let part = machines.batch(from, until, time, step_ms);
            if waiting.series.len() + part.series.len() > arguments.batch {
                samples += connection.write(protocol, &std::mem::take(&mut waiting));
            }
            waiting.series.extend(part.series);
        }
    }
    samples += connection.write(protocol, &waiting);
    println!("{{\"samples\":{samples},\"seconds\":{}}}", began.elapsed().as_secs_f64());
}

/// A connection that is kept.
struct Connection {
    to: String,
    stream: BufReader<TcpStream>,
}

impl Connection {
    fn open(to: &str) -> Self {
        let stream = TcpStream::connect(to).expect("the store listens");
        stream.set_nodelay(true).expect("a socket");
        Self { to: to.to_owned(), stream: BufReader::new(stream) }
    }

    /// Writes until it is taken; the number of points.
    fn write(&mut self, protocol: Protocol, batch: &belfry_signal::SeriesBatch) -> usize {
        let body = encode(protocol, batch);
        loop {
            let (status, text) = self.exchange(protocol, &body);
            match status {
                200..=299 => return batch.points(),
                429 | 503 => std::thread::sleep(Duration::from_millis(50)),
                _ => panic!("{status}: {text}"),
            }
        }
    }

    fn exchange(&mut self, protocol: Protocol, body: &[u8]) -> (u16, String) {
        let head = format!(
            "POST /api/v1/write HTTP/1.1\r\nHost: {}\r\nContent-Type: {}\r\nContent-Encoding: snappy\r\n\
             X-Prometheus-Remote-Write-Version: {}\r\nContent-Length: {}\r\n\r\n",
            self.to,
            protocol.content_type(),
            protocol.version(),
            body.len()
        );
        self.stream.get_mut().write_all(&[head.as_bytes(), body].concat()).expect("it is taken");
        let (mut status, mut length) = (0, 0);
        loop {
            let mut line = String::new();
            assert!(self.stream.read_line(&mut line).expect("an answer") > 0, "the connection ended");
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if status == 0 {
                status = line.split(' ').nth(1).and_then(|text| text.parse().ok()).expect("a status");
            } else if let Some(text) = line.strip_prefix("content-length: ") {
                length = text.parse().expect("a number");
            }
        }
        let mut text = vec![0; length];
        self.stream.read_exact(&mut text).expect("an answer");
        (status, String::from_utf8_lossy(&text).into_owned())
    }
}

fn serve(port: u16, series: usize) {
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("a free port");
    let mut machines = Machines::new(series, false, 15_000);
    println!("ready");
    for stream in listener.incoming().flatten() {
        // One scraper at a time, whose connection is kept.
        let mut reader = BufReader::new(stream);
        while has_request(&mut reader) {
            machines.advance();
            let page = machines.page();
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\n\r\n",
                page.len()
            );
            if reader.get_mut().write_all(&[head.as_bytes(), page.as_bytes()].concat()).is_err() {
                break;
            }
        }
    }
}

/// Reads the head of a request; false when there is none any more.
fn has_request(reader: &mut impl BufRead) -> bool {
    let mut line = String::new();
    while reader.read_line(&mut line).unwrap_or(0) > 0 {
        if line.trim_end().is_empty() {
            return true;
        }
        line.clear();
    }
    false
}

fn ask(arguments: &Ask) {
    let text = std::fs::read_to_string(&arguments.queries).expect("a file of queries");
    let mut all = Vec::new();
    let mut told = Vec::new();
    for query in text.lines().filter(|line| !line.is_empty()) {
        let encode = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
        let form = format!(
            "query={}&start={}&end={}&step={}",
            encode(query),
            arguments.start,
            arguments.end,
            arguments.step
        );
        let mut times = Vec::new();
        let mut points = 0;
        for _ in 0..arguments.repeat {
            let began = Instant::now();
            let mut stream = TcpStream::connect(&arguments.to).expect("the store listens");
            write!(
                stream,
                "POST /api/v1/query_range HTTP/1.0\r\nHost: {}\r\nContent-Type: application/x-www-form-urlencoded\r\n\
                 Content-Length: {}\r\n\r\n{form}",
                arguments.to,
                form.len()
            )
            .expect("it is taken");
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).expect("an answer");
            times.push(began.elapsed().as_secs_f64() * 1000.0);
            let answer = String::from_utf8_lossy(&answer);
            assert!(answer.contains("\"status\":\"success\""), "{query}: {answer}");
            // Every point is a time and a text.
            points = answer.matches(",\"").count();
        }
        times.sort_by(f64::total_cmp);
        told.push(format!(
            "{{\"query\":{},\"median_ms\":{:.3},\"points\":{points}}}",
            serde_json::Value::from(query),
            times[times.len() / 2]
        ));
        all.extend(times);
    }
    all.sort_by(f64::total_cmp);
    let at = |share: f64| all[((all.len() - 1) as f64 * share).round() as usize];
    println!(
        "{{\"p50_ms\":{:.3},\"p99_ms\":{:.3},\"sum_ms\":{:.1},\"queries\":[{}]}}",
        at(0.5),
        at(0.99),
        all.iter().sum::<f64>(),
        told.join(",")
    );
}
