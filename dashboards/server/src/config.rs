//! What may be set about the page. The defaults are in `belfry.toml`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use belfry_door::Limits;
use serde::Deserialize;

use crate::password;
use crate::routes::BODY_BYTES_MAX;

/// The section `[dashboard]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the page is served.
    pub listen: SocketAddr,
    /// How people reach it, as `https://tower.example.net`; absent means the address it listens on. With `https`
    /// the session cookie is only sent over TLS.
    pub public_url: Option<String>,
    /// Whether one-time login links may be made while there are no `users`: for the demo and for the first start.
    pub login_link: bool,
    /// How long a login link waits to be used.
    #[serde(with = "humantime_serde")]
    pub login_link_ttl: Duration,
    /// A session that is not used for so long ends. An open page counts as use.
    #[serde(with = "humantime_serde")]
    pub session_ttl: Duration,
    /// A session ends after so long even when it is used.
    #[serde(with = "humantime_serde")]
    pub session_age_max: Duration,
    /// Where sessions are kept over a restart, as hashes; absent means that a restart logs everybody out.
    pub sessions_file: Option<PathBuf>,
    /// Sessions at once; the one unused for longest makes room.
    pub sessions_max: usize,
    /// Connections at once; more are answered 503.
    pub connections_max: usize,
    /// A browser sends a request's head within this time, and its body within the same again.
    #[serde(with = "humantime_serde")]
    pub header_timeout: Duration,
    /// A browser that takes nothing of an answer for so long loses its connection.
    #[serde(with = "humantime_serde")]
    pub write_timeout: Duration,
    /// Live streams at once; more are refused.
    pub live_streams_max: usize,
    /// Searches at once; more are refused.
    pub searches_max: usize,
    /// Rows of one list.
    pub rows_max: usize,
    /// Who may log in.
    pub users: Vec<User>,
}

/// A person who may log in.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// Login name.
    pub name: String,
    /// Argon2id hash in PHC form, as [`crate::hash_password`] makes it.
    pub password_hash: String,
}

const USERS_MAX: usize = 1024;
const NAME_CHARS_MAX: usize = 64;

impl Config {
    /// Every setting that cannot stand, as (key inside the section, what is wrong and what is allowed).
    #[must_use]
    pub fn check(&self) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        let mut fault = |key: &str, message: String| faults.push((key.to_owned(), message));
        if let Some(url) = &self.public_url {
            let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
            if rest
                .is_none_or(|host| host.is_empty() || host.ends_with('/') || host.contains(['?', '#', ' ']))
            {
                let message = "must begin with http:// or https://, name a host, and end without a slash";
                fault("public_url", message.to_owned());
            }
        }
        for (key, value) in [
            ("login_link_ttl", self.login_link_ttl),
            ("session_ttl", self.session_ttl),
            ("session_age_max", self.session_age_max),
        ] {
            if value < Duration::from_secs(1) {
                fault(key, "must be 1s or longer".to_owned());
            }
        }
        for (key, value) in [
            ("sessions_max", self.sessions_max),
            ("live_streams_max", self.live_streams_max),
            ("searches_max", self.searches_max),
            ("rows_max", self.rows_max),
        ] {
            if !(1..=100_000).contains(&value) {
                fault(key, format!("is {value}; allowed are 1 to 100000"));
            }
        }
        for (key, message) in self.door_limits().check() {
            fault(&key, message);
        }
        if self.users.is_empty() && !self.login_link {
            fault("users", "is empty and login_link is false, so that nobody could log in".to_owned());
        }
        if self.users.len() > USERS_MAX {
            fault("users", format!("has {} entries; allowed are {USERS_MAX}", self.users.len()));
        }
        for (index, user) in self.users.iter().enumerate() {
            self.check_user(index, user, &mut fault);
        }
        faults
    }

    pub(crate) fn door_limits(&self) -> Limits {
        Limits {
            connections_max: self.connections_max,
            header_timeout: self.header_timeout,
            write_timeout: self.write_timeout,
            request_bytes_max: BODY_BYTES_MAX,
        }
    }

    /// Whether a link may log somebody in: once there are users it would be a way around their passwords.
    pub(crate) fn allows_links(&self) -> bool {
        self.login_link && self.users.is_empty()
    }

    fn check_user(&self, index: usize, user: &User, fault: &mut impl FnMut(&str, String)) {
        if user.name.is_empty() || user.name.chars().count() > NAME_CHARS_MAX {
            fault(&format!("users[{index}].name"), format!("must have 1 to {NAME_CHARS_MAX} characters"));
        }
        if self.users.iter().take(index).any(|other| other.name == user.name) {
            fault(&format!("users[{index}].name"), format!("{:?} stands here twice", user.name));
        }
        if !password::is_hash(&user.password_hash) {
            let message = "must be an argon2id hash in PHC form, as `$argon2id$v=19$...`";
            fault(&format!("users[{index}].password_hash"), message.to_owned());
        }
    }
}
