//! One connection of a phone: UDP, TCP, TLS or WSS, from a chosen local address, as whole SIP messages.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use belfry_sip_proto::{Frame, Framer, Limits};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as WebSocketMessage;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;

use crate::error::Error;
use crate::tls::{Trust, client_config};

const DATAGRAM_BYTES_MAX: usize = 65_535;
const READ_BYTES: usize = 16 * 1024;
/// Messages that wait for a slow connection before the phone waits too.
const QUEUE_MAX: usize = 64;

/// How a phone speaks SIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
    /// TLS over TCP.
    Tls,
    /// WebSocket over TLS (RFC 7118).
    Wss,
}

impl Transport {
    /// The token in Via.
    #[must_use]
    pub fn via_token(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
            Self::Wss => "WSS",
        }
    }

    /// The `transport` parameter of a URI; `ws` also over TLS (RFC 7118 section 5.2.1).
    #[must_use]
    pub fn uri_token(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Wss => "ws",
        }
    }
}

/// Where to connect and from where.
pub(crate) struct Target<'a> {
    pub(crate) transport: Transport,
    pub(crate) source: IpAddr,
    pub(crate) edge: SocketAddr,
    pub(crate) server_name: &'a str,
    pub(crate) path: &'a str,
    pub(crate) trust: Option<&'a Trust>,
}

/// An open connection.
pub(crate) struct Connection {
    pub(crate) sender: Sender,
    pub(crate) receiver: Receiver,
    pub(crate) local: SocketAddr,
}

/// The sending half. Cheap to clone.
#[derive(Clone)]
pub(crate) enum Sender {
    Datagram(Arc<UdpSocket>),
    Stream(mpsc::Sender<Vec<u8>>),
}

/// The receiving half.
pub(crate) enum Receiver {
    Datagram { socket: Arc<UdpSocket>, buffer: Vec<u8> },
    Stream { stream: Box<dyn AsyncRead + Send + Unpin>, framer: Framer, pongs: mpsc::Sender<Vec<u8>> },
    WebSocket(SplitStream<WebSocketStream<TlsStream<TcpStream>>>),
}

/// Connects.
pub(crate) async fn connect(target: &Target<'_>) -> Result<Connection, Error> {
    match target.transport {
        Transport::Udp => {
            let socket = UdpSocket::bind((target.source, 0)).await.map_err(Error::socket("bind"))?;
            socket.connect(target.edge).await.map_err(Error::socket("connect"))?;
            let local = socket.local_addr().map_err(Error::socket("bind"))?;
            let socket = Arc::new(socket);
            let receiver =
                Receiver::Datagram { socket: Arc::clone(&socket), buffer: vec![0; DATAGRAM_BYTES_MAX] };
            Ok(Connection { sender: Sender::Datagram(socket), receiver, local })
        }
        Transport::Tcp => {
            let stream = connect_tcp(target.source, target.edge).await?;
            let local = stream.local_addr().map_err(Error::socket("connect"))?;
            Ok(over_stream(stream, local))
        }
        Transport::Tls => {
            let stream = connect_target_tls(target, &[]).await?;
            let local = stream.get_ref().0.local_addr().map_err(Error::socket("connect"))?;
            Ok(over_stream(stream, local))
        }
        Transport::Wss => over_websocket(target).await,
    }
}

/// A TCP connection from a chosen local address.
pub(crate) async fn connect_tcp(source: IpAddr, edge: SocketAddr) -> Result<TcpStream, Error> {
    let socket = if source.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = socket.map_err(Error::socket("make a socket"))?;
    socket.bind(SocketAddr::new(source, 0)).map_err(Error::socket("bind"))?;
    let stream = socket.connect(edge).await.map_err(Error::socket("connect"))?;
    stream.set_nodelay(true).map_err(Error::socket("connect"))?;
    Ok(stream)
}

/// TLS over a TCP connection.
pub(crate) async fn connect_tls(
    stream: TcpStream,
    server_name: &str,
    trust: &Trust,
    protocols: &[&str],
) -> Result<TlsStream<TcpStream>, Error> {
    let name = ServerName::try_from(server_name.to_owned()).map_err(|error| Error::Tls(error.to_string()))?;
    let connector = TlsConnector::from(client_config(trust, protocols)?);
    connector.connect(name, stream).await.map_err(|error| Error::Tls(error.to_string()))
}

async fn connect_target_tls(target: &Target<'_>, protocols: &[&str]) -> Result<TlsStream<TcpStream>, Error> {
    let trust = target.trust.ok_or_else(|| Error::Tls("no authority to trust was given".to_owned()))?;
    let stream = connect_tcp(target.source, target.edge).await?;
    connect_tls(stream, target.server_name, trust, protocols).await
}

fn over_stream<S>(stream: S, local: SocketAddr) -> Connection
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (reader, mut writer) = tokio::io::split(stream);
    let (sender, mut queue) = mpsc::channel::<Vec<u8>>(QUEUE_MAX);
    tokio::spawn(async move {
        while let Some(bytes) = queue.recv().await {
            if writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err() {
                return;
            }
        }
        // The phone hangs up; the peer may have done so before.
        drop(writer.shutdown().await);
    });
    let framer = Framer::new(Limits::default());
    let receiver = Receiver::Stream { stream: Box::new(reader), framer, pongs: sender.clone() };
    Connection { sender: Sender::Stream(sender), receiver, local }
}

async fn over_websocket(target: &Target<'_>) -> Result<Connection, Error> {
    let stream = connect_target_tls(target, &["http/1.1"]).await?;
    let local = stream.get_ref().0.local_addr().map_err(Error::socket("connect"))?;
    let failed = |error: tokio_tungstenite::tungstenite::Error| Error::WebSocket(error.to_string());
    let url = format!("wss://{}:{}{}", target.server_name, target.edge.port(), target.path);
    let mut request = url.into_client_request().map_err(failed)?;
    request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static("sip"));
    let (socket, _) = tokio_tungstenite::client_async(request, stream).await.map_err(failed)?;
    let (sink, receiver) = socket.split();
    let (sender, queue) = mpsc::channel(QUEUE_MAX);
    tokio::spawn(write_websocket(sink, queue));
    Ok(Connection { sender: Sender::Stream(sender), receiver: Receiver::WebSocket(receiver), local })
}

async fn write_websocket(
    mut sink: SplitSink<WebSocketStream<TlsStream<TcpStream>>, WebSocketMessage>,
    mut queue: mpsc::Receiver<Vec<u8>>,
) {
    while let Some(bytes) = queue.recv().await {
        let message = match String::from_utf8(bytes) {
            Ok(text) => WebSocketMessage::text(text),
            Err(error) => WebSocketMessage::binary(error.into_bytes()),
        };
        if sink.send(message).await.is_err() {
            return;
        }
    }
    drop(sink.close().await);
}

impl Sender {
    /// Sends one message. Over UDP a refused datagram is a lost one, as on a real network.
    pub(crate) async fn send(&self, bytes: Vec<u8>) -> Result<(), Error> {
        match self {
            Self::Datagram(socket) => match socket.send(&bytes).await {
                Err(error) if error.kind() != io::ErrorKind::ConnectionRefused => {
                    Err(Error::socket("send")(error))
                }
                _ => Ok(()),
            },
            Self::Stream(queue) => queue.send(bytes).await.map_err(|_| Error::ConnectionLost),
        }
    }
}

impl Receiver {
    /// The next whole message; none when the connection is gone. Safe to drop and call again.
    pub(crate) async fn next(&mut self) -> Option<Vec<u8>> {
        match self {
            Self::Datagram { socket, buffer } => loop {
                match socket.recv(buffer).await {
                    // Keep-alives and their answers are a few line ends.
                    Ok(size) if size <= 4 => {}
                    Ok(size) => return Some(buffer[..size].to_vec()),
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                    Err(_) => return None,
                }
            },
            Self::Stream { stream, framer, pongs } => loop {
                match framer.next_frame().ok()? {
                    Some(Frame::Message(bytes)) => return Some(bytes),
                    // A full queue means that messages flow, which keeps the connection alive as well.
                    Some(Frame::Ping) => drop(pongs.try_send(Framer::PONG.to_vec())),
                    Some(Frame::Pong) => {}
                    None => {
                        let mut buffer = vec![0; READ_BYTES];
                        let size = stream.read(&mut buffer).await.ok().filter(|&size| size > 0)?;
                        framer.push(&buffer[..size]);
                    }
                }
            },
            Self::WebSocket(stream) => loop {
                match stream.next().await?.ok()? {
                    WebSocketMessage::Text(text) if text.trim().is_empty() => {}
                    WebSocketMessage::Text(text) => return Some(text.as_bytes().to_vec()),
                    WebSocketMessage::Binary(bytes) => return Some(bytes.to_vec()),
                    WebSocketMessage::Close(_) => return None,
                    _ => {}
                }
            },
        }
    }
}
