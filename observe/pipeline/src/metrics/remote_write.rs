//! Remote write 1.0 and 2.0, received: from the bytes of a request to points, and what of it cannot be taken.
//!
//! Specifications: <https://prometheus.io/docs/specs/prw/remote_write_spec/> and
//! <https://prometheus.io/docs/specs/prw/remote_write_spec_2_0/>. A series that is wrong costs that series; a request
//! that cannot be read costs all of it.

mod encoding;
mod fields;
mod known;
mod reading;

use belfry_signal::{SeriesBatch, Written};

use super::labels::LabelLimits;

pub use encoding::encode;
pub use known::KnownLabels;

/// Which message a request holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `prometheus.WriteRequest`
    V1,
    /// `io.prometheus.write.v2.Request`
    V2,
}

impl Protocol {
    /// The protocol that a `Content-Type` names; none when it is not one of ours. Without a parameter it is 1.0.
    #[must_use]
    pub fn of_content_type(content_type: &str) -> Option<Self> {
        let mut parts = content_type.split(';').map(str::trim);
        if !parts.next()?.eq_ignore_ascii_case("application/x-protobuf") {
            return None;
        }
        for parameter in parts {
            let (name, value) = parameter.split_once('=')?;
            if name.trim().eq_ignore_ascii_case("proto") {
                return match value.trim().trim_matches('"') {
                    "prometheus.WriteRequest" => Some(Self::V1),
                    "io.prometheus.write.v2.Request" => Some(Self::V2),
                    _ => None,
                };
            }
        }
        Some(Self::V1)
    }

    /// The `Content-Type` of such a request.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::V1 => "application/x-protobuf",
            Self::V2 => "application/x-protobuf;proto=io.prometheus.write.v2.Request",
        }
    }

    /// The value of `X-Prometheus-Remote-Write-Version`.
    #[must_use]
    pub fn version(self) -> &'static str {
        match self {
            Self::V1 => "0.1.0",
            Self::V2 => "2.0.0",
        }
    }
}

/// Bounds on one request.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes after decompression.
    pub bytes_max: usize,
    /// Series.
    pub series_max: usize,
    /// Bytes in memory, about, of what is made of a request: a message of two bytes can stand for much more.
    pub memory_bytes_max: usize,
    /// Of each series.
    pub labels: LabelLimits,
    /// Bytes of an exemplar's labels.
    pub exemplar_bytes_max: usize,
    /// Bytes of a help text; what is longer is cut, and ends with an ellipsis.
    pub help_bytes_max: usize,
}

/// Why a request cannot be read at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Not what the header says.
    #[error("the body is not in snappy's block format: {0}")]
    Snappy(String),
    /// Too long.
    #[error(
        "the body is {bytes} bytes when decompressed, more than the {allowed} allowed: send smaller batches"
    )]
    Bytes {
        /// How many there are.
        bytes: usize,
        /// How many there may be.
        allowed: usize,
    },
    /// Not the message that the header says.
    #[error("the body is not the protobuf message that Content-Type names: {0}")]
    Message(String),
    /// Too many.
    #[error("{series} series are more than the {allowed} that one request may hold: send smaller batches")]
    Series {
        /// How many there are.
        series: usize,
        /// How many there may be.
        allowed: usize,
    },
    /// Too large in memory.
    #[error(
        "the request would take more than the {allowed} bytes of memory that one may: send smaller batches"
    )]
    Memory {
        /// How many bytes there may be.
        allowed: usize,
    },
    /// The first symbol must be empty.
    #[error("the first symbol is not the empty text: is this a message of another version?")]
    Symbols,
}

/// What a request holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decoded {
    /// What can be taken.
    pub batch: SeriesBatch,
    /// What cannot, counted by reason.
    pub refused: Written,
    /// The first thing that is wrong, for the answer.
    pub first_fault: Option<String>,
}

/// Decompresses and decodes a request.
///
/// # Errors
/// When it cannot be read as a whole.
pub fn decode(protocol: Protocol, compressed: &[u8], limits: &Limits) -> Result<Decoded, Fault> {
    decode_known(protocol, compressed, limits, &KnownLabels::new(0))
}

/// As [`decode`], with the labels of earlier requests at hand.
///
/// # Errors
/// When it cannot be read as a whole.
pub fn decode_known(
    protocol: Protocol,
    compressed: &[u8],
    limits: &Limits,
    known: &KnownLabels,
) -> Result<Decoded, Fault> {
    let bytes = decompress(compressed, limits.bytes_max)?;
    reading::read(protocol, &bytes, limits, known)
}

pub(super) fn decompress(compressed: &[u8], bytes_max: usize) -> Result<Vec<u8>, Fault> {
    let snappy = |error: snap::Error| Fault::Snappy(error.to_string());
    let bytes = snap::raw::decompress_len(compressed).map_err(snappy)?;
    if bytes > bytes_max {
        return Err(Fault::Bytes { bytes, allowed: bytes_max });
    }
    snap::raw::Decoder::new().decompress_vec(compressed).map_err(snappy)
}

#[cfg(test)]
mod tests;
