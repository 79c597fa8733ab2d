//! Routing keys: read once at start, never printed, never written.

use std::fmt;

use crate::config::ServiceConfig;
use crate::error::Error;

/// The key that says which PagerDuty service an event is for. Whoever has it can wake people.
#[derive(Clone)]
pub(crate) struct RoutingKey(String);

/// PagerDuty's integration keys have this many characters.
const KEY_CHARS: usize = 32;

impl RoutingKey {
    /// Reads the key from where the configuration says.
    pub(crate) fn read(service: &ServiceConfig) -> Result<Self, Error> {
        let fail =
            |place: String, message| Error::RoutingKey { service: service.name.clone(), place, message };
        let (place, text) = match (&service.routing_key_file, &service.routing_key_env) {
            (Some(path), _) => {
                let place = format!("file {}", path.display());
                let text = std::fs::read_to_string(path)
                    .map_err(|_| fail(place.clone(), "the file cannot be read as text"))?;
                (place, text)
            }
            (None, Some(variable)) => {
                let place = format!("environment variable {variable}");
                let text =
                    std::env::var(variable).map_err(|_| fail(place.clone(), "the variable is not set"))?;
                (place, text)
            }
            (None, None) => return Err(fail("nowhere".to_owned(), "no file or variable is named")),
        };
        Self::of(&text).ok_or_else(|| fail(place, "an integration key has exactly 32 letters and digits"))
    }

    /// The key that a text is, if it is one.
    pub(crate) fn of(text: &str) -> Option<Self> {
        let key = text.trim();
        let is_key = key.len() == KEY_CHARS && key.chars().all(|c| c.is_ascii_alphanumeric());
        is_key.then(|| Self(key.to_owned()))
    }

    /// The key, for the one place that puts it into a request.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

/// A secret of the way back: of a webhook, or a token of the REST API. Never printed, never written.
#[derive(Clone)]
pub(crate) struct Secret(String);

/// Secrets of one service's webhooks.
const SECRETS_MAX: usize = 8;

impl Secret {
    /// Reads the secrets of a file or variable, one on a line.
    pub(crate) fn read_all(
        service: &str,
        file: Option<&std::path::Path>,
        variable: Option<&str>,
    ) -> Result<Vec<Secret>, Error> {
        let fail = |place: String, message| Error::RoutingKey { service: service.to_owned(), place, message };
        let (place, text) = match (file, variable) {
            (Some(path), _) => {
                let place = format!("file {}", path.display());
                let text = std::fs::read_to_string(path)
                    .map_err(|_| fail(place.clone(), "the file cannot be read as text"))?;
                (place, text)
            }
            (None, Some(variable)) => {
                let place = format!("environment variable {variable}");
                let text =
                    std::env::var(variable).map_err(|_| fail(place.clone(), "the variable is not set"))?;
                (place, text)
            }
            (None, None) => return Ok(Vec::new()),
        };
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let secrets: Vec<Secret> = lines.map(|line| Secret(line.to_owned())).collect();
        if secrets.is_empty() || secrets.len() > SECRETS_MAX {
            return Err(fail(place, "it must hold one to eight secrets, one on a line"));
        }
        Ok(secrets)
    }

    /// The secret, for the one place that uses it.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl fmt::Debug for RoutingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[key]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &str) -> Result<RoutingKey, Error> {
        let directory = tempfile::tempdir().expect("a directory");
        let mut service = crate::config::tests::config(directory.path()).services.remove(0);
        let path = directory.path().join("key");
        std::fs::write(&path, content).expect("written");
        service.routing_key_file = Some(path);
        RoutingKey::read(&service)
    }

    #[test]
    fn a_key_is_read_trimmed_and_never_shown() {
        let key = read("0123456789abcdef0123456789abcdef\n").expect("a key");
        assert_eq!(key.reveal().len(), 32);
        assert_eq!(format!("{key:?}"), "[key]");
    }

    #[test]
    fn a_malformed_key_is_refused_without_being_shown() {
        let error = read("s3cret-but-too-short").expect_err("malformed");
        let shown = format!("{error} {error:?}");
        assert!(shown.contains("32 letters") && !shown.contains("s3cret"), "{shown}");
    }
}
