//! A SIP load generator: open loop, many phones, one thread.
//!
//! Work is due at fixed times, whatever the server does, and latency counts from the time at which it was due and
//! not from the time at which it was sent: a server that stalls makes all waiting work late, and cannot hide it by
//! slowing the generator down (coordinated omission). What is lost over UDP is sent again every half second.
//! One line of JSON says how it went.
#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

mod datagrams;
mod messages;
mod report;
mod streams;
mod udp;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use belfry_kit::Transport;
use clap::{Parser, ValueEnum};

pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What is done again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Row {
    /// REGISTER with credentials for a nonce that is known: one transaction.
    Register,
    /// REGISTER without, the challenge, and REGISTER with: two transactions.
    Digest,
    /// REGISTER with credentials and no lifetime: takes the binding back.
    Unregister,
    /// OPTIONS to the server itself.
    Options,
    /// INVITE, 180, 200, ACK, BYE, 200 between two phones.
    Call,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Over {
    Udp,
    Tcp,
    Tls,
}

/// Where to, what, how fast and how long.
#[derive(Clone, Debug, Parser)]
pub(crate) struct Arguments {
    /// The server.
    #[arg(long)]
    pub(crate) target: SocketAddr,
    /// What to do.
    #[arg(long, value_enum)]
    pub(crate) row: Row,
    #[arg(long, value_enum, default_value = "udp")]
    over: Over,
    /// Pieces of work that are due per second.
    #[arg(long, default_value_t = 100.0)]
    pub(crate) rate: f64,
    /// How many pieces of work.
    #[arg(long, default_value_t = 1000)]
    pub(crate) count: u32,
    /// The domain that is served.
    #[arg(long, default_value = "bench.test")]
    pub(crate) domain: String,
    /// The users are user0, user1 and so on, this many.
    #[arg(long, default_value_t = 1000)]
    pub(crate) users: u32,
    /// The number of the first of them.
    #[arg(long, default_value_t = 0)]
    pub(crate) first_user: u32,
    /// Their password.
    #[arg(long, default_value = "secret")]
    pub(crate) password: String,
    /// UDP sockets from which they speak, in turn.
    #[arg(long, default_value_t = 8)]
    pub(crate) sockets: usize,
    /// Every piece of work is done from an IPv4 address of its own in 127.0.0.0/8, as by so many strangers.
    #[arg(long)]
    pub(crate) spread: bool,
    /// The first of their ports, so that a later run speaks from the same; 0 takes any.
    #[arg(long, default_value_t = 0)]
    pub(crate) port: u16,
    /// After this a piece of work has failed.
    #[arg(long, default_value_t = 8.0)]
    pub(crate) patience_seconds: f64,
    /// Over UDP, repeat as phones do, later and later (timers A and E of RFC 3261), and not every half second.
    #[arg(long)]
    pub(crate) backoff: bool,
    /// Also report each second for itself: what was due in it, and what came of that within the patience.
    #[arg(long)]
    pub(crate) by_second: bool,
    /// The certificate (PEM) of the authority that the server's must come from.
    #[arg(long)]
    pub(crate) authority: Option<PathBuf>,
}

impl Arguments {
    pub(crate) fn patience(&self) -> Duration {
        Duration::from_secs_f64(self.patience_seconds)
    }

    /// When the work with this number is due, after the start.
    pub(crate) fn due(&self, number: u32) -> Duration {
        Duration::from_secs_f64(f64::from(number) / self.rate)
    }

    pub(crate) fn user(&self, number: u32) -> u32 {
        self.first_user + number % self.users
    }
}

fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let report = match arguments.over {
        Over::Udp => udp::run(&arguments)?,
        Over::Tcp => streams::run(arguments.clone(), Transport::Tcp)?,
        Over::Tls => streams::run(arguments.clone(), Transport::Tls)?,
    };
    println!("{}", report.json());
    Ok(())
}
