//! What may be set about notification. The defaults are in `belfry.toml`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;
use serde::Deserialize;

use belfry_signal::Journey;

use crate::signals::ServiceName;

/// The section `[alerts.notify]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the outbox is kept.
    pub directory: PathBuf,
    /// How on-call reaches our page: the beginning of every link.
    pub public_url: String,
    /// Notifications that may wait; when it is full, new ones are refused.
    pub outbox_max: usize,
    /// Rejected notifications that stay visible; the oldest make room.
    pub rejected_max: usize,
    /// Requests under way at once, over all services.
    pub in_flight_max: usize,
    /// How long one request may take.
    #[serde(with = "humantime_serde")]
    pub request_timeout: Duration,
    /// The pause after the first failure; it doubles with each further one.
    #[serde(with = "humantime_serde")]
    pub backoff_min: Duration,
    /// The longest pause.
    #[serde(with = "humantime_serde")]
    pub backoff_max: Duration,
    /// Whom to notify. None is allowed: then pages stand on our own page only.
    pub services: Vec<ServiceConfig>,
}

/// One PagerDuty service.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceConfig {
    /// What we call it.
    pub name: String,
    /// Where events go, as `https://events.pagerduty.com/v2/enqueue`. Plain HTTP only to this machine.
    pub url: String,
    /// A file that holds the routing key.
    pub routing_key_file: Option<PathBuf>,
    /// Or an environment variable that does.
    pub routing_key_env: Option<String>,
    /// The journeys whose pages go there; absent means all.
    pub journeys: Option<Vec<String>>,
    /// How acknowledgements come back; absent means that they do not.
    pub back: Option<BackConfig>,
}

/// How what people do at the service comes back: by webhooks, by looking, or both.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackConfig {
    /// A file that holds the secrets of webhooks, one on a line.
    pub webhook_secrets_file: Option<PathBuf>,
    /// Or an environment variable that does.
    pub webhook_secrets_env: Option<String>,
    /// The REST API.
    #[serde(default = "rest_url")]
    pub rest_url: String,
    /// A file that holds a token of the REST API, for reading; without one nobody looks.
    pub rest_token_file: Option<PathBuf>,
    /// Or an environment variable that does.
    pub rest_token_env: Option<String>,
    /// How often somebody looks.
    #[serde(default = "look_every", with = "humantime_serde")]
    pub look_every: Duration,
    /// Incidents that are asked for in one look; the others have their turn in the next.
    #[serde(default = "looks_max")]
    pub looks_max: usize,
}

fn rest_url() -> String {
    "https://api.pagerduty.com".to_owned()
}

const fn look_every() -> Duration {
    Duration::from_secs(300)
}

const fn looks_max() -> usize {
    200
}

/// How long a configured URL may be.
const URL_CHARS_MAX: usize = 512;

impl Config {
    /// Every setting that cannot stand, as (key inside the section, what is wrong and what is allowed).
    #[must_use]
    pub fn check(&self) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        let mut fault = |key: &str, message: String| faults.push((key.to_owned(), message));
        if self.directory.as_os_str().is_empty() {
            fault("directory", "must name a directory".to_owned());
        }
        if let Err(message) = check_url(&self.public_url) {
            fault("public_url", message);
        }
        for (key, value, most) in [
            ("outbox_max", self.outbox_max, 1_000_000),
            ("rejected_max", self.rejected_max, 10_000),
            ("in_flight_max", self.in_flight_max, 64),
        ] {
            if value == 0 || value > most {
                fault(key, format!("{value} is not between 1 and {most}"));
            }
        }
        for (key, value) in [("request_timeout", self.request_timeout), ("backoff_min", self.backoff_min)] {
            if value.is_zero() {
                fault(key, "must be longer than nothing".to_owned());
            }
        }
        if self.backoff_max < self.backoff_min {
            fault("backoff_max", "must not be shorter than backoff_min".to_owned());
        }
        if self.services.len() > ServiceName::MAX {
            fault("services", format!("at most {} services", ServiceName::MAX));
        }
        for (place, service) in self.services.iter().enumerate() {
            let is_double = self.services[..place].iter().any(|other| other.name == service.name);
            if is_double {
                fault(&format!("services[{place}].name"), format!("{:?} is there twice", service.name));
            }
            for (key, message) in service.check() {
                fault(&format!("services[{place}].{key}"), message);
            }
        }
        faults
    }
}

impl ServiceConfig {
    fn check(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        if let Err(error) = ServiceName::configured(&self.name) {
            faults.push(("name", error.to_string()));
        }
        match check_url(&self.url) {
            Err(message) => faults.push(("url", message)),
            Ok(url) if url.scheme_str() == Some("http") && !is_this_machine(&url) => {
                faults.push(("url", "plain http is allowed to this machine only: use https".to_owned()));
            }
            Ok(_) => {}
        }
        faults.extend(self.back.iter().flat_map(BackConfig::check));
        if self.routing_key_file.is_some() == self.routing_key_env.is_some() {
            faults.push(("routing_key_file", "set either routing_key_file or routing_key_env".to_owned()));
        }
        for journey in self.journeys.iter().flatten() {
            if journey_named(journey).is_none() {
                let known: Vec<_> = Journey::ALL.iter().map(|journey| journey.as_str()).collect();
                faults.push(("journeys", format!("{journey:?} is not one of {}", known.join(", "))));
            }
        }
        faults
    }
}

impl BackConfig {
    /// Whether somebody looks.
    pub(crate) fn has_token(&self) -> bool {
        self.rest_token_file.is_some() || self.rest_token_env.is_some()
    }

    fn check(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        let has_secret = self.webhook_secrets_file.is_some() || self.webhook_secrets_env.is_some();
        if !has_secret && !self.has_token() {
            let message = "set webhook_secrets_file or _env, rest_token_file or _env, or both".to_owned();
            faults.push(("back", message));
        }
        if self.webhook_secrets_file.is_some() && self.webhook_secrets_env.is_some() {
            faults.push(("back.webhook_secrets_file", "set the file or the variable, not both".to_owned()));
        }
        if self.rest_token_file.is_some() && self.rest_token_env.is_some() {
            faults.push(("back.rest_token_file", "set the file or the variable, not both".to_owned()));
        }
        match check_url(&self.rest_url) {
            Err(message) => faults.push(("back.rest_url", message)),
            Ok(url) if url.scheme_str() == Some("http") && !is_this_machine(&url) => {
                let message = "plain http is allowed to this machine only: use https".to_owned();
                faults.push(("back.rest_url", message));
            }
            Ok(_) => {}
        }
        if self.look_every < Duration::from_secs(1) {
            faults.push(("back.look_every", "must be 1s at least".to_owned()));
        }
        if self.looks_max == 0 || self.looks_max > 10_000 {
            faults.push(("back.looks_max", format!("{} is not between 1 and 10000", self.looks_max)));
        }
        faults
    }
}

/// The journey with this name.
pub(crate) fn journey_named(name: &str) -> Option<Journey> {
    Journey::ALL.iter().copied().find(|journey| journey.as_str() == name)
}

/// Reads an absolute http or https URL without user, query or fragment.
pub(crate) fn check_url(text: &str) -> Result<Uri, String> {
    let wrong = || {
        format!("{text:?} is not a plain URL: https://HOST[:PORT][/PATH], at most {URL_CHARS_MAX} characters")
    };
    let url: Uri = text.parse().map_err(|_| wrong())?;
    let is_web = matches!(url.scheme_str(), Some("http" | "https"));
    let has_user = url.authority().is_some_and(|authority| authority.as_str().contains('@'));
    let is_plain = url.host().is_some_and(|host| !host.is_empty())
        && url.query().is_none()
        && !text.contains('#')
        && text.len() <= URL_CHARS_MAX;
    if is_web && !has_user && is_plain { Ok(url) } else { Err(wrong()) }
}

fn is_this_machine(url: &Uri) -> bool {
    let host = url.host().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A configuration with two services, the second for media only.
    pub(crate) fn config(directory: &std::path::Path) -> Config {
        let service = |name: &str, journeys: Option<&[&str]>| ServiceConfig {
            name: name.to_owned(),
            url: "https://events.example/v2/enqueue".to_owned(),
            routing_key_file: Some(directory.join("routing.key")),
            routing_key_env: None,
            journeys: journeys.map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
            back: None,
        };
        Config {
            directory: directory.to_owned(),
            public_url: "https://belfry.example".to_owned(),
            outbox_max: 16,
            rejected_max: 4,
            in_flight_max: 4,
            request_timeout: Duration::from_secs(10),
            backoff_min: Duration::from_secs(1),
            backoff_max: Duration::from_secs(60),
            services: vec![service("primary", None), service("media-team", Some(&["media_quality"]))],
        }
    }

    #[test]
    fn a_right_configuration_has_no_faults() {
        assert_eq!(config(std::path::Path::new("/tmp")).check(), []);
    }

    #[test]
    fn every_wrong_setting_is_named() {
        let mut wrong = config(std::path::Path::new("/tmp"));
        wrong.public_url = "belfry.example".into();
        wrong.outbox_max = 0;
        wrong.backoff_max = Duration::from_millis(1);
        wrong.services[0].url = "http://events.pagerduty.com/v2/enqueue".into();
        wrong.services[0].routing_key_env = Some("KEY".into());
        wrong.services[1].name = "primary".into();
        wrong.services[1].journeys = Some(vec!["calls".into()]);
        let keys: Vec<_> = wrong.check().into_iter().map(|(key, _)| key).collect();
        assert_eq!(
            keys,
            [
                "public_url",
                "outbox_max",
                "backoff_max",
                "services[0].url",
                "services[0].routing_key_file",
                "services[1].name",
                "services[1].journeys"
            ]
        );
    }

    #[test]
    fn plain_http_reaches_this_machine_only() {
        for (url, is_right) in [
            ("http://127.0.0.1:8099/v2/enqueue", true),
            ("http://[::1]:8099/v2/enqueue", true),
            ("http://localhost/v2/enqueue", true),
            ("http://10.0.0.1/v2/enqueue", false),
            ("https://events.eu.pagerduty.com/v2/enqueue", true),
            ("https://user:word@events.example/v2/enqueue", false),
            ("https://events.example/v2/enqueue?key=1", false),
            ("ftp://events.example/", false),
        ] {
            let mut config = config(std::path::Path::new("/tmp"));
            config.services[0].url = url.to_owned();
            assert_eq!(config.check().is_empty(), is_right, "{url}");
        }
    }
}
