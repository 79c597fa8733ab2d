//! How the library reaches a bucket over HTTP: hyper and rustls with ring, as the rest of the house. The library's own way
//! is reqwest, whose TLS brings a second provider of cryptography into the house.

use std::error::Error as StdError;

use async_trait::async_trait;
use http_body_util::BodyExt;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector as Tcp;
use hyper_util::rt::TokioExecutor;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse,
    HttpResponseBody, HttpService,
};

/// Makes clients for the library.
#[derive(Debug)]
pub(super) struct Connector;

#[derive(Debug)]
struct Service(Client<HttpsConnector<Tcp>, HttpRequestBody>);

impl HttpConnector for Connector {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        let failed =
            |source: std::io::Error| object_store::Error::Generic { store: "S3", source: Box::new(source) };
        let https =
            HttpsConnectorBuilder::new().with_native_roots().map_err(failed)?.https_or_http().enable_http1();
        Ok(HttpClient::new(Service(Client::builder(TokioExecutor::new()).build(https.build()))))
    }
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let response = self.0.request(request).await.map_err(|error| {
            let kind = if error.is_connect() { HttpErrorKind::Connect } else { HttpErrorKind::Request };
            HttpError::new_boxed(kind, told(&error).into())
        })?;
        let (parts, body) = response.into_parts();
        let body =
            body.map_err(|error| HttpError::new_boxed(HttpErrorKind::Interrupted, told(&error).into()));
        Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(body)))
    }
}

/// An error with those behind it: alone it says no more than that something failed.
fn told(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(behind) = source {
        text.push_str(": ");
        text.push_str(&behind.to_string());
        source = behind.source();
    }
    text
}
