//! The `[media]` section of `belfry.toml`.

use std::net::IpAddr;
use std::time::Duration;

use serde::Deserialize;

use crate::session::STREAMS_MAX;

/// How the relay is set up. Defaults are written in the annotated `belfry.toml`, not here.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where RTP ports are bound; an IPv6 address takes IPv6 only.
    pub bind_address: IpAddr,
    /// What session descriptions say instead, where the relay is reached under another address.
    pub advertised_address: Option<IpAddr>,
    /// First RTP port.
    pub port_min: u16,
    /// Last port; RTP takes the even ones and RTCP the odd ones after them.
    pub port_max: u16,
    /// Differentiated-services code point of packets that are sent; 46 is expedited forwarding, 0 leaves it unset.
    pub dscp: u8,
    /// Threads that forward packets; each session stays on one of them.
    pub workers: usize,
    /// Whether each worker stays on one processor core, from the last core downwards.
    pub pin_workers: bool,
    /// Calls at a time.
    pub sessions_max: usize,
    /// `m=` lines per call.
    pub streams_max: usize,
    /// Bytes of one session description.
    pub description_bytes_max: usize,
    /// Requests that wait for one worker.
    pub commands_max: usize,
    /// Notices that a slow reader may be behind before it misses some.
    pub notices_max: usize,
    /// A request that a worker does not answer in this time is refused.
    #[serde(with = "humantime_serde")]
    pub reply_timeout: Duration,
    /// Length of the windows over which quality is measured and judged.
    #[serde(with = "humantime_serde")]
    pub quality_window: Duration,
    /// The de-jitter buffer assumed at the far side: later packets count as lost.
    #[serde(with = "humantime_serde")]
    pub jitter_buffer: Duration,
    /// A window with a lower listening score is a bad event of the `media_quality` journey.
    pub mos_min: f64,
    /// A leg that should send and is not heard for this long, while the other is, makes the call one-way.
    #[serde(with = "humantime_serde")]
    pub one_way_after: Duration,
    /// A call of which nothing is heard for this long is reported as silent.
    #[serde(with = "humantime_serde")]
    pub silent_after: Duration,
    /// A call that is not held, without any packet or request for this long, is given up and its ports are freed:
    /// whoever should have ended it is gone.
    #[serde(with = "humantime_serde")]
    pub abandoned_after: Duration,
    /// The same for a call of which both legs agreed to be silent.
    #[serde(with = "humantime_serde")]
    pub abandoned_held_after: Duration,
}

impl Config {
    /// The address that session descriptions carry.
    #[must_use]
    pub fn public_address(&self) -> IpAddr {
        self.advertised_address.unwrap_or(self.bind_address)
    }

    /// What is wrong: the key inside the section, and what is wrong with it and what is allowed.
    #[must_use]
    pub fn check(&self) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        let mut refuse = |is_bad: bool, key: &str, text: String| {
            if is_bad {
                problems.push((key.to_owned(), text));
            }
        };
        let public = self.public_address();
        refuse(
            public.is_unspecified(),
            "advertised_address",
            "needed when bind_address is unspecified: the address that phones reach".to_owned(),
        );
        refuse(
            public.is_ipv4() != self.bind_address.is_ipv4(),
            "advertised_address",
            "must be of the same family as bind_address".to_owned(),
        );
        refuse(self.port_min < 1024, "port_min", format!("{} is below 1024", self.port_min));
        refuse(
            u32::from(self.port_max) < u32::from(self.port_min) + 3,
            "port_max",
            format!("{} leaves less than the four ports that a call needs", self.port_max),
        );
        refuse(self.dscp > 63, "dscp", format!("{} is not between 0 and 63", self.dscp));
        let counts = [
            ("workers", self.workers, 256),
            ("sessions_max", self.sessions_max, 1_000_000),
            ("streams_max", self.streams_max, STREAMS_MAX),
            ("description_bytes_max", self.description_bytes_max, 65_535),
            ("commands_max", self.commands_max, 1_000_000),
            ("notices_max", self.notices_max, 1_000_000),
        ];
        for (key, value, max) in counts {
            refuse(value == 0 || value > max, key, format!("{value} is not between 1 and {max}"));
        }
        let durations = [
            ("reply_timeout", self.reply_timeout, 1),
            ("quality_window", self.quality_window, 100),
            ("one_way_after", self.one_way_after, 100),
            ("silent_after", self.silent_after, 100),
            ("abandoned_after", self.abandoned_after, 1_000),
            ("abandoned_held_after", self.abandoned_held_after, 1_000),
        ];
        for (key, value, millis_min) in durations {
            refuse(value < Duration::from_millis(millis_min), key, format!("less than {millis_min} ms"));
        }
        let buffer_max = Duration::from_secs(2);
        refuse(self.jitter_buffer > buffer_max, "jitter_buffer", "more than 2 s".to_owned());
        refuse(
            !(1.0..=4.5).contains(&self.mos_min),
            "mos_min",
            format!("{} is not 1.0 to 4.5", self.mos_min),
        );
        problems
    }
}
