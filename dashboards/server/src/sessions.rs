//! Who is logged in: random tokens, held as hashes, bounded in number, age and idleness.
//!
//! Login links are tokens of the same kind, good for one login.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use belfry_signal::Pii;
use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::config::{Config, User};

/// Links that wait to be used; the oldest makes room.
const LINKS_MAX: usize = 16;

/// A secret that a browser shows: 256 random bits.
#[derive(Clone)]
pub(crate) struct Token(String);

/// What we keep of a token: who reads our memory cannot log in, and a lookup takes no time that tells anything.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct TokenHash(pub(crate) [u8; 32]);

/// Whose a session is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Whoever opened a login link.
    Link,
    /// A user, with the password of then.
    User { name: Pii<String>, password: PasswordDigest },
}

/// A digest of a user's `password_hash`: enough to see that it changed, and no help in guessing the password.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct PasswordDigest(pub(crate) [u8; 32]);

/// Sessions and links. Links end with the process; `keeping` carries sessions over.
#[derive(Debug)]
pub(crate) struct Sessions {
    limits: Limits,
    inner: Mutex<Inner>,
    changes: Notify,
}

/// A session as it is written down.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) hash: TokenHash,
    pub(crate) owner: Owner,
    /// Since it began.
    pub(crate) age: Duration,
    /// Since it was used.
    pub(crate) idle: Duration,
}

/// How many and how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) sessions_max: usize,
    pub(crate) idle_max: Duration,
    pub(crate) age_max: Duration,
    pub(crate) link_age_max: Duration,
}

#[derive(Debug, Default)]
struct Inner {
    sessions: HashMap<TokenHash, Session>,
    /// Oldest first.
    links: Vec<(TokenHash, Instant)>,
}

#[derive(Debug)]
struct Session {
    owner: Owner,
    began: Instant,
    used: Instant,
}

impl Token {
    fn random() -> Self {
        let bytes: [u8; 32] = rand::random();
        Self(text_of(&bytes))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl TokenHash {
    pub(crate) fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }
}

impl std::fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenHash([secret])")
    }
}

impl std::fmt::Debug for PasswordDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PasswordDigest([secret])")
    }
}

impl Owner {
    pub(crate) fn of(user: &User) -> Self {
        let password = PasswordDigest(Sha256::digest(user.password_hash.as_bytes()).into());
        Self::User { name: Pii::new(user.name.clone()), password }
    }

    /// Whether the owner could still log in as before: the user is there with the same password, or links are allowed.
    pub(crate) fn may_stay(&self, config: &Config) -> bool {
        match self {
            Self::Link => config.allows_links(),
            Self::User { .. } => config.users.iter().any(|user| Self::of(user) == *self),
        }
    }

    /// What the log calls the owner.
    pub(crate) fn name(&self) -> Pii<String> {
        match self {
            Self::Link => Pii::new("login link".to_owned()),
            Self::User { name, .. } => name.clone(),
        }
    }
}

impl Sessions {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, inner: Mutex::default(), changes: Notify::new() }
    }

    /// Begins a session. When there are too many, the one unused for longest ends.
    pub(crate) fn begin(&self, owner: Owner, now: Instant) -> Token {
        let token = Token::random();
        self.with(now, |inner| {
            while inner.sessions.len() >= self.limits.sessions_max {
                let idlest = inner.sessions.iter().min_by_key(|(_, session)| session.used);
                let Some(hash) = idlest.map(|(hash, _)| *hash) else { break };
                inner.sessions.remove(&hash);
            }
            inner.sessions.insert(TokenHash::of(token.as_str()), Session { owner, began: now, used: now });
        });
        self.changes.notify_one();
        token
    }

    /// Whether the session stands; asking counts as use.
    pub(crate) fn touch(&self, hash: TokenHash, now: Instant) -> bool {
        self.with(now, |inner| {
            let session = inner.sessions.get_mut(&hash);
            session.map(|session| session.used = now).is_some()
        })
    }

    /// Whose a session is, if it stands.
    pub(crate) fn owner(&self, hash: TokenHash, now: Instant) -> Option<Owner> {
        self.with(now, |inner| inner.sessions.get(&hash).map(|session| session.owner.clone()))
    }

    /// Ends a session and says whose it was, if it still stood.
    pub(crate) fn end(&self, hash: TokenHash, now: Instant) -> Option<Owner> {
        let ended = self.with(now, |inner| inner.sessions.remove(&hash));
        self.changes.notify_one();
        ended.map(|session| session.owner)
    }

    /// Returns when a session has begun or ended since the last time.
    pub(crate) async fn changed(&self) {
        self.changes.notified().await;
    }

    /// All sessions that stand.
    pub(crate) fn kept(&self, now: Instant) -> Vec<Kept> {
        let kept = |(hash, session): (&TokenHash, &Session)| Kept {
            hash: *hash,
            owner: session.owner.clone(),
            age: now - session.began,
            idle: now - session.used,
        };
        self.with(now, |inner| inner.sessions.iter().map(kept).collect())
    }

    /// Takes sessions of an earlier process up again, as far as they still stand.
    pub(crate) fn take_up(&self, kept: Vec<Kept>, now: Instant) {
        self.with(now, |inner| {
            for Kept { hash, owner, age, idle } in kept.into_iter().take(self.limits.sessions_max) {
                // A machine whose clock began after the session did cannot tell its age: that session ends.
                if let (Some(began), Some(used)) = (now.checked_sub(age), now.checked_sub(idle)) {
                    inner.sessions.insert(hash, Session { owner, began, used });
                }
            }
        });
    }

    pub(crate) fn count(&self, now: Instant) -> usize {
        self.with(now, |inner| inner.sessions.len())
    }

    /// A new token for one login.
    pub(crate) fn new_link(&self, now: Instant) -> Token {
        let token = Token::random();
        self.with(now, |inner| {
            if inner.links.len() >= LINKS_MAX {
                inner.links.remove(0);
            }
            inner.links.push((TokenHash::of(token.as_str()), now));
        });
        token
    }

    /// Whether a login link waits to be used.
    pub(crate) fn has_link(&self, token: &str, now: Instant) -> bool {
        let hash = TokenHash::of(token);
        self.with(now, |inner| inner.links.iter().any(|(link, _)| *link == hash))
    }

    /// Spends a login link; the second time it is not there any more.
    pub(crate) fn spend_link(&self, token: &str, now: Instant) -> bool {
        let hash = TokenHash::of(token);
        self.with(now, |inner| {
            let found = inner.links.iter().position(|(link, _)| *link == hash);
            found.map(|index| inner.links.remove(index)).is_some()
        })
    }

    fn with<R>(&self, now: Instant, act: impl FnOnce(&mut Inner) -> R) -> R {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let Limits { idle_max, age_max, link_age_max, .. } = self.limits;
        inner.sessions.retain(|_, session| now - session.used < idle_max && now - session.began < age_max);
        inner.links.retain(|(_, made)| now - *made < link_age_max);
        act(&mut inner)
    }
}

/// Bytes as text that can stand in a URL and a cookie.
pub(crate) fn text_of(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn sessions() -> Sessions {
        Sessions::new(Limits {
            sessions_max: 2,
            idle_max: 10 * MINUTE,
            age_max: 30 * MINUTE,
            link_age_max: 5 * MINUTE,
        })
    }

    #[test]
    fn a_session_ends_when_idle_and_when_old() {
        let (sessions, start) = (sessions(), Instant::now());
        let hash = TokenHash::of(sessions.begin(Owner::Link, start).as_str());
        let used = [(9, true), (18, true), (27, true), (31, false)];
        for (minutes, stands) in used {
            assert_eq!(sessions.touch(hash, start + minutes * MINUTE), stands, "after {minutes} minutes");
        }
        let idle = TokenHash::of(sessions.begin(Owner::Link, start).as_str());
        assert!(!sessions.touch(idle, start + 10 * MINUTE));
        assert!(!sessions.touch(TokenHash::of("made up"), start));
    }

    #[test]
    fn the_idlest_session_makes_room() {
        let (sessions, start) = (sessions(), Instant::now());
        let [first, second, third] = [0, 1, 3].map(|minute| {
            let now = start + minute * MINUTE;
            if minute == 3 {
                let all = sessions.count(now);
                assert_eq!(all, 2);
            }
            TokenHash::of(sessions.begin(Owner::Link, now).as_str())
        });
        let now = start + 3 * MINUTE;
        assert_eq!(sessions.count(now), 2);
        assert_eq!([first, second, third].map(|hash| sessions.touch(hash, now)), [false, true, true]);
        assert_eq!(sessions.end(second, now), Some(Owner::Link));
        assert!(!sessions.touch(second, now));
        assert_eq!(sessions.end(second, now), None);
    }

    #[test]
    fn sessions_are_taken_up_as_old_as_they_are() {
        let (before, start) = (sessions(), Instant::now() + 60 * MINUTE);
        let hash = TokenHash::of(before.begin(Owner::Link, start).as_str());
        let kept = before.kept(start + 9 * MINUTE);
        let after = sessions();
        after.take_up(kept.clone(), start + 9 * MINUTE);
        assert!(after.touch(hash, start + 9 * MINUTE));
        let late = sessions();
        late.take_up(kept, start + 9 * MINUTE);
        assert!(
            !late.touch(hash, start + 10 * MINUTE),
            "idle for ten minutes, nine of them in the earlier process"
        );
    }

    #[test]
    fn a_login_link_is_good_once_and_not_for_ever() {
        let (sessions, start) = (sessions(), Instant::now());
        let link = sessions.new_link(start);
        assert!(sessions.has_link(link.as_str(), start));
        assert!(sessions.spend_link(link.as_str(), start));
        assert!(!sessions.has_link(link.as_str(), start));
        assert!(!sessions.spend_link(link.as_str(), start));
        let old = sessions.new_link(start);
        assert!(!sessions.spend_link(old.as_str(), start + 5 * MINUTE));
    }
}
