//! The server of OTLP/gRPC: tonic on connections that we let in and count.

use std::net::IpAddr;

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::LogsServiceServer;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::MetricsServiceServer;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::TraceServiceServer;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::CompressionEncoding;
use tonic::transport::Server;
use tonic::transport::server::Connected;

use super::Otlp;
use super::gate::Gate;
use crate::doors::listen::{Acceptor, Guest, stopped};

/// Requests of one connection at once.
const REQUESTS_MAX: usize = 64;
/// Connections that wait to be served; they are served at once.
const WAITING_MAX: usize = 16;

/// Whose connection a request came by, as an extension of the request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GrpcPeer(pub(crate) IpAddr);

impl Connected for Guest {
    type ConnectInfo = GrpcPeer;

    fn connect_info(&self) -> GrpcPeer {
        GrpcPeer(self.peer)
    }
}

/// Serves until told to stop; what is asked then is still answered.
pub(super) async fn serve(otlp: Otlp, acceptor: Acceptor) {
    let bytes_max = otlp.intake.config().request_bytes_max;
    let idle = otlp.intake.config().idle_timeout;
    let mut stop = acceptor.stop.clone();
    let (sender, guests) = mpsc::channel::<Guest>(WAITING_MAX);
    let accepting = tokio::spawn(acceptor.run(move |guest| {
        let sender = sender.clone();
        async move {
            // A server that ended takes nobody in.
            let _ = sender.send(guest).await;
        }
    }));
    macro_rules! service {
        ($server:ident) => {
            $server::new(otlp.clone())
                .accept_compressed(CompressionEncoding::Gzip)
                .send_compressed(CompressionEncoding::Gzip)
                .max_decoding_message_size(bytes_max)
        };
    }
    let server = Server::builder()
        .layer(Gate(otlp.clone()))
        .concurrency_limit_per_connection(REQUESTS_MAX)
        .max_concurrent_streams(u32::try_from(REQUESTS_MAX).ok())
        .http2_keepalive_interval(Some(idle / 4))
        .timeout(idle)
        .add_service(service!(LogsServiceServer))
        .add_service(service!(TraceServiceServer))
        .add_service(service!(MetricsServiceServer));
    let incoming = ReceiverStream::new(guests).map(Ok::<_, std::io::Error>);
    // It ends when it is told to, or with the last of those who could come in.
    let _ = server.serve_with_incoming_shutdown(incoming, async move { stopped(&mut stop).await }).await;
    let _ = accepting.await;
}
