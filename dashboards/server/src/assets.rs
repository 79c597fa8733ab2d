//! The page's own files, compiled in, and how they are cached.
//!
//! Names under `assets/` carry a hash of their content, so they never change; everything else has an ETag.

use std::collections::HashMap;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use sha2::{Digest, Sha256};

use crate::sessions::text_of;

include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// One file of the page.
pub(crate) struct Asset {
    /// Below the root, without a leading slash.
    path: &'static str,
    bytes: &'static [u8],
    gzip: Option<&'static [u8]>,
}

/// All files, ready to be sent.
#[derive(Debug)]
pub(crate) struct Assets {
    files: HashMap<&'static str, File>,
}

#[derive(Debug)]
struct File {
    bytes: &'static [u8],
    gzip: Option<&'static [u8]>,
    kind: &'static str,
    etag: HeaderValue,
    is_immutable: bool,
}

const INDEX: &str = "index.html";

impl Assets {
    pub(crate) fn new() -> Self {
        let files = ASSETS.iter().filter_map(|asset| Some((asset.path, File::of(asset)?))).collect();
        Self { files }
    }

    /// The frame of every page: it holds no data, so it needs no login.
    pub(crate) fn index(&self, headers: &HeaderMap) -> Response {
        self.file(INDEX, headers)
    }

    pub(crate) fn file(&self, path: &str, headers: &HeaderMap) -> Response {
        self.files
            .get(path)
            .map_or_else(|| StatusCode::NOT_FOUND.into_response(), |file| file.answer(headers))
    }

    /// The page's styles, for pages that are written here.
    pub(crate) fn stylesheets(&self) -> impl Iterator<Item = &'static str> {
        self.files.keys().copied().filter(|path| path.ends_with(".css"))
    }

    /// Whether the real page is built in, and not the plain one that takes its place.
    pub(crate) fn has_page(&self) -> bool {
        self.files.len() > 1
    }

    /// Tells one build of the page from another.
    pub(crate) fn version(&self) -> String {
        let etag = self.files.get(INDEX).and_then(|file| file.etag.to_str().ok());
        etag.unwrap_or_default().trim_matches('"').to_owned()
    }

    #[cfg(test)]
    pub(crate) fn paths(&self) -> Vec<&'static str> {
        self.files.keys().copied().collect()
    }
}

impl File {
    fn of(asset: &Asset) -> Option<Self> {
        let etag = format!("\"{}\"", text_of(&Sha256::digest(asset.bytes)[..16]));
        Some(Self {
            bytes: asset.bytes,
            gzip: asset.gzip,
            kind: kind(asset.path),
            etag: HeaderValue::from_str(&etag).ok()?,
            is_immutable: asset.path.starts_with("assets/"),
        })
    }

    fn answer(&self, headers: &HeaderMap) -> Response {
        let cache = if self.is_immutable { "public, max-age=31536000, immutable" } else { "no-cache" };
        let wants_gzip = headers
            .get_all(ACCEPT_ENCODING)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| value.split(',').any(|coding| coding.trim().split(';').next() == Some("gzip")));
        let is_known = headers.get(IF_NONE_MATCH).is_some_and(|value| value == self.etag);
        let (status, body, packed) = match (is_known, self.gzip.filter(|_| wants_gzip)) {
            (true, _) => (StatusCode::NOT_MODIFIED, Body::empty(), false),
            (false, Some(gzip)) => (StatusCode::OK, Body::from(gzip), true),
            (false, None) => (StatusCode::OK, Body::from(self.bytes), false),
        };
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.kind));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(cache));
        headers.insert(ETAG, self.etag.clone());
        headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
        if packed {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    }
}

/// The kinds of file that the page is made of; anything else is not guessed at.
fn kind(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("woff2") => "font/woff2",
        _ => "application/octet-stream",
    }
}
