//! What travels between nodes: length-delimited postcard frames inside TLS.
//!
//! The dialling side opens with a [`Hello`], the other side answers with a [`Welcome`]; after that both send
//! [`Frame`]s. The length field is four bytes, big endian, and its limit is checked before anything is kept.

use bytes::Bytes;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;
use tokio_util::codec::{Framed, LengthDelimitedCodec, LengthDelimitedCodecError};

use crate::signals::{CloseReason, HandshakeFailure};

/// The version of these types and of all that rooms say over links. Nodes of different versions refuse each other
/// instead of guessing: an order that the other side cannot read would end the link, and the next, and the next.
///
/// 2: an edge is told of bans.
pub const PROTOCOL: u16 = 2;

/// A TLS connection cut into frames.
pub(crate) type Transport = Framed<TlsStream<TcpStream>, LengthDelimitedCodec>;

/// The first frame of the side that dials.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) protocol: u16,
    pub(crate) node: String,
    pub(crate) version: String,
    pub(crate) service: String,
    /// Names the `dial` call, so that its next connection replaces its last.
    pub(crate) instance: u64,
}

/// The first frame of the side that serves.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Welcome {
    Open { node: String, version: String },
    WrongProtocol { protocol: u16 },
    NotServed,
}

/// Everything after that.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Frame<M> {
    /// A message of the room.
    Message(M),
    /// Asks for a [`Frame::Pong`] with the same number.
    Ping(u64),
    /// Answers a [`Frame::Ping`].
    Pong(u64),
    /// Nothing more will come, on purpose.
    Goodbye,
}

/// Cuts a TLS stream into frames of at most `frame_bytes_max`.
pub(crate) fn transport(stream: TlsStream<TcpStream>, frame_bytes_max: usize) -> Transport {
    let codec = LengthDelimitedCodec::builder().max_frame_length(frame_bytes_max).new_codec();
    Framed::new(stream, codec)
}

/// Encodes one frame.
pub(crate) fn encode<M: Serialize>(frame: &M) -> Option<Bytes> {
    // Serialising plain data into memory fails only for types that postcard cannot describe.
    postcard::to_stdvec(frame).ok().map(Bytes::from)
}

/// Decodes one frame; trailing bytes are a fault.
pub(crate) fn decode<M: DeserializeOwned>(bytes: &[u8]) -> Option<M> {
    postcard::take_from_bytes(bytes).ok().filter(|(_, rest)| rest.is_empty()).map(|(frame, _)| frame)
}

/// Sends one handshake frame.
pub(crate) async fn greet<M: Serialize>(
    transport: &mut (impl Sink<Bytes> + Unpin),
    greeting: &M,
) -> Result<(), HandshakeFailure> {
    let bytes = encode(greeting).ok_or(HandshakeFailure::BadHello)?;
    transport.send(bytes).await.map_err(|_| HandshakeFailure::Tls)
}

/// Receives one handshake frame. A peer that refuses our certificate shows here first (TLS 1.3).
pub(crate) async fn greeted<M: DeserializeOwned>(
    transport: &mut (impl Stream<Item = std::io::Result<bytes::BytesMut>> + Unpin),
) -> Result<M, HandshakeFailure> {
    match transport.next().await {
        Some(Ok(bytes)) => decode(&bytes).ok_or(HandshakeFailure::BadHello),
        Some(Err(error)) if is_oversize(&error) => Err(HandshakeFailure::BadHello),
        Some(Err(_)) | None => Err(HandshakeFailure::Tls),
    }
}

/// Why reading frames ended.
pub(crate) fn read_failure(error: &std::io::Error) -> CloseReason {
    if is_oversize(error) { CloseReason::Oversize } else { CloseReason::Broken }
}

fn is_oversize(error: &std::io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<LengthDelimitedCodecError>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_a_round_trip_and_garbage_does_not_decode() {
        let bytes = encode(&Frame::Message(&("INVITE".to_owned(), 7_u32))).expect("plain data");
        let Some(Frame::Message((text, number))) = decode::<Frame<(String, u32)>>(&bytes) else {
            panic!("the frame did not come back")
        };
        assert_eq!((text.as_str(), number), ("INVITE", 7));
        for garbage in [&b""[..], b"\x09", b"\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"\x03trailing"] {
            assert!(decode::<Frame<(String, u32)>>(garbage).is_none(), "{garbage:?}");
        }
    }
}
