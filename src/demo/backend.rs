//! The HTTP backend behind the demo's edge: a customer portal that answers at once, or late when told to.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

/// A running backend.
#[derive(Clone, Debug)]
pub struct Backend {
    /// Where it listens.
    pub address: SocketAddr,
    delay_ms: Arc<AtomicU64>,
}

impl Backend {
    /// Starts the backend.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn start(listen: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let backend = Self { address: listener.local_addr()?, delay_ms: Arc::default() };
        let delay_ms = backend.delay_ms.clone();
        tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let delay_ms = delay_ms.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request: Request<Incoming>| {
                        let delay_ms = delay_ms.clone();
                        async move {
                            let delay = Duration::from_millis(delay_ms.load(Ordering::Relaxed));
                            if !delay.is_zero() {
                                tokio::time::sleep(delay).await;
                            }
                            Ok::<_, Infallible>(answer(&request))
                        }
                    });
                    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    // The edge closes idle connections when it likes; that is no fault of the backend.
                    let _ended = builder.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Ok(backend)
    }

    /// Delays every answer from now on.
    pub fn set_delay(&self, delay: Duration) {
        self.delay_ms.store(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// What the portal says: enough to see which region the edge gave the customer.
fn answer(request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let header =
        |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or("-");
    let body = format!(
        "belfry demo portal\npath: {}\nregion: {}\ntraceparent: {}\n",
        request.uri().path(),
        header("x-belfry-region"),
        header("traceparent")
    );
    Response::new(Full::new(Bytes::from(body)))
}
