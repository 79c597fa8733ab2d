//! Before a request over gRPC is decoded: who sends it, and room for what comes.
//!
//! tonic decodes what it reads as it reads it. So a request is gathered here first, piece by piece as there is room, and
//! only from those who show a token where one is asked for.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Bytes;
use belfry_door::PeerAddress;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use tonic::body::Body;
use tower::{Layer, Service};

use super::Otlp;
use super::grpc::GrpcPeer;
use super::wire::grpc_status;
use crate::doors::http::{origin, too_long};
use crate::doors::intake::{Origin, Room};
use crate::doors::refusal::{Reason, Refusal};
use crate::doors::signals::Entrance;

/// Flag and length of a message (gRPC over HTTP/2, "Length-Prefixed-Message").
const PREFIX_BYTES: usize = 5;

/// Puts the gate before a service.
#[derive(Clone, Debug)]
pub(super) struct Gate(pub(super) Otlp);

/// A service behind the gate.
#[derive(Clone, Debug)]
pub(super) struct Gated<S> {
    inner: S,
    otlp: Otlp,
}

/// Whose request it is, and the room that it takes while it is worked on.
#[derive(Clone, Debug)]
pub(super) struct Admitted {
    pub(super) origin: Origin,
    _rooms: Arc<Vec<Room>>,
}

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { inner, otlp: self.0.clone() }
    }
}

type Answering<E> = Pin<Box<dyn Future<Output = Result<Response<Body>, E>> + Send>>;

impl<S> Service<Request<Body>> for Gated<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Answering<S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The one that is ready answers; its clone waits for its turn.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let otlp = self.otlp.clone();
        Box::pin(async move {
            match admit(&otlp, request).await {
                Ok(request) => inner.call(request).await,
                Err(status) => Ok(status.into_http()),
            }
        })
    }
}

async fn admit(otlp: &Otlp, request: Request<Body>) -> Result<Request<Body>, tonic::Status> {
    let peer = request.extensions().get::<GrpcPeer>().map(|peer| PeerAddress(peer.0));
    let origin = origin(Entrance::OtlpGrpc, peer);
    let refuse = |refusal: Refusal| {
        otlp.intake.refused(&origin, &refusal, 1, &[]);
        grpc_status(otlp, &refusal)
    };
    if !has_token(otlp, request.headers()) {
        return Err(refuse(Refusal::new(Reason::Token, "send metadata `authorization: Bearer TOKEN`")));
    }
    let (mut parts, body) = request.into_parts();
    let idle = otlp.intake.config().idle_timeout;
    let gathering = tokio::time::timeout(idle, gather(otlp, &origin, body)).await;
    let slow = || Refusal::new(Reason::Broken, "the request did not come whole in time");
    let (bytes, rooms) = gathering.unwrap_or_else(|_| Err(slow())).map_err(refuse)?;
    parts.extensions.insert(Admitted { origin, _rooms: Arc::new(rooms) });
    Ok(Request::from_parts(parts, Body::new(Full::new(bytes))))
}

fn has_token(otlp: &Otlp, headers: &HeaderMap) -> bool {
    let Some(tokens) = &otlp.tokens else { return true };
    let shown = headers.get(AUTHORIZATION).map(http::HeaderValue::as_bytes).unwrap_or_default();
    let bearer = shown.split_at_checked(7).filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "));
    bearer.is_some_and(|(_, shown)| tokens.has(shown.trim_ascii()))
}

/// All of a body, with room for it and for what it becomes when it is unpacked.
async fn gather(otlp: &Otlp, origin: &Origin, mut body: Body) -> Result<(Bytes, Vec<Room>), Refusal> {
    let intake = &otlp.intake;
    let bytes_max = intake.config().request_bytes_max;
    let (mut gathered, mut rooms) = (Vec::new(), Vec::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Refusal::new(Reason::Broken, error.to_string()))?;
        let Ok(piece) = frame.into_data() else { continue };
        intake.received(origin, piece.len());
        if gathered.len() + piece.len() > bytes_max + PREFIX_BYTES {
            return Err(too_long(bytes_max));
        }
        rooms.push(intake.try_room(piece.len())?);
        gathered.extend_from_slice(&piece);
    }
    let is_packed = gathered.first().is_some_and(|flag| *flag != 0);
    if is_packed {
        rooms.push(intake.try_room(bytes_max)?);
    }
    Ok((gathered.into(), rooms))
}
