//! Targets: those who are told because a receiver of the alert routes says so. They come and go with that file, beside the
//! services of the configuration, which stay.

use std::fmt;

use base64::Engine;
use http::{HeaderValue, Uri};

use crate::config::check_url;
use crate::error::Error;
use crate::key::RoutingKey;

/// Where a secret stands. It is read once, and never printed.
#[derive(Clone)]
pub enum SecretSource {
    /// It was written where it is used.
    Inline(String),
    /// The path of a file that holds it.
    File(String),
}

impl fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecretSource::Inline(_) => f.write_str("[secret]"),
            SecretSource::File(path) => write!(f, "file {path}"),
        }
    }
}

/// Who is told, and how.
#[derive(Clone, Debug)]
pub struct TargetConfig {
    /// What it is called: receiver, kind and place.
    pub name: String,
    /// How.
    pub kind: TargetKind,
}

/// The ways to tell a target.
#[derive(Clone, Debug)]
pub enum TargetKind {
    /// PagerDuty's Events API v2.
    Pagerduty {
        /// Where events go.
        url: String,
        /// Which service.
        routing_key: SecretSource,
    },
    /// A POST of JSON in Alertmanager's shape.
    Webhook {
        /// The address, which often is a secret in itself.
        url: SecretSource,
        /// `Authorization: TYPE SECRET`.
        scheme: Option<(String, SecretSource)>,
        /// User and password.
        basic: Option<(String, SecretSource)>,
    },
}

/// Where a request goes, and how it says who it is from.
#[derive(Clone)]
pub(crate) struct Destination {
    pub(crate) url: Uri,
    pub(crate) authorization: Option<HeaderValue>,
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The path of a webhook often is a secret in itself.
        f.write_str("[destination]")
    }
}

impl Destination {
    /// A path and query below this address, with the same login.
    pub(crate) fn below(&self, path_and_query: &str) -> Result<Destination, http::Error> {
        let base = self.url.path().trim_end_matches('/');
        let mut parts = self.url.clone().into_parts();
        parts.path_and_query = Some(format!("{base}{path_and_query}").parse()?);
        Ok(Destination { url: Uri::from_parts(parts)?, authorization: self.authorization.clone() })
    }
}

impl From<Uri> for Destination {
    fn from(url: Uri) -> Self {
        Self { url, authorization: None }
    }
}

/// A target, ready for use.
pub(crate) struct Target {
    pub(crate) destination: Destination,
    /// Absent for webhooks.
    pub(crate) key: Option<RoutingKey>,
}

impl TargetConfig {
    /// Reads its secrets.
    pub(crate) fn open(&self) -> Result<Target, Error> {
        let wrong = |message: String| Error::Config { key: format!("target {}", self.name), message };
        match &self.kind {
            TargetKind::Pagerduty { url, routing_key } => {
                let place = format!("{routing_key:?}");
                let fail =
                    |message| Error::RoutingKey { service: self.name.clone(), place: place.clone(), message };
                let text = read(routing_key).map_err(|_| fail("the file cannot be read as text"))?;
                let key = RoutingKey::of(&text)
                    .ok_or_else(|| fail("an integration key has exactly 32 letters and digits"))?;
                Ok(Target { destination: check_url(url).map_err(wrong)?.into(), key: Some(key) })
            }
            TargetKind::Webhook { url, scheme, basic } => {
                let unreadable = |source: &SecretSource| wrong(format!("{source:?} cannot be read as text"));
                let text = read(url).map_err(|()| unreadable(url))?;
                let is_web = text.starts_with("http://") || text.starts_with("https://");
                let url = text.parse::<Uri>().ok().filter(|_| is_web && text.len() <= 2_048);
                let url = url.ok_or_else(|| wrong("its url is no web address".to_owned()))?;
                let authorization = match (scheme, basic) {
                    (Some((scheme, secret)), _) => {
                        Some(format!("{scheme} {}", read(secret).map_err(|()| unreadable(secret))?))
                    }
                    (None, Some((user, secret))) => {
                        let login = format!("{user}:{}", read(secret).map_err(|()| unreadable(secret))?);
                        Some(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(login)))
                    }
                    (None, None) => None,
                };
                let header = authorization.map(|text| {
                    let mut header = HeaderValue::from_str(&text)
                        .map_err(|_| wrong("its login has letters that no header may have".to_owned()))?;
                    header.set_sensitive(true);
                    Ok::<_, Error>(header)
                });
                Ok(Target { destination: Destination { url, authorization: header.transpose()? }, key: None })
            }
        }
    }

    /// Whether it can only be told over TLS.
    pub(crate) fn needs_tls(&self) -> bool {
        match &self.kind {
            TargetKind::Pagerduty { url, .. } => url.starts_with("https:"),
            // A file may name anything.
            TargetKind::Webhook { url: SecretSource::Inline(url), .. } => url.starts_with("https:"),
            TargetKind::Webhook { url: SecretSource::File(_), .. } => true,
        }
    }
}

fn read(source: &SecretSource) -> Result<String, ()> {
    match source {
        SecretSource::Inline(text) => Ok(text.trim().to_owned()),
        SecretSource::File(path) => {
            std::fs::read_to_string(path).map(|text| text.trim().to_owned()).map_err(|_| ())
        }
    }
}
